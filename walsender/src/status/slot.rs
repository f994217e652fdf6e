//! [`SlotLine`], a line of `pg_replication_slots`, as status commands show it.

use serde::{Deserialize, Serialize};
use walstream::Lsn;
use walstream::types::FullTransactionId;

use super::table::Table;
use super::text::{lsn_or_empty, lsn_text};
use crate::slot::SlotView;

/// A line of `pg_replication_slots`, with its names. Null is not known.
///
/// # Source
/// `pg_replication_slots` in `src/backend/catalog/system_views.sql`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLine {
    /// Its name.
    pub slot_name: String,
    /// Whether it ends with its connection.
    pub temporary: bool,
    /// Whether somebody uses it.
    #[serde(default)]
    pub active: bool,
    /// Number of the connection that uses it.
    pub active_pid: Option<u32>,
    /// The oldest transaction that its standby needs, as it said in its feedback.
    #[serde(default)]
    pub xmin: Option<u32>,
    /// The oldest that it needs in catalogs.
    #[serde(default)]
    pub catalog_xmin: Option<u32>,
    /// What its standby has confirmed.
    #[serde(with = "lsn_text")]
    pub restart_lsn: Option<Lsn>,
    /// Whether the WAL that it needs is there: `reserved`, `extended`, `unreserved` or `lost`; null for a slot that needs
    /// none.
    #[serde(default)]
    pub wal_status: Option<String>,
    /// Bytes of WAL that can be written before it may be lost; null where slots may keep any amount.
    #[serde(default)]
    pub safe_wal_size: Option<i64>,
    /// Bytes from where WAL is kept for it to the end of WAL.
    #[serde(default)]
    pub retained_bytes: Option<u64>,
}

const NAMES: [&str; 11] = [
    "slot_name",
    "slot_type",
    "temporary",
    "active",
    "active_pid",
    "xmin",
    "catalog_xmin",
    "restart_lsn",
    "wal_status",
    "safe_wal_size",
    "retained_bytes",
];

/// The slots as a table; what is not known is empty.
#[must_use]
pub fn slot_table(slots: &[SlotLine]) -> Table<11> {
    Table::new(NAMES).with_rows(slots.iter().map(SlotLine::cells))
}

impl SlotLine {
    /// The line of a slot whose status was judged; WAL ends at `end`.
    #[must_use]
    pub fn of(slot: SlotView, end: Lsn) -> Self {
        Self {
            active: slot.active_pid.is_some(),
            wal_status: slot.wal_status.map(|status| status.name().to_owned()),
            safe_wal_size: slot.safe_wal_size,
            retained_bytes: slot.retained_from.map(|lsn| end.saturating_sub(lsn)),
            slot_name: slot.name,
            temporary: slot.temporary,
            active_pid: slot.active_pid,
            xmin: slot.horizon.xmin.map(FullTransactionId::xid),
            catalog_xmin: slot.horizon.catalog_xmin.map(FullTransactionId::xid),
            restart_lsn: slot.restart_lsn,
        }
    }

    fn cells(&self) -> [String; 11] {
        let truth = |value: bool| if value { "t" } else { "f" }.to_owned();
        let number = |value: Option<String>| value.unwrap_or_default();
        [
            self.slot_name.clone(),
            "physical".to_owned(),
            truth(self.temporary),
            truth(self.active),
            number(self.active_pid.map(|pid| pid.to_string())),
            number(self.xmin.map(|xid| xid.to_string())),
            number(self.catalog_xmin.map(|xid| xid.to_string())),
            lsn_or_empty(self.restart_lsn),
            self.wal_status.clone().unwrap_or_default(),
            number(self.safe_wal_size.map(|size| size.to_string())),
            number(self.retained_bytes.map(|size| size.to_string())),
        ]
    }
}
