//! Options of `walreceiver run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::replay_args::RunReplayArgs;
use crate::hub::options::HubArgs;

/// Receive WAL into a mirror, for as long as the primary lives.
///
/// Streams from where the mirror stands, checks every record, writes and syncs it, and reports to the primary what is
/// written and what is flushed. Reconnects when the connection is lost, and follows the primary through promotions.
/// Stops cleanly on SIGTERM or SIGINT. Only causes that cannot pass by themselves end it: see the exit codes of
/// `walreceiver --help`.
///
/// To make commits on the primary wait for the mirror, set there: synchronous_standby_names = 'gp_walreceiver'
///
/// With --serve the mirror is a hub for further standbys, which follow it as they follow a server:
///
///   walreceiver run -D DIR --serve 127.0.0.1:5433
///   primary_conninfo = 'host=127.0.0.1 port=5433'    # in a standby that was made from the primary
#[derive(Debug, Args)]
#[command(name = "run")]
pub struct RunArgs {
    /// The mirror directory, made by `walreceiver init`.
    #[arg(short = 'D', long, value_name = "DIR")]
    pub pgdata: PathBuf,

    /// The primary, as a libpq connection string or URI; PG* variables and ~/.pgpass apply. Default: the one that
    /// `init` was given.
    #[arg(long, value_name = "CONNINFO")]
    pub primary: Option<String>,

    /// Replication slot on the primary that keeps WAL for this mirror. Default: the one that `init` made.
    #[arg(short = 'S', long, value_name = "NAME")]
    pub slot: Option<String>,

    /// Longest time between two reports to the primary, in seconds; 0 reports only what is flushed and what is asked.
    #[arg(short = 's', long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub status_interval: Duration,

    /// Silence after which the connection counts as lost, in seconds; at half of it the primary is asked for a sign of
    /// life, so an idle primary is never taken for a dead one. 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub receiver_timeout: Duration,

    /// End with an error where it would wait and connect again.
    #[arg(short = 'n', long)]
    pub no_loop: bool,

    /// Longest wait between two attempts to connect, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub max_wait: Duration,

    /// Serve Prometheus metrics over HTTP on this address, such as 127.0.0.1:9187.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,

    /// Options of replay.
    #[command(flatten)]
    pub replay: RunReplayArgs,

    /// Options of a hub.
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Parses a number of seconds, fractions allowed.
///
/// # Errors
/// A text for the user when it is no number from 0 to a million.
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|value| (0.0..=1e6).contains(value))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds from 0 to 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_fractions_and_nothing_else() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "-1", "ten", "NaN", "inf", "1e7", "10s"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
