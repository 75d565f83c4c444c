//! Random numbers from a seed.

use std::time::Duration;

/// A pseudorandom sequence: a counter whose values are scrambled.
#[derive(Clone)]
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

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x = (x ^ (x >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 32)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A time below so many microseconds.
    pub fn micros(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end))
    }
}
