//! [`Pace`]: `MAX_RATE`.

use std::time::{Duration, Instant};

/// Holds a backup to the rate that the client asked for.
pub(super) struct Pace {
    began: Instant,
    bytes_per_second: Option<f64>,
}

impl Pace {
    pub(super) fn new(max_rate_kib: Option<u32>) -> Self {
        Self {
            began: Instant::now(),
            bytes_per_second: max_rate_kib.map(|rate| f64::from(rate) * 1024.0),
        }
    }

    /// Waits until this many bytes may have been sent.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub(super) async fn wait(&self, bytes_done: u64) {
        if let Some(rate) = self.bytes_per_second {
            let due = Duration::from_secs_f64(bytes_done as f64 / rate);
            tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
        }
    }
}
