//! Options of `walreceiver run` that say whether and how it replays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::replaying::ReplayConfig;
use crate::replay::ReplayLimits;
use crate::replay::options::{seconds, size};

/// Whether and how the mirror is replayed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Replay")]
pub struct RunReplayArgs {
    /// Only receive: leave all replay to the activation. By default WAL is replayed as it comes, so that little is left to do at a
    /// takeover, and the primary is told what is applied: commits there may use synchronous_commit = remote_apply. If replay cannot go
    /// on, receiving does, and the exit code says so at the end.
    #[arg(long)]
    pub no_replay: bool,

    /// Memory for pages.
    #[arg(long, value_name = "SIZE", default_value = "128MB", value_parser = size, conflicts_with = "no_replay")]
    pub cache_size: u64,

    /// Shortest time between restartpoints, in seconds. They are made at checkpoints of the primary.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds, conflicts_with = "no_replay")]
    pub restartpoint_interval: Duration,

    /// Changed pages in memory at which a checkpoint of the primary makes a restartpoint earlier.
    #[arg(long, value_name = "SIZE", default_value = "64MB", value_parser = size, conflicts_with = "no_replay")]
    pub max_dirty: u64,

    /// WAL to keep behind what replay needs after a restart, or "all". What slots of --serve need stays in any case.
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = kept, conflicts_with = "no_replay")]
    pub keep_wal: KeptWal,
}

/// How much of the WAL that replay needs no more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptWal {
    /// All since the base backup.
    All,
    /// So many bytes.
    Bytes(u64),
}

fn kept(text: &str) -> Result<KeptWal, String> {
    if text == "all" {
        return Ok(KeptWal::All);
    }
    size(text).map(KeptWal::Bytes)
}

impl RunReplayArgs {
    /// How to replay; `None` for not at all. `slots` is where a hub's slots are.
    #[must_use]
    pub fn config(&self, slots: &Path) -> Option<ReplayConfig> {
        (!self.no_replay).then(|| ReplayConfig {
            limits: ReplayLimits {
                cache_bytes: usize::try_from(self.cache_size).unwrap_or(usize::MAX),
                restartpoint_interval: self.restartpoint_interval,
                max_dirty_bytes: self.max_dirty,
            },
            keep_wal: match self.keep_wal {
                KeptWal::All => None,
                KeptWal::Bytes(bytes) => Some(bytes),
            },
            slots: PathBuf::from(slots),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wal_or_a_size_is_kept() {
        assert_eq!(kept("all"), Ok(KeptWal::All));
        assert_eq!(kept("64MB"), Ok(KeptWal::Bytes(64 << 20)));
        assert!(kept("some").is_err());
    }
}
