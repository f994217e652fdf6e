//! [`NextTimeline`], the row after the end of a timeline's stream.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;
use crate::{Lsn, TimelineId};

/// Where the server's history goes on after the timeline whose stream has ended.
///
/// # Source
/// `StartReplication` in `src/backend/replication/walsender.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTimeline {
    /// The next timeline (`next_tli`).
    pub timeline: TimelineId,
    /// Where it begins (`next_tli_startpos`): the end of the last record of the timeline before.
    pub start_lsn: Lsn,
}

impl NextTimeline {
    /// The result's columns.
    pub const COLUMNS: [ResultColumn<'static>; 2] = [
        ResultColumn::int8("next_tli"),
        ResultColumn::text("next_tli_startpos"),
    ];

    /// Reads the result's only row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing, null or no value of its kind.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("next timeline", columns);
        Ok(Self {
            timeline: row.timeline(0, "next_tli")?,
            start_lsn: row.lsn(1, "next_tli_startpos")?,
        })
    }

    /// The row's values.
    #[must_use]
    pub fn values(&self) -> [TextValue; 2] {
        [text_value(&self.timeline), text_value(&self.start_lsn)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn values_then_parse_is_identity() {
        let next = NextTimeline {
            timeline: TimelineId(4),
            start_lsn: Lsn(0x994_9AE0),
        };
        let values = next.values();
        assert_eq!(values[1].as_deref(), Some(&b"0/9949AE0"[..]));
        assert_eq!(NextTimeline::parse(&borrow(&values)), Ok(next));
        assert!(NextTimeline::parse(&borrow(&values)[..1]).is_err());
        assert!(NextTimeline::parse(&[Some(b"0"), Some(b"0/0")]).is_err());
    }
}
