//! Learning that a thread has begun to destroy its thread-local values.
//!
//! A thread that ends, or calls `exit`, destroys them one by one, the newest first, and nothing
//! says so beforehand. A [`Marker`] is one more value, without contents: when it goes, all that
//! were there before it still stand, so whoever lays one at the right moment learns in time.
//!
//! Laying a marker costs memory until the thread ends. So [`Marker::renew`] does it only if another
//! value has come since the last one, and asks the C library's own list for that: its head is a
//! word of the thread, which is found by experiment (`find`). Where it cannot be found, `renew`
//! does nothing and [`Marker::lay`] always lays one. Where the C library has no such list at all
//! (musl), std keeps one per thread, to which a marker can be added once; what comes after that one
//! goes unnoticed there.
//!
//! A marker belongs to the thread that made it.

use super::mem::page_size;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

type Destructor = unsafe extern "C" fn(*mut c_void);
/// `__cxa_thread_atexit_impl`: a destructor, its argument, an address in the library it is from.
type Register = unsafe extern "C" fn(Destructor, *mut c_void, *mut c_void) -> c_int;

/// What no list's head ever is.
const NEVER: usize = 1;
/// The head of the list where it cannot be read.
static UNKNOWN: usize = NEVER;

thread_local! {
    /// How many markers of this thread are gone.
    static GONE: Cell<u64> = const { Cell::new(0) };
    /// The head of the list when the newest marker was laid.
    static NEWEST: Cell<usize> = const { Cell::new(NEVER) };
    /// The marker where there is no other way.
    static LAST_RESORT: LastResort = const { LastResort(Cell::new(None)) };
}

struct LastResort(Cell<Option<fn()>>);

impl Drop for LastResort {
    fn drop(&mut self) {
        if let Some(when_gone) = self.0.get() {
            gone(when_gone);
        }
    }
}

/// See the module's head.
pub(crate) struct Marker {
    /// The list's head.
    head: *const usize,
    /// What the head was with our marker, or that of another of this thread, on top.
    seen: Cell<usize>,
    /// `GONE` when we last asked.
    gone: Cell<u64>,
    when_gone: fn(),
}

impl Marker {
    /// For the calling thread; nothing is laid yet. `when_gone` is called when a marker goes, on
    /// the thread and in the midst of whatever ends it. It must not unwind.
    pub(crate) fn new(when_gone: fn()) -> Self {
        Self {
            head: head().unwrap_or(&raw const UNKNOWN),
            seen: Cell::new(if head().is_some() { NEVER } else { UNKNOWN }),
            gone: Cell::new(GONE.get()),
            when_gone,
        }
    }

