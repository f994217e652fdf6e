//! [`SlotLine`], a line of `pg_replication_slots`, as status commands show it.

use serde::{Deserialize, Serialize};
use walstream::{Lsn, SegmentNumber};

use super::table::Table;
use super::text::{lsn_or_empty, lsn_text};
use crate::slot::SlotView;
use crate::slot::wal_status::{WalExtent, WalKeepSettings};
use crate::source::{SourceIdentity, WalSource};

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

/// What the `wal_status` of a source's slots is judged by.
#[derive(Debug)]
pub struct SlotJudge {
    settings: WalKeepSettings,
    extent: WalExtent,
}

const NAMES: [&str; 9] = [
    "slot_name",
    "slot_type",
    "temporary",
    "active",
    "active_pid",
    "restart_lsn",
    "wal_status",
    "safe_wal_size",
    "retained_bytes",
];

/// The slots as a table; what is not known is empty.
#[must_use]
pub fn slot_table(slots: &[SlotLine]) -> Table<9> {
    Table::new(NAMES).with_rows(slots.iter().map(SlotLine::cells))
}

impl SlotLine {
    fn cells(&self) -> [String; 9] {
        let truth = |value: bool| if value { "t" } else { "f" }.to_owned();
        let number = |value: Option<String>| value.unwrap_or_default();
        [
            self.slot_name.clone(),
            "physical".to_owned(),
            truth(self.temporary),
            truth(self.active),
            number(self.active_pid.map(|pid| pid.to_string())),
            lsn_or_empty(self.restart_lsn),
            self.wal_status.clone().unwrap_or_default(),
            number(self.safe_wal_size.map(|size| size.to_string())),
            number(self.retained_bytes.map(|size| size.to_string())),
        ]
    }
}

impl SlotJudge {
    /// By what the source has now, which begins with `oldest_lsn` where that is known.
    #[must_use]
    pub fn of(source: &dyn WalSource, oldest_lsn: Option<Lsn>, slots: &[SlotView]) -> Self {
        let settings = keep_settings(source.identity());
        let retained_from = slots.iter().filter_map(|slot| slot.retained_from).min();
        let extent = WalExtent {
            write_lsn: source.flushed().borrow().lsn,
            last_removed: oldest_lsn.map_or(SegmentNumber(0), |lsn| {
                let oldest = lsn.segment_number(settings.segment_size);
                SegmentNumber(oldest.0.saturating_sub(1))
            }),
            // Whoever fills an archive may remove what slots need: what is not there is kept for nobody.
            slots_lsn: retained_from.map(|lsn| lsn.max(oldest_lsn.unwrap_or(lsn))),
        };
        Self { settings, extent }
    }

    /// The slot's line.
    #[must_use]
    pub fn line(&self, slot: SlotView) -> SlotLine {
        let wal = slot.wal();
        let end = self.extent.write_lsn;
        SlotLine {
            active: slot.active_pid.is_some(),
            wal_status: self
                .settings
                .wal_status(&self.extent, &wal)
                .map(|status| status.name().to_owned()),
            safe_wal_size: self.settings.safe_wal_size(&self.extent, &wal),
            retained_bytes: slot.retained_from.map(|lsn| end.saturating_sub(lsn)),
            slot_name: slot.name,
            temporary: slot.temporary,
            active_pid: slot.active_pid,
            restart_lsn: slot.restart_lsn,
        }
    }
}

/// How much WAL the server keeps that the source stands for, by its settings, or PostgreSQL's defaults.
fn keep_settings(identity: &SourceIdentity) -> WalKeepSettings {
    let size = |name: &str| bytes(identity.settings.get(name)?);
    let defaults = WalKeepSettings::new(identity.segment_size);
    WalKeepSettings {
        max_wal_size: size("max_wal_size").unwrap_or(defaults.max_wal_size),
        wal_keep_size: size("wal_keep_size").unwrap_or(defaults.wal_keep_size),
        ..defaults
    }
}

/// A size as `SHOW` gives it, in bytes: `1GB`, `64MB`, `0`.
fn bytes(setting: &str) -> Option<u64> {
    let digits = setting.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let factor = match setting.strip_prefix(digits)? {
        "" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ::bytes::Bytes;
    use tokio::sync::watch;
    use walstream::{Dialect, PgMajor, SystemIdentifier, TimelineId};

    use super::*;
    use crate::source::{SourceError, StoredBackup, WalPiece, WalPosition};

    /// Segments 5 to 9 of an archive, from which the older ones were removed.
    #[derive(Debug)]
    struct FiveToNine(SourceIdentity, watch::Sender<WalPosition>);

    const SEGMENT: u64 = 16 << 20;

    impl WalSource for FiveToNine {
        fn identity(&self) -> &SourceIdentity {
            &self.0
        }
        fn flushed(&self) -> watch::Receiver<WalPosition> {
            self.1.subscribe()
        }
        fn read(&self, _: TimelineId, _: Range<Lsn>) -> Result<WalPiece, SourceError> {
            Err(SourceError::SegmentRemoved {
                name: String::new(),
            })
        }
        fn timeline_history(&self, _: TimelineId) -> Result<Option<Bytes>, SourceError> {
            Ok(None)
        }
        fn restart_lsn(&self) -> Lsn {
            Lsn(9 * SEGMENT)
        }
        fn oldest_lsn(&self) -> Option<Lsn> {
            Some(Lsn(5 * SEGMENT))
        }
        fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
            Ok(None)
        }
    }

    #[test]
    fn a_slot_whose_wal_was_removed_from_the_archive_is_lost() {
        let dialect = Dialect::with_default_sizes(PgMajor::V15);
        let identity = SourceIdentity::of_version(SystemIdentifier(7), &dialect, 150_000);
        let end = WalPosition {
            timeline: TimelineId(1),
            lsn: Lsn(9 * SEGMENT + 100),
        };
        let source = FiveToNine(identity, watch::Sender::new(end));
        let slot = |name: &str, restart: u64, pid| SlotView {
            name: name.to_owned(),
            temporary: false,
            active_pid: pid,
            restart_lsn: Some(Lsn(restart)),
            invalidated_at: None,
            retained_from: Some(Lsn(restart)),
        };
        let slots = [
            slot("gone", 4 * SEGMENT, None),
            slot("in_use", 4 * SEGMENT, Some(8)),
            slot("there", 5 * SEGMENT, None),
            slot("near", 9 * SEGMENT, None),
        ];
        let judge = SlotJudge::of(&source, source.oldest_lsn(), &slots);
        let shown: Vec<_> = slots
            .into_iter()
            .map(|slot| judge.line(slot))
            .map(|line| (line.wal_status.unwrap(), line.retained_bytes.unwrap()))
            .collect();
        let expected = [
            ("lost", 5 * SEGMENT + 100),
            ("unreserved", 5 * SEGMENT + 100),
            ("reserved", 4 * SEGMENT + 100),
            ("reserved", 100),
        ];
        assert_eq!(
            shown,
            expected.map(|(status, size)| (status.to_owned(), size))
        );
    }

    #[test]
    fn sizes_are_read_as_show_gives_them() {
        for (text, size) in [
            ("0", Some(0)),
            ("64MB", Some(64 << 20)),
            ("1GB", Some(1 << 30)),
            ("-1", None),
            ("1PB", None),
            ("GB", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
