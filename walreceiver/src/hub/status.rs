//! [`HubStatus`]: what a hub says of itself and its followers on the status socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use walsender::slot::SlotView;
use walsender::standby::StandbyStatus;
use walstream::sync::SyncRule;
use walstream::types::FullTransactionId;
use walstream::{Lsn, PgTimestamp};

use crate::run::live::lsn_text;

/// A running hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubStatus {
    /// Where it listens.
    pub address: String,
    /// Timeline that is served.
    pub timeline: u32,
    /// End of the WAL that followers are sent: whole records that are flushed.
    #[serde(with = "lsn_text")]
    pub served_lsn: Option<Lsn>,
    /// Start of the WAL that is in memory.
    #[serde(with = "lsn_text")]
    pub memory_from_lsn: Option<Lsn>,
    /// Whether the primary is told what the synchronous followers have.
    pub relay_sync: bool,
    /// Which followers are synchronous; empty for none.
    pub synchronous_standby_names: String,
    /// What the synchronous followers have written, flushed and applied; null until they said so.
    #[serde(with = "lsn_text")]
    pub released_write_lsn: Option<Lsn>,
    /// See [`released_write_lsn`](Self::released_write_lsn).
    #[serde(with = "lsn_text")]
    pub released_flush_lsn: Option<Lsn>,
    /// See [`released_write_lsn`](Self::released_write_lsn).
    #[serde(with = "lsn_text")]
    pub released_replay_lsn: Option<Lsn>,
    /// Those who are connected, by number.
    pub followers: Vec<FollowerStatus>,
    /// Their slots, by name.
    pub slots: Vec<FollowerSlot>,
}

/// A line of `pg_stat_replication`, with its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// Number of the connection.
    pub pid: u32,
    /// User that the client named.
    pub usename: String,
    /// The client's name.
    pub application_name: String,
    /// Address of the client; null over a unix socket.
    pub client_addr: Option<String>,
    /// Its port.
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

/// A follower's slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerSlot {
    /// Its name.
    pub slot_name: String,
    /// Whether it ends with its connection.
    pub temporary: bool,
    /// Number of the connection that uses it.
    pub active_pid: Option<u32>,
    /// What its follower has confirmed.
    #[serde(with = "lsn_text")]
    pub restart_lsn: Option<Lsn>,
    /// Whether its WAL is there; the mirror removes none, so it is `reserved` or `extended`.
    #[serde(default)]
    pub wal_status: Option<String>,
    /// The oldest transaction that its follower needs, as it said in its feedback.
    #[serde(default)]
    pub xmin: Option<u32>,
    /// The oldest that it needs in catalogs.
    #[serde(default)]
    pub catalog_xmin: Option<u32>,
}

impl From<&StandbyStatus> for FollowerStatus {
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

impl From<SlotView> for FollowerSlot {
    fn from(slot: SlotView) -> Self {
        Self {
            slot_name: slot.name,
            temporary: slot.temporary,
            active_pid: slot.active_pid,
            restart_lsn: slot.restart_lsn,
            wal_status: slot.wal_status.map(|status| status.name().to_owned()),
            xmin: slot.horizon.xmin.map(FullTransactionId::xid),
            catalog_xmin: slot.horizon.catalog_xmin.map(FullTransactionId::xid),
        }
    }
}

/// The setting that a rule was made of.
pub(super) fn names_of(rule: &SyncRule) -> String {
    match rule {
        SyncRule::Names(names) => names.to_string(),
        _ => String::new(),
    }
}
