//! Arms that wait for descriptors: a watch rings when there may be something, and then the arm
//! takes what it can have at once. So they, too, only watch until they are chosen.
#![forbid(unsafe_code)]

use super::sources::Bell;
use super::{Place, SourceArm, sealed, sources::Source};
use crate::io::{Interest, PipeReader, Ready};
use crate::net::{self, Expecting};
use crate::op::{AT_POSITION, MAX_TRANSFER, Op};
use crate::os::unix::net as unix;
use crate::process::{ChildStderr, ChildStdout};
use crate::sched::batch::at_once;
use crate::sched::{Readiness, cancel};
use crate::sys::socket::poll_now;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// What an arm does with a descriptor that is ready.
pub trait Take: sealed::Sealed {
    /// What it gives.
    type Output;
    /// What it waits for.
    fn events(&self) -> i16;
    /// Takes what somebody else has got already, and keeps for whoever asks.
    fn take_kept(&mut self) -> Option<io::Result<Self::Output>> {
        None
    }
    /// Takes it, without waiting: `WouldBlock` if there is nothing after all.
    fn take(&mut self, events: i16) -> io::Result<Self::Output>;
}

/// A descriptor, and what to do once it is ready.
pub struct Waiting<'a, T> {
    fd: BorrowedFd<'a>,
    take: T,
    bell: Arc<Bell>,
    watch: RefCell<Option<Readiness<'a>>>,
    /// Why there is no watch.
    failed: Cell<Option<io::Error>>,
}

impl<T> sealed::Sealed for Waiting<'_, T> {}

impl<T: Take> Source for Waiting<'_, T> {
    type Output = io::Result<T::Output>;

    fn attempt(&mut self) -> Option<Self::Output> {
        self.bell.silence();
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if let Some(answer) = self.watch.get_mut().as_mut().and_then(Readiness::answer) {
            *self.watch.get_mut() = None;
            match answer {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Some(Err(error)),
                _ => {}
            }
        }
        if let Some(kept) = self.take.take_kept() {
            return Some(kept);
        }
        let events = poll_now(self.fd, self.take.events());
        if events == -libc::EINTR || events == 0 {
            return None;
        }
        if events < 0 {
            return Some(Err(io::Error::from_raw_os_error(-events)));
        }
        match self.take.take(events as i16) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        if !self.bell.enter(place) {
            return false;
        }
        let mut watch = self.watch.borrow_mut();
        if watch.is_none() {
            let waker = Arc::clone(&self.bell).into();
            match Readiness::watch(self.fd, self.take.events(), waker) {
                Ok(new) => *watch = Some(new),
                Err(error) => {
                    self.failed.set(Some(error));
                    self.bell.ring();
                }
            }
        }
        true
    }

    fn leave(&self, place: &Place<'_>) {
        self.bell.leave(place);
    }

    fn ended(&self) -> Option<Self::Output> {
        Some(Err(cancel::error()))
    }

    fn end(&mut self) -> Option<Self::Output> {
        // This reports the request.
        Some(Err(cancel::check().err().unwrap_or_else(cancel::error)))
    }
}

fn arm<T: Take>(fd: BorrowedFd<'_>, take: T) -> SourceArm<Waiting<'_, T>> {
    let (watch, failed) = (RefCell::new(None), Cell::new(None));
    SourceArm::new(Waiting { fd, take, bell: Bell::new(), watch, failed })
}

/// Just looks.
pub struct Look(Interest);

impl sealed::Sealed for Look {}

impl Take for Look {
    type Output = Ready;

    fn events(&self) -> i16 {
        self.0.bits()
    }

    fn take(&mut self, events: i16) -> io::Result<Ready> {
        Ok(Ready::new(events))
    }
}

/// The arm `ready(..)`.
pub fn ready(fd: &impl AsFd, interest: Interest) -> SourceArm<Waiting<'_, Look>> {
    arm(fd.as_fd(), Look(interest))
}

/// What the arm `accept(..)` takes. Implemented here only.
pub trait Listener: AsFd + sealed::Sealed {
    /// A stream, and who is at its other end.
    type Connection;
    #[doc(hidden)]
    fn accept_at_once(&self) -> io::Result<Self::Connection>;
    #[doc(hidden)]
    fn accept_kept(&self) -> Option<io::Result<Self::Connection>>;
    #[doc(hidden)]
    fn expect(&self) -> Expecting<'_>;
}

/// Accepts. Meanwhile nobody accepts more than he asks for: `poll` would not tell.
pub struct Accept<'a, L> {
    listener: &'a L,
    _expecting: Expecting<'a>,
}

impl<L> sealed::Sealed for Accept<'_, L> {}

