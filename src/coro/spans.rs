//! A fiber's tracing spans.
//!
//! For a subscriber, the spans that code is in are those of its thread. So a fiber leaves its spans
//! when it leaves its stack, the innermost first, and enters them again when it comes back. This
//! works with any subscriber that can name its current span; with one that cannot, nothing happens.
//!
//! What a subscriber does in the course of this is foreign code at a bad moment: the fiber is
//! neither here nor there. Nothing it calls suspends (`BLOCKS` in `header.rs`): it blocks the
//! thread, as in a destructor while the thread unwinds, and must not wait for another fiber. A
//! panic of it ends here: an operation must not lose its result to a panic in somebody's log.
//!
//! The default subscriber may be a thread's own (`tracing::subscriber::set_default`). That is not
//! followed: there is no way to ask for it or to unset it. The crate's front page says so.
#![forbid(unsafe_code)]

use super::header::{BLOCKS, FiberPtr};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::dispatcher::{self, Dispatch};
use tracing::level_filters::LevelFilter;
use tracing::span::Id;

/// Nested spans that need no allocation.
const FEW: usize = 4;
/// For subscribers that name a span however often it is left.
const MOST: usize = 4096;

/// One span that code was in.
struct Entered {
    id: Id,
    /// The subscriber's own way of keeping a span alive.
    kept: Id,
}

/// Spans that were left, the innermost first.
pub(crate) struct Spans {
    dispatch: Dispatch,
    few: [Option<Entered>; FEW],
    more: Vec<Entered>,
}

/// Whether there may be spans: one load. There are none that matter while all subscribers are
/// switched off.
#[inline(always)]
pub(crate) fn followed() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Leaves all spans that the calling code is in. `fiber` is the fiber it runs on, if any.
pub(crate) fn leave(fiber: Option<FiberPtr>) -> Spans {
    let _blocks = Blocks::new(fiber);
    let mut spans = Spans { dispatch: Dispatch::none(), few: [const { None }; FEW], more: vec![] };
    foreign(|| {
        spans.dispatch = dispatcher::get_default(Dispatch::clone);
        for n in 0..MOST {
            let current = spans.dispatch.current_span();
            let Some(id) = current.id() else { break };
            let entered = Entered { id: id.clone(), kept: spans.dispatch.clone_span(id) };
            match spans.few.get_mut(n) {
                Some(place) => *place = Some(entered),
                None => spans.more.push(entered),
            }
            spans.dispatch.exit(id);
        }
    });
    spans
}

impl Spans {
    /// Enters them again, here, the outermost first.
    pub(crate) fn enter(&self, fiber: Option<FiberPtr>) {
        let _blocks = Blocks::new(fiber);
        for Entered { id, .. } in self.more.iter().rev().chain(self.few.iter().rev().flatten()) {
            foreign(|| self.dispatch.enter(id));
        }
    }

    /// As `enter`, for the last time.
    pub(crate) fn enter_for_good(self, fiber: FiberPtr) {
        let _blocks = Blocks::new(Some(fiber));
        self.enter(None);
        drop(self);
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        let few = self.few.iter_mut().filter_map(Option::take);
        for Entered { kept, .. } in few.chain(mem::take(&mut self.more)) {
            foreign(|| {
                self.dispatch.try_close(kept);
            });
        }
    }
}

/// Calls a subscriber. If it panics, its hook has said so, and life goes on.
pub(crate) fn foreign(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        // Its destructor might panic, too.
        mem::forget(panic);
    }
}

/// While it lives, what would suspend its fiber blocks the thread.
struct Blocks(Option<FiberPtr>);

impl Blocks {
    fn new(fiber: Option<FiberPtr>) -> Self {
        if let Some(fiber) = fiber {
            let word = &fiber.header().no_suspend;
            word.set(word.get() | BLOCKS);
        }
        Self(fiber)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if let Some(fiber) = self.0 {
            let word = &fiber.header().no_suspend;
            word.set(word.get() & !BLOCKS);
        }
    }
}
