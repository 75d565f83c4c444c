//! What waking a ring from outside needs: eventfds, and messages posted without a ring of one's
//! own.

use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const IORING_REGISTER_SEND_MSG_RING: libc::c_uint = 31;
const IORING_OP_MSG_RING: u8 = 40;
/// The kernel's submission entry, as far as a message needs it.
#[repr(C)]
struct MessageEntry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    user_data_there: u64,
    addr: u64,
    result_there: u32,
    msg_ring_flags: u32,
    user_data_here: u64,
    rest: [u64; 3],
}

const _: () = assert!(mem::size_of::<MessageEntry>() == 64);

/// A new eventfd, counting from 0.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd. Returns whether that was possible.
pub(crate) fn signal_eventfd(fd: RawFd) -> bool {
    let one = 1_u64;
    loop {
        // SAFETY: writes 8 bytes from a live local.
        let written = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
        if written >= 0 {
            return true;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return false;
        }
    }
}

/// Posts a completion with `user_data` and result 0 into the ring `fd`. Returns whether it arrived.
pub(crate) fn post(fd: RawFd, user_data: u64) -> bool {
    let entry = MessageEntry {
        opcode: IORING_OP_MSG_RING,
        flags: 0,
        ioprio: 0,
        fd,
        user_data_there: user_data,
        addr: 0, // IORING_MSG_DATA
        result_there: 0,
        msg_ring_flags: 0,
        user_data_here: 0,
        rest: [0; 3],
    };
    loop {
        // SAFETY: reads one entry from a live local.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                -1,
                IORING_REGISTER_SEND_MSG_RING,
                &raw const entry,
                1,
            )
        };
        if result >= 0 {
            return true;
        }
        match io::Error::last_os_error().raw_os_error() {
            // No memory for the message, or no room: the ring's owner takes it up soon, or somebody
            // frees some.
            Some(libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::EOVERFLOW) => {
                std::thread::yield_now();
            }
            _ => return false,
        }
    }
}
