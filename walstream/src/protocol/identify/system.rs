//! [`IdentifySystem`], the answer to `IDENTIFY_SYSTEM`.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;
use crate::{Lsn, SystemIdentifier, TimelineId};

/// Who a server is and how far its WAL goes.
///
/// # Source
/// `IdentifySystem` in `src/backend/replication/walsender.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifySystem {
    /// The cluster's identifier (`systemid`).
    pub system_identifier: SystemIdentifier,
    /// The timeline that the server writes, or replays when it is a standby (`timeline`).
    pub timeline: TimelineId,
    /// End of its flushed WAL (`xlogpos`).
    pub flush_lsn: Lsn,
    /// The connection's database (`dbname`); `None` when connected for physical replication only.
    pub database: Option<Vec<u8>>,
}

impl IdentifySystem {
    /// The result's columns as a server with this `server_version_num` sends them: the timeline is int4 before 16.
    #[must_use]
    pub const fn columns(server_version_num: u32) -> [ResultColumn<'static>; 4] {
        [
            ResultColumn::text("systemid"),
            if server_version_num >= 160_000 {
                ResultColumn::int8("timeline")
            } else {
                ResultColumn::int4("timeline")
            },
            ResultColumn::text("xlogpos"),
            ResultColumn::text("dbname"),
        ]
    }

    /// Reads the result's only row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing, null or no value of its kind.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("IDENTIFY_SYSTEM", columns);
        Ok(Self {
            system_identifier: row.required(0, "systemid", "a system identifier")?,
            timeline: row.timeline(1, "timeline")?,
            flush_lsn: row.lsn(2, "xlogpos")?,
            database: row.bytes(3, "dbname")?.map(<[u8]>::to_vec),
        })
    }

    /// The row's values from a server with this `server_version_num`: a timeline above 2^31 is negative before 16.
    #[must_use]
    pub fn values(&self, server_version_num: u32) -> [TextValue; 4] {
        let timeline = if server_version_num >= 160_000 {
            text_value(&self.timeline)
        } else {
            text_value(&self.timeline.0.cast_signed())
        };
        [
            text_value(&self.system_identifier),
            timeline,
            text_value(&self.flush_lsn),
            self.database.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn values_then_parse_is_identity_on_both_sides_of_16() {
        for timeline in [1, i32::MAX.cast_unsigned(), 1 << 31, u32::MAX] {
            let system = IdentifySystem {
                system_identifier: SystemIdentifier(u64::MAX),
                timeline: TimelineId(timeline),
                flush_lsn: Lsn(0x16_B374_D848),
                database: (timeline == 1).then(|| b"postgres".to_vec()),
            };
            for version in [150_018, 160_000] {
                let values = system.values(version);
                assert_eq!(
                    IdentifySystem::parse(&borrow(&values)).as_ref(),
                    Ok(&system)
                );
            }
        }
        let column_type = |version| IdentifySystem::columns(version)[1].type_oid;
        assert_eq!((column_type(159_999), column_type(160_000)), (23, 20));
    }

    #[test]
    fn a_row_that_is_none_is_refused() {
        let good = [Some(&b"7"[..]), Some(b"1"), Some(b"0/1"), None];
        assert!(IdentifySystem::parse(&good).is_ok());
        for (index, bad) in [
            (0, None),
            (0, Some(&b"-1"[..])),
            (1, Some(b"0")),
            (2, Some(b"1")),
        ] {
            let mut row = good;
            row[index] = bad;
            assert!(IdentifySystem::parse(&row).is_err(), "{row:?}");
        }
        assert!(IdentifySystem::parse(&good[..3]).is_err());
    }
}
