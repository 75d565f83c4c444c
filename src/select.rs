//! [`select!`](crate::select): the macro. What it expands to is in `sync/select/mod.rs`.
#![forbid(unsafe_code)]

/// Waits for the first of several things: a message, room for one, a connection, data, a fiber's
/// end, a point in time.
///
/// ```
/// use ramie::select;
/// use ramie::sync::{mpmc, mpsc};
/// use std::time::Duration;
///
/// ramie::Runtime::new()?.run(|| {
///     let (jobs, queue) = mpsc::channel::<u32>();
///     let (log, _lines) = mpmc::bounded(16);
///     let mut fiber = ramie::spawn(|| ramie::fs::read_to_string("Cargo.toml"));
///     jobs.send(7).unwrap();
///     for _ in 0..2 {
///         select! {
///             recv(&queue) -> job => println!("got {job:?}"),
///             send(&log, "still here") -> sent => sent.unwrap(),
///             join(&mut fiber) -> text => println!("{} bytes", text.unwrap()?.len()),
///             after(Duration::from_secs(1)) => println!("nothing for a second"),
///         }
///     }
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Arms
/// An arm is `name(arguments) -> pattern => body`; `-> pattern` may be left out. Arguments are
/// evaluated once, in the order of the arms. Then the first arm that can be had is chosen, its
/// result is bound to the pattern, and its body is the value of the whole. `?`, `return`, `break`
/// and `continue` in a body mean what they mean around it. If several can be had at once, each has
/// its turn: the place where the search begins moves on with every call on a thread.
///
/// | arm | is chosen when | result |
/// |---|---|---|
/// | `recv(&receiver)`, of [`mpsc`](crate::sync::mpsc) or [`mpmc`](crate::sync::mpmc) | a message is there, or no sender is left | as `recv` |
/// | `recv(&mut receiver)`, of [`oneshot`](crate::sync::oneshot) or [`broadcast`](crate::sync::broadcast) | as above | as `recv` |
/// | `recv(&mut receiver)`, of [`watch`](crate::sync::watch) | there is a new version, or no sender is left | the version, which counts as seen |
/// | `recv(&signals)`, of [`Signals`](crate::signal::Signals) | a signal has come | its number; an error only for a cancel request |
/// | `send(&sender, message)` | there is room, or no receiver is left | as `send` |
/// | `send(&sender, &mut option)` | as above; the message is taken out of the `Option` | as `send` |
/// | `accept(&listener)`, of a [`TcpListener`](crate::net::TcpListener) or a [`UnixListener`](crate::os::unix::net::UnixListener) | a connection is there | as `accept` |
/// | `read(&source, &mut buf)`, of a socket, a pipe's reading end, or a child's output | something is there, or the end | as `read`, or as `recv` |
/// | `recv_from(&socket, &mut buf)`, of a [`UdpSocket`](crate::net::UdpSocket) or a [`UnixDatagram`](crate::os::unix::net::UnixDatagram) | a datagram is there | as `recv_from` |
/// | `ready(&fd, interest)`, of anything that has a descriptor | it is ready | as [`AsyncFd::ready`](crate::io::AsyncFd::ready) |
/// | `join(&mut handle)`, of a [`JoinHandle`](crate::JoinHandle) or a [`ScopedJoinHandle`](crate::ScopedJoinHandle) | the fiber has ended | as [`JoinHandle::join`](crate::JoinHandle::join); the handle is spent |
/// | `join(&mut future)`, of any future that is `Unpin` | it is ready | its output |
/// | `after(duration)`, `at(instant)` | it is time | `()` |
/// | `tick(&mut interval)`, of an [`Interval`](crate::time::Interval) | it ticks | as `tick` |
/// | `default` (without arguments) | no other can be had at once | - |
///
/// # Nothing is lost
/// An arm either commits at the moment it is chosen, or only watches. A message is not taken out of
/// its channel, and does not leave its sender, unless that arm is chosen. A message that was given
/// by value to an arm that is not chosen is dropped; give `&mut option` to keep it. A descriptor is
/// watched, and read only when its arm is chosen; so a connection or data that come too late are
/// there for the next call.
///
/// `select!` starts nothing, so it never has to break anything off. To wait for any other
/// operation, or for several in a row, spawn a fiber that does them, which may borrow if it is a
/// [`scope`](crate::scope())'s, and select its handle: when another arm is chosen the fiber goes
/// on, and its result stays with the handle, which can be selected again, joined or cancelled.
/// ```
/// # use ramie::{io, select};
/// # use std::time::Duration;
/// # ramie::Runtime::new()?.run(|| {
/// let (reader, _writer) = io::pipe()?;
/// let text = ramie::scope(|s| {
///     let mut fiber = s.spawn(|| io::read_to_string(&reader));
///     select! {
///         join(&mut fiber) -> text => text.unwrap().ok(),
///         after(Duration::from_millis(1)) => fiber.cancel_join().unwrap().ok(),
///     }
/// });
/// assert_eq!(text, None); // nobody has written
/// # io::Result::Ok(()) })?;
/// # io::Result::Ok(())
/// ```
///
/// On a plain thread, every arm that has to wait for a descriptor takes a thread that watches it
/// for as long as the call takes; and an `accept`, or the `read` of a pipe, waits for what comes
/// next if somebody else takes what it has seen.
///
/// # Cancellation
/// A cancel request that comes while no arm can be had is answered by an arm that receives from or
/// sends to a channel, which is chosen, and fails as if the other side had gone; or by one that
/// waits for a descriptor, which fails with an error that [`is_cancelled`](crate::is_cancelled)
/// recognises. Without such an arm the request is ignored.
///
/// # Panics
/// Inside [`no_suspend`](crate::no_suspend), if it has to wait. If an `Option` to be sent is
/// `None`.
///
/// # Examples
/// Without waiting:
/// ```
/// # use ramie::{select, sync::mpsc};
/// let (sender, receiver) = mpsc::channel();
/// let mut tries = 0;
/// let message = loop {
///     select! {
///         recv(&receiver) -> message => break message,
///         default => { tries += 1; sender.send(tries).unwrap() }
///     }
/// };
/// assert_eq!(message, Ok(1));
/// ```
/// A server that can be told to stop:
/// ```
/// # use ramie::{net::TcpListener, select, sync::mpsc};
/// # ramie::Runtime::new()?.run(|| {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let (stop, stopped) = mpsc::channel::<()>();
/// let server = ramie::spawn(move || loop {
///     select! {
///         accept(&listener) -> connection => drop(connection?),
///         recv(&stopped) -> _ => break std::io::Result::Ok(()),
///     }
/// });
/// drop(stop);
/// server.join().unwrap()
/// # })?;
/// # std::io::Result::Ok(())
/// ```
/// A message that is kept while something else comes first:
/// ```
/// # use ramie::{select, sync::mpsc};
/// # use std::time::Duration;
/// let (sender, receiver) = mpsc::sync_channel::<String>(0);
/// let mut message = Some(String::from("precious"));
/// select! {
///     send(&sender, &mut message) -> sent => sent.unwrap(),
///     after(Duration::from_millis(1)) => assert!(message.is_some()),
/// }
/// # drop(receiver);
/// ```
#[macro_export]
macro_rules! select {
    ($($tokens:tt)+) => { $crate::__select!(@parse [] [] [0] $($tokens)+) };
}

