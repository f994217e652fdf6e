//! Options of `walreceiver replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use walstream::types::TransactionId;
use walstream::{Lsn, PgTimestamp, TimelineId};

use super::target::{Target, TargetAction, TargetPoint};

/// Replay WAL onto a data directory, as PostgreSQL's recovery does, without PostgreSQL.
///
/// The directory is a base backup, or one that was replayed before, or of a standby that is stopped. Replay goes on up to the target, and
/// leaves the directory as a standby's that was shut down there: PostgreSQL can start on it, or replay go on. With
/// --target-action promote it becomes a primary's. It may be killed at any time, and resumes.
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReplayArgs {
    /// The data directory.
    #[arg(short = 'D', long = "directory", value_name = "DIR", env = "PGDATA")]
    pub directory: PathBuf,

    /// Where WAL is: a directory or URL (file://, s3://, gs://, az://) with segments, plain, compressed or .partial.
    /// Default: the directory's pg_wal.
    #[arg(long, value_name = "DIR|URL")]
    pub wal: Option<String>,

    /// Timeline whose history to follow. Default: the newest there is.
    #[arg(short = 't', long, value_name = "TLI", value_parser = timeline)]
    pub timeline: Option<TimelineId>,

    /// End with the first record that starts at this LSN or behind it.
    #[arg(long, value_name = "LSN", group = "target")]
    pub target_lsn: Option<Lsn>,

    /// End before the first commit or rollback later than this time, in RFC 3339.
    #[arg(long, value_name = "TIME", group = "target", value_parser = time)]
    pub target_time: Option<PgTimestamp>,

    /// End with the commit or rollback of this transaction.
    #[arg(long, value_name = "XID", group = "target")]
    pub target_xid: Option<TransactionId>,

    /// End with this restore point (pg_create_restore_point).
    #[arg(long, value_name = "NAME", group = "target")]
    pub target_name: Option<String>,

    /// End as soon as the data is consistent.
    #[arg(long, group = "target")]
    pub target_immediate: bool,

    /// Leave the record at the target out.
    #[arg(long, requires = "target")]
    pub exclusive: bool,

    /// What to do at the target: leave the directory as a standby's that was shut down there, or end recovery, so that PostgreSQL
    /// starts on it as a primary, on a new timeline, with nothing to recover.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub target_action: TargetAction,

    /// Memory for pages.
    #[arg(long, value_name = "SIZE", default_value = "128MB", value_parser = size)]
    pub cache_size: u64,

    /// Shortest time between restartpoints, in seconds. They are made at checkpoints of the primary.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub restartpoint_interval: Duration,

    /// Changed pages in memory at which a checkpoint of the primary makes a restartpoint earlier.
    #[arg(long, value_name = "SIZE", default_value = "64MB", value_parser = size)]
    pub max_dirty: u64,

    /// Compare each page with the primary's, which WAL has beside changes when wal_consistency_checking is on there.
    /// Stop at the first that differs.
    #[arg(long)]
    pub check_consistency: bool,

    /// Print what was done as a JSON object, and no progress.
    #[arg(long)]
    pub json: bool,

    /// Print no progress and no summary.
    #[arg(short, long)]
    pub quiet: bool,
}

const AFTER_HELP: &str = "\
Examples:
  walreceiver replay -D /srv/restored --wal s3://bucket/wal
  walreceiver replay -D /srv/restored --wal /srv/archive --target-time 2026-11-25T12:00:00Z --target-action promote";

impl ReplayArgs {
    /// Where replay ends.
    #[must_use]
    pub fn target(&self) -> Target {
        let point = if self.target_immediate {
            TargetPoint::Consistency
        } else {
            self.target_lsn
                .map(TargetPoint::Lsn)
                .or(self.target_time.map(TargetPoint::Time))
                .or(self.target_xid.map(TargetPoint::Xid))
                .or(self.target_name.clone().map(TargetPoint::Name))
                .unwrap_or_default()
        };
        Target {
            point,
            exclusive: self.exclusive,
        }
    }
}

fn timeline(text: &str) -> Result<TimelineId, String> {
    match text.parse() {
        Ok(TimelineId(0)) | Err(_) => Err("a timeline is a number from 1 on".to_owned()),
        Ok(timeline) => Ok(timeline),
    }
}

fn time(text: &str) -> Result<PgTimestamp, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    let time = std::time::SystemTime::from(time);
    Ok(PgTimestamp::from(time))
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Ok(Duration::from_secs(seconds))
}

/// A size as in PostgreSQL's settings: a number, and kB, MB or GB of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|byte: char| byte.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        other => return Err(format!("unit \"{other}\" is none of B, kB, MB, GB, TB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "not a size".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_postgresql_settings() {
        for (text, expected) in [
            ("0", Some(0)),
            ("8192", Some(8192)),
            ("64MB", Some(64 << 20)),
            ("1GB", Some(1 << 30)),
            ("1mb", None),
            ("MB", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
