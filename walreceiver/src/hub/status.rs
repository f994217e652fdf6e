//! [`HubStatus`]: what a hub says of itself and its followers on the status socket.

use serde::{Deserialize, Serialize};
use walsender::status::text::lsn_text;
use walsender::status::{ConnectionCounts, SlotLine, StandbyLine};
use walstream::Lsn;

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
    /// Start of the oldest WAL that the mirror has.
    #[serde(with = "lsn_text", default)]
    pub oldest_lsn: Option<Lsn>,
    /// Start of the WAL that is in memory.
    #[serde(with = "lsn_text")]
    pub memory_from_lsn: Option<Lsn>,
    /// Whether the primary is told what the synchronous followers have.
    pub relay_sync: bool,
    /// By which rule followers are synchronous: `off`, `names` or `greenplum`.
    #[serde(default)]
    pub sync_rule: String,
    /// Which followers are synchronous by their names; empty for none, and where the rule ignores names.
    pub synchronous_standby_names: String,
    /// File that the setting is read from.
    #[serde(default)]
    pub synchronous_standby_names_file: Option<String>,
    /// What the synchronous followers have written, flushed and applied; null until they said so.
    #[serde(with = "lsn_text")]
    pub released_write_lsn: Option<Lsn>,
    /// See [`released_write_lsn`](Self::released_write_lsn).
    #[serde(with = "lsn_text")]
    pub released_flush_lsn: Option<Lsn>,
    /// See [`released_write_lsn`](Self::released_write_lsn).
    #[serde(with = "lsn_text")]
    pub released_replay_lsn: Option<Lsn>,
    /// How many clients there are, and were.
    #[serde(default)]
    pub connections: ConnectionCounts,
    /// Those who are connected, by number.
    pub followers: Vec<StandbyLine>,
    /// Their slots, by name.
    pub slots: Vec<SlotLine>,
}
