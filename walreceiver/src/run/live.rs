//! [`LiveStatus`]: what a running daemon says of itself, as `walreceiver status` shows it.

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
    /// The hub that serves the mirror, when asked over the socket; null without `--serve`.
    #[serde(default)]
    pub hub: Option<HubStatus>,
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
