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
    /// Replay WAL onto the mirror as it comes, so that little is left to do at a takeover, and report to the primary what
    /// is applied: commits there may use synchronous_commit = remote_apply. If replay cannot go on, receiving does, and
    /// the exit code says so at the end. A mirror that was replayed may be run without this option again, and activated as
    /// any other.
    #[arg(long)]
    pub replay: bool,

    /// Memory for pages.
    #[arg(long, value_name = "SIZE", default_value = "128MB", value_parser = size, requires = "replay")]
    pub cache_size: u64,

    /// Shortest time between restartpoints, in seconds. They are made at checkpoints of the primary.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds, requires = "replay")]
    pub restartpoint_interval: Duration,

    /// Changed pages in memory at which a checkpoint of the primary makes a restartpoint earlier.
    #[arg(long, value_name = "SIZE", default_value = "64MB", value_parser = size, requires = "replay")]
    pub max_dirty: u64,

    /// After a restartpoint remove the WAL before it, but for so much. What slots of --serve need stays. Default: all WAL
    /// is kept.
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "replay")]
    pub keep_wal: Option<u64>,
}

impl RunReplayArgs {
    /// How to replay; `None` for not at all. `slots` is where a hub's slots are.
    #[must_use]
    pub fn config(&self, slots: &Path) -> Option<ReplayConfig> {
        self.replay.then(|| ReplayConfig {
            limits: ReplayLimits {
                cache_bytes: usize::try_from(self.cache_size).unwrap_or(usize::MAX),
                restartpoint_interval: self.restartpoint_interval,
                max_dirty_bytes: self.max_dirty,
            },
            keep_wal: self.keep_wal,
            slots: PathBuf::from(slots),
        })
    }
}
