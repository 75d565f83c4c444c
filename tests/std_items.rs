//! One program for `std` and for `ramie`, with nothing but the paths of its `use` lines changed:
//! what is stable in std and waits, or makes something that does, is here under the same name.

mod common;

macro_rules! all {
    ($what:ident: $($type:ty),* $(,)?) => { $( $what::<$type>(); )* };
}

macro_rules! program {
    ($name:ident, $root:ident) => {
        mod $name {
            use super::common::TempDir;
            use $root::fs::{self, File, OpenOptions};
            use $root::io::{self, BufRead, Read, Seek, Write};
            use $root::io::IsTerminal;
            use $root::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
            use $root::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
            use $root::os::unix::ffi::OsStrExt;
            use $root::os::unix::fs::{
                DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt,
                PermissionsExt,
            };
            use $root::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
            use $root::os::unix::process::{CommandExt, ExitStatusExt};
            use $root::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
            use std::fmt::Debug;
            use std::panic::{RefUnwindSafe, UnwindSafe};
            use std::time::{Duration, SystemTime};

            fn is_plain<T: Send + Sync + UnwindSafe + RefUnwindSafe + Unpin + Debug>() {}
            fn is_descriptor<T: From<OwnedFd> + Into<OwnedFd> + AsFd + AsRawFd>() {}
            fn is_raw<T: FromRawFd + IntoRawFd>() {}
            fn reads<T: Read>() {}
            fn writes<T: Write>() {}
            fn goes_to_a_child<T: Into<Stdio>>() {}

            fn types() {
                all!(is_plain: File, OpenOptions, fs::Metadata, fs::FileType, fs::Permissions,
                    fs::FileTimes, fs::DirBuilder, fs::ReadDir, fs::DirEntry,
                    TcpStream, TcpListener, UdpSocket, UnixStream, UnixListener, UnixDatagram,
                    $root::net::Incoming<'static>, $root::os::unix::net::Incoming<'static>,
                    Child, ChildStdin, ChildStdout, ChildStderr, Stdio, io::PipeReader,
                    io::PipeWriter, io::Stdin, io::Stdout, io::Stderr);
                all!(is_descriptor: File, TcpStream, TcpListener, UdpSocket, UnixStream,
                    UnixListener, UnixDatagram, ChildStdin, ChildStdout, ChildStderr,
                    io::PipeReader, io::PipeWriter);
                all!(is_raw: File, TcpStream, TcpListener, UdpSocket, UnixStream, UnixListener,
                    UnixDatagram, io::PipeReader, io::PipeWriter);
                all!(reads: File, &File, TcpStream, &TcpStream, UnixStream, &UnixStream,
                    ChildStdout, ChildStderr, io::PipeReader, &io::PipeReader, io::Stdin,
                    &io::Stdin, io::StdinLock<'static>);
                all!(writes: File, &File, TcpStream, &TcpStream, UnixStream,
                    &UnixStream, ChildStdin, &ChildStdin, io::PipeWriter, &io::PipeWriter,
                    io::Stdout, &io::Stdout, io::StdoutLock<'static>, io::Stderr, &io::Stderr,
                    io::StderrLock<'static>);
                all!(goes_to_a_child: File, ChildStdin, ChildStdout, ChildStderr, OwnedFd,
                    io::PipeReader, io::PipeWriter, io::Stdout, io::Stderr);
                fn seeks<T: Seek>() {}
                all!(seeks: File, &File);
                fn locked<T: UnwindSafe + Debug + AsFd + AsRawFd>() {}
                all!(locked: io::StdinLock<'static>, io::StdoutLock<'static>,
                    io::StderrLock<'static>);
                fn by_fd<T: AsFd + AsRawFd>() {}
                all!(by_fd: io::Stdin, io::Stdout, io::Stderr);
                fn kind<T: Copy + Eq + std::hash::Hash>() {}
                all!(kind: fs::FileType);
                fn terminal<T: IsTerminal>() {}
                all!(terminal: File, io::Stdin, io::StdinLock<'static>, io::Stdout,
                    io::StdoutLock<'static>, io::Stderr, io::StderrLock<'static>,
                    OwnedFd, std::os::fd::BorrowedFd<'static>, std::fs::File);
                fn copied<T: Clone>() {}
                all!(copied: OpenOptions, fs::Metadata, fs::Permissions);
            }

            fn files(dir: &std::path::Path) -> io::Result<()> {
                let path = dir.join("file");
                fs::write(&path, "0123456789")?;
                let mut options = OpenOptions::new();
                options.read(true).write(true).truncate(false).mode(0o600);
                options.custom_flags(libc_o_noatime()).append(false).create(true);
                let mut file = options.open(&path)?;
                file.write_all_at(b"ab", 2)?;
                let mut buf = [0; 4];
                file.read_exact_at(&mut buf, 1)?;
                assert_eq!(&buf, b"1ab4");
                assert_eq!(file.read_at(&mut buf, 8)? + file.write_at(b"x", 0)?, 3);
                let times = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
                file.set_times(times.set_accessed(SystemTime::UNIX_EPOCH))?;
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9))?;
                let metadata = file.metadata()?;
                assert_eq!((metadata.mtime(), metadata.size(), metadata.nlink()), (9, 10, 1));
                assert!(metadata.modified()? > metadata.accessed()?);
                file.set_permissions(fs::Permissions::from_mode(0o640))?;
                assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o640);
                file.lock()?;
                let other = File::open(&path)?;
                assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
                file.unlock()?;
                other.try_lock_shared()?;
                file.lock_shared()?;
                (file.sync_all()?, file.sync_data()?, file.set_len(5)?);
                file.rewind()?;
                let clone = file.try_clone()?;
                let mut text = String::new();
                (&clone).read_to_string(&mut text)?;
                assert_eq!(text, "x1ab4");
                assert!(!clone.is_terminal());
                let _lines = io::StdinLock::<'static>::lines;
                $root::os::unix::fs::symlink(&path, dir.join("link"))?;
                assert!(fs::symlink_metadata(dir.join("link"))?.file_type().is_symlink());
                $root::os::unix::fs::chown(&path, None, None)?;
                $root::os::unix::fs::lchown(dir.join("link"), None, None)?;
                $root::os::unix::fs::fchown(&file, None, None)?;
                let _chroot = $root::os::unix::fs::chroot::<&str>;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("a/b"))?;
                for entry in fs::read_dir(dir)? {
                    let entry = entry?;
                    let kind = entry.file_type()?;
                    assert!(!kind.is_fifo() && !kind.is_socket() && !kind.is_block_device());
                    assert!(!kind.is_char_device() && entry.ino() != 0);
                    assert!(!entry.file_name().as_bytes().is_empty());
                    let same = fs::symlink_metadata(entry.path())?;
                    assert_eq!(entry.metadata()?.dev(), same.dev());
                    assert_eq!(entry.path().parent(), Some(dir));
                }
                fs::hard_link(&path, dir.join("other"))?;
                fs::rename(dir.join("other"), dir.join("third"))?;
                fs::copy(dir.join("third"), dir.join("fourth"))?;
                assert_eq!(fs::read_link(dir.join("link"))?, path);
                assert_eq!(fs::canonicalize(dir.join("link"))?, fs::canonicalize(&path)?);
                assert!(fs::exists(&path)? && File::create_new(&path).is_err());
                fs::create_dir(dir.join("c"))?;
                fs::create_dir_all(dir.join("c/d"))?;
                (fs::remove_dir(dir.join("c/d"))?, fs::remove_dir_all(dir.join("c"))?);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                assert_eq!((fs::read(&path)?.len(), fs::read_to_string(&path)?.len()), (5, 5));
                fs::remove_file(&path)
            }

            fn libc_o_noatime() -> i32 {
                0o1000000
            }

            fn sockets(dir: &std::path::Path) -> io::Result<()> {
                let addr = "127.0.0.1:0".to_socket_addrs()?.next().unwrap();
                let socket = UdpSocket::bind(addr)?;
                socket.set_broadcast(true)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(3)?;
                socket.set_ttl(9)?;
                let local = socket.local_addr()?;
                socket.send_to(b"a", local)?;
                assert_eq!((socket.peek_from(&mut [0; 9])?.0, socket.peek(&mut [0; 9])?), (1, 1));
                assert_eq!(socket.recv_from(&mut [0; 9])?, (1, local));
                socket.connect(local)?;
                assert_eq!((socket.send(b"bc")?, socket.recv(&mut [0; 9])?), (2, 2));
                assert!(socket.broadcast()? && !socket.multicast_loop_v4()?);
                assert_eq!((socket.multicast_ttl_v4()?, socket.ttl()?), (3, 9));
                assert_eq!(socket.peer_addr()?, local);
                socket.set_read_timeout(Some(Duration::from_millis(1)))?;
                socket.set_write_timeout(socket.write_timeout()?)?;
                assert!(socket.recv(&mut [0]).is_err() && socket.read_timeout()?.is_some());
                let group = [224, 0, 0, 251].into();
                let _ = socket.join_multicast_v4(&group, &[127, 0, 0, 1].into());
                let _ = socket.leave_multicast_v4(&group, &[127, 0, 0, 1].into());
                let _ = socket.multicast_loop_v6().and_then(|on| socket.set_multicast_loop_v6(on));
                let _join = (UdpSocket::join_multicast_v6, UdpSocket::leave_multicast_v6);
                assert!(socket.take_error()?.is_none() && socket.try_clone().is_ok());

                let listener = TcpListener::bind(addr)?;
                let stream = TcpStream::connect_timeout(
                    &listener.local_addr()?,
                    Duration::from_secs(60),
                )?;
                let mut peer = listener.incoming().next().unwrap()?;
                stream.set_nodelay(true)?;
                assert!(stream.nodelay()? && listener.ttl()? > 0 && stream.ttl()? > 0);
                peer.write_all(b"abc")?;
                let mut buf = [0; 3];
                while stream.peek(&mut buf)? != 3 {}
                (&stream).read_exact(&mut buf)?;
                stream.shutdown($root::net::Shutdown::Both)?;
                assert_eq!(peer.read(&mut buf)?, 0);

                let path = dir.join("socket");
                let listener = UnixListener::bind(&path)?;
                let (a, b) = UnixStream::pair()?;
                a.set_read_timeout(Some(Duration::from_secs(60)))?;
                let stream = UnixStream::connect(&path)?;
                let accepted = (&listener).into_iter().next().unwrap()?;
                drop((accepted, stream, a.try_clone()?, b.local_addr()?, b.peer_addr()?));
                let named = SocketAddr::from_pathname(dir.join("datagram"))?;
                let x = UnixDatagram::bind_addr(&named)?;
                let y = UnixDatagram::unbound()?;
                y.connect_addr(&named)?;
                (y.send(b"q")?, y.send_to_addr(b"r", &named)?);
                assert_eq!((x.recv(&mut buf)?, x.recv_from(&mut buf)?.0), (1, 1));
                use $root::os::linux::net::{SocketAddrExt, TcpStreamExt};
                let name = dir.as_os_str().as_bytes();
                let name = SocketAddr::from_abstract_name(name)?;
                let listener = UnixListener::bind_addr(&name)?;
                drop((UnixStream::connect_addr(&name)?, listener.accept()?));
                peer.set_quickack(peer.quickack()?)
            }

            fn processes(dir: &std::path::Path) -> io::Result<()> {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $0 $A; cat; pwd >&2; kill -9 $$"]).arg("zero");
                command.env_clear().env("A", "b").envs([("C", "d")]).env_remove("C");
                command.env("PATH", std::env::var_os("PATH").unwrap()).current_dir(dir);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.process_group(0).arg0("name");
                // SAFETY: it does nothing.
                unsafe { command.pre_exec(|| Ok(())) };
                assert_eq!((command.get_program(), command.get_args().len()), ("sh".as_ref(), 3));
                assert!(command.get_current_dir().is_some() && command.get_envs().len() > 0);
                let mut child = command.spawn()?;
                assert!(child.id() != 0);
                child.stdin.take().unwrap().write_all(b"in")?;
                let output = child.wait_with_output()?;
                assert_eq!(output.stdout, b"zero b\nin");
                assert_eq!((output.status.signal(), output.status.code()), (Some(9), None));
                assert!(!output.status.core_dumped() && output.status.stopped_signal().is_none());
                assert_eq!(output.status, $root::process::ExitStatus::from_raw(9));
                let mut first = Command::new("echo");
                let mut first = first.arg("piped").stdout(Stdio::piped()).spawn()?;
                let from = Stdio::from(first.stdout.take().unwrap());
                let second = Command::new("cat").stdin(from).output()?;
                assert_eq!(second.stdout, b"piped\n");
                first.wait()?;
                let (reader, writer) = io::pipe()?;
                let mut command = Command::new("echo");
                command.arg("out").stdout(writer).stderr(Stdio::inherit());
                let mut child = command.spawn()?;
                drop(command); // and the writing end with it
                assert_eq!(io::read_to_string(reader)?, "out\n");
                while child.try_wait()?.is_none() {
                    std::thread::yield_now();
                }
                let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
                child.kill()?;
                assert!(!child.wait()?.success());
                assert!(Command::new("true").status()?.success());
                assert!(Command::new("/no/such/program").exec().raw_os_error().is_some());
                let _ids = (Command::uid, Command::gid, $root::os::unix::process::parent_id());
                Ok(())
            }

            pub(crate) fn run() {
                types();
                let dir = TempDir::new();
                let path = std::fs::canonicalize(dir.path()).unwrap();
                files(&path).unwrap();
                sockets(&path).unwrap();
                processes(&path).unwrap();
            }
        }
    };
}

