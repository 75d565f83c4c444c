//! Decides which context switch and which hooks this build uses; nothing else in the crate asks for
//! the architecture.
//!
//! Emits `cfg(switch = "x86_64" | "aarch64" | "riscv64" | "portable")`, the switch that the crate
//! uses, and `cfg(native = "x86_64" | "aarch64" | "riscv64")` where one of ours can be compiled.
//! `RAMIE_SWITCH=portable` forces the corosensei switch on an architecture that has its own; both
//! are then compiled all the same. Under Miri it is `"none"`: an interpreter has no stack to leave,
//! so it runs plain threads only.
//!
//! Emits `cfg(sanitizer = "address" | "thread" | "none")` for `stack/sanitize.rs`, from what rustc
//! was asked for, and `cfg(valgrind = "x86_64")` where `stack/valgrind.rs` knows the request.
//!
//! Emits `cfg(raw_stat)` where the `stat` of `std::os::linux::raw` is std's own. Elsewhere it is
//! that of std's private copy of `libc`, which stable code cannot name, and so `fs::Metadata` does
//! without `std::os::linux::fs::MetadataExt`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RAMIE_SWITCH");
    println!(
        "cargo::rustc-check-cfg=cfg(switch, values(\"x86_64\", \"aarch64\", \"riscv64\", \"portable\", \"none\"))"
    );
    println!(
        "cargo::rustc-check-cfg=cfg(native, values(none(), \"x86_64\", \"aarch64\", \"riscv64\"))"
    );

    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let width = std::env::var("CARGO_CFG_TARGET_POINTER_WIDTH").unwrap_or_default();
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let native =
        matches!(arch.as_str(), "x86_64" | "aarch64" | "riscv64") && width == "64" && os == "linux";
    let interpreted = std::env::var_os("CARGO_CFG_MIRI").is_some();
    let native = native && !interpreted;
    let switch = match std::env::var("RAMIE_SWITCH").as_deref() {
        _ if interpreted => "none",
        Ok("portable") => "portable",
        Ok("native") | Ok("") | Err(_) if native => arch.as_str(),
        Ok("") | Err(_) => "portable",
        Ok(other) => panic!(
            "RAMIE_SWITCH={other}: expected \"portable\", or \"native\" where there is such a switch"
        ),
    };
    if native {
        println!("cargo::rustc-cfg=native");
        println!("cargo::rustc-cfg=native=\"{arch}\"");
    }
    println!("cargo::rustc-cfg=switch=\"{switch}\"");

    println!("cargo::rustc-check-cfg=cfg(sanitizer, values(\"address\", \"thread\", \"none\"))");
    // Cargo sets it on nightly only, where `-Zsanitizer` exists.
    let asked = std::env::var("CARGO_CFG_SANITIZE").unwrap_or_default();
    let known = ["address", "thread"].into_iter().find(|name| asked.split(',').any(|a| a == *name));
    println!("cargo::rustc-cfg=sanitizer=\"{}\"", known.unwrap_or("none"));

    println!("cargo::rustc-check-cfg=cfg(raw_stat)");
    if !matches!(
        arch.as_str(),
        "loongarch64" | "mips64" | "mips64r6" | "riscv32" | "riscv64" | "s390x" | "sparc64"
    ) {
        println!("cargo::rustc-cfg=raw_stat");
    }

    println!("cargo::rustc-check-cfg=cfg(valgrind, values(\"x86_64\"))");
    if arch == "x86_64" && width == "64" {
        println!("cargo::rustc-cfg=valgrind=\"x86_64\"");
    }
}
