//! [`BackupPosition`], the rows that a base backup begins and ends with.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;
use crate::{Lsn, TimelineId};

/// Where the WAL of a base backup begins, or ends (exclusive).
///
/// # Source
/// `SendXlogRecPtrResult` in `src/backend/backup/basebackup_copy.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPosition {
    /// The position (`recptr`).
    pub lsn: Lsn,
    /// Its timeline (`tli`).
    pub timeline: TimelineId,
}

impl BackupPosition {
    /// The result's columns.
    pub const COLUMNS: [ResultColumn<'static>; 2] =
        [ResultColumn::text("recptr"), ResultColumn::int8("tli")];

    /// Reads the result's only row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing, null or no value of its kind.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("base backup position", columns);
        Ok(Self {
            lsn: row.lsn(0, "recptr")?,
            timeline: row.timeline(1, "tli")?,
        })
    }

    /// The row's values.
    #[must_use]
    pub fn values(&self) -> [TextValue; 2] {
        [text_value(&self.lsn), text_value(&self.timeline)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn values_then_parse_is_identity() {
        let position = BackupPosition {
            lsn: Lsn(0x200_0028),
            timeline: TimelineId(u32::MAX),
        };
        assert_eq!(
            BackupPosition::parse(&borrow(&position.values())),
            Ok(position)
        );
        assert!(BackupPosition::parse(&[Some(b"0/0"), None]).is_err());
    }
}
