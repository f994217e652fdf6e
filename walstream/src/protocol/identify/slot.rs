//! [`SlotPosition`] and [`CreatedSlot`], the answers to `READ_REPLICATION_SLOT` and `CREATE_REPLICATION_SLOT`.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;
use crate::{Lsn, TimelineId};

/// From where on a physical slot holds WAL.
///
/// # Source
/// `ReadReplicationSlot` in `src/backend/replication/walsender.c` of 15 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// Oldest WAL held (`restart_lsn`); `None` when the slot never held any, or has lost it.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of that position (`restart_tli`).
    pub restart_timeline: Option<TimelineId>,
}

impl SlotPosition {
    /// The result's columns.
    pub const COLUMNS: [ResultColumn<'static>; 3] = [
        ResultColumn::text("slot_type"),
        ResultColumn::text("restart_lsn"),
        ResultColumn::int8("restart_tli"),
    ];

    /// Reads the result's only row; `None` when there is no such slot.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing or no value of its kind, or the slot is not physical.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Option<Self>, ProtocolError> {
        const RESULT: &str = "READ_REPLICATION_SLOT";
        let row = Row::new(RESULT, columns);
        let position = Self {
            restart_lsn: row.optional(1, "restart_lsn", "an LSN")?,
            restart_timeline: row.optional_timeline(2, "restart_tli")?,
        };
        match row.bytes(0, "slot_type")? {
            None => Ok(None),
            Some(b"physical") => Ok(Some(position)),
            Some(other) => Err(ProtocolError::bad_field(
                RESULT,
                "slot_type",
                other,
                "physical",
            )),
        }
    }

    /// The row's values; all are null when there is no such slot.
    #[must_use]
    pub fn values(position: Option<&Self>) -> [TextValue; 3] {
        [
            position.and_then(|_| text_value(&"physical")),
            position.and_then(|position| position.restart_lsn.as_ref().and_then(text_value)),
            position.and_then(|position| position.restart_timeline.as_ref().and_then(text_value)),
        ]
    }
}

/// A slot that was just created.
///
/// # Source
/// `CreateReplicationSlot` in `src/backend/replication/walsender.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Name of the slot (`slot_name`).
    pub slot: String,
    /// Where a logical slot becomes consistent (`consistent_point`); 0/0 for a physical one.
    pub consistent_point: Lsn,
    /// The exported snapshot (`snapshot_name`).
    pub snapshot: Option<String>,
    /// The output plugin (`output_plugin`); `None` for a physical slot.
    pub plugin: Option<String>,
}

impl CreatedSlot {
    /// The result's columns.
    pub const COLUMNS: [ResultColumn<'static>; 4] = [
        ResultColumn::text("slot_name"),
        ResultColumn::text("consistent_point"),
        ResultColumn::text("snapshot_name"),
        ResultColumn::text("output_plugin"),
    ];

    /// Reads the result's only row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing, null or no value of its kind.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("CREATE_REPLICATION_SLOT", columns);
        Ok(Self {
            slot: row.required(0, "slot_name", "a name")?,
            consistent_point: row.lsn(1, "consistent_point")?,
            snapshot: row.optional(2, "snapshot_name", "a name")?,
            plugin: row.optional(3, "output_plugin", "a name")?,
        })
    }

    /// The row's values.
    #[must_use]
    pub fn values(&self) -> [TextValue; 4] {
        [
            text_value(&self.slot),
            text_value(&self.consistent_point),
            self.snapshot.as_ref().and_then(text_value),
            self.plugin.as_ref().and_then(text_value),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn positions_are_read_back_also_when_there_is_no_slot() {
        for position in [
            None,
            Some(SlotPosition {
                restart_lsn: None,
                restart_timeline: None,
            }),
            Some(SlotPosition {
                restart_lsn: Some(Lsn(1)),
                restart_timeline: Some(TimelineId(u32::MAX)),
            }),
        ] {
            let values = SlotPosition::values(position.as_ref());
            assert_eq!(SlotPosition::parse(&borrow(&values)), Ok(position));
        }
        assert!(SlotPosition::parse(&[Some(b"logical"), None, None]).is_err());
        assert!(SlotPosition::parse(&[None, None]).is_err());
    }

    #[test]
    fn created_slots_are_read_back() {
        let slot = CreatedSlot {
            slot: "s".to_owned(),
            consistent_point: Lsn(0),
            snapshot: None,
            plugin: None,
        };
        let values = slot.values();
        assert_eq!(values[1].as_deref(), Some(&b"0/0"[..]));
        assert_eq!(CreatedSlot::parse(&borrow(&values)), Ok(slot));
        assert!(CreatedSlot::parse(&[None, Some(b"0/0"), None, None]).is_err());
    }
}
