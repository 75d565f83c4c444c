//! The command line.

use crate::seam::Engine;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Usage: sums [OPTION]... [--] [PATH]...
Print the SHA-256 sum of every regular file at or below each PATH (default: .),
sorted by name, in sha256sum's format.

  --workers N  worker threads that run the fibers (default: one per core)
  --fibers N   files in flight at most (default: 64)
  --threads N  use N plain threads, one file in flight on each, and no fibers
  --stats      print a summary on standard error at the end
  --help       print this help

The exit status is 0 if all went well, 1 if anything could not be read or
written, 2 for wrong usage.
";

/// Files in flight on fibers, at most: enough to keep a disk's queue full.
const FIBERS: usize = 64;

/// More than this is a typing error, not a wish.
const MOST: usize = 65_536;

pub(crate) struct Options {
    pub(crate) engine: Engine,
    /// Files in flight, at most.
    pub(crate) jobs: usize,
    pub(crate) stats: bool,
    pub(crate) paths: Vec<PathBuf>,
}

pub(crate) enum Command {
    Sum(Options),
    Help,
}

pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = args;
    let (mut workers, mut fibers, mut threads) = (None, None, None);
    let mut stats = false;
    let mut paths = Vec::new();
    while let Some(arg) = args.next() {
        // Only our own options need to be text; a PATH may be any bytes.
        let text = match arg.to_str() {
            Some(text) if text.starts_with('-') && text.len() > 1 => text,
            _ => {
                paths.push(PathBuf::from(arg));
                continue;
            }
        };
        let (name, mut value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let mut number = || match value.take().or_else(|| args.next()) {
            Some(value) => count(name, &value),
            None => Err(format!("{name} needs a number")),
        };
        match name {
            "--workers" => workers = Some(number()?),
            "--fibers" => fibers = Some(number()?),
            "--threads" => threads = Some(number()?),
            "--stats" => stats = true,
            "--help" => return Ok(Command::Help),
            "--" => paths.extend(args.by_ref().map(PathBuf::from)),
            _ => return Err(format!("unknown option: {text}")),
        }
        if value.is_some() {
            return Err(format!("{name} takes no value"));
        }
    }
    if paths.is_empty() {
        paths.push(PathBuf::from("."));
    }
    let (engine, jobs) = match threads {
        Some(_) if workers.is_some() || fibers.is_some() => {
            return Err("--threads excludes --workers and --fibers".to_owned());
        }
        Some(threads) => (Engine::Threads(threads), threads),
        None => {
            let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
            let workers = workers.unwrap_or_else(cores);
            (Engine::Fibers { workers }, fibers.unwrap_or(FIBERS))
        }
    };
    Ok(Command::Sum(Options { engine, jobs, stats, paths }))
}

fn count(name: &str, value: &OsString) -> Result<usize, String> {
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(n) if (1..=MOST).contains(&n) => Ok(n),
        _ => Err(format!("{name}: not a number from 1 to {MOST}: {}", value.display())),
    }
}
