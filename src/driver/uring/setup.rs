//! Creating a ring: which flags, and in which order they are given up. What a refusal means is said
//! in `driver/refusal.rs`.

use super::MAX_ENTRIES;
use super::ring::Ring;
use crate::driver::Caps;
use crate::driver::refusal::{explain, too_little};
use crate::sys::mask::{self, Cap};
use io_uring::{IoUring, opcode, types};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Completion queue entries per submission queue entry.
const CQ_PER_SQ: u32 = 16;

/// The flags given up one after the other by kernels that do not know them.
#[derive(Clone, Copy)]
struct Flags {
    no_sqarray: bool,
    defer_taskrun: bool,
    coop_taskrun: bool,
    submit_all: bool,
}

impl Flags {
    /// Whether the process is to do without one of these.
    fn are_hidden(&self) -> bool {
        self.no_sqarray && mask::hides(Cap::NoSqArray)
            || self.defer_taskrun && mask::hides(Cap::DeferTaskrun)
            || self.coop_taskrun && mask::hides(Cap::CoopTaskrun)
            || self.submit_all && mask::hides(Cap::SubmitAll)
    }
}

/// Newest kernel first: 6.6, 6.1, 5.19, 5.18, 5.11.
const TIERS: [Flags; 5] = [
    Flags { no_sqarray: true, defer_taskrun: true, coop_taskrun: false, submit_all: true },
    Flags { no_sqarray: false, defer_taskrun: true, coop_taskrun: false, submit_all: true },
    Flags { no_sqarray: false, defer_taskrun: false, coop_taskrun: true, submit_all: true },
    Flags { no_sqarray: false, defer_taskrun: false, coop_taskrun: false, submit_all: true },
    Flags { no_sqarray: false, defer_taskrun: false, coop_taskrun: false, submit_all: false },
];

/// What a ring was set up with.
pub(crate) struct Setup {
    pub(crate) flags: Vec<&'static str>,
    /// Of what is optional.
    pub(crate) lacks: Vec<Cap>,
}

/// Creates a ring, to look at it.
pub(crate) fn look() -> io::Result<(Arc<Caps>, Setup)> {
    let (ring, caps, flags) = create_with(8)?;
    let mut setup = Setup { flags: Vec::new(), lacks: Vec::new() };
    let mut note = |offered: bool, names: &[&'static str], cap: Cap| {
        if offered {
            setup.flags.extend(names);
        } else {
            setup.lacks.push(cap);
        }
    };
    note(flags.submit_all, &["SUBMIT_ALL"], Cap::SubmitAll);
    note(flags.defer_taskrun, &["SINGLE_ISSUER", "DEFER_TASKRUN"], Cap::DeferTaskrun);
    note(flags.no_sqarray, &["NO_SQARRAY"], Cap::NoSqArray);
    note(flags.coop_taskrun, &["COOP_TASKRUN"], Cap::CoopTaskrun);
    note(ring.no_iowait(), &[], Cap::NoIowait);
    note(limit_io_workers(&ring), &[], Cap::IowqMaxWorkers);
    Ok((caps, setup))
}

/// Creates a ring for the calling thread and asks the kernel what it can do.
pub(crate) fn create(entries: u32) -> io::Result<(Ring, Arc<Caps>)> {
    create_with(entries).map(|(ring, caps, _)| (ring, caps))
}

fn create_with(entries: u32) -> io::Result<(Ring, Arc<Caps>, Flags)> {
    if mask::hides(Cap::IoUring) {
        return Err(explain(&io::Error::from_raw_os_error(libc::ENOSYS)));
    }
    let mut tiers = TIERS.iter().filter(|flags| !flags.are_hidden()).peekable();
    let (ring, flags) = loop {
        let flags = tiers.next().expect("the last tier's error is returned");
        match build(entries, flags) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && tiers.peek().is_some() => {}
            result => break (result.map_err(|error| explain(&error))?, *flags),
        }
    };
    let params = ring.params();
    let mut missing = Vec::new();
    for (offered, cap, name) in [
        (params.is_feature_nodrop(), Cap::NoDrop, "nodrop"),
        (params.is_feature_ext_arg(), Cap::ExtArg, "ext_arg"),
        (params.is_feature_rw_cur_pos(), Cap::RwCurPos, "rw_cur_pos"),
    ] {
        if !offered || mask::hides(cap) {
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        return Err(too_little(&missing));
    }
    let mut ring = Ring::new(ring);
    let caps = Caps::of_ring(ring.submitter());
    missing.extend(caps.missing());
    if missing.is_empty() && !cancels_any(&mut ring) {
        missing.push("cancel_any");
    }
    if !missing.is_empty() {
        return Err(too_little(&missing));
    }
    limit_io_workers(&ring);
    Ok((ring, caps, flags))
}

/// Whether everything in a ring can be cancelled at once, as the end of a runtime does. Tried with
/// the first ring of the process, in which nothing is.
fn cancels_any(ring: &mut Ring) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    static CANCELS: OnceLock<bool> = OnceLock::new();
    *CANCELS.get_or_init(|| {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
        // SAFETY: the entry points to nothing.
        if mask::hides(Cap::CancelAny) || !unsafe { ring.push(&entry) } {
            return false;
        }
        ring.submit_and_wait(Some(PATIENCE));
        // Nothing was there to be cancelled; an older kernel does not know the flags.
        matches!(ring.next_completion(), Some((_, result)) if result != -libc::EINVAL)
    })
}

fn build(entries: u32, flags: &Flags) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize((entries * CQ_PER_SQ).min(2 * MAX_ENTRIES));
    if flags.no_sqarray {
        builder.setup_no_sqarray();
    }
    if flags.defer_taskrun {
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    }
    if flags.coop_taskrun {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    if flags.submit_all {
        builder.setup_submit_all();
    }
    builder.build(entries)
}

/// The kernel runs what it cannot do at once on threads of its own, by default up to the limit on
/// processes. That many would swamp the machine. `false` where that cannot be changed.
fn limit_io_workers(ring: &Ring) -> bool {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let mut limits = [(4 * cpus).max(8), 64];
    if mask::hides(Cap::IowqMaxWorkers) {
        return false; // as before Linux 5.15: the kernel's own limits hold
    }
    ring.submitter().register_iowq_max_workers(&mut limits).is_ok()
}
