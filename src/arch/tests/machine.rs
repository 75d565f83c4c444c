//! What a switch does to the machine: registers, stack alignment, the slot, backtraces.

use super::{Fiber, Stack, Switch};
use crate::arch::Entry;
use std::backtrace::Backtrace;
use std::mem::MaybeUninit;

#[cfg(native = "aarch64")]
use super::super::aarch64::{CALLEE_SAVED, SP_AT_ENTRY, has_shadow_stack};
#[cfg(native = "riscv64")]
use super::super::riscv64::{CALLEE_SAVED, SP_AT_ENTRY, has_shadow_stack};
#[cfg(native = "x86_64")]
use super::super::x86_64::{CALLEE_SAVED, SP_AT_ENTRY, has_shadow_stack};

type Two = unsafe extern "C" fn(usize, usize) -> usize;

// From `asm/<arch>/check.S`.
#[cfg(native)]
unsafe extern "C" {
    #[link_name = "ramie_v0_1_check_registers"]
    fn check_registers(f: Two, a: usize, b: usize, fill: *const u64, seen: *mut u64) -> usize;
    #[link_name = "ramie_v0_1_check_forgets"]
    fn check_forgets(a: usize, b: usize) -> usize;
    #[link_name = "ramie_v0_1_check_sp"]
    fn check_sp(arg: *mut (), word: usize) -> usize;
}

