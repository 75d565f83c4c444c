//! The calls of `timeout` and `shield` that a fiber, or a plain thread, is in.
//!
//! A *bound* is one such call. It lies in that call's frame; the bounds of a fiber are linked from
//! the innermost outward, beginning in the header. Only the fiber and its home's idle context look
//! at them, never both at once.
//!
//! A deadline *expires* once, when its time has come. It is *due* from then until an op reports it.
//! It is *visible* if no shield lies inside it. Of the visible reasons to end, an op reports one,
//! the strongest: a request by a handle comes before a deadline, and a deadline before those inside
//! it. What lies inside is *overtaken* then: an error that comes out of it belongs further out.

use super::header::FiberPtr;
use std::cell::Cell;
use std::ptr::NonNull;

/// See the module's head.
pub(crate) struct Bound {
    outer: Cell<Option<NonNull<Bound>>>,
    /// `None` for a shield.
    deadline_ns: Option<u64>,
    expired: Cell<bool>,
    due: Cell<bool>,
    /// The next `park` inside returns at once: it wakes once for a deadline.
    wakes: Cell<bool>,
    /// An op has reported it.
    reported: Cell<bool>,
    /// That was the fiber's latest report.
    reported_last: Cell<bool>,
    /// An op inside has reported something stronger.
    overtaken: Cell<bool>,
}

impl Bound {
    fn new(deadline_ns: Option<u64>) -> Self {
        Self {
            outer: Cell::new(None),
            deadline_ns,
            expired: Cell::new(false),
            due: Cell::new(false),
            wakes: Cell::new(false),
            reported: Cell::new(false),
            reported_last: Cell::new(false),
            overtaken: Cell::new(false),
        }
    }

    pub(crate) fn deadline(deadline_ns: u64) -> Self {
        Self::new(Some(deadline_ns))
    }

    pub(crate) fn shield() -> Self {
        Self::new(None)
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expired.get()
    }

    pub(crate) fn is_shield(&self) -> bool {
        self.deadline_ns.is_none()
    }

    /// The time has come.
    pub(crate) fn expire(&self) {
        if !self.expired.replace(true) {
            self.due.set(true);
            self.wakes.set(true);
        }
    }

    /// Whether a cancelled error that comes out of it is its own doing.
    pub(crate) fn owns_error(&self) -> bool {
        self.reported.get() && !self.overtaken.get()
    }

    /// Whether a wait is not to go on past its deadline: that is to come, or due.
    fn ends_waits(&self) -> bool {
        !self.expired.get() || self.due.get()
    }
}

/// The bounds of one fiber or thread; see the module's head.
#[derive(Default)]
pub(crate) struct Bounds {
    innermost: Cell<Option<NonNull<Bound>>>,
}

impl Bounds {
    pub(crate) const fn new() -> Self {
        Self { innermost: Cell::new(None) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.innermost.get().is_none()
    }

    /// # Safety
    /// `bound` stays where it is, and is in no other list, until it is popped.
    pub(crate) unsafe fn push(&self, bound: &Bound) {
        bound.outer.set(self.innermost.replace(Some(NonNull::from(bound))));
    }

    /// Takes the innermost one out.
    pub(crate) fn pop(&self) {
        let outer = self.iter().next().and_then(|bound| bound.outer.get());
        self.innermost.set(outer);
    }

    /// From the innermost outward. Nothing is pushed or popped meanwhile.
    fn iter(&self) -> impl Iterator<Item = &Bound> {
        // SAFETY: by `push`, what is in the list is alive. The references are used by the methods
        // below only, which neither push nor pop while they have any, nor run code of others.
        let follow = |at: NonNull<Bound>| unsafe { at.as_ref() };
        let first = self.innermost.get().map(follow);
        std::iter::successors(first, move |bound| bound.outer.get().map(follow))
    }

    /// The deadlines inside all shields, from the innermost outward.
    fn visible(&self) -> impl Iterator<Item = &Bound> {
        self.iter().take_while(|bound| !bound.is_shield())
    }

    pub(crate) fn is_shielded(&self) -> bool {
        self.iter().any(Bound::is_shield)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.visible().any(|bound| bound.due.get())
    }

    /// Expires the deadlines that have come by `now_ns`.
    pub(crate) fn expire(&self, now_ns: u64) {
        for bound in self.iter() {
            if bound.deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                bound.expire();
            }
        }
    }

    /// Until when a wait may last that ends at deadlines.
    pub(crate) fn end_of_waits_ns(&self) -> Option<u64> {
        let ends = self.visible().filter(|bound| bound.ends_waits());
        ends.filter_map(|bound| bound.deadline_ns).min()
    }

