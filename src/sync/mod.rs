//! L7: waiting for each other.
//!
//! | file      | what                                                            |
//! |-----------|-----------------------------------------------------------------|
//! | `wait.rs` | queues of waiters, which everything here is made of             |
//! | `lock.rs` | the tiny lock that guards them                                  |
//! | `block.rs` | how they wait and wake: the scheduler, or the model checker    |
//! | `chan/`   | what `mpsc` and `mpmc` are made of                              |
//! | `mpsc.rs` | channels with one receiver, as std's                            |
//! | `mpmc.rs` | channels whose both ends can be cloned                          |

mod block;
pub(crate) mod chan;
#[allow(dead_code, reason = "soon used by all the rest")]
pub(crate) mod lock;
pub mod mpmc;
pub mod mpsc;
#[allow(dead_code, reason = "the channels use the rest")]
pub(crate) mod wait;