/// Calls `f(a, b)` with all callee-saved registers filled with values made from `salt`; returns the
/// result, and the names of the registers that came back changed.
#[cfg(native)]
fn checked(f: Two, a: usize, b: usize, salt: u64) -> (usize, Vec<&'static str>) {
    let fill: Vec<u64> = (1..=CALLEE_SAVED.len() as u64)
        .map(|i| (salt + i).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let mut seen = vec![0; fill.len()];
    // SAFETY: `fill` and `seen` have one word for each callee-saved register; `f` is good to call.
    let result = unsafe { check_registers(f, a, b, fill.as_ptr(), seen.as_mut_ptr()) };
    let names = CALLEE_SAVED.iter().zip(fill.iter().zip(&seen));
    (result, names.filter(|(_, (fill, seen))| fill != seen).map(|(name, _)| *name).collect())
}

#[cfg(native)]
#[inline(never)]
unsafe extern "C" fn resume<S: Switch>(context: usize, word: usize) -> usize {
    // SAFETY: the tests below pass the context of a suspended fiber.
    unsafe { S::resume(std::ptr::with_exposed_provenance_mut(context), word) }
}

#[cfg(native)]
#[inline(never)]
unsafe extern "C" fn suspend<S: Switch>(context: usize, word: usize) -> usize {
    // SAFETY: the tests below pass the context of the fiber that this runs on.
    unsafe { S::suspend(std::ptr::with_exposed_provenance_mut(context), word) }
}

/// Both sides fill all registers before each switch and look at them after it.
#[cfg(native)]
fn registers_survive<S: Switch>() {
    let fiber = Fiber::<S>::new(|_, context| {
        // The first word is our own context: we suspend by the out-of-line function.
        let mut salt = 1_000_000;
        loop {
            let (word, changed) = checked(suspend::<S>, context, salt as usize, salt);
            assert!(changed.is_empty(), "on the fiber, lost: {changed:?}");
            if word == 0 {
                return 0;
            }
            salt += word as u64;
        }
    });
    let context = fiber.context().expose_provenance();
    let mut expected = 1_000_000;
    let (word, changed) = checked(resume::<S>, context, context, 17);
    assert_eq!((word, changed), (expected, vec![]));
    for salt in 1..20_000 {
        let (word, changed) = checked(resume::<S>, context, salt, salt as u64);
        expected += salt;
        assert_eq!((word, changed), (expected, vec![]));
    }
    assert_eq!(checked(resume::<S>, context, 0, 23), (0, vec![]));
    assert!(fiber.done());
}

#[test]
#[cfg(native)]
fn registers_survive_the_native_switch() {
    registers_survive::<super::Native>();
}

#[test]
#[cfg(native)]
fn registers_survive_the_portable_switch() {
    registers_survive::<super::Portable>();
}

#[test]
#[cfg(native)]
fn canary_a_forgotten_register_is_found() {
    let (result, changed) = checked(check_forgets, 2, 3, 99);
    assert_eq!((result, changed.len()), (5, 1), "{changed:?}");
}

#[test]
#[cfg(native)]
fn the_stack_is_aligned_at_entry() {
    struct CheckSp;
    impl Entry for CheckSp {
        unsafe fn enter(arg: *mut (), word: usize) -> usize {
            // SAFETY: it returns its stack pointer and does nothing else.
            unsafe { check_sp(arg, word) }
        }
    }
    let stack = Stack::new();
    let mut context = MaybeUninit::<<super::Native as Switch>::Context>::uninit();
    // SAFETY: a new stack; `check_sp` returns at once, which ends the fiber.
    let sp = unsafe {
        super::Native::init::<CheckSp>(context.as_mut_ptr(), &stack, std::ptr::null_mut());
        super::Native::resume(context.as_mut_ptr(), 0)
    };
    assert_eq!(sp % 16, SP_AT_ENTRY);
    let used = stack.top().addr() - sp;
    assert!(used <= 512, "the start of a fiber takes {used} bytes of its stack");
}

#[test]
fn names_in_the_assembly_carry_the_version() {
    // Two versions of this crate in one program must not define the same symbols; Cargo allows that
    // when they differ in the leftmost number that is not 0.
    let prefix = concat!("ramie_v", env!("CARGO_PKG_VERSION_MAJOR"));
    let prefix = match env!("CARGO_PKG_VERSION_MAJOR") {
        "0" => format!("{prefix}_{}_", env!("CARGO_PKG_VERSION_MINOR")),
        _ => format!("{prefix}_"),
    };
    let mut labels = 0;
    for text in [
        include_str!("../../../asm/current.S"),
        include_str!("../../../asm/aarch64/entry.S"),
        include_str!("../../../asm/aarch64/check.S"),
        include_str!("../../../asm/riscv64/entry.S"),
        include_str!("../../../asm/riscv64/check.S"),
        include_str!("../../../asm/x86_64/entry.S"),
        include_str!("../../../asm/x86_64/check.S"),
    ] {
        for line in text.lines() {
            if let Some(label) = line.strip_prefix(".globl") {
                let label = label.trim();
                labels += 1;
                assert!(label.starts_with(&prefix), "{label}: expected {prefix}...");
                for needed in [
                    format!(".hidden {label}"),
                    format!(".type   {label}, @"),
                    format!(".size   {label}, "),
                ] {
                    assert!(text.contains(&needed), "missing: {needed}");
                }
            }
        }
    }
    assert_eq!(labels, 13);
}

/// The functions of a backtrace, innermost first.
fn functions(backtrace: &str) -> Vec<&str> {
    let numbered = backtrace.lines().filter_map(|line| line.trim_start().split_once(": "));
    numbered.filter(|(n, _)| n.parse::<u32>().is_ok()).map(|(_, name)| name.trim()).collect()
}

/// A backtrace that ends at the fiber's first function, or what is wrong with it.
fn ends_at_the_base(functions: &[&str]) -> Result<(), String> {
    match functions {
        [.., last] if last.starts_with("ramie_v") && last.ends_with("_fiber_entry") => {}
        _ => return Err(format!("does not end at the fiber's entry: {functions:#?}")),
    }
    match functions.iter().find(|f| f.contains("unknown") || f.contains("run_test")) {
        Some(stray) => Err(format!("{stray} is not on the fiber: {functions:#?}")),
        None => Ok(()),
    }
}

#[inline(never)]
fn backtrace_in_a_fiber<S: Switch>() -> String {
    let text = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
    let fiber = Fiber::<S>::new({
        let text = text.clone();
        move |me, _| {
            // After a switch as before it.
            for _ in 0..2 {
                *text.borrow_mut() = Backtrace::force_capture().to_string();
                me.suspend(0);
            }
            0
        }
    });
    while !fiber.done() {
        fiber.resume(0);
    }
    text.take()
}

#[test]
#[cfg(native)]
fn a_backtrace_ends_at_the_base() {
    let text = backtrace_in_a_fiber::<super::Native>();
    let functions = functions(&text);
    ends_at_the_base(&functions).unwrap();
    assert!(functions.len() < 30, "{functions:#?}");
    assert!(functions.iter().any(|f| f.contains("backtrace_in_a_fiber")), "{functions:#?}");
}

#[test]
#[cfg(native)]
fn canary_a_backtrace_that_goes_on_is_found() {
    // One taken on the thread's own stack goes on to the test harness.
    let text = Backtrace::force_capture().to_string();
    ends_at_the_base(&functions(&text)).unwrap_err();
    ends_at_the_base(&["ramie_v0_1_fiber_entry", "<unknown>"]).unwrap_err();
    ends_at_the_base(&["<unknown>", "ramie_v0_1_fiber_entry"]).unwrap_err();
    ends_at_the_base(&["body", "ramie_v0_1_fiber_entry"]).unwrap();
}

#[test]
fn an_ordinary_panic_on_a_fiber_runs_the_hook_and_is_caught() {
    fn panics<S: Switch>() {
        let fiber = Fiber::<S>::new(|_, _| {
            let result = std::panic::catch_unwind(|| panic!("expected in this test"));
            usize::from(result.is_err())
        });
        assert_eq!(fiber.resume(0), 1);
    }
    #[cfg(native)]
    panics::<super::Native>();
    panics::<super::Portable>();
}

/// Where `ci/gdb-unwind.sh` stops on the fiber.
#[inline(never)]
fn gdb_stops_here(word: usize) -> usize {
    std::hint::black_box(word + 1)
}

/// Where `ci/gdb-unwind.sh` stops outside, while the fiber is suspended in `gdb_suspends_here`.
#[inline(never)]
#[cfg(native)]
extern "C" fn gdb_looks_from_outside(context: usize) -> usize {
    std::hint::black_box(context)
}

#[inline(never)]
#[cfg(native)]
fn gdb_suspends_here<S: Switch>(me: &super::Suspender<S>, word: usize) -> usize {
    me.suspend(word) + 1
}

#[test]
#[cfg(native)]
fn gdb_target() {
    let fiber = Fiber::<super::Native>::new(|me, word| {
        let word = gdb_suspends_here(&me, word);
        gdb_stops_here(word)
    });
    assert_eq!(fiber.resume(1), 1);
    gdb_looks_from_outside(fiber.context().addr());
    assert_eq!(fiber.resume(2), 4);
    assert!(fiber.done());
}

fn the_slot_is_read_again<S: Switch>() {
    S::set_current(1);
    let fiber = Fiber::<S>::new(|me, _| {
        let first = S::get_current();
        me.suspend(first);
        let second = S::get_current();
        S::set_current(3);
        second
    });
    assert_eq!(fiber.resume(0), 1);
    S::set_current(2);
    assert_eq!(fiber.resume(0), 2);
    assert_eq!(S::get_current(), 3);
}

#[test]
fn the_slot_is_read_again_after_a_switch() {
    #[cfg(native)]
    the_slot_is_read_again::<super::Native>();
    the_slot_is_read_again::<super::Portable>();
}

#[test]
fn no_shadow_stack_here() {
    // With one, the tests above would have crashed.
    #[cfg(native)]
    assert!(!has_shadow_stack());
    assert!(!crate::arch::portable::has_shadow_stack());
    assert!(!crate::arch::has_shadow_stack());
}

/// Both ways of asking lead to this frame, or near it.
#[test]
fn the_stack_pointer() {
    let here = 0_u8;
    let here = (&raw const here).addr();
    for pointer in [crate::arch::stack_pointer(), crate::arch::portable::stack_pointer()] {
        assert!(pointer.abs_diff(here) < 4096 || cfg!(sanitizer = "address"));
    }
}
