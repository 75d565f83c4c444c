//! Style as a test: what a compiler does not check and a reviewer should not have to.
//!
//! Each rule is a function from a file's text to complaints, and has a test of its own that feeds
//! it something bad. Ratchets are lists with a reason for each entry, to be made shorter.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 600;
const MAX_COLUMNS: usize = 100;

/// Files longer than `MAX_LINES`, with the lines they may have and the reason.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Lines over `MAX_COLUMNS` from before the rule: comments and strings, which rustfmt leaves alone.
/// A number may only go down.
const WIDE_LINES: &[(&str, usize)] = &[("build.rs", 2)];

/// Where `cfg(` may stand outside tests, and why. `cfg(test)` and `cfg(loom)` may stand anywhere.
const CFG_FILES: &[(&str, &str)] = &[
    ("src/arch/mod.rs", "which switch"),
    ("src/stack/sanitize.rs", "which sanitizer"),
    ("src/stack/valgrind.rs", "whether the request is known"),
    ("src/op/decode.rs", "debug assertions in its tests"),
    ("src/fs/mod.rs", "whether std's raw `stat` can be named"),
    ("src/fs/metadata.rs", "the same"),
    ("src/sys/path.rs", "the same"),
    ("src/lib.rs", "the front page's example, for doc tests only"),
];

/// Files that are named and do not exist yet, and why.
const MISSING_FILES: &[(&str, &str)] = &[];

/// The layers, lowest first; those in one row may name each other.
const LAYERS: &[&[&str]] = &[
    &["atomic", "sys"],
    &["arch"],
    &["stack"],
    &["op"],
    &["coro"],
    &["driver"],
    &["sched"],
    &["cancel", "guide", "fs", "os", "net", "time", "sync", "io", "process", "signal", "watch"],
    &[
        "fiber",
        "local",
        "probe",
        "runtime",
        "scope",
        "select",
        "thread",
        "future",
        "testing",
        "loom_models",
    ],
];

// The words are in pieces so that this file does not complain of itself.
const BANNED: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
    concat!("static ", "mut "),
    concat!(".unwrap_", "unchecked"),
    concat!("Untri", "aged"),
    concat!(".ent", "ered()"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `directory` whose names end in one of `endings`, relative to the root.
fn files(directory: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    left.push(path);
                }
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<String> {
    let mut all = vec!["build.rs".to_owned()];
    for directory in ["src", "tests", "benches", "examples", "macros"] {
        all.extend(files(directory, &[".rs"]));
    }
    all
}

fn text_files() -> Vec<String> {
    let mut all = rust_files();
    all.extend(files("asm", &[".s", ".S", ".c", ".md"]));
    all.extend(files("ci", &[".sh", ".supp", ".py", ".list"]));
    all.extend(files(".ci", &["run"]));
    for directory in ["src", "tests", "benches", "examples"] {
        all.extend(files(directory, &[".md"]));
    }
    all.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(str::to_owned));
    all.retain(|path| root().join(path).exists());
    all
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// ---- The rules, on texts ----------------------------------------------------------------------

/// Lines that are too wide. Addresses and the rows of tables cannot be broken.
fn too_wide(text: &str) -> Vec<usize> {
    let wide = |line: &str| {
        line.chars().count() > MAX_COLUMNS
            && !line.contains("://")
            && !line.contains("//! |")
            && !line.contains("/// |")
    };
    text.lines().zip(1..).filter(|(line, _)| wide(line)).map(|(_, number)| number).collect()
}

fn banned(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        found
            .extend(BANNED.iter().filter(|word| line.contains(**word)).map(|word| (number, *word)));
    }
    found
}

/// A line without strings' contents and comments; good enough for code that rustfmt has seen.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            char => out.push(char),
        }
    }
    out
}

/// Unsafe blocks and impls with no `SAFETY:` in the comment above or in the lines just before.
fn unsafe_without_reason(text: &str) -> Vec<usize> {
    const LINES_ABOVE: usize = 8;
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = code(line);
        if !code.contains("unsafe {") && !code.contains("unsafe impl") {
            continue;
        }
        let above = &lines[index.saturating_sub(LINES_ABOVE)..=index];
        if !above.iter().any(|line| line.contains("SAFETY:")) {
            found.push(index + 1);
        }
    }
    found
}

fn has_cfg(text: &str) -> bool {
    let uses = |line: &str| {
        let code = code(line);
        (code.contains("cfg(") || code.contains("cfg_attr(") || code.contains("cfg!("))
            && !code.contains("cfg(test)")
            && !code.contains("loom)")
    };
    text.lines().any(uses)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The modules above `module`'s layer that the text names, with the line.
fn upward(module: &str, text: &str) -> Vec<(usize, String)> {
    let Some(own) = layer(module) else { return vec![(0, "a module in no layer".to_owned())] };
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let code = code(line);
        for rest in code.split("crate::").skip(1) {
            if code.contains("$crate::") {
                continue; // A macro's: it is expanded in the user's crate.
            }
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if layer(&rest[..end]).is_some_and(|named| named > own) {
                found.push((number, rest[..end].to_owned()));
            }
        }
    }
    found
}

