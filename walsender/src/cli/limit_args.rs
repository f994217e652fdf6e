//! Options that bound what clients may take.

use std::time::Duration;

use clap::Args;
use walsender::SenderConfig;

// No doc comment: it would become that of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Seconds after which a standby that says nothing is taken for dead; after half of it, it is asked. 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(..=2_147_483))]
    wal_sender_timeout: u64,
    /// Seconds that a client may take until it is let in
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    authentication_timeout: u64,
    /// Most clients at a time, standbys and others; further ones are told that there are too many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=262_143))]
    max_connections: u32,
    /// Most clients at a time that are not let in yet; further ones are cut off. They take no place from the others
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=262_143))]
    max_waiting_clients: u32,
}

impl LimitArgs {
    pub(super) fn apply(&self, config: &mut SenderConfig) {
        config.wal_sender_timeout = Some(self.wal_sender_timeout)
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        config.authentication_timeout = Duration::from_secs(self.authentication_timeout);
        // The range is within that of every usize.
        config.max_connections = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        config.max_waiting = usize::try_from(self.max_waiting_clients).unwrap_or(usize::MAX);
    }
}
