//! From a request to the file, the part of it, or the message that answers it. Symbolic links are
//! followed; a path with `..` is refused.

use super::header;
use httparse::Request;
use httpdate::{fmt_http_date, parse_http_date};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use ramie::fs::{self, File};
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

pub struct Answer {
    pub status: &'static str,
    /// More header lines, each with its line end.
    pub headers: String,
    pub len: u64,
    pub body: Option<Box<dyn Read>>,
}

impl Answer {
    pub fn text(status: &'static str, headers: &str) -> Self {
        let headers = format!("{headers}Content-Type: text/plain\r\n");
        Self { status, headers, len: status.len() as u64, body: Some(Box::new(status.as_bytes())) }
    }
}

pub fn answer(request: &Request<'_, '_>, root: &Path) -> io::Result<Answer> {
    let target = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let found = resolve(root, target).and_then(|path| Some((fs::metadata(&path).ok()?, path)));
    let Some((mut metadata, mut path)) = found else {
        return Ok(Answer::text("404 Not Found", ""));
    };
    if metadata.is_dir() {
        if !target.ends_with('/') {
            let location = format!("Location: {target}/\r\n");
            return Ok(Answer::text("301 Moved Permanently", &location));
        }
        let page = path.join("index.html");
        metadata = match fs::metadata(&page) {
            Ok(metadata) => metadata,
            Err(_) => return index(&path),
        };
        path = page;
    }
    // Not even opened: to open a named pipe is to wait for whoever writes to it.
    let file = if metadata.is_file() { File::open(&path).ok() } else { None };
    let Some(mut file) = file else {
        return Ok(Answer::text("403 Forbidden", ""));
    };
    let (len, modified) = (metadata.len(), metadata.modified()?);
    let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (date, etag) = (fmt_http_date(modified), format!("\"{:x}-{len:x}\"", age.as_nanos()));
    let headers = format!(
        "ETag: {etag}\r\nLast-Modified: {date}\r\nAccept-Ranges: bytes\r\nContent-Type: {}\r\n",
        content_type(&path)
    );
    let unchanged = match (header(request, "if-none-match"), header(request, "if-modified-since")) {
        (Some(tags), _) => tags.split(',').any(|tag| ["*", &etag].contains(&tag.trim())),
        (None, Some(since)) => parse_http_date(since).ok() >= parse_http_date(&date).ok(),
        (None, None) => false,
    };
    if unchanged {
        return Ok(Answer { status: "304 Not Modified", headers, len, body: None });
    }
    let same = header(request, "if-range").is_none_or(|tag| tag == etag || tag == date);
    match header(request, "range").filter(|_| same).and_then(|spec| range(spec, len)) {
        None => Ok(Answer { status: "200 OK", headers, len, body: Some(Box::new(file)) }),
        Some(Range { start, end }) if start >= end => {
            let headers = format!("Content-Range: bytes */{len}\r\n");
            Ok(Answer::text("416 Range Not Satisfiable", &headers))
        }
        Some(Range { start, end }) => {
            file.seek(SeekFrom::Start(start))?;
            let headers = format!("{headers}Content-Range: bytes {start}-{}/{len}\r\n", end - 1);
            let (status, body) = ("206 Partial Content", Some(Box::new(file) as Box<dyn Read>));
            Ok(Answer { status, headers, len: end - start, body })
        }
    }
}

/// The file that is meant; `None` if that could lie outside.
fn resolve(root: &Path, target: &str) -> Option<PathBuf> {
    let name = percent_decode_str(target.strip_prefix('/')?).collect();
    let name = PathBuf::from(OsString::from_vec(name));
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| root.join(name))
}

/// The part of `len` bytes that is asked for, empty if there is none. `None` for the whole: several
/// parts, or what we do not understand.
fn range(spec: &str, len: u64) -> Option<Range<u64>> {
    let (start, end) = spec.strip_prefix("bytes=")?.split_once('-')?;
    match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => Some(start..len.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if end.is_empty() => Some(start..len),
        (Err(_), Ok(count)) if start.is_empty() => Some(len.saturating_sub(count)..len),
        _ => None,
    }
}

fn index(dir: &Path) -> io::Result<Answer> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        let name = entry.file_name();
        let href = percent_encode(name.as_bytes(), NON_ALPHANUMERIC);
        let name = name.to_string_lossy().replace('&', "&amp;").replace('<', "&lt;");
        names.push(format!("<li><a href=\"./{href}{slash}\">{name}{slash}</a>\n"));
    }
    names.sort();
    let page = format!("<!DOCTYPE html>\n<meta charset=utf-8>\n<ul>\n{}</ul>\n", names.concat());
    let headers = "Content-Type: text/html\r\n".to_owned();
    let (len, body) = (page.len() as u64, Some(Box::new(io::Cursor::new(page)) as Box<dyn Read>));
    Ok(Answer { status: "200 OK", headers, len, body })
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt" | "md" | "rs") => "text/plain; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
