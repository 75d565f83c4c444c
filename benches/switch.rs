//! One switch between a worker's idle context and a fiber, in nanoseconds.
//!
//! The limit is a loop around the bare instructions: save two registers and an address, exchange
//! stack pointers, jump. It has no scheduler, no state, no check. The peer is corosensei, whose
//! `resume` and `suspend` do the same with a safe interface. Ours is two fibers that yield
//! in turn, and so includes the scheduler: half of a pass through the run queue per switch.
//!
//! "unpark and park" is a round trip between two fibers that wake each other: two wake-ups, two
//! waits. The peer is two threads, on one core.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Bench, Metric, OURS, ns_per};

const SWITCH: Metric = Metric::time("switch", "ns");

const PARK: Metric = Metric::time("unpark and park, there and back", "ns");

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(20_000_000, 200_000);
    let rounds = bench.amount(2_000_000, 20_000);
    common::pin(0);
    for _ in bench.rounds(7) {
        bench.run(SWITCH, OURS, || ours(n));
        bench.run(SWITCH, "bare switch", || bare(n));
        bench.run(SWITCH, "corosensei", || corosensei(n));
        bench.run(PARK, OURS, || ours_park(rounds));
        bench.run(PARK, "std::thread", || threads_park(rounds / 50));
    }
    bench.print();
}

/// Two fibers of one worker yield to each other; each yield is two switches.
fn ours(switches: usize) -> Option<f64> {
    let runtime = common::runtime(1)?;
    let yields = switches / 4;
    let yielder = move || (0..yields).for_each(|_| ramie::yield_now());
    let ns = runtime.run(|| {
        ns_per(switches, || {
            let other = ramie::spawn_local(yielder);
            yielder();
            other.join().expect("no fiber panicked");
        })
    });
    Some(ns)
}

/// Two fibers of one worker wake each other.
fn ours_park(rounds: usize) -> Option<f64> {
    let runtime = common::runtime(1)?;
    let ns = runtime.run(|| {
        let me = ramie::current();
        let other = ramie::spawn_local(move || {
            for _ in 0..rounds {
                ramie::park();
                me.unpark();
            }
        });
        let ns = ns_per(rounds, || {
            for _ in 0..rounds {
                other.fiber().unpark();
                ramie::park();
            }
        });
        other.join().expect("no fiber panicked");
        ns
    });
    Some(ns)
}

/// A thread may be woken for nothing, and two wake-ups may become one: so whose turn it is, is kept
/// beside them.
fn threads_park(rounds: usize) -> Option<f64> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    fn park_until(turn: usize) {
        while TURN.load(Ordering::Acquire) != turn {
            std::thread::park();
        }
    }
    TURN.store(0, Ordering::Release);
    let me = std::thread::current();
    let other = std::thread::spawn(move || {
        for round in 0..rounds {
            park_until(2 * round + 1);
            TURN.store(2 * round + 2, Ordering::Release);
            me.unpark();
        }
    });
    let ns = ns_per(rounds, || {
        for round in 0..rounds {
            TURN.store(2 * round + 1, Ordering::Release);
            other.thread().unpark();
            park_until(2 * round + 2);
        }
    });
    other.join().expect("no thread panicked");
    Some(ns)
}

fn corosensei(switches: usize) -> Option<f64> {
    let mut fiber = corosensei::Coroutine::<usize, usize, ()>::new(|yielder, mut word| {
        loop {
            word = yielder.suspend(word);
        }
    });
    let resume = |fiber: &mut corosensei::Coroutine<usize, usize, ()>| {
        std::hint::black_box(fiber.resume(1));
    };
    resume(&mut fiber);
    let ns = ns_per(switches, || (0..switches / 2).for_each(|_| resume(&mut fiber)));
    // SAFETY: the fiber's stack holds nothing that has to be dropped.
    unsafe { fiber.force_reset() };
    Some(ns)
}

#[cfg(not(target_arch = "x86_64"))]
fn bare(_switches: usize) -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn bare(switches: usize) -> Option<f64> {
    let mut stack = vec![0u128; 4096];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is ours and unused. Its first frame is one address, to which the first
    // switch jumps; the stack pointer is then `top`, aligned as before a call.
    let mut sp = unsafe {
        let frame = top.cast::<usize>().sub(1);
        frame.write(bare::ramie_bench_entry as *const () as usize);
        frame as usize
    };
    let ns = ns_per(switches, || {
        for _ in 0..switches / 2 {
            // SAFETY: `sp` is the suspended side's stack pointer.
            sp = unsafe { bare::switch(sp) };
        }
    });
    Some(ns)
}

#[cfg(target_arch = "x86_64")]
mod bare {
    use std::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .text.ramie_bench,\"ax\",@progbits",
        ".globl ramie_bench_entry",
        ".hidden ramie_bench_entry",
        ".type ramie_bench_entry, @function",
        "ramie_bench_entry:",
        "mov rdi, rsi",
        "call {body}",
        "ud2",
        ".size ramie_bench_entry, . - ramie_bench_entry",
        ".popsection",
        body = sym body,
    );

    unsafe extern "C" {
        pub fn ramie_bench_entry();
    }

    unsafe extern "C" fn body(mut peer: usize) -> ! {
        loop {
            // SAFETY: `peer` is the suspended side's stack pointer.
            peer = unsafe { switch(peer) };
        }
    }

    /// Switches to the stack pointer `sp`; returns the stack pointer of whoever switches back.
    #[inline(always)]
    pub unsafe fn switch(mut sp: usize) -> usize {
        // SAFETY: every register but rsp, rbp and rbx is given up, and these three are saved.
        unsafe {
            asm!(
                "lea rax, [rip + 2f]",
                "push rbp",
                "push rbx",
                "push rax",
                "mov rax, rsp",
                "mov rsp, rsi",
                "mov rsi, rax",
                "pop rax",
                "jmp rax",
                "2:",
                "pop rbx",
                "pop rbp",
                inlateout("rsi") sp,
                lateout("rax") _, lateout("rcx") _, lateout("rdx") _, lateout("rdi") _,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
        }
        sp
    }
}