/// What is for fibers here, under the names that it has for threads.
macro_rules! threads {
    ($name:ident, $root:ident) => {
        mod $name {
            use std::panic::{RefUnwindSafe, UnwindSafe};
            use std::time::Duration;
            use $root::thread::{self, JoinHandle, Scope, ScopedJoinHandle, Thread, ThreadId};

            fn is_plain<T: Send + Sync + Unpin + std::fmt::Debug>() {}
            fn is_safe<T: UnwindSafe + RefUnwindSafe>() {}

            fn start<'scope>(s: &'scope Scope<'scope, '_>) -> ScopedJoinHandle<'scope, ThreadId> {
                s.spawn(|| thread::current().id())
            }

            pub(crate) fn run() {
                all!(is_plain: Thread, ThreadId, JoinHandle<u32>, ScopedJoinHandle<'static, u32>);
                all!(is_safe: Thread, ThreadId);
                let me: Thread = thread::current();
                let builder = thread::Builder::new().name("named".into()).stack_size(1 << 20);
                let named = builder.spawn(move || {
                    thread::park();
                    thread::sleep(Duration::from_millis(1));
                    thread::yield_now();
                    me.unpark();
                    thread::current().name().map(String::from)
                });
                let named = named.unwrap();
                let id = named.thread().id();
                assert_eq!(named.thread().name(), Some("named"));
                named.thread().unpark();
                thread::park_timeout(Duration::from_secs(600));
                assert_eq!(named.join().unwrap().as_deref(), Some("named"));
                let result: thread::Result<u32> = thread::spawn(|| 7).join();
                assert_eq!(result.unwrap(), 7);
                let mut counts = [1, 2];
                thread::scope(|s| {
                    for count in &mut counts {
                        s.spawn(|| *count += 1);
                    }
                    let started = start(s);
                    let theirs = started.thread().id();
                    assert!(theirs != id);
                    assert_eq!(started.join().unwrap(), theirs);
                    let builder = thread::Builder::new();
                    assert!(!builder.spawn_scoped(s, thread::panicking).unwrap().join().unwrap());
                });
                assert_eq!(counts, [2, 3]);
                let handle = thread::spawn(|| ());
                while !handle.is_finished() {
                    thread::yield_now();
                }
                assert!(thread::available_parallelism().unwrap().get() > 0);
            }
        }
    };
}

threads!(threads_of_std, std);
threads!(fibers_of_ramie, ramie);

#[test]
fn std_has_threads() {
    threads_of_std::run();
}

#[test]
fn the_same_with_fibers() {
    for workers in [1, 2] {
        common::runtime(workers).run(fibers_of_ramie::run);
    }
}

/// All of a prelude at once, for both files.
#[test]
fn a_prelude() {
    use ramie::os::unix::prelude::*;
    let file = ramie::fs::File::open("Cargo.toml").unwrap();
    let ours = (file.metadata().unwrap().ino(), file.as_fd().as_raw_fd() >= 0);
    let file = std::fs::File::open("Cargo.toml").unwrap();
    assert_eq!(ours, (file.metadata().unwrap().ino(), file.as_fd().as_raw_fd() >= 0));
    let mut command = ramie::process::Command::new("sh");
    assert!(command.arg0("x").args(["-c", "true"]).status().unwrap().signal().is_none());
}

program!(with_std, std);
program!(with_ramie, ramie);

#[test]
fn std_says_so_too() {
    with_std::run();
}

contract! {
    fn the_same_program() {
        with_ramie::run();
    }
}
