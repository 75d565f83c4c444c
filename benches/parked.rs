//! What a million parked fibers cost at least: the stacks.
//!
//! The limit is a bare loop over one mapping: put a guard page under every 64 KiB stack, a thousand
//! per system call, then touch the page at its top. That is the memory and the time below which a
//! parked fiber with its own guarded stack cannot get on this kernel. Memory per stack counts what
//! the process and its page tables grew by (VmRSS and VmPTE).
//!
//! An argument is the number of stacks. Ours parks as many fibers and finishes them.

mod common;

use common::{Bench, Metric, OURS, ns_per};

const CREATE: Metric = Metric::time("create and park", "ns/fiber");
const GUARD: Metric = Metric::time("of that, guard", "ns/stack");
const TOUCH: Metric = Metric::time("of that, first touch", "ns/stack");
const AGAIN: Metric = Metric::time("wake and finish", "ns/fiber");
const RSS: Metric = Metric::time("memory", "B/fiber");
const TABLES: Metric = Metric::time("page tables", "B/fiber");

const STACK: usize = 64 * 1024;
const GUARD_BYTES: usize = 16 * 1024;
const BATCH: usize = 1024;
const MADV_GUARD_INSTALL: i32 = 102;

/// What one run found, per fiber or stack: nanoseconds, then bytes.
struct Cost {
    create: f64,
    finish: f64,
    rss: f64,
    tables: f64,
}

fn main() {
    let mut bench = Bench::from_args();
    let given = bench.args.first().and_then(|text| text.parse().ok());
    let n = given.unwrap_or(bench.amount(1_000_000, 20_000));
    common::pin(0);
    for _ in bench.rounds(3) {
        let ours = ours(n);
        record(&mut bench, OURS, ours);
        let Some((guard, cost)) = bare(n) else {
            println!("bare loop: no MADV_GUARD_INSTALL here (Linux 6.13)");
            continue;
        };
        bench.record(GUARD, "bare loop", Some(guard));
        bench.record(TOUCH, "bare loop", Some(cost.create - guard));
        record(&mut bench, "bare loop", Some(cost));
    }
    println!("{n} stacks of {} KiB", STACK / 1024);
    bench.print();
}

fn record(bench: &mut Bench, who: &'static str, cost: Option<Cost>) {
    bench.record(CREATE, who, cost.as_ref().map(|cost| cost.create));
    bench.record(AGAIN, who, cost.as_ref().map(|cost| cost.finish));
    bench.record(RSS, who, cost.as_ref().map(|cost| cost.rss));
    bench.record(TABLES, who, cost.as_ref().map(|cost| cost.tables));
}

fn ours(n: usize) -> Option<Cost> {
    let runtime = ramie::Runtime::builder().workers(1).stack_size(STACK).build().ok()?;
    let per = |now: usize, then: usize| now.saturating_sub(then) as f64 / n as f64;
    Some(runtime.run(|| {
        let mut fibers = Vec::with_capacity(n);
        let before = memory();
        let create = ns_per(n, || {
            for i in 0..n {
                fibers.push(ramie::spawn_local(ramie::park));
                if i % 256 == 255 {
                    ramie::yield_now(); // as a server that accepts: they park as they come
                }
            }
            ramie::yield_now();
        });
        let after = memory();
        let finish = ns_per(n, || {
            fibers.iter().for_each(|fiber| fiber.fiber().unpark());
            fibers.drain(..).for_each(|fiber| fiber.join().expect("no fiber panicked"));
        });
        Cost { create, finish, rss: per(after.0, before.0), tables: per(after.1, before.1) }
    }))
}

fn bare(n: usize) -> Option<(f64, Cost)> {
    let before = memory();
    let slab = Slab::new(n * STACK);
    let mut installed = true;
    let guard = ns_per(n, || {
        for first in (0..n).step_by(BATCH) {
            installed &= slab.guard(first, BATCH.min(n - first));
        }
    });
    if !installed {
        return None;
    }
    let touch = ns_per(n, || (0..n).for_each(|stack| slab.touch(stack)));
    let after = memory();
    let finish = ns_per(n, || (0..n).for_each(|stack| slab.touch(stack)));
    let per = |now: usize, then: usize| now.saturating_sub(then) as f64 / n as f64;
    let cost = Cost {
        create: guard + touch,
        finish,
        rss: per(after.0, before.0),
        tables: per(after.1, before.1),
    };
    Some((guard, cost))
}

/// One mapping for all stacks.
struct Slab {
    base: *mut u8,
    len: usize,
    pid: i32,
}

impl Slab {
    fn new(len: usize) -> Slab {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, advice about it, and a descriptor that we close in `drop`.
        unsafe {
            let base = libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            libc::madvise(base, len, libc::MADV_NOHUGEPAGE);
            let pid = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as i32;
            assert!(pid >= 0, "{}", std::io::Error::last_os_error());
            Slab { base: base.cast(), len, pid }
        }
    }

    /// Installs the guards of some stacks with one call.
    fn guard(&self, first: usize, count: usize) -> bool {
        let vector: Vec<libc::iovec> = (first..first + count)
            .map(|stack| libc::iovec {
                iov_base: self.base.wrapping_add(stack * STACK).cast(),
                iov_len: GUARD_BYTES,
            })
            .collect();
        // SAFETY: the ranges lie in our mapping, which nobody else uses.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                self.pid,
                vector.as_ptr(),
                vector.len(),
                MADV_GUARD_INSTALL,
                0,
            )
        };
        done == (count * GUARD_BYTES) as i64
    }

    fn touch(&self, stack: usize) {
        let top = self.base.wrapping_add((stack + 1) * STACK).wrapping_sub(64);
        // SAFETY: within our mapping, above the guard.
        unsafe { top.write_volatile(1) };
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: our mapping and our descriptor, used no longer.
        unsafe {
            libc::munmap(self.base.cast(), self.len);
            libc::close(self.pid);
        }
    }
}

/// Bytes of memory and of page tables that this process has.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        1024 * kib.expect("a number of kB")
    };
    (field("VmRSS:"), field("VmPTE:"))
}
