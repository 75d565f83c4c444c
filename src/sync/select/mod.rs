//! What [`select!`](crate::select) is made of: waiting for the first of several things.
//!
//! An *arm* is one of those things: receiving from a channel, sending to one, a fiber's end, a
//! point in time. [`run`] looks at all of them, from a place that moves on with each call; if none
//! can be had at once, it puts a node for each into the queue where that one waits, all with the
//! same waiter (`sync/wait.rs`), and waits. The waker that claims the waiter by one of its nodes
//! decides which arm it is.
//!
//! Nothing is lost, by this rule: **an arm either commits at the moment it is chosen, or only
//! watches.** A message passes, in either direction, by the claim itself; in an arm that is not
//! chosen it has not been taken, or has not left. A fiber's result stays with its handle until the
//! arm is chosen. A descriptor is watched until it is ready, and read only then. And `select!`
//! *starts nothing*, so there is nothing that it would have to break off, and no outcome that would
//! come too late: an operation of another kind that takes part is a fiber that was spawned before,
//! and goes on when another arm is chosen, to be selected again.
//!
//! Invariants.
//! 1. While nodes are queued, no code of the user runs: no destructor, no `Clone`, no `poll`.
//! 2. `run` returns, or starts anew, only after all nodes are out of their queues, and a waker that
//!    has claimed the waiter is done.
//! 3. An arm's `slot` is what wakers expect in the queue that its `enter` uses, and is touched by
//!    nobody else between `enter` and `leave`.
//!
//! | file          | what                                                  |
//! |---------------|-------------------------------------------------------|
//! | `channels.rs` | arms that are handed something: `recv`, `send`        |
//! | `sources.rs`  | arms that are told, and then look: `join`, and others |
//! | `io.rs`       | arms that wait for descriptors: `accept`, `read`, `ready` |
//! | `times.rs`    | `after`, `at`, `tick`                                 |

mod channels;
mod io;
mod sources;
mod times;

pub use channels::{Outgoing, Outlet, Own, Receive, RecvArm, SendArm, Slot, recv, send};
pub use io::{
    Accept, Datagrams, Inlet, Listener, Look, Read, RecvFrom, Take, Waiting, accept, read, ready,
    recv_from,
};
pub use sources::{Joining, Source, SourceArm, join};
pub use times::{TickArm, TimeArm, after, at, tick};

use super::block;
use super::wait::{Node, Waiter};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::array;
use std::cell::Cell;
use std::pin::{Pin, pin};

/// Why a result is there.
const CHOSEN: &str = "the arm that was chosen has its result";

mod sealed {
    pub trait Sealed {}
}

/// An arm's place in a queue.
pub struct Place<'a> {
    pub(in crate::sync) node: Pin<&'a Node<'a>>,
    pub(in crate::sync) waiter: Pin<&'a Waiter>,
}

/// An arm without its type.
pub trait Arm: sealed::Sealed {
    /// Commits if that can be done without waiting. Returns whether it has.
    fn look(&mut self) -> bool;
    /// What a node's `slot` is to be.
    fn slot(&self) -> *mut ();
    /// Queues, unless `look` might succeed now. Returns whether it has queued.
    fn enter(&self, place: &Place<'_>) -> bool;
    /// Takes the node out if it is still in the queue.
    fn leave(&self, place: &Place<'_>);
    /// Commits after a waker has claimed the waiter by this arm's node. `false` if it turns out
    /// that there is nothing after all, which only arms that are not handed anything may say.
    fn claimed(&mut self) -> bool;
    /// When to look again.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }
    /// Whether a cancel request can be answered by `end`.
    fn can_end(&self) -> bool {
        false
    }
    /// Commits because of a cancel request, or of the runtime's end.
    fn end(&mut self) {}
}

/// Where the next call of `run` begins to look.
fn turn() -> usize {
    if cfg!(all(test, loom)) {
        return 0; // A model has to run the same way each time.
    }
    std::thread_local! {
        static TURN: Cell<usize> = const { Cell::new(0) };
    }
    TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)))
}

/// Waits for the first arm that can be had, and returns its index; with a default, does not wait,
/// and returns `None` if there is none.
pub fn run<const N: usize>(mut arms: [&mut dyn Arm; N], default: bool) -> Option<usize> {
    if !default {
        block::take_turns();
    }
    let start = turn();
    let in_turn = |offset: usize| (start % N.max(1) + offset) % N.max(1);
    loop {
        for offset in 0..N {
            let index = in_turn(offset);
            if arms[index].look() {
                return Some(index);
            }
        }
        if default {
            return None;
        }
        if let Some(index) = wait(&mut arms, in_turn) {
            return Some(index);
        }
    }
}

/// The arm that was claimed, or ended; `None` if it is time to look again.
fn wait<const N: usize>(
    arms: &mut [&mut dyn Arm; N],
    in_turn: impl Fn(usize) -> usize,
) -> Option<usize> {
    let deadline_ns = arms.iter().filter_map(|arm| arm.deadline_ns()).min();
    let can_end = arms.iter().any(|arm| arm.can_end());
    let on_cancel = if can_end { OnCancel::End } else { OnCancel::Ignore };

    let waiter = pin!(Waiter::new());
    let waiter = waiter.as_ref();
    let nodes: [Node<'_>; N] =
        array::from_fn(|index| Node::new(waiter, index + 1, arms[index].slot()));
    let nodes = pin!(nodes);
    let nodes = nodes.as_ref();
    let place = |index: usize| {
        // SAFETY: an element of a pinned array stays where the array is.
        let node = unsafe { nodes.map_unchecked(|nodes| &nodes[index]) };
        Place { node, waiter }
    };

    let mut entered = 0;
    while entered < N && arms[in_turn(entered)].enter(&place(in_turn(entered))) {
        entered += 1;
    }
    let waited = entered == N;
    let token = if waited { waiter.wait(deadline_ns, on_cancel) } else { waiter.withdraw() };
    for offset in 0..entered {
        arms[in_turn(offset)].leave(&place(in_turn(offset)));
    }
    if let Some(token) = token {
        return arms[token - 1].claimed().then_some(token - 1);
    }
    if !waited || deadline_ns.is_some_and(|deadline_ns| clock::now_ns() >= deadline_ns) {
        return None;
    }
    // Cancelled; or the runtime ends, and no deadline is waited for any more.
    for offset in 0..N {
        let index = in_turn(offset);
        if arms[index].look() {
            return Some(index);
        }
    }
    let index = (0..N).map(in_turn).find(|index| arms[*index].can_end());
    let index = index.or_else(|| (0..N).find(|index| arms[*index].deadline_ns() == deadline_ns));
    let index = index.filter(|index| can_end || arms[*index].deadline_ns().is_some())?;
    arms[index].end();
    Some(index)
}
