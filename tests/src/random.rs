//! [`Random`]: numbers that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A generator of numbers whose seed is printed, so that a failure can be repeated with the variable `WALSTREAM_SEED`.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A seed from the environment, or from the clock; printed.
    #[must_use]
    pub fn seeded() -> Self {
        let given = std::env::var("WALSTREAM_SEED").ok();
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |now| u64::from(now.subsec_nanos()));
        let seed = given.and_then(|text| text.parse().ok()).unwrap_or(clock);
        eprintln!("WALSTREAM_SEED={seed}");
        Self { state: seed }
    }

    /// The next number: SplitMix64.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A duration below `most`.
    pub fn duration(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next() % most)
    }
}
