//! Who is first?
#![forbid(unsafe_code)]

use super::try_scope::{TryScope, try_scope};

/// Runs all of `racers` at the same time, each on a fiber of its own, and returns the result of the
/// one that ends first. The others are asked to end, and waited for.
///
/// `racers` is a tuple, an array, or a [`Vec`] of closures that return the same type. They may
/// borrow from the caller, and may run on any worker.
///
/// The first to end wins, whatever its result says. The request to the others is that of
/// [`JoinHandle::cancel`](crate::JoinHandle::cancel): the operation that they wait in, or else
/// their next one, fails. Those that have not started by then never do. What the others return is
/// dropped, also what one of them has finished in the same moment; where that must not be lost, let
/// the closures put it somewhere, or use [`try_scope`](crate::try_scope()) and join handles.
///
/// # Panics
/// If a racer panics, the others are asked to end, and the panic goes on in the caller, even if
/// there is a result. If there are no racers. Outside of a runtime, as [`spawn`](crate::spawn).
///
/// # Cancellation
/// A request to the calling fiber is passed on to the racers.
///
/// # Examples
/// ```
/// use std::io::Read;
/// use std::os::fd::OwnedFd;
/// use std::time::Duration;
///
/// ramie::Runtime::new()?.run(|| {
///     let (reader, _writer) = std::io::pipe()?;
///     let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
///     let mut byte = [0];
///     let first = ramie::race((
///         || reader.read(&mut byte).map(|_| "a byte"),
///         || {
///             ramie::sleep(Duration::from_millis(5));
///             Ok("nobody writes")
///         },
///     ))?;
///     assert_eq!(first, "nobody writes");
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn race<'env, R>(racers: R) -> R::Output
where
    R: Race + 'env,
{
    // The end of the first is the "failure" that has the others asked to end.
    let result = try_scope::<'env, _, _, _>(|s| {
        racers.start(s);
        Ok(())
    });
    match result {
        Err(first) => first,
        Ok(()) => panic!("ramie::race was called with no racers: nobody can be first"),
    }
}

/// What [`race`] takes: closures that return the same type, as a tuple of two to eight, an array,
/// or a [`Vec`]. Implemented here only.
pub trait Race: sealed::Sealed {
    /// What each of them returns.
    type Output: Send;

    #[doc(hidden)]
    fn start<'scope>(self, s: &'scope TryScope<'scope, '_, Self::Output>)
    where
        Self: 'scope;
}

mod sealed {
    pub trait Sealed {}
}

fn start<'scope, F, T>(s: &'scope TryScope<'scope, '_, T>, racer: F)
where
    F: FnOnce() -> T + Send + 'scope,
    T: Send + 'scope,
{
    s.spawn(move || if s.has_failed() { Ok(()) } else { Err(racer()) });
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<T, $($name),+> sealed::Sealed for ($($name,)+)
        where
            $($name: FnOnce() -> T + Send,)+
        {
        }

        impl<T, $($name),+> Race for ($($name,)+)
        where
            T: Send,
            $($name: FnOnce() -> T + Send,)+
        {
            type Output = T;

            fn start<'scope>(self, s: &'scope TryScope<'scope, '_, T>)
            where
                Self: 'scope,
            {
                #[expect(non_snake_case, reason = "named like their types")]
                let ($($name,)+) = self;
                $(start(s, $name);)+
            }
        }
    };
}
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

macro_rules! lists {
    ($([$($n:tt)*] $list:ty;)+) => {$(
        impl<T, F: FnOnce() -> T + Send $($n)*> sealed::Sealed for $list {}

        impl<T: Send, F: FnOnce() -> T + Send $($n)*> Race for $list {
            type Output = T;

            fn start<'scope>(self, s: &'scope TryScope<'scope, '_, T>)
            where
                Self: 'scope,
            {
                self.into_iter().for_each(|racer| start(s, racer));
            }
        }
    )+};
}
lists! {
    [] Vec<F>;
    [, const N: usize] [F; N];
}
