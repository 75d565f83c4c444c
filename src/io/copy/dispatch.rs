//! Which readers and writers the kernel can copy from and to.
//!
//! [`copy`](super::copy) takes any reader, as std's does, which may borrow. The compiler's way to
//! treat some types differently is not for stable code, and `Any` is for types that borrow nothing.
//! So the type is asked for with its lifetimes erased, and compared with a list.
//!
//! Invariant.  1. Two types of one `id_of` differ in lifetimes at most. Whoever turns a value of
//! one into a value of the other sees to it that no reference gets to live longer: here by giving
//! out a trait object for as long as the value is borrowed, whose methods return nothing else.

use std::any::TypeId;
use std::io::{BufReader, BufWriter, Read, Take, Write};
use std::marker::PhantomData;

use super::{Sink, Source};
use crate::fs::File;
use crate::io::{PipeReader, PipeWriter, Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock};
use crate::net::unix::UnixStream;
use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf};
use crate::process::{ChildStderr, ChildStdin, ChildStdout};

/// A type's id with all its lifetimes replaced by `'static`.
fn id_of<T: ?Sized>() -> TypeId {
    trait Id {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }

    impl<T: ?Sized> Id for PhantomData<T> {
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }

    let phantom = PhantomData::<T>;
    let object: &dyn Id = &phantom;
    // SAFETY: the object is called once and not kept. It holds nothing, and its method looks at
    // nothing but the type, of which only the lifetimes are not what the bound says: code cannot
    // depend on these.
    let object: &(dyn Id + 'static) = unsafe { std::mem::transmute(object) };
    object.id()
}

macro_rules! among {
    ($value:ident, $id:ident, $way:ident: $($end:ty),* $(,)?) => { $(
        if $id == TypeId::of::<$end>() {
            // SAFETY: by invariant 1 this is the value's type but for its lifetimes, and the trait
            // object lives no longer than the borrow.
            let value = unsafe { &mut *std::ptr::from_mut($value).cast::<$end>() };
            return Some(value);
        }
    )* };
}

macro_rules! sources {
    ($value:ident, $id:ident: $($end:ty),* $(,)?) => { $(
        among!($value, $id, Source: $end, Take<$end>, BufReader<$end>, Take<BufReader<$end>>,
            BufReader<Take<$end>>, &mut Take<$end>, &mut BufReader<$end>);
    )* };
}

/// The reader as one that the kernel can copy from.
pub(super) fn source<R: ?Sized + Read>(reader: &mut R) -> Option<&mut dyn Source> {
    let id = id_of::<R>();
    sources!(reader, id:
        File, &File, &mut File,
        TcpStream, &TcpStream, &mut TcpStream,
        UnixStream, &UnixStream, &mut UnixStream,
        ReadHalf<'static, TcpStream>, &mut ReadHalf<'static, TcpStream>,
        ReadHalf<'static, UnixStream>, &mut ReadHalf<'static, UnixStream>,
        OwnedReadHalf<TcpStream>, &mut OwnedReadHalf<TcpStream>,
        OwnedReadHalf<UnixStream>, &mut OwnedReadHalf<UnixStream>,
        PipeReader, &PipeReader, &mut PipeReader,
        ChildStdout, &mut ChildStdout, ChildStderr, &mut ChildStderr,
        Stdin, &Stdin, &mut Stdin, StdinLock<'static>, &mut StdinLock<'static>,
    );
    None
}

macro_rules! sinks {
    ($value:ident, $id:ident: $($end:ty),* $(,)?) => { $(
        among!($value, $id, Sink: $end, BufWriter<$end>, &mut BufWriter<$end>);
    )* };
}

/// The writer as one that the kernel can copy to.
pub(super) fn sink<W: ?Sized + Write>(writer: &mut W) -> Option<&mut dyn Sink> {
    let id = id_of::<W>();
    sinks!(writer, id:
        File, &File, &mut File,
        TcpStream, &TcpStream, &mut TcpStream,
        UnixStream, &UnixStream, &mut UnixStream,
        WriteHalf<'static, TcpStream>, &mut WriteHalf<'static, TcpStream>,
        WriteHalf<'static, UnixStream>, &mut WriteHalf<'static, UnixStream>,
        OwnedWriteHalf<TcpStream>, &mut OwnedWriteHalf<TcpStream>,
        OwnedWriteHalf<UnixStream>, &mut OwnedWriteHalf<UnixStream>,
        PipeWriter, &PipeWriter, &mut PipeWriter,
        ChildStdin, &ChildStdin, &mut ChildStdin,
        Stdout, &Stdout, &mut Stdout, StdoutLock<'static>, &mut StdoutLock<'static>,
        Stderr, &Stderr, &mut Stderr, StderrLock<'static>, &mut StderrLock<'static>,
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_source<R: Read>(mut reader: R) -> bool {
        source(&mut reader).is_some()
    }

    #[test]
    fn types_are_told_apart() {
        let file = File::open("Cargo.toml").unwrap();
        assert!(is_source(&file));
        assert!(is_source((&file).take(3)));
        assert!(is_source(BufReader::new(&file).take(3)));
        assert!(is_source(&mut BufReader::new(&file)));
        assert!(!is_source((&file).chain(&file)));
        assert!(!is_source(Box::new(&file)));
        let (mut bytes, mut reader): (&[u8], &File) = (b"abc", &file);
        let object: &mut dyn Read = &mut reader;
        assert!(source(object).is_none() && source(&mut bytes).is_none());
        assert!(sink(&mut Vec::new()).is_none() && sink(&mut BufWriter::new(&file)).is_some());
        assert!(is_source(file));
    }

    #[test]
    fn the_streams_of_a_child() {
        use std::process::Stdio;
        let mut cat = crate::process::Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        assert!(sink(&mut to).is_some() && source(&mut from).is_some());
        let mut file = File::open("Cargo.toml").unwrap();
        let len = file.metadata().unwrap().len();
        assert_eq!(crate::io::copy(&mut file, &mut to).unwrap(), len);
        drop(to);
        let mut text = Vec::new();
        assert_eq!(crate::io::copy(&mut from, &mut text).unwrap(), len);
        assert_eq!(text, std::fs::read("Cargo.toml").unwrap());
        assert!(child.wait().unwrap().success());
    }
}