/// Paths in backticks that look like files of this repository.
fn named_files(text: &str) -> Vec<String> {
    const ENDINGS: &[&str] = &[".rs", ".md", ".s", ".S", ".sh", ".toml", ".c"];
    let looks_like_one = |word: &&str| {
        ENDINGS.iter().any(|ending| word.ends_with(ending) && word.len() > ending.len())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
    };
    let mut found = Vec::new();
    for line in text.lines() {
        found.extend(line.split('`').skip(1).step_by(2).filter(looks_like_one).map(str::to_owned));
    }
    found
}

/// The symbols of an assembly file that lack one of the directives a global symbol needs.
fn bare_symbols(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for symbol in text.lines().filter_map(|line| line.trim().strip_prefix(".globl")) {
        let symbol = symbol.trim();
        for directive in [".hidden", ".type", ".size"] {
            let says = |line: &str| {
                let mut words = line.split([' ', ',', '\t']).filter(|word| !word.is_empty());
                words.next() == Some(directive) && words.next() == Some(symbol)
            };
            if !text.lines().any(says) {
                found.push(format!("{symbol} has no {directive}"));
            }
        }
    }
    found
}

/// The files that a module's `mod` lines ask for: each is one of two.
fn submodules(path: &str, text: &str) -> Vec<[PathBuf; 2]> {
    let path = Path::new(path);
    let stem = path.file_stem().unwrap();
    let parent = path.parent().unwrap();
    let is_root = ["mod", "lib", "main"].iter().any(|name| stem == *name);
    let directory = if is_root { parent.to_path_buf() } else { parent.join(stem) };
    let mut found = Vec::new();
    for line in text.lines() {
        let code = code(line);
        let declared = code.trim().strip_suffix(';').and_then(|line| {
            let line = line.strip_prefix("pub").unwrap_or(line).trim_start();
            let line = line.split_once(") ").map_or(line, |(_, rest)| rest);
            line.strip_prefix("mod ")
        });
        if let Some(name) = declared {
            found.push([directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")]);
        }
    }
    found
}

// ---- The rules, on this repository ------------------------------------------------------------

#[test]
fn files_are_short() {
    let mut complaints = Vec::new();
    for path in rust_files() {
        let lines = read(&path).lines().count();
        let excused = LONG_FILES.iter().find(|entry| entry.0 == path).map(|entry| entry.1);
        if lines > excused.unwrap_or(MAX_LINES) {
            complaints.push(format!("{path}: {lines} lines"));
        } else if excused.is_some() && lines <= MAX_LINES {
            complaints.push(format!("{path}: short enough now, take it off LONG_FILES"));
        }
    }
    report(&complaints);
}

#[test]
fn lines_are_narrow_and_words_are_allowed() {
    let mut complaints = Vec::new();
    for path in text_files() {
        let text = read(&path);
        let wide = too_wide(&text);
        let excused = WIDE_LINES.iter().find(|entry| entry.0 == path).map_or(0, |entry| entry.1);
        if path.ends_with(".rs") && wide.len() > excused {
            complaints.extend(wide.iter().map(|line| format!("{path}:{line}: too wide")));
        }
        for (line, word) in banned(&text) {
            complaints.push(format!("{path}:{line}: {word}"));
        }
    }
    report(&complaints);
}

#[test]
fn unsafe_blocks_say_why() {
    let mut complaints = Vec::new();
    for path in rust_files() {
        for line in unsafe_without_reason(&read(&path)) {
            complaints.push(format!("{path}:{line}: unsafe without a SAFETY comment"));
        }
    }
    report(&complaints);
}

#[test]
fn cfg_stays_where_it_is_allowed() {
    let mut complaints = Vec::new();
    for path in files("src", &[".rs"]) {
        if path.ends_with("/tests.rs") || path.contains("/tests/") {
            continue;
        }
        let excused = CFG_FILES.iter().any(|entry| entry.0 == path);
        match (has_cfg(&read(&path)), excused) {
            (true, false) => complaints.push(format!("{path}: cfg outside CFG_FILES")),
            (false, true) => complaints.push(format!("{path}: has none, take it off CFG_FILES")),
            _ => {}
        }
    }
    report(&complaints);
}

#[test]
fn modules_name_only_what_is_below() {
    let mut complaints = Vec::new();
    for path in files("src", &[".rs"]) {
        let below = path.strip_prefix("src/").unwrap();
        let module = below.split('/').next().unwrap().trim_end_matches(".rs");
        // The root names everything, and so may the models of the model checker.
        if !["lib", "loom_models"].contains(&module) {
            for (line, named) in upward(module, &read(&path)) {
                complaints.push(format!("{path}:{line}: {module} names {named}"));
            }
        }
    }
    report(&complaints);
}

#[test]
fn files_that_are_named_exist() {
    let mut complaints = Vec::new();
    for path in text_files() {
        let text = read(&path);
        // Of Rust files only the comments count, of others everything.
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let comments: Vec<&str> = text.lines().filter(is_comment).collect();
        let named = if path.ends_with(".rs") { comments.join("\n") } else { text };
        let parent = Path::new(&path).parent().unwrap();
        for name in named_files(&named) {
            // Relative to the file, to its namesake directory, to `src`, to the assembly of the
            // same architecture, or to the root.
            let own = Path::new(&path).with_extension("");
            let asm = Path::new("asm").join(own.file_name().unwrap());
            let places = [parent, &own, &asm, Path::new("src"), Path::new("asm"), Path::new("")];
            let inner = files(parent.to_str().unwrap(), &[&format!("/{name}")]);
            if !places.iter().any(|place| root().join(place).join(&name).exists())
                && inner.is_empty()
            {
                let expected = places.map(|place| place.join(&name));
                let excused = |entry: &(&str, _)| expected.iter().any(|p| p == Path::new(entry.0));
                if !MISSING_FILES.iter().any(excused) {
                    complaints.push(format!("{path}: names {name}, which is not there"));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn every_source_file_is_reached() {
    let mut reached = BTreeSet::new();
    let mut left = vec!["src/lib.rs".to_owned()];
    while let Some(path) = left.pop() {
        for candidates in submodules(&path, &read(&path)) {
            let found = candidates.iter().filter(|file| root().join(file).exists());
            left.extend(found.map(|file| file.to_string_lossy().into_owned()));
        }
        reached.insert(path);
    }
    let all = files("src", &[".rs"]);
    report(&all.into_iter().filter(|path| !reached.contains(path)).collect::<Vec<_>>());
}

#[test]
fn symbols_of_the_assembly_are_complete() {
    let mut complaints = Vec::new();
    for path in files("asm", &[".s", ".S"]) {
        for complaint in bare_symbols(&read(&path)) {
            complaints.push(format!("{path}: {complaint}"));
        }
    }
    report(&complaints);
}

// ---- The rules can fail -----------------------------------------------------------------------

#[test]
fn canary_texts() {
    assert_eq!(too_wide(&format!("short\n{}\n", "x".repeat(101))), [2]);
    assert_eq!(too_wide(&"\u{2500}".repeat(100)), [0; 0]);
    for word in BANNED {
        assert_eq!(banned(&format!("ok\n    {word}")), [(2, *word)]);
    }
    let block = concat!("let x = uns", "afe { f() };");
    assert_eq!(unsafe_without_reason(block), [1]);
    assert_eq!(unsafe_without_reason(&format!("// SAFETY: why.\n{block}")), [0; 0]);
    assert_eq!(unsafe_without_reason(&format!("// SAFETY: why.{}{block}", "\n".repeat(9))), [10]);
    assert_eq!(unsafe_without_reason(&format!("// {block}")), [0; 0]);
    assert!(has_cfg("#[cfg(unix)]") && has_cfg("if cfg!(unix) {"));
    assert!(!has_cfg("#[cfg(test)]") && !has_cfg("#[cfg(not(loom))]") && !has_cfg("// cfg(unix)"));
}

#[test]
fn canary_layers() {
    assert_eq!(upward("stack", "use crate::coro::Header;"), [(1, "coro".to_owned())]);
    assert_eq!(upward("coro", "use crate::stack::Stack;\nuse crate::coro::x;"), []);
    assert_eq!(upward("fs", "let x = crate::runtime::y();").len(), 1);
    assert_eq!(upward("unheard_of", "").len(), 1);
}

#[test]
fn canary_structure() {
    assert_eq!(named_files("| `a.rs` | `b()` and `c/d.md`, `*.rs`"), ["a.rs", "c/d.md"]);
    assert_eq!(bare_symbols(".globl f\n.hidden f\n.type f, @function\n.size f, . - f\n").len(), 0);
    assert_eq!(
        bare_symbols(".globl f\n.hidden f\n.type fg, @function\n.size f, 1"),
        ["f has no .type"]
    );
    let modules = submodules("src/a/mod.rs", "mod b;\npub(crate) mod c;\n// mod d;\nmod e {\n");
    assert_eq!(modules[0][0], Path::new("src/a/b.rs"));
    assert_eq!(modules[1][1], Path::new("src/a/c/mod.rs"));
    assert_eq!(modules.len(), 2);
}