impl<L: Listener> Take for Accept<'_, L> {
    type Output = L::Connection;

    fn events(&self) -> i16 {
        libc::POLLIN
    }

    fn take(&mut self, _events: i16) -> io::Result<L::Connection> {
        self.listener.accept_at_once()
    }

    fn take_kept(&mut self) -> Option<io::Result<L::Connection>> {
        self.listener.accept_kept()
    }
}

macro_rules! listeners {
    ($($listener:ty => $connection:ty;)+) => { $(
        impl sealed::Sealed for $listener {}

        impl Listener for $listener {
            type Connection = $connection;

            fn accept_at_once(&self) -> io::Result<$connection> {
                self.try_accept()
            }

            fn accept_kept(&self) -> Option<io::Result<$connection>> {
                self.accept_ahead()
            }

            fn expect(&self) -> Expecting<'_> {
                self.expect_connection()
            }
        }
    )+ };
}
listeners! {
    net::TcpListener => (net::TcpStream, SocketAddr);
    unix::UnixListener => (unix::UnixStream, unix::SocketAddr);
}

/// The arm `accept(..)`.
pub fn accept<L: Listener>(listener: &L) -> SourceArm<Waiting<'_, Accept<'_, L>>> {
    arm(listener.as_fd(), Accept { listener, _expecting: listener.expect() })
}

/// What the arm `read(..)` takes: something without a position, in which data comes in. Implemented
/// here only.
pub trait Inlet: AsFd + sealed::Sealed {
    #[doc(hidden)]
    fn read_at_once(&self, buf: &mut [u8]) -> io::Result<usize>;
}

/// Reads.
pub struct Read<'a, R> {
    inlet: &'a R,
    buf: &'a mut [u8],
}

impl<R> sealed::Sealed for Read<'_, R> {}

impl<R: Inlet> Take for Read<'_, R> {
    type Output = usize;

    fn events(&self) -> i16 {
        libc::POLLIN
    }

    fn take(&mut self, _events: i16) -> io::Result<usize> {
        self.inlet.read_at_once(self.buf)
    }
}

macro_rules! inlets {
    ($($inlet:ty)+, $read:expr) => { $(
        impl sealed::Sealed for $inlet {}

        impl Inlet for $inlet {
            fn read_at_once(&self, buf: &mut [u8]) -> io::Result<usize> {
                let read: fn(&Self, &mut [u8]) -> io::Result<usize> = $read;
                read(self, buf)
            }
        }
    )+ };
}
inlets!(net::TcpStream unix::UnixStream net::UdpSocket unix::UnixDatagram, |socket, buf| {
    socket.try_recv(buf)
});
inlets!(PipeReader ChildStdout ChildStderr, |pipe, buf| {
    let len = buf.len().min(MAX_TRANSFER);
    let (fd, buf, offset) = (pipe.as_fd(), &mut buf[..len], AT_POSITION);
    at_once(Op::Read { fd, buf, offset, habit: None, nowait: false }).result.map(|n| n as usize)
});

/// The arm `read(..)`.
pub fn read<'a, R: Inlet>(inlet: &'a R, buf: &'a mut [u8]) -> SourceArm<Waiting<'a, Read<'a, R>>> {
    arm(inlet.as_fd(), Read { inlet, buf })
}

/// What the arm `recv_from(..)` takes. Implemented here only.
pub trait Datagrams: AsFd + sealed::Sealed {
    /// Who has sent a datagram.
    type Addr;
    #[doc(hidden)]
    fn recv_from_at_once(&self, buf: &mut [u8]) -> io::Result<(usize, Self::Addr)>;
}

/// Receives a datagram.
pub struct RecvFrom<'a, S> {
    socket: &'a S,
    buf: &'a mut [u8],
}

impl<S> sealed::Sealed for RecvFrom<'_, S> {}

impl<S: Datagrams> Take for RecvFrom<'_, S> {
    type Output = (usize, S::Addr);

    fn events(&self) -> i16 {
        libc::POLLIN
    }

    fn take(&mut self, _events: i16) -> io::Result<Self::Output> {
        self.socket.recv_from_at_once(self.buf)
    }
}

macro_rules! datagrams {
    ($($socket:ty => $addr:ty;)+) => { $(
        impl Datagrams for $socket {
            type Addr = $addr;

            fn recv_from_at_once(&self, buf: &mut [u8]) -> io::Result<(usize, $addr)> {
                self.try_recv_from(buf)
            }
        }
    )+ };
}
datagrams! {
    net::UdpSocket => SocketAddr;
    unix::UnixDatagram => unix::SocketAddr;
}

/// The arm `recv_from(..)`.
pub fn recv_from<'a, S: Datagrams>(
    socket: &'a S,
    buf: &'a mut [u8],
) -> SourceArm<Waiting<'a, RecvFrom<'a, S>>> {
    arm(socket.as_fd(), RecvFrom { socket, buf })
}
