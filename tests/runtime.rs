use ramie::Runtime;
use std::time::{Duration, Instant};

#[test]
fn run_returns() {
    let rt = Runtime::builder().workers(1).build().unwrap();
    assert_eq!(rt.run(|| 5), 5);
}

#[test]
fn spawn_join_many() {
    for workers in [1, 2, 4] {
        let rt = Runtime::builder().workers(workers).build().unwrap();
        let sum = rt.run(|| {
            let hs: Vec<_> = (0..10_000u64)
                .map(|i| {
                    ramie::spawn(move || {
                        if i % 3 == 0 {
                            ramie::yield_now()
                        }
                        i
                    })
                })
                .collect();
            hs.into_iter().map(|h| h.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 10_000 * 9_999 / 2);
        assert_eq!(rt.metrics().live_fibers, 0);
    }
}

#[test]
fn sleep_sleeps() {
    let rt = Runtime::builder().workers(1).build().unwrap();
    let t = Instant::now();
    rt.run(|| {
        let hs: Vec<_> = (0..100)
            .map(|i| ramie::spawn(move || ramie::sleep(Duration::from_millis(i % 10))))
            .collect();
        for h in hs {
            h.join().unwrap()
        }
    });
    assert!(t.elapsed() >= Duration::from_millis(9));
}

#[test]
fn reads_files() {
    let rt = Runtime::builder().workers(2).build().unwrap();
    let p = std::env::temp_dir().join(format!("ramie-rt-{}", std::process::id()));
    std::fs::write(&p, vec![7u8; 100_000]).unwrap();
    rt.run(|| {
        let hs: Vec<_> = (0..200)
            .map(|_| {
                let p = p.clone();
                ramie::spawn(move || ramie::fs::read(&p).unwrap().len())
            })
            .collect();
        for h in hs {
            assert_eq!(h.join().unwrap(), 100_000)
        }
    });
    std::fs::remove_file(&p).unwrap();
}

#[test]
fn panics_reach_join() {
    let rt = Runtime::builder().workers(2).build().unwrap();
    rt.run(|| {
        let h = ramie::spawn(|| panic!("boom"));
        let e = h.join().unwrap_err();
        assert_eq!(*e.downcast_ref::<&str>().unwrap(), "boom");
    });
}

#[test]
fn external_and_unpark() {
    let rt = Runtime::builder().workers(2).build().unwrap();
    let h = rt.handle();
    let t = std::thread::spawn(move || {
        let f = h
            .spawn(|| {
                ramie::park();
                3
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(5));
        f.fiber().unpark();
        f.join().unwrap()
    });
    assert_eq!(
        rt.run(|| {
            ramie::sleep(Duration::from_millis(20));
            1
        }),
        1
    );
    assert_eq!(t.join().unwrap(), 3);
}

#[test]
fn shutdown_with_io_in_flight() {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    let (r, _w) = std::io::pipe().unwrap();
    let rt = Runtime::builder().workers(2).build().unwrap();
    let f = rt.run(|| {
        let f = ramie::spawn(move || {
            let mut f = ramie::fs::File::from(OwnedFd::from(r));
            let mut b = [0u8; 10];
            let e = f.read(&mut b).unwrap_err();
            assert!(ramie::is_cancelled(&e));
            9
        });
        ramie::sleep(Duration::from_millis(10));
        f
    });
    let t = Instant::now();
    drop(rt);
    assert!(t.elapsed() < Duration::from_secs(5));
    assert_eq!(f.join().unwrap(), 9);
}
