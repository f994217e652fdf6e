//! [`StandbyLine`], a line of `pg_stat_replication`, as status commands show it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use walstream::{Lsn, PgTimestamp};

use super::table::Table;
use super::text::{interval_us, lsn_or_empty, lsn_text, printable, rfc3339_us};
use crate::standby::StandbyStatus;

/// A line of `pg_stat_replication`, with its names. Null is not known.
///
/// # Source
/// `pg_stat_replication` in `src/backend/catalog/system_views.sql`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyLine {
    /// Number of the connection.
    pub pid: u32,
    /// User that the client named.
    pub usename: String,
    /// The client's name.
    pub application_name: String,
    /// Address of the client; null over a unix socket.
    pub client_addr: Option<String>,
    /// Always null: no names are looked up, as in PostgreSQL without `log_hostname`.
    #[serde(default)]
    pub client_hostname: Option<String>,
    /// Its port; null over a unix socket, of which PostgreSQL says -1.
    pub client_port: Option<u16>,
    /// When the connection began, in microseconds since 1970.
    pub backend_start_us: i64,
    /// The oldest transaction that it needs.
    pub backend_xmin: Option<u32>,
    /// What is done for it.
    pub state: String,
    /// End of the WAL that it was sent.
    #[serde(with = "lsn_text")]
    pub sent_lsn: Option<Lsn>,
    /// End of the WAL that it has written.
    #[serde(with = "lsn_text")]
    pub write_lsn: Option<Lsn>,
    /// End of the WAL that it has flushed.
    #[serde(with = "lsn_text")]
    pub flush_lsn: Option<Lsn>,
    /// End of the WAL that it has replayed.
    #[serde(with = "lsn_text")]
    pub replay_lsn: Option<Lsn>,
    /// How long WAL took to be written there, in microseconds.
    pub write_lag_us: Option<u64>,
    /// How long WAL took to be flushed there, in microseconds.
    pub flush_lag_us: Option<u64>,
    /// How long WAL took to be replayed there, in microseconds.
    pub replay_lag_us: Option<u64>,
    /// Its place among those that may be synchronous, from 1; 0 when it never is.
    pub sync_priority: u32,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: String,
    /// Its clock when it sent its last status update, in microseconds since 1970.
    pub reply_time_us: Option<i64>,
}

const NAMES: [&str; 19] = [
    "pid",
    "usename",
    "application_name",
    "client_addr",
    "client_hostname",
    "client_port",
    "backend_start",
    "backend_xmin",
    "state",
    "sent_lsn",
    "write_lsn",
    "flush_lsn",
    "replay_lsn",
    "write_lag",
    "flush_lag",
    "replay_lag",
    "sync_priority",
    "sync_state",
    "reply_time",
];

/// The standbys as a table; what is not known is empty.
#[must_use]
pub fn standby_table(standbys: &[StandbyLine]) -> Table<19> {
    Table::new(NAMES).with_rows(standbys.iter().map(StandbyLine::cells))
}

impl StandbyLine {
    fn cells(&self) -> [String; 19] {
        let lag = |us: Option<u64>| us.map(interval_us).unwrap_or_default();
        // As PostgreSQL has it for unix sockets.
        let port = self
            .client_port
            .map_or_else(|| "-1".to_owned(), |port| port.to_string());
        [
            self.pid.to_string(),
            printable(&self.usename),
            printable(&self.application_name),
            self.client_addr.clone().unwrap_or_default(),
            self.client_hostname.clone().unwrap_or_default(),
            port,
            rfc3339_us(self.backend_start_us),
            self.backend_xmin
                .map(|xmin| xmin.to_string())
                .unwrap_or_default(),
            self.state.clone(),
            lsn_or_empty(self.sent_lsn),
            lsn_or_empty(self.write_lsn),
            lsn_or_empty(self.flush_lsn),
            lsn_or_empty(self.replay_lsn),
            lag(self.write_lag_us),
            lag(self.flush_lag_us),
            lag(self.replay_lag_us),
            self.sync_priority.to_string(),
            self.sync_state.clone(),
            self.reply_time_us.map(rfc3339_us).unwrap_or_default(),
        ]
    }
}

impl From<&StandbyStatus> for StandbyLine {
    fn from(standby: &StandbyStatus) -> Self {
        let micros = |lag: Option<Duration>| {
            lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX))
        };
        Self {
            pid: standby.pid,
            usename: standby.user.clone(),
            application_name: standby.application_name.clone(),
            client_addr: standby
                .client_address
                .map(|address| address.ip().to_string()),
            client_hostname: None,
            client_port: standby.client_address.map(|address| address.port()),
            backend_start_us: PgTimestamp::from(standby.connected_at).unix_us(),
            backend_xmin: standby.xmin,
            state: standby.state.name().to_owned(),
            sent_lsn: standby.sent_lsn.valid(),
            write_lsn: standby.write_lsn.valid(),
            flush_lsn: standby.flush_lsn.valid(),
            replay_lsn: standby.apply_lsn.valid(),
            write_lag_us: micros(standby.write_lag),
            flush_lag_us: micros(standby.flush_lag),
            replay_lag_us: micros(standby.apply_lag),
            sync_priority: standby.sync_priority,
            sync_state: standby.sync_state.name().to_owned(),
            reply_time_us: standby.reply_time.map(PgTimestamp::unix_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_in_columns() {
        let standby = StandbyLine {
            pid: 7,
            application_name: "a\x1b[2J".to_owned(),
            state: "streaming".to_owned(),
            flush_lsn: Some(Lsn(0x16_0000_0001)),
            write_lag_us: Some(3_661_000_001),
            sync_state: "async".to_owned(),
            ..StandbyLine::default()
        };
        let text = standby_table(&[standby.clone(), standby]).lines();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let at = |name: &str| lines[0].find(name).unwrap();
        assert!(lines[2][at("flush_lsn")..].starts_with("16/1 "), "{text}");
        assert!(
            lines[2][at("write_lag")..].starts_with("01:01:01.000001"),
            "{text}"
        );
        assert!(
            lines[2][at("application_name")..].starts_with("a?[2J "),
            "{text}"
        );
    }
}