/// The parts of `select!`: takes one arm after the other off, gives each a variable (of the same
/// name, which hygiene keeps apart) and a number, and puts all together at the end.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    // All arms are there.
    (@parse [] [$($default:tt)*] [$($n:tt)*]) => {
        compile_error!("`select!` needs an arm besides `default`")
    };
    (@parse [$(($arm:ident [$($index:tt)*] $op:ident ($($args:tt)*) ($pat:pat) ($body:expr)))+]
        [] [$($n:tt)*]
    ) => {{
        // The arms are gone before a body begins, with what they borrow.
        let ($($arm,)+) = match ($($crate::sync::select::$op($($args)*),)+) {
            ($(mut $arm,)+) => {
                let chosen = $crate::sync::select::run(
                    [$(&mut $arm as &mut dyn $crate::sync::select::Arm),+],
                    false,
                );
                ($((chosen == ::core::option::Option::Some($($index)*)).then(|| $arm.result()),)+)
            }
        };
        $(if let ::core::option::Option::Some($arm) = $arm {
            let $pat = $arm;
            $body
        } else)+ {
            ::core::unreachable!("`select!` waits for an arm")
        }
    }};
    (@parse [$(($arm:ident [$($index:tt)*] $op:ident ($($args:tt)*) ($pat:pat) ($body:expr)))+]
        [($default:expr)] [$($n:tt)*]
    ) => {{
        let ($($arm,)+) = match ($($crate::sync::select::$op($($args)*),)+) {
            ($(mut $arm,)+) => {
                let chosen = $crate::sync::select::run(
                    [$(&mut $arm as &mut dyn $crate::sync::select::Arm),+],
                    true,
                );
                ($((chosen == ::core::option::Option::Some($($index)*)).then(|| $arm.result()),)+)
            }
        };
        $(if let ::core::option::Option::Some($arm) = $arm {
            let $pat = $arm;
            $body
        } else)+ {
            $default
        }
    }};
    // `default`.
    (@parse [$($arms:tt)*] [] [$($n:tt)*] default => $body:block, $($rest:tt)*) => {
        $crate::__select!(@parse [$($arms)*] [($body)] [$($n)*] $($rest)*)
    };
    (@parse [$($arms:tt)*] [] [$($n:tt)*] default => $body:block $($rest:tt)*) => {
        $crate::__select!(@parse [$($arms)*] [($body)] [$($n)*] $($rest)*)
    };
    (@parse [$($arms:tt)*] [] [$($n:tt)*] default => $body:expr, $($rest:tt)*) => {
        $crate::__select!(@parse [$($arms)*] [($body)] [$($n)*] $($rest)*)
    };
    (@parse [$($arms:tt)*] [] [$($n:tt)*] default => $body:expr) => {
        $crate::__select!(@parse [$($arms)*] [($body)] [$($n)*])
    };
    // An arm.
    (@parse [$($arms:tt)*] [$($default:tt)*] [$($n:tt)*]
        $op:ident($($args:tt)*) -> $pat:pat => $body:block, $($rest:tt)*
    ) => {
        $crate::__select!(@parse [$($arms)* (arm [$($n)*] $op ($($args)*) ($pat) ($body))]
            [$($default)*] [$($n)* + 1] $($rest)*)
    };
    (@parse [$($arms:tt)*] [$($default:tt)*] [$($n:tt)*]
        $op:ident($($args:tt)*) -> $pat:pat => $body:block $($rest:tt)*
    ) => {
        $crate::__select!(@parse [$($arms)* (arm [$($n)*] $op ($($args)*) ($pat) ($body))]
            [$($default)*] [$($n)* + 1] $($rest)*)
    };
    (@parse [$($arms:tt)*] [$($default:tt)*] [$($n:tt)*]
        $op:ident($($args:tt)*) -> $pat:pat => $body:expr, $($rest:tt)*
    ) => {
        $crate::__select!(@parse [$($arms)* (arm [$($n)*] $op ($($args)*) ($pat) ($body))]
            [$($default)*] [$($n)* + 1] $($rest)*)
    };
    (@parse [$($arms:tt)*] [$($default:tt)*] [$($n:tt)*]
        $op:ident($($args:tt)*) -> $pat:pat => $body:expr
    ) => {
        $crate::__select!(@parse [$($arms)* (arm [$($n)*] $op ($($args)*) ($pat) ($body))]
            [$($default)*] [$($n)* + 1])
    };
    (@parse [$($arms:tt)*] [$($default:tt)*] [$($n:tt)*]
        $op:ident($($args:tt)*) => $($rest:tt)*
    ) => {
        $crate::__select!(@parse [$($arms)*] [$($default)*] [$($n)*]
            $op($($args)*) -> _ => $($rest)*)
    };
}
