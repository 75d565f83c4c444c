//! Pools and caches: sizes, recycling, guards by each method, limits, trimming.

use super::super::guard::Method;
use super::super::pool::MAGAZINE;
use super::super::{Cache, Pool, Stack, TRIM_QUIET, slab};
use super::{assert_killed, assert_passed, child, pool, pool_with, resident, touch};
use std::collections::HashSet;
use std::io;
use std::time::Instant;

#[test]
fn sizes_are_rounded_to_shared_classes() {
    let small = Pool::get(0).unwrap();
    assert_eq!(small.stack_bytes(), (16 << 10).max(4 * crate::sys::mem::page_size()));
    let pool = Pool::get(100_000).unwrap();
    assert_eq!(pool.stack_bytes(), 128 << 10);
    assert!(std::ptr::eq(pool, Pool::get(128 << 10).unwrap()));
    assert_eq!(Pool::get(1 << 30).unwrap().stack_bytes(), 1 << 30);
    for absurd in [(1 << 30) + 1, usize::MAX] {
        assert_eq!(Pool::get(absurd).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_stack_is_writable_from_top_to_limit_and_guarded_below() {
    let pool = pool(64 << 10);
    let stack = pool.alloc().unwrap();
    let len = stack.top().addr() - stack.limit().addr();
    assert_eq!(len, 48 << 10);
    assert_eq!(stack.top().addr() % 4096, 0);
    // SAFETY: the stack is ours, `limit()..top()` is its memory.
    unsafe { stack.limit().write_bytes(0xa5, len) };
    let found = |addr| slab::find(addr).unwrap();
    assert!(!found(stack.limit().addr()).in_guard);
    assert!(!found(stack.top().addr() - 1).in_guard);
    assert!(found(stack.limit().addr() - 1).in_guard);
    assert!(found(stack.limit().addr() - (16 << 10)).in_guard);
    assert_eq!(found(stack.limit().addr()).shape, pool.shape());
    assert_eq!(slab::find(&raw const len as usize), None);
    pool.free(stack);
}

#[test]
fn the_stack_freed_last_is_used_first() {
    let pool = pool(16 << 10);
    let mut cache = Cache::new(pool);
    let stacks: Vec<Stack> = (0..3).map(|_| cache.alloc().unwrap()).collect();
    let slots: Vec<usize> = stacks.iter().map(Stack::slot).collect();
    assert_eq!([slots[0] + 1, slots[0] + 2], [slots[1], slots[2]]);
    stacks.into_iter().for_each(|stack| cache.free(stack));
    for slot in slots.into_iter().rev() {
        let stack = cache.alloc().unwrap();
        assert_eq!(stack.slot(), slot);
        std::mem::forget(stack);
    }
}

/// Once many have been taken, each stack is named a few spawns before its turn; one that has just
/// been used never is.
#[test]
fn a_cold_stack_is_named_before_its_turn() {
    let pool = pool(16 << 10);
    let mut cache = Cache::new(pool);
    let take = |cache: &mut Cache, named: &mut Vec<*mut u8>| {
        let stack = cache.alloc().unwrap();
        assert_ne!(cache.next_cold().inspect(|&top| named.push(top)), Some(stack.top()));
        stack
    };
    let mut named = Vec::new();
    let mut stacks: Vec<Stack> = (0..16).map(|_| take(&mut cache, &mut named)).collect();
    assert_eq!(named, []);
    stacks.extend((0..20 * MAGAZINE).map(|_| take(&mut cache, &mut named)));
    let once: HashSet<*mut u8> = named.iter().copied().collect();
    assert!(once.len() == named.len() && named.len() > 10 * MAGAZINE, "{}", named.len());
    let taken: HashSet<*mut u8> = stacks.iter().map(Stack::top).collect();
    assert!(once.difference(&taken).count() < MAGAZINE, "those that come soon");
    // Back and forth between hot ones.
    let before = named.len();
    for _ in 0..1000 {
        (0..16).for_each(|_| cache.free(stacks.pop().unwrap()));
        stacks.extend((0..16).map(|_| take(&mut cache, &mut named)));
    }
    assert_eq!(named.len(), before);
    stacks.into_iter().for_each(|stack| cache.free(stack));
}

#[test]
fn nothing_leaks_and_every_slot_is_owned_once() {
    let pool = pool(16 << 10);
    let mut cache = Cache::new(pool);
    for round in 1..4 {
        let mut stacks: Vec<Stack> = (0..10_000).map(|_| cache.alloc().unwrap()).collect();
        stacks.push(pool.alloc().unwrap());
        let mut slots: Vec<usize> = stacks.iter().map(Stack::slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), stacks.len());
        stacks.iter().for_each(touch);
        pool.free(stacks.pop().unwrap());
        stacks.into_iter().for_each(|stack| cache.free(stack));
        let stats = pool.stats();
        assert!(stats.live <= 2 * MAGAZINE, "round {round}: {stats:?}");
        assert!(stats.slots - stats.uncarved < 10_200, "round {round}: {stats:?}");
    }
    cache.release();
    assert!(pool.stats().live <= 32);
    drop(cache);
    let stats = pool.stats();
    assert_eq!((stats.live, stats.raw), (0, 0), "{stats:?}");
    assert_eq!(stats.slots, stats.hot + stats.cold + stats.uncarved, "{stats:?}");
    // 10,001 of 16 KiB: three slabs, of 64, 64 and 128 MiB; those with `mprotect` do not grow.
    let slots = if pool.guards().method() == Method::Protect { 12_288 } else { 16_384 };
    assert_eq!((stats.slabs, stats.slots), (3, slots), "{stats:?}");
}

#[test]
fn threads_share_a_pool() {
    let pool = pool(16 << 10);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut cache = Cache::new(pool);
                let mut held: Vec<Stack> = Vec::new();
                for step in 0..20_000usize {
                    if step * 7919 % 1000 < 500 + step % 300 && held.len() < 1500 {
                        let stack = cache.alloc().unwrap();
                        // SAFETY: the stack is ours; the word lies below its top.
                        unsafe { stack.top().cast::<usize>().sub(1).write(stack.slot()) };
                        held.push(stack);
                    } else if let Some(stack) = held.pop() {
                        // SAFETY: as above; this thread wrote it.
                        let word = unsafe { stack.top().cast::<usize>().sub(1).read() };
                        assert_eq!(word, stack.slot());
                        cache.free(stack);
                    }
                }
                held.into_iter().for_each(|stack| pool.free(stack));
            });
        }
    });
    assert_eq!(pool.stats().live, 0);
}

