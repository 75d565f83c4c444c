//! Models of the lock-free protocols, run by loom in every interleaving (up to the stated number of
//! preemptions) and with every value that the memory model lets a load return. What runs is the
//! code that ships; only what surrounds it, queues and the kernel, is modelled.
//!
//! Each protocol has canaries beside its models: the same model with one step left out, in which
//! loom must find a fault. They prove that the models look at the right thing.
//!
//! `ci/loom.sh` runs them. loom treats sequentially consistent loads and stores as acquire and
//! release, so what holds here holds by the fences alone.
#![forbid(unsafe_code)]

mod bias;
mod cancel;
mod channel;
mod children;
mod deque;
mod idle;
mod inbox;
mod signal;
mod sleep;
mod sync;
mod task;

use loom::model::Builder;

/// Runs `model` in all interleavings with at most `preemptions` preemptions.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// As [`check`], but a fault must be found: a panic whose message contains `fault`.
fn must_fail(preemptions: usize, fault: &str, model: impl Fn() + Send + Sync + 'static) {
    let found =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(preemptions, model)));
    let payload = found.expect_err("the canary lives: the model does not see what it should");
    let text = panic_text(&*payload);
    assert!(text.contains(fault), "the canary died of something else: {text}");
}

/// The payload of a panic as text, if it is text.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a payload that is no text")
}
