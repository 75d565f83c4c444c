//! `ramie::sync::{oneshot, broadcast, watch}`.

mod common;

use common::go;
use ramie::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};
use ramie::sync::{broadcast, oneshot, watch};
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);

contract! {
    fn one_shot() {
        let (tx, rx) = oneshot::channel();
        let receiver = go(move || rx.recv());
        ramie::sleep(SHORT);
        assert!(!tx.is_closed());
        assert_eq!(tx.send(1), Ok(()));
        assert_eq!(receiver(), Ok(1));
        let (tx, rx) = oneshot::channel::<i32>();
        let receiver = go(move || rx.recv());
        ramie::sleep(SHORT);
        drop(tx);
        assert_eq!(receiver(), Err(RecvError));
    }

    fn one_shot_without_waiting() {
        let (tx, mut rx) = oneshot::channel();
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        tx.send(1).unwrap();
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Disconnected));
        let (tx, mut rx) = oneshot::channel();
        rx.close();
        assert!(tx.is_closed());
        assert_eq!(tx.send(1), Err(1));
        assert_eq!(rx.recv(), Err(RecvError));
        let value = Arc::new(());
        let (tx, rx) = oneshot::channel();
        tx.send(Arc::clone(&value)).unwrap();
        drop(rx);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    fn broadcast_to_all() {
        let (tx, rx) = broadcast::channel(16);
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let mut rx = rx.resubscribe();
                go(move || std::iter::from_fn(|| rx.recv().ok()).collect::<Vec<_>>())
            })
            .collect();
        drop(rx);
        (0..10).for_each(|n| assert_eq!(tx.send(n).unwrap(), 3));
        drop(tx);
        for receiver in receivers {
            assert_eq!(receiver(), (0..10).collect::<Vec<_>>());
        }
    }

    fn broadcast_to_one_who_lags() {
        use broadcast::{RecvError, TryRecvError};
        let value = Arc::new(());
        let (tx, mut rx) = broadcast::channel(2);
        let idle = tx.subscribe();
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(rx.recv_timeout(SHORT), Err(TryRecvError::Empty));
        for _ in 0..5 {
            tx.send(Arc::clone(&value)).unwrap();
        }
        assert_eq!(Arc::strong_count(&value), 3, "the channel keeps two");
        assert_eq!((rx.len(), idle.len()), (5, 5));
        assert_eq!(rx.recv(), Err(RecvError::Lagged(3)));
        assert!(rx.recv().is_ok());
        drop(idle);
        assert_eq!(Arc::strong_count(&value), 2, "nobody else wants the one that was received");
        assert!(rx.recv().is_ok() && rx.is_empty());
        assert_eq!(Arc::strong_count(&value), 1);
        drop(rx);
        assert_eq!(Arc::strong_count(&tx.send(Arc::clone(&value)).unwrap_err().0), 2);
        let mut late = tx.subscribe();
        tx.clone().send(Arc::clone(&value)).unwrap();
        drop(tx);
        assert!(late.recv().is_ok());
        assert_eq!(late.recv(), Err(RecvError::Closed));
    }

    fn watching() {
        let (tx, mut rx) = watch::channel(0);
        assert_eq!(rx.has_changed(), Ok(false));
        tx.send(1).unwrap();
        assert_eq!((rx.has_changed(), *rx.borrow(), rx.has_changed()), (Ok(true), 1, Ok(true)));
        assert_eq!((*rx.borrow_and_update(), rx.has_changed()), (1, Ok(false)));
        let mut other = rx.clone();
        let watcher = go(move || other.wait_for(|n| *n >= 10).map(|n| *n));
        for _ in 0..9 {
            ramie::yield_now();
            tx.send_modify(|n| *n += 1);
        }
        assert_eq!(watcher(), Ok(10));
        assert_eq!((rx.changed(), *rx.borrow()), (Ok(()), 10));
        assert!(!tx.send_if_modified(|_| false) && *tx.send_replace(11) == 10);
        let snapshot = tx.borrow();
        drop(tx);
        assert_eq!((rx.changed(), rx.changed()), (Ok(()), Err(RecvError)));
        assert_eq!((*snapshot, *rx.borrow(), rx.has_changed()), (11, 11, Err(RecvError)));
    }

    /// Changes come one after the other, and none is lost.
    fn changing_together() {
        let (tx, rx) = watch::channel(0);
        let changers: Vec<_> = (0..4)
            .map(|_| {
                let tx = tx.clone();
                go(move || {
                    for _ in 0..50 {
                        tx.send_modify(|n| {
                            let before = *n;
                            ramie::yield_now();
                            *n = before + 1;
                        });
                    }
                })
            })
            .collect();
        changers.into_iter().for_each(|changer| changer());
        assert_eq!(*rx.borrow(), 200);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tx.send_modify(|_| std::panic::resume_unwind(Box::new("deliberate")));
        }));
        assert!(panicked.is_err());
        tx.send_modify(|n| *n += 1);
        assert_eq!(*rx.borrow(), 201);
    }
}

#[test]
fn cancelled_waits() {
    let _watchdog = common::watch::dog();
    common::runtime(2).run(|| {
        let (tx, rx) = oneshot::channel::<i32>();
        let fiber = ramie::spawn(move || rx.recv());
        ramie::sleep(SHORT);
        fiber.cancel();
        assert_eq!(fiber.join().unwrap(), Err(RecvError));
        assert_eq!(tx.send(1), Err(1));
        let (_tx, mut rx) = broadcast::channel::<i32>(1);
        let fiber = ramie::spawn(move || rx.recv());
        ramie::sleep(SHORT);
        assert_eq!(fiber.cancel_join().unwrap(), Err(broadcast::RecvError::Closed));
        let (_tx, mut rx) = watch::channel(1);
        let fiber = ramie::spawn(move || rx.changed());
        ramie::sleep(SHORT);
        assert_eq!(fiber.cancel_join().unwrap(), Err(RecvError));
    });
}
