//! Futures on fibers: async code of others, run by a fiber that suspends where a future is pending.
#![forbid(unsafe_code)]

use crate::coro::{OnCancel, Signal};
use crate::fiber::{JoinHandle, spawn, spawn_local};
use crate::sched;
use crate::sys::clock;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// What the wakers of one `block_on` share. They may outlive it, its fiber and its runtime: nothing
/// here points to any of them, but for the waiter that is registered while the fiber is suspended.
struct Woken(Signal);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Even if it is set already: the poll that takes it must see what this caller wrote.
        sched::wake_waiter(self.0.set());
    }
}

/// Runs a future on the calling fiber until it is ready, and returns its output. Where the future
/// is pending, the fiber suspends; on a plain thread, the thread blocks.
///
/// Nothing has to be [`Send`] or `'static`, and everything of this crate may be called inside the
/// future: [`Future::poll`] runs on the fiber, so I/O in it suspends the fiber like any other. The
/// future itself makes no progress meanwhile.
///
/// The future brings its own reactor, if it needs one: a timer or socket of another runtime works
/// only where that runtime's threads run. Channels, locks and protocols (what only needs to be
/// polled and woken) work as they are. Other fibers can be awaited: [`JoinHandle`] is a future.
///
/// One small allocation per call, none per poll.
///
/// # Panics
/// If the future panics, the panic goes on here.
///
/// # Cancellation
/// A cancel request does not end it, nor does the end of the runtime: a future cannot be asked to
/// stop. Operations of this crate inside the future fail as usual. See [`try_block_on`].
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let text = String::from("borrowed");
///     let length = ramie::block_on(async { text.len() });
///     assert_eq!(length, 8);
/// });
/// # std::io::Result::Ok(())
/// ```
/// A server of hyper's, a connection to a fiber:
/// ```
/// # use std::{convert::Infallible, io, pin::Pin, task::{Context, Poll}};
/// # use http_body_util::Full;
/// # use hyper::{Request, Response, body::{Bytes, Incoming}, rt, service::service_fn};
/// fn serve<T: rt::Read + rt::Write + Unpin>(connection: T) -> hyper::Result<()> {
///     let service = service_fn(async |request: Request<Incoming>| {
///         // Suspends the fiber, and nothing else.
///         let text = ramie::fs::read_to_string(request.uri().path()).unwrap_or_default();
///         Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
///     });
///     let http = hyper::server::conn::http1::Builder::new();
///     ramie::block_on(http.serve_connection(connection, service))
/// }
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    drive(future.into_future(), OnCancel::Ignore).expect("only a request ends it early")
}

/// As [`block_on`], but a cancel request of the fiber ends it: the future is dropped. So do the
/// deadline of a timeout around it and the end of the runtime.
///
/// This is how foreign async code becomes cancellable. To go on with the future after a request,
/// pass a pinned reference to it (`future.as_mut()`).
///
/// # Errors
/// One that [`is_cancelled`](crate::is_cancelled) recognises, when the fiber was asked to end, or
/// its runtime shuts down. The request counts as reported; a future that was woken before it is
/// polled once more, and keeps its output.
///
/// # Panics
/// If the future panics, the panic goes on here.
///
/// # Cancellation
/// If a request is unreported already, the future is not polled at all.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::spawn(|| ramie::try_block_on(std::future::pending::<()>()));
///     ramie::yield_now();
///     fiber.cancel();
///     let error = fiber.join().unwrap().unwrap_err();
///     assert!(ramie::is_cancelled(&error));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn try_block_on<F: IntoFuture>(future: F) -> io::Result<F::Output> {
    let future = future.into_future();
    sched::cancel::check()?;
    drive(future, OnCancel::End).ok_or_else(sched::cancel::error)
}

/// Polls until the future is ready, or the fiber is to end and `on_cancel` says that this counts.
fn drive<F: Future>(future: F, on_cancel: OnCancel) -> Option<F::Output> {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(Signal::new()));
    let waker = Waker::from(Arc::clone(&woken));
    let signal = &woken.0;
    let ends = on_cancel == OnCancel::End;
    // A deadline that never comes is one that the end of the runtime brings forward.
    let deadline_ns = ends.then_some(clock::NEVER);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        loop {
            if ends && sched::cancel::check().is_err() {
                return None;
            }
            if signal.take() {
                // Woken by itself, perhaps, in order to let others run.
                sched::submit::yield_now();
                break;
            }
            if sched::wait(signal, deadline_ns, on_cancel) {
                signal.take();
                break;
            }
        }
    }
}

/// Starts a new fiber that runs `future` with [`block_on`], and returns a handle to it.
///
/// The future may be polled on another thread than this one, but always on the same.
///
/// A cancel request ([`JoinHandle::cancel`]) reaches the operations of this crate in the future,
/// and nothing else. For a future that ends when asked, spawn `|| ramie::try_block_on(future)`.
///
/// # Panics
/// As [`spawn`].
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::spawn_future(async { 6 * 7 });
///     assert_eq!(fiber.join().unwrap(), 42);
/// });
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_future<F>(future: F) -> JoinHandle<F::Output>
where
    F: IntoFuture + Send + 'static,
    F::Output: Send + 'static,
{
    spawn(move || block_on(future))
}

/// As [`spawn_future`], on the calling worker; nothing has to be [`Send`].
///
/// # Panics
/// As [`spawn_local`].
///
/// # Examples
/// ```
/// use std::rc::Rc;
///
/// ramie::Runtime::new()?.run(|| {
///     let shared = Rc::new(5);
///     let theirs = Rc::clone(&shared);
///     let fiber = ramie::spawn_future_local(async move { *theirs + 1 });
///     assert_eq!(fiber.join().unwrap(), *shared + 1);
/// });
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_future_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: IntoFuture + 'static,
    F::Output: 'static,
{
    spawn_local(move || block_on(future))
}
