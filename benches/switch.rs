//! The context switch, a yield and a wake-up, in nanoseconds.
//!
//! "raw switch" is one switch between a worker and a fiber without a scheduler. Ours is the very
//! text that ramie inlines (`asm/x86_64/switch.s`), with what `src/arch` does around it: the other
//! side's frame is kept in memory, and a word is handed over each time. The limit is a loop around
//! the bare instructions: save two registers and an address, exchange stack pointers, jump; no
//! word, no state. The peer is corosensei, whose `resume` and `suspend` do the same with a safe
//! interface.
//!
//! "yield_now" is one call of it by one of two fibers that yield in turn: to the worker, a pass
//! through the run queue, and from there to the other fiber. The limit is two bare switches.
//!
//! "unpark and park" is a round trip between two fibers that wake each other: two wake-ups, two
//! waits. The peer is two threads, on one core.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Bench, Metric, OURS, ns_per};

const RAW: Metric = Metric::time("raw switch", "ns");
const YIELD: Metric = Metric::time("yield_now", "ns");
const PARK: Metric = Metric::time("unpark and park, there and back", "ns");

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(20_000_000, 200_000);
    let rounds = bench.amount(2_000_000, 20_000);
    common::pin(0);
    for _ in bench.rounds(7) {
        bench.run(RAW, OURS, || raw(n));
        bench.run(RAW, "bare switch", || bare(n));
        bench.run(RAW, "corosensei", || corosensei(n));
        bench.run(YIELD, OURS, || ours(n / 2));
        bench.run(YIELD, "two bare switches", || bare(n).map(|ns| 2.0 * ns));
        bench.run(PARK, OURS, || ours_park(rounds));
        bench.run(PARK, "std::thread", || threads_park(rounds / 50));
    }
    bench.print();
}

/// Two fibers of one worker yield to each other.
fn ours(yields: usize) -> Option<f64> {
    let runtime = common::runtime(1)?;
    let yielder = move || (0..yields / 2).for_each(|_| ramie::yield_now());
    let ns = runtime.run(|| {
        ns_per(yields, || {
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
fn raw(_switches: usize) -> Option<f64> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn bare(_switches: usize) -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn raw(switches: usize) -> Option<f64> {
    let mut stack = Stack::new();
    let mut context = raw::Context::new(stack.frame(raw::body));
    let this = &raw mut context;
    // SAFETY: the fiber waits at its start, and its context is at `this` for good.
    unsafe { raw::Context::switch(this, this.expose_provenance()) };
    let ns = ns_per(switches, || {
        for word in 0..switches / 2 {
            // SAFETY: the fiber waits in its `switch`.
            std::hint::black_box(unsafe { raw::Context::switch(this, word) });
        }
    });
    Some(ns)
}

#[cfg(target_arch = "x86_64")]
fn bare(switches: usize) -> Option<f64> {
    let mut stack = Stack::new();
    let mut sp = stack.frame(bare::body).expose_provenance();
    let ns = ns_per(switches, || {
        for _ in 0..switches / 2 {
            // SAFETY: `sp` is the suspended side's stack pointer.
            sp = unsafe { bare::switch(sp) };
        }
    });
    Some(ns)
}

/// A stack of its own for the other side. What is left on it is forgotten.
#[cfg(target_arch = "x86_64")]
struct Stack(Vec<u128>);

#[cfg(target_arch = "x86_64")]
impl Stack {
    fn new() -> Stack {
        Stack(vec![0; 4096])
    }

    /// The frame from which the first switch here calls `body`. Two addresses: to the first the
    /// switch jumps, the second is taken off there; the stack pointer is then aligned as before a
    /// call.
    fn frame(&mut self, body: unsafe extern "C" fn(usize, usize) -> !) -> *mut usize {
        let top = self.0.as_mut_ptr_range().end;
        // SAFETY: the stack is ours and unused, and larger than that.
        unsafe {
            let frame = top.cast::<usize>().sub(2);
            frame.write(bare::ramie_bench_entry as *const () as usize);
            frame.add(1).write(body as *const () as usize);
            frame
        }
    }
}

/// The switch of ramie, as `src/arch/x86_64.rs` has it. (That file cannot be compiled a second time
/// into one program: its symbols are global.)
#[cfg(target_arch = "x86_64")]
mod raw {
    use std::arch::asm;

    pub struct Context {
        peer: *mut usize,
    }

    impl Context {
        pub fn new(peer: *mut usize) -> Context {
            Context { peer }
        }

        /// Leaves for the other side with a word, and returns the word that comes back.
        #[inline(always)]
        pub unsafe fn switch(this: *mut Context, mut word: usize) -> usize {
            // SAFETY: only the side that runs uses the context, and the other one waits at `peer`.
            let mut peer = unsafe { (*this).peer };
            // SAFETY: the text saves rbx and rbp; every other register is listed here as lost.
            unsafe {
                asm!(
                    include_str!("../asm/x86_64/switch.s"),
                    inlateout("rdi") word,
                    inlateout("rsi") peer,
                    lateout("r12") _,
                    lateout("r13") _,
                    lateout("r14") _,
                    lateout("r15") _,
                    clobber_abi("sysv64"),
                );
            }
            // SAFETY: as above.
            unsafe { (*this).peer = peer };
            word
        }
    }

    /// The other side; the first word is the context's address.
    pub unsafe extern "C" fn body(peer: usize, context: usize) -> ! {
        let this: *mut Context = std::ptr::with_exposed_provenance_mut(context);
        // SAFETY: the side that switched here has left the context at `this`.
        unsafe { (*this).peer = std::ptr::with_exposed_provenance_mut(peer) };
        let mut word = 0;
        loop {
            // SAFETY: the other side waits in its `switch`.
            word = unsafe { Context::switch(this, word) };
        }
    }
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
        // rdi = word, rsi = peer
        "pop rax",
        "xchg rdi, rsi",
        "call rax",
        "ud2",
        ".size ramie_bench_entry, . - ramie_bench_entry",
        ".popsection",
    );

    unsafe extern "C" {
        pub fn ramie_bench_entry();
    }

    pub unsafe extern "C" fn body(mut peer: usize, _word: usize) -> ! {
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
