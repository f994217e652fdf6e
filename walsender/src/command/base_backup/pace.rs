//! [`Pace`]: `MAX_RATE`.

use std::time::{Duration, Instant};

/// How often in a second it is looked at, at most.
const FREQUENCY: u32 = 8;

/// Holds a backup to the rate that the client asked for. Time in which nothing could be sent is not made up for, so that a
/// client that stood still is not overrun.
///
/// # Source
/// `throttle` in `src/backend/backup/basebackup_throttle.c`.
pub(super) struct Pace {
    /// Bytes that may be sent in the time of one look; `None` for any number.
    sample: Option<u64>,
    /// What was told last.
    bytes_done: u64,
    /// Bytes that no time was taken for yet, less than a sample after each look.
    counted: u64,
    last: Instant,
}

impl Pace {
    pub(super) fn new(max_rate_kib: Option<u32>) -> Self {
        Self {
            sample: max_rate_kib.map(|rate| u64::from(rate) * 1024 / u64::from(FREQUENCY)),
            bytes_done: 0,
            counted: 0,
            last: Instant::now(),
        }
    }

    /// Waits until what was sent may have been, `bytes_done` in all, or since the beginning of an archive.
    pub(super) async fn wait(&mut self, bytes_done: u64) {
        if let Some(wait) = self.due(bytes_done, Instant::now()) {
            tokio::time::sleep(wait).await;
            self.last = Instant::now();
        }
    }

    /// How long to wait; `None` when too little was sent to look at it.
    fn due(&mut self, bytes_done: u64, now: Instant) -> Option<Duration> {
        let before = std::mem::replace(&mut self.bytes_done, bytes_done);
        let sample = self.sample?;
        self.counted += bytes_done.checked_sub(before).unwrap_or(bytes_done);
        let samples = self.counted.checked_div(sample).filter(|n| *n > 0)?;
        self.counted -= samples * sample;
        let least = Duration::from_secs(1) / FREQUENCY;
        let least = least.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX));
        Some(least.saturating_sub(now - self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_lost_time_is_not_made_up_for() {
        let mut pace = Pace::new(Some(32));
        let mut now = pace.last;
        let mut step = |bytes_done, after_ms| {
            now += Duration::from_millis(after_ms);
            let wait = pace.due(bytes_done, now)?;
            now += wait;
            pace.last = now;
            Some(wait.as_millis())
        };
        // Four kB an eighth of a second.
        assert_eq!(step(4095, 0), None);
        assert_eq!(step(4096, 0), Some(125));
        assert_eq!(step(13_000, 20), Some(230));
        assert_eq!(step(16_384, 0), Some(125), "the rest of before counts");
        // The next archive, after a client that stood still.
        assert_eq!(step(8192, 60_000), Some(0));
        assert_eq!(step(16_384, 0), Some(250));
        assert_eq!(Pace::new(None).due(u64::MAX, now), None);
    }
}
