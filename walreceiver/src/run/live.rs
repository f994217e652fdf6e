//! [`LiveStatus`]: what a running daemon says of itself, as `walreceiver status` shows it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use walsender::status::text::lsn_text;
use walstream::Lsn;

use crate::hub::status::HubStatus;

/// Where the daemon stands with its primary. The names are those of `pg_stat_replication.state` where it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiverState {
    /// Proving that the local WAL is whole.
    #[default]
    Starting,
    /// No connection yet, or none any more.
    Connecting,
    /// Streaming WAL that the primary had before.
    Catchup,
    /// Streaming, at the primary's end.
    Streaming,
    /// Finishing.
    Stopping,
}

impl ReceiverState {
    /// The state's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Catchup => "catchup",
            Self::Streaming => "streaming",
            Self::Stopping => "stopping",
        }
    }
}

/// Where the thread stands that replays the mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayState {
    /// Finding where to begin.
    #[default]
    Starting,
    /// Replaying, or waiting for more.
    Replaying,
    /// It cannot go on.
    Failed,
    /// It ended as it was asked to.
    Ended,
}

impl ReplayState {
    /// The state's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Replaying => "replaying",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }
}

/// How the replay of a mirror stands. How far it is, is [`LiveStatus::apply_lsn`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    /// Where the thread stands.
    pub state: ReplayState,
    /// Timeline of the last record that was replayed.
    pub timeline: u32,
    /// Whether the end of the base backup was reached.
    pub consistent: bool,
    /// Where redo begins after a restart, as the last restartpoint has it.
    #[serde(with = "lsn_text")]
    pub redo_lsn: Option<Lsn>,
    /// Restartpoints since the start.
    pub restartpoints: u64,
    /// Records replayed since the start.
    pub records: u64,
    /// When the first WAL was flushed that is not replayed yet, in microseconds since 1970; null when all is.
    pub behind_since_us: Option<i64>,
    /// What stopped it.
    pub error: Option<String>,
    /// When that was, in microseconds since 1970.
    pub error_at_us: Option<i64>,
}

/// One answer on the status socket, a JSON object. LSNs are texts; null where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Process that holds the mirror.
    pub pid: u32,
    /// When it started, in microseconds since 1970.
    pub started_at_us: i64,
    /// Where it stands.
    pub state: ReceiverState,
    /// The primary it talks to or tries to: host and port, or socket path.
    pub primary: String,
    /// `application_name` under which the primary lists it.
    pub application_name: String,
    /// The primary's process that serves it.
    pub sender_pid: Option<i32>,
    /// Slot in use.
    pub slot: Option<String>,
    /// Timeline that is streamed.
    pub timeline: u32,
    /// End of the bytes received.
    #[serde(with = "lsn_text")]
    pub received_lsn: Option<Lsn>,
    /// End of the bytes written to files.
    #[serde(with = "lsn_text")]
    pub write_lsn: Option<Lsn>,
    /// End of the bytes that are durable.
    #[serde(with = "lsn_text")]
    pub flush_lsn: Option<Lsn>,
    /// End of the WAL that is replayed; absent while nothing is replayed.
    #[serde(with = "lsn_text")]
    pub apply_lsn: Option<Lsn>,
    /// The primary's end of WAL, as it last said.
    #[serde(with = "lsn_text")]
    pub server_wal_end: Option<Lsn>,
    /// When the last message arrived, in microseconds since 1970.
    pub last_message_at_us: Option<i64>,
    /// When the primary sent it, by its own clock, in microseconds since 1970.
    pub last_sent_at_us: Option<i64>,
    /// When this mirror last had all that the primary had said it has, in microseconds since 1970.
    pub caught_up_at_us: Option<i64>,
    /// Records checked since the start.
    pub records: u64,
    /// Bytes of WAL received since the start.
    pub bytes: u64,
    /// Connections made again since the start.
    pub reconnects: u64,
    /// The last trouble, if any, and when it happened.
    pub last_error: Option<String>,
    /// When that was, in microseconds since 1970.
    pub last_error_at_us: Option<i64>,
    /// How replay stands; null with `--no-replay`.
    #[serde(default)]
    pub replay: Option<ReplayStatus>,
    /// The hub that serves the mirror, when asked over the socket; null without `--serve`.
    #[serde(default)]
    pub hub: Option<HubStatus>,
}

impl LiveStatus {
    /// How far replay is behind, when the mirror is replayed: bytes that are flushed and not replayed, and since when the first of
    /// them are, as of `now_us`, in microseconds since 1970.
    #[must_use]
    pub fn replay_lag(&self, now_us: i64) -> Option<(u64, Duration)> {
        let replay = self.replay.as_ref()?;
        let bytes = self.flush_lsn?.saturating_sub(self.apply_lsn?);
        let micros = replay.behind_since_us.map_or(0, |since| now_us - since);
        let time = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        Some((bytes, if bytes == 0 { Duration::ZERO } else { time }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_as_written_and_readable() {
        let status = LiveStatus {
            state: ReceiverState::Catchup,
            flush_lsn: Some(Lsn(0x16_0000_0001)),
            ..LiveStatus::default()
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""flush_lsn":"16/1""#), "{text}");
        assert!(text.contains(r#""state":"catchup""#), "{text}");
        assert!(text.contains(r#""apply_lsn":null"#), "{text}");
        assert_eq!(serde_json::from_str::<LiveStatus>(&text).unwrap(), status);
    }
}
