//! What `ramie::probe` and the example `doctor` say, here and under masks.
//!
//! `cargo test` builds the example beside this test; for `cargo test --test probe` build it first
//! (`cargo build --example doctor`).

mod common;

use std::process::{Command, Output};

/// Runs the doctor with these variables and no other of ours.
fn doctor(variables: &[(&str, &str)]) -> Output {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/doctor");
    assert!(path.exists(), "{} is missing: cargo build --example doctor", path.display());
    let mut command = Command::new(path);
    command.env_remove("RAMIE_CAPS").env_remove("RAMIE_DRIVER").envs(variables.iter().copied());
    command.output().expect("the doctor can be run")
}

#[track_caller]
fn report(variables: &[(&str, &str)]) -> String {
    let output = doctor(variables);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("A runtime was built and has done its first operation.\n"), "{text}");
    text
}

#[test]
fn the_report_has_all_its_lines() {
    let text = report(&[]);
    for line in ["machine       Linux ", "CPUs          ", "limits        ", "driver        "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line:?} in\n{text}");
    }
    assert!(text.contains("To get more:") || text.contains("There is nothing more"), "{text}");
    assert!(!text.contains("RAMIE_CAPS"), "{text}");
}

#[test]
fn a_mask_is_reported_with_what_is_lost() {
    if !ramie::probe().has_io_uring() {
        return;
    }
    let text = report(&[("RAMIE_CAPS", "linux-6.1")]);
    for part in [
        "RAMIE_CAPS    linux-6.1",
        "SINGLE_ISSUER, DEFER_TASKRUN",
        "- truncating files (Linux 6.9): a thread of the blocking pool",
        "- sleeping on a futex in the ring (Linux 6.7): an eventfd",
        "wake-ups      by an eventfd",
        "guards        mprotect",
        "vm.max_map_count",
        "unset RAMIE_CAPS",
    ] {
        let whole = text.replace("\n    ", " ");
        assert!(whole.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("NO_SQARRAY"), "{text}");
    let text = report(&[("RAMIE_CAPS", "-futex")]);
    let (_, ways) = text.split_once("wake-ups      by ").expect("a line about them");
    let way = ways.split([' ', '\n']).next().expect("a word"); // "messages", or "an"
    let line = format!("- sleeping on a futex in the ring (Linux 6.7): {way} ");
    assert!(text.contains(&line), "no {line:?} in\n{text}");
}

#[test]
fn where_no_ring_will_do_it_is_epoll() {
    for mask in ["linux-5.4", "linux-5.15", "-io_uring", "-recv", "-cancel_any"] {
        let text = report(&[("RAMIE_CAPS", mask)]);
        assert!(text.contains("epoll and threads, since there is no io_uring"), "{text}");
        assert!(text.contains("as RAMIE_CAPS wants it"), "{text}");
        let output = doctor(&[("RAMIE_CAPS", mask), ("RAMIE_DRIVER", "uring")]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("none: RAMIE_DRIVER insists on io_uring"), "{text}");
    }
    let text = report(&[("RAMIE_DRIVER", "poll")]);
    assert!(text.contains("epoll and threads, since RAMIE_DRIVER says so"), "{text}");
    assert!(text.contains("wake-ups      by an eventfd"), "{text}");
    let output = doctor(&[("RAMIE_DRIVER", "pole")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("RAMIE_DRIVER=pole"));
}

#[test]
fn a_mask_that_is_no_mask_is_an_error_that_lists_the_names() {
    let output = doctor(&[("RAMIE_CAPS", "-futures")]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().expect("some text");
    assert!(last.starts_with("No runtime can be built: RAMIE_CAPS: \"-futures\""), "{text}");
    assert!(last.contains("futex") && last.contains("linux-MAJOR.MINOR"), "{text}");
}

#[test]
fn it_can_be_asked_for_anywhere() {
    let here = ramie::probe();
    common::runtime(1).run(|| {
        let there = ramie::probe();
        assert_eq!(there.has_io_uring(), here.has_io_uring());
        assert_eq!(there.wake(), here.wake());
        assert_eq!(there.advice(), here.advice());
        assert_eq!(there.refusal(), here.refusal());
    });
    assert_eq!(here.refusal().is_none(), here.has_io_uring());
}
