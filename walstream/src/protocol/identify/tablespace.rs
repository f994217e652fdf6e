//! [`BackupTablespace`], a row of the list that a base backup begins with.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;
use crate::types::Oid;

/// A part of a base backup: a tablespace, or the data directory itself, which is last in the list.
///
/// # Source
/// `SendTablespaceList` in `src/backend/backup/basebackup_copy.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupTablespace {
    /// The tablespace (`spcoid`); `None` for the data directory.
    pub oid: Option<Oid>,
    /// Where the server keeps it, in the server's file system encoding; `None` for the data directory.
    pub location: Option<Vec<u8>>,
    /// Estimated size in units of 1024 bytes; `None` unless progress was asked for.
    pub size_kib: Option<u64>,
}

impl BackupTablespace {
    /// The result's columns.
    pub const COLUMNS: [ResultColumn<'static>; 3] = [
        ResultColumn::oid("spcoid"),
        ResultColumn::text("spclocation"),
        ResultColumn::int8("size"),
    ];

    /// Reads one row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing or no value of its kind, or when only one of OID and
    /// location is null.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("tablespace list", columns);
        let oid = row.optional(0, "spcoid", "an OID")?;
        let location = row.bytes(1, "spclocation")?.map(<[u8]>::to_vec);
        if oid.is_some() != location.is_some() {
            return Err(row.null("spcoid or spclocation", "both or none of them"));
        }
        Ok(Self {
            oid,
            location,
            size_kib: row.optional(2, "size", "a number of kilobytes")?,
        })
    }

    /// The row's values.
    #[must_use]
    pub fn values(&self) -> [TextValue; 3] {
        [
            self.oid.as_ref().and_then(text_value),
            self.location.clone(),
            self.size_kib.as_ref().and_then(text_value),
        ]
    }

    /// Name of its archive without an ending: `base`, or the tablespace's OID.
    #[must_use]
    pub fn archive_stem(&self) -> String {
        match self.oid {
            Some(oid) => oid.to_string(),
            None => "base".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn values_then_parse_is_identity() {
        for tablespace in [
            BackupTablespace {
                oid: None,
                location: None,
                size_kib: None,
            },
            BackupTablespace {
                oid: Some(u32::MAX),
                location: Some(b"/data/\xE9".to_vec()),
                size_kib: Some(0),
            },
        ] {
            let values = tablespace.values();
            assert_eq!(BackupTablespace::parse(&borrow(&values)), Ok(tablespace));
        }
        assert!(BackupTablespace::parse(&[Some(b"1"), None, None]).is_err());
        assert!(BackupTablespace::parse(&[None, None, Some(b"-1")]).is_err());
        assert!(BackupTablespace::parse(&[None, None]).is_err());
    }
}