    /// From now on there is a marker that goes before all values that the thread has now. Does
    /// nothing where that cannot be told cheaply.
    #[inline(always)]
    pub(crate) fn renew(&self) {
        // SAFETY: the word of this thread that `head` found, or a static.
        if unsafe { self.head.read_volatile() } != self.seen.get() {
            self.renew_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn renew_slow(&self) {
        // SAFETY: as in `renew`.
        let head = || unsafe { self.head.read_volatile() };
        // A head that was a marker's is that marker's still: the list gives an address to another
        // only when the marker is gone, and `gone` forgets it.
        if head() != NEWEST.get() {
            lay(self.when_gone);
            NEWEST.set(head());
        }
        self.seen.set(head());
    }

    /// As `renew`, but works everywhere; where `renew` does nothing it costs some memory each time.
    #[inline]
    pub(crate) fn lay(&self) {
        if std::ptr::eq(self.head, &raw const UNKNOWN) {
            lay(self.when_gone);
        } else {
            self.renew();
        }
    }

    /// Whether a marker of this thread has gone since the last call that said so, or since `new`.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = GONE.get();
        if self.gone.replace(gone) == gone {
            return false;
        }
        if !std::ptr::eq(self.head, &raw const UNKNOWN) {
            self.seen.set(NEVER);
        }
        true
    }
}

fn gone(when_gone: fn()) {
    GONE.set(GONE.get() + 1);
    NEWEST.set(NEVER);
    when_gone();
}

unsafe extern "C" fn destroy(when_gone: *mut c_void) {
    // SAFETY: `lay` passed a `fn()`.
    gone(unsafe { std::mem::transmute::<*mut c_void, fn()>(when_gone) });
}

/// Adds a marker to the list, as its head.
fn lay(when_gone: fn()) {
    let Some(register) = register() else {
        _ = LAST_RESORT.try_with(|marker| marker.0.set(Some(when_gone)));
        return;
    };
    let library = destroy as *const () as *mut c_void;
    // SAFETY: the destructor wants the address of a function and nothing else.
    if unsafe { register(destroy, when_gone as *mut c_void, library) } != 0 {
        // Going on would be unsound, and so would be leaving by a panic.
        eprintln!("ramie: no memory to watch for the end of a thread, aborting");
        std::process::abort();
    }
}

fn register() -> Option<Register> {
    static REGISTER: OnceLock<Option<Register>> = OnceLock::new();
    *REGISTER.get_or_init(|| {
        // SAFETY: looks a name up.
        let found =
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__cxa_thread_atexit_impl".as_ptr()) };
        // SAFETY: that is the function's type in every C library that has it; null is `None`.
        unsafe { std::mem::transmute::<*mut c_void, Option<Register>>(found) }
    })
}

/// The word of the calling thread that is the head of its list of destructors.
fn head() -> Option<*const usize> {
    // From `errno`, which lies in the same library's block of thread-local memory: the distance is
    // the same in all threads.
    static DISTANCE: OnceLock<Option<isize>> = OnceLock::new();
    let distance = (*DISTANCE.get_or_init(find))?;
    Some(errno().wrapping_byte_offset(distance))
}

fn errno() -> *const usize {
    // SAFETY: asks for an address.
    unsafe { libc::__errno_location() }.cast::<usize>().cast_const()
}

/// Registers two destructors and looks which word of the block around `errno` is a pointer to
/// nodes that name them and form a list.
fn find() -> Option<isize> {
    fn nothing() {}
    register()?;
    let (start, words) = block_around(errno())?;
    let word = |at: usize| {
        // SAFETY: in this thread's own block, which is readable.
        unsafe { start.wrapping_add(at).read_volatile() }
    };
    let read = || -> Vec<usize> { (0..words).map(word).collect() };
    let none = read();
    lay(nothing);
    let one = read();
    lay(nothing);
    let two = read();
    let is_head = |at: &usize| {
        none[*at] != one[*at]
            && one[*at] != two[*at]
            && is_node(one[*at], nothing, none[*at])
            && is_node(two[*at], nothing, one[*at])
    };
    let mut found = (0..words).filter(is_head);
    let at = found.next()?;
    if found.next().is_some() {
        return None;
    }
    // Both are in this thread's block.
    Some(start.wrapping_add(at).addr().wrapping_sub(errno().addr()) as isize)
}

/// Whether there may be a node of the list at `address`: four words, among them our function, and
/// the link to the node registered before.
fn is_node(address: usize, when_gone: fn(), next: usize) -> bool {
    const WORDS: usize = 4;
    if address == 0 || !address.is_multiple_of(align_of::<usize>()) {
        return false;
    }
    let last = address.saturating_add(WORDS * size_of::<usize>() - 1);
    if !is_mapped(address) || !is_mapped(last) {
        return false;
    }
    let node = std::ptr::with_exposed_provenance::<usize>(address);
    // SAFETY: mapped, and by what we know a block that the C library has just allocated.
    let node: [usize; WORDS] =
        std::array::from_fn(|at| unsafe { node.wrapping_add(at).read_volatile() });
    node.contains(&(when_gone as usize)) && node.contains(&next)
}

fn is_mapped(address: usize) -> bool {
    let page = std::ptr::without_provenance_mut(address & !(page_size() - 1));
    let mut resident = 0_u8;
    // SAFETY: looks at one page's state, and writes one byte per page to a live local.
    unsafe { libc::mincore(page, page_size(), &raw mut resident) == 0 }
}

/// The calling thread's block of thread-local memory, of one library, in which `inside` lies: its
/// start and its length in words.
fn block_around(inside: *const usize) -> Option<(*const usize, usize)> {
    struct Search {
        inside: usize,
        found: Option<(*const usize, usize)>,
    }

    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        size: usize,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: `dl_iterate_phdr` passes its own record, and our argument.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        if size < size_of::<libc::dl_phdr_info>() || info.dlpi_tls_data.is_null() {
            return 0;
        }
        // SAFETY: the loaded library's own headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let Some(tls) = headers.iter().find(|header| header.p_type == libc::PT_TLS) else {
            return 0;
        };
        let start = info.dlpi_tls_data.cast::<usize>().cast_const();
        let bytes = tls.p_memsz as usize;
        if !(start.addr()..start.addr() + bytes).contains(&search.inside) {
            return 0;
        }
        if start.is_aligned() {
            search.found = Some((start, bytes / size_of::<usize>()));
        }
        1
    }

    let mut search = Search { inside: inside.addr(), found: None };
    // SAFETY: `look` gets the argument it expects, which is alive during the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{GONE, Marker, NEWEST, head};
    use std::cell::Cell;

    /// The rest is no use if the head is not found where it should be.
    #[test]
    fn the_head_is_found() {
        assert!(super::register().is_none() || head().is_some());
    }

    #[test]
    fn markers_go_first_and_are_laid_when_needed() {
        thread_local! {
            static SEEN: Cell<(u64, u64)> = const { Cell::new((9, 9)) };
            static OLD: Tells = const { Tells(false) };
            static NEW: Tells = const { Tells(true) };
        }
        struct Tells(bool);
        impl Drop for Tells {
            fn drop(&mut self) {
                let (old, new) = SEEN.get();
                SEEN.set(if self.0 { (old, GONE.get()) } else { (GONE.get(), new) });
                if !self.0 {
                    assert_eq!(SEEN.get(), (1, 0), "the marker went between the two");
                    CHECKED.store(true, std::sync::atomic::Ordering::SeqCst);
                }
            }
        }
        static CHECKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

        if head().is_none() {
            return;
        }
        let thread = std::thread::spawn(|| {
            let (marker, other) = (Marker::new(|| ()), Marker::new(|| ()));
            OLD.with(|_| ());
            marker.renew();
            let first = NEWEST.get();
            for _ in 0..3 {
                marker.renew();
                other.renew();
                assert_eq!(NEWEST.get(), first, "nothing has come meanwhile");
            }
            assert!(!marker.is_gone());
            NEW.with(|_| ());
        });
        thread.join().unwrap();
        assert!(CHECKED.load(std::sync::atomic::Ordering::SeqCst));
    }
}