/// Touches the byte below a stack made with `method`; to be killed by it.
fn step_into_guard(method: Method) {
    let pool = pool_with(64 << 10, method);
    let stacks: Vec<Stack> = (0..100).map(|_| pool.alloc().unwrap()).collect();
    stacks.iter().for_each(touch);
    assert!(pool.guards().method() >= method);
    // SAFETY: not sound, but for the guard that this must hit.
    unsafe { stacks[50].limit().sub(1).write_volatile(1) };
    println!("survived");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_guard_batched() {
    step_into_guard(Method::Batched);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_guard_single() {
    step_into_guard(Method::Single);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_guard_protect() {
    step_into_guard(Method::Protect);
}

#[test]
fn guards_fault_whichever_way_they_were_made() {
    for method in ["batched", "single", "protect"] {
        let output = child(&format!("stack::tests::pool::child_guard_{method}"));
        assert_killed(&output, libc::SIGSEGV);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("survived"));
    }
}

/// `mlockall(MCL_FUTURE)`: the kernel then refuses guard markers with EINVAL.
#[test]
#[ignore = "run by the test of the same name"]
fn child_locked_memory() {
    // SAFETY: locks memory, touches none. (The sanitizers make a function of `libc::mlockall` that
    // does nothing.)
    let locked = unsafe { libc::syscall(libc::SYS_mlockall, libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if locked != 0 {
        println!("skipped: mlockall is refused");
        return;
    }
    let pool = pool(64 << 10);
    let Ok(stack) = pool.alloc() else {
        println!("skipped: too little memory may be locked");
        return;
    };
    touch(&stack);
    assert_eq!(pool.guards().method(), Method::Protect);
    pool.free(stack);
}

#[test]
fn locked_memory_falls_back_to_mprotect() {
    assert_passed(&child("stack::tests::pool::child_locked_memory"));
}

/// Makes the kernel refuse `process_madvise` with `errno`, and if asked `madvise(GUARD_INSTALL)`
/// too: what a container's filter or an older kernel does. For the rest of the process.
fn refuse(errno: i32, guards_too: bool) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | errno as u32;
    let advice = if guards_too { crate::sys::mem::MADV_GUARD_INSTALL as u32 } else { u32::MAX };
    let third_argument = 16 + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut filter = [
        step(LOAD, 0, 0, 0), // the call's number
        step(JUMP_IF, 3, 0, libc::SYS_process_madvise as u32),
        step(JUMP_IF, 0, 3, libc::SYS_madvise as u32),
        step(LOAD, 0, 0, third_argument),
        step(JUMP_IF, 0, 1, advice),
        step(RETURN, 0, 0, refused),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a filter of this thread's own calls; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// Allocates, frees and trims, and must end up with `method`.
fn use_pool_with(method: Method) {
    let pool = pool(64 << 10);
    let stacks: Vec<Stack> = (0..1024).map(|_| pool.alloc().unwrap()).collect();
    stacks.iter().for_each(touch);
    // The process may be told to do without the better ones (`RAMIE_CAPS`).
    assert!(pool.guards().method() >= method);
    let first = stacks[0].slot();
    stacks.into_iter().for_each(|stack| pool.free(stack));
    let start = Instant::now();
    assert_eq!(pool.trim_at(start) + pool.trim_at(start + TRIM_QUIET), 768);
    let stacks: Vec<Stack> = (0..1024).map(|_| pool.alloc().unwrap()).collect();
    let trimmed = stacks.iter().find(|stack| stack.slot() == first).unwrap();
    assert_eq!(resident(trimmed), 0);
    // SAFETY: not sound, but for the guard that this must hit.
    unsafe { trimmed.limit().sub(1).write_volatile(1) };
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_process_madvise_refused() {
    refuse(libc::EPERM, false);
    use_pool_with(Method::Single);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_process_madvise_unknown() {
    refuse(libc::ENOSYS, false);
    use_pool_with(Method::Single);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_guards_unknown() {
    refuse(libc::EINVAL, true);
    use_pool_with(Method::Protect);
}

#[test]
fn what_the_kernel_refuses_is_done_another_way() {
    for test in ["process_madvise_refused", "process_madvise_unknown", "guards_unknown"] {
        assert_killed(&child(&format!("stack::tests::pool::child_{test}")), libc::SIGSEGV);
    }
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_mappings_run_out() {
    let pool = pool_with(16 << 10, Method::Protect);
    let mut stacks = Vec::new();
    let error = loop {
        match pool.alloc() {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
        if stacks.len() == 200_000 {
            println!("skipped: vm.max_map_count is very large here");
            std::process::exit(0);
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("vm.max_map_count"), "{error}");
    println!("{} stacks, then: {error}", stacks.len());
    // The process still works, and so does the pool.
    std::thread::spawn(|| vec![1u8; 64 << 20].len()).join().unwrap();
    let count = stacks.len();
    pool.free(stacks.pop().unwrap());
    stacks.push(pool.alloc().unwrap());
    assert!(pool.alloc().is_err());
    stacks.into_iter().for_each(|stack| pool.free(stack));
    let stats = pool.stats();
    assert_eq!((stats.live, stats.hot), (0, count), "{stats:?}");
    assert!(stats.raw > 0, "{stats:?}");
}

#[test]
fn running_out_of_mappings_is_a_clear_error() {
    let output = child("stack::tests::pool::child_mappings_run_out");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("1 passed") || text.contains("skipped"), "{output:?}");
}

#[test]
fn trimming_gives_memory_back_and_keeps_guards() {
    let pool = pool(64 << 10);
    let mut cache = Cache::new(pool);
    let stacks: Vec<Stack> = (0..4096).map(|_| cache.alloc().unwrap()).collect();
    stacks.iter().for_each(touch);
    stacks.into_iter().for_each(|stack| cache.free(stack));
    drop(cache);
    assert_eq!(pool.stats().hot, 4096);
    assert!(pool.wants_trim());

    let start = Instant::now();
    assert_eq!(pool.trim_at(start), 0, "the first call only looks");
    assert_eq!(pool.trim_at(start), 0, "too early");
    let later = start + TRIM_QUIET;
    pool.free(pool.alloc().unwrap());
    assert_eq!(pool.trim_at(later), 0, "there was traffic");
    let later = later + TRIM_QUIET;
    let calls: Vec<usize> = (0..5).map(|_| pool.trim_at(later)).collect();
    assert_eq!(calls, [1024, 1024, 1024, 768, 0]);
    assert!(!pool.wants_trim());
    let stats = pool.stats();
    assert_eq!((stats.hot, stats.cold, stats.trimmed), (256, 3840, 3840), "{stats:?}");

    // Hot stacks come first and still have their page; trimmed ones have none, then a new one.
    let stacks: Vec<Stack> = (0..4096).map(|_| pool.alloc().unwrap()).collect();
    assert!(stacks[..256].iter().all(|stack| resident(stack) == 1));
    assert!(stacks[256..].iter().all(|stack| resident(stack) == 0));
    stacks.iter().for_each(touch);
    assert!(stacks.iter().all(|stack| resident(stack) == 1));
    stacks.into_iter().for_each(|stack| pool.free(stack));
}

#[test]
fn nobody_is_asked_to_trim_what_trim_would_leave() {
    let pool = pool(64 << 10);
    let stacks: Vec<Stack> = (0..300).map(|_| pool.alloc().unwrap()).collect();
    stacks.into_iter().for_each(|stack| pool.free(stack));
    assert_eq!(pool.stats().hot, 300);
    assert!(!pool.wants_trim(), "less than a magazine beyond the reserve");
    let start = Instant::now();
    assert_eq!(pool.trim_at(start) + pool.trim_at(start + TRIM_QUIET), 0);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_guard_after_trim() {
    let pool = pool(64 << 10);
    let stacks: Vec<Stack> = (0..1024).map(|_| pool.alloc().unwrap()).collect();
    let first = stacks[0].slot();
    stacks.into_iter().for_each(|stack| pool.free(stack));
    let start = Instant::now();
    assert_eq!(pool.trim_at(start) + pool.trim_at(start + TRIM_QUIET), 768);
    loop {
        let stack = pool.alloc().unwrap();
        if stack.slot() == first {
            println!("found it");
            // SAFETY: not sound, but for the guard that this must hit.
            unsafe { stack.limit().sub(1).write_volatile(1) };
        }
        std::mem::forget(stack);
    }
}

#[test]
fn guards_survive_trimming() {
    let output = child("stack::tests::pool::child_guard_after_trim");
    assert_killed(&output, libc::SIGSEGV);
    assert!(String::from_utf8_lossy(&output.stdout).contains("found it"), "{output:?}");
}