    /// Until when a `park` may last, which wakes once for each deadline.
    pub(crate) fn end_of_park_ns(&self) -> Option<u64> {
        let wake = self.visible().filter(|bound| !bound.expired.get() || bound.wakes.get());
        wake.filter_map(|bound| bound.deadline_ns).min()
    }

    /// Whether a `park` is to end for a deadline.
    #[inline]
    pub(crate) fn wakes(&self) -> bool {
        !self.is_empty() && self.visible().any(|bound| bound.wakes.get())
    }

    /// As `wakes`, and forgets it.
    #[inline]
    pub(crate) fn take_wakes(&self) -> bool {
        !self.is_empty() && self.visible().fold(false, |any, bound| bound.wakes.take() | any)
    }

    /// An op has reported the request of a handle.
    pub(crate) fn report_request(&self) {
        for bound in self.iter() {
            bound.reported_last.set(false);
            bound.overtaken.set(true);
        }
    }

    /// An op reports the outermost of the deadlines that are visible and due. `false` if there is
    /// none.
    pub(crate) fn report_deadline(&self) -> bool {
        let Some(reported) = self.visible().filter(|bound| bound.due.get()).last() else {
            return false;
        };
        for bound in self.iter() {
            bound.reported_last.set(false);
        }
        for bound in self.iter().take_while(|bound| !std::ptr::eq(*bound, reported)) {
            bound.overtaken.set(true);
        }
        reported.due.set(false);
        reported.reported.set(true);
        reported.reported_last.set(true);
        true
    }

    /// The deadline that was reported last is due again, if its bound has not been left.
    pub(crate) fn unreport(&self) {
        if let Some(bound) = self.iter().find(|bound| bound.reported_last.take()) {
            bound.due.set(true);
            bound.wakes.set(true);
        }
    }
}

impl FiberPtr {
    /// Brings the fiber's `Cancel` up to date with its bounds. By its home worker.
    pub(crate) fn bounds_changed(self) {
        let header = self.header();
        header.cancel.set_bounds(header.bounds.is_shielded(), header.bounds.is_due());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn inside<T>(bounds: &Bounds, bound: &Bound, f: impl FnOnce() -> T) -> T {
        // SAFETY: popped two lines below.
        unsafe { bounds.push(bound) };
        let value = f();
        bounds.pop();
        value
    }

    #[test]
    fn the_outermost_due_deadline_is_reported_and_overtakes_the_others() {
        let bounds = Bounds::new();
        let [a, b, c] = [30, 20, 10].map(Bound::deadline);
        inside(&bounds, &a, || {
            inside(&bounds, &b, || {
                inside(&bounds, &c, || {
                    bounds.expire(9);
                    assert!(!bounds.is_due() && !bounds.report_deadline() && !bounds.take_wakes());
                    assert_eq!(bounds.end_of_waits_ns(), Some(10));
                    bounds.expire(25);
                    assert!(bounds.is_due() && bounds.take_wakes() && !bounds.take_wakes());
                    assert!(bounds.report_deadline());
                    assert!(b.owns_error() && !c.owns_error() && !a.owns_error());
                    // The inner one is still to be reported.
                    assert_eq!(bounds.end_of_waits_ns(), Some(10));
                    assert!(bounds.report_deadline() && !bounds.report_deadline());
                    assert!(!c.owns_error(), "overtaken is overtaken");
                    bounds.expire(29);
                    assert!(!bounds.is_due(), "a deadline expires once");
                    assert_eq!(bounds.end_of_waits_ns(), Some(30));
                });
                bounds.unreport();
                assert!(!bounds.is_due(), "what was reported last is over");
            });
        });
        assert!(bounds.is_empty());
    }

    #[test]
    fn a_shield_hides_what_is_outside_it() {
        let bounds = Bounds::new();
        let [outer, inner] = [10, 20].map(Bound::deadline);
        let shield = Bound::shield();
        inside(&bounds, &outer, || {
            inside(&bounds, &shield, || {
                inside(&bounds, &inner, || {
                    assert!(bounds.is_shielded());
                    bounds.expire(10);
                    assert!(!bounds.is_due() && !bounds.wakes() && !bounds.report_deadline());
                    bounds.expire(20);
                    assert!(bounds.report_deadline() && inner.owns_error());
                });
            });
            assert!(!bounds.is_shielded());
            assert!(bounds.wakes() && bounds.report_deadline());
            bounds.unreport();
            assert!(bounds.is_due());
            bounds.report_request();
            assert!(!outer.owns_error());
        });
    }
}
