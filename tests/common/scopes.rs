//! What the tests of structured concurrency share.

use super::{eventually, runtime, watch};
use std::any::Any;
use std::os::fd::OwnedFd;

/// Runs a body as the main fiber of one worker and of two, and sees that nothing is left.
pub fn on_one_and_two(body: impl Fn(usize)) {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        rt.run(|| body(workers));
        eventually("no fiber is left", || rt.tick() == 0 && rt.metrics().live_fibers == 0);
    }
}

/// The text of a panic.
pub fn text(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<&str>() {
        Ok(text) => text.to_string(),
        Err(panic) => *panic.downcast::<String>().expect("a text"),
    }
}

/// A pipe, read end first.
pub fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// A pseudorandom sequence: a counter whose values are scrambled.
pub struct Rng(pub u64);

impl Rng {
    /// From the seed in `RAMIE_SEED`, or else from the time; it is printed.
    pub fn from_env() -> Self {
        let seed = std::env::var("RAMIE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64
        });
        eprintln!("RAMIE_SEED={seed}");
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x = (x ^ (x >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x ^ (x >> 32)) % end
    }
}
