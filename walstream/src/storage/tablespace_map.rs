//! `tablespace_map`: where the tablespaces of a base backup were.
//!
//! One line for each: the tablespace's OID, one space, and the path to which its link in `pg_tblspc` pointed. In the
//! path, a line feed, a carriage return and a backslash are each preceded by a backslash. Up to PostgreSQL 13 a
//! backslash in a path was written bare; such a path cannot be told apart and is read without its backslash.

use thiserror::Error;

use crate::types::Oid;

/// A tablespace's link.
///
/// # Source
/// `tablespaceinfo` in `src/include/backup/basebackup.h`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TablespaceMapEntry {
    /// The tablespace: the link's name.
    pub oid: Oid,
    /// Where the link points, as bytes of the file system; never empty.
    pub path: Vec<u8>,
}

/// A `tablespace_map` that PostgreSQL would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TablespaceMapError {
    /// An entry is no OID, space and path.
    #[error("tablespace_map, entry {entry}: expected an OID, a space and a path in \"{text}\"")]
    Entry {
        /// Number of the entry, from 1.
        entry: usize,
        /// The entry without its escapes, at most 100 characters.
        text: String,
    },
    /// The last entry has no line end.
    #[error("tablespace_map ends within entry {entry}: the copy is not complete")]
    Unterminated {
        /// Number of the entry, from 1.
        entry: usize,
    },
}

/// Reads a `tablespace_map`.
///
/// # Errors
/// [`TablespaceMapError`], which names the entry.
///
/// # Source
/// `read_tablespace_map` in `src/backend/access/transam/xlogrecovery.c`.
pub fn parse_tablespace_map(content: &[u8]) -> Result<Vec<TablespaceMapEntry>, TablespaceMapError> {
    let mut entries = Vec::new();
    let mut text = Vec::new();
    let mut escaped = false;
    for &byte in content {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !text.is_empty() {
                    entries.push(parse_entry(&text, entries.len() + 1)?);
                    text.clear();
                }
            }
            b'\\' if !escaped => escaped = true,
            _ => {
                text.push(byte);
                escaped = false;
            }
        }
    }
    if text.is_empty() && !escaped {
        Ok(entries)
    } else {
        Err(TablespaceMapError::Unterminated {
            entry: entries.len() + 1,
        })
    }
}

/// The content of a `tablespace_map` with these entries, as PostgreSQL 14 and later write it.
///
/// # Source
/// `do_pg_backup_start` in `src/backend/access/transam/xlog.c`.
#[must_use]
pub fn format_tablespace_map(entries: &[TablespaceMapEntry]) -> Vec<u8> {
    let mut content = Vec::new();
    for TablespaceMapEntry { oid, path } in entries {
        content.extend_from_slice(format!("{oid} ").as_bytes());
        for &byte in path {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                content.push(b'\\');
            }
            content.push(byte);
        }
        content.push(b'\n');
    }
    content
}

/// An entry without its escapes.
fn parse_entry(text: &[u8], entry: usize) -> Result<TablespaceMapEntry, TablespaceMapError> {
    let space = text.iter().position(|&b| b == b' ');
    space
        .and_then(|space| {
            let (oid, path) = text.split_at_checked(space)?;
            let digits = oid.iter().all(u8::is_ascii_digit);
            let oid = std::str::from_utf8(oid)
                .ok()
                .filter(|_| digits)?
                .parse()
                .ok()?;
            let path = path
                .strip_prefix(b" ")
                .filter(|path| !path.is_empty())?
                .to_vec();
            Some(TablespaceMapEntry { oid, path })
        })
        .ok_or_else(|| TablespaceMapError::Entry {
            entry,
            text: String::from_utf8_lossy(text).chars().take(100).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(oid: Oid, path: &str) -> TablespaceMapEntry {
        TablespaceMapEntry {
            oid,
            path: path.as_bytes().to_vec(),
        }
    }

    /// PostgreSQL 15's form, with a space and a backslash in the paths.
    #[test]
    fn paths_with_spaces_and_escapes_are_read_and_written() {
        let content =
            b"16389 /data/ts with space\n16390 /data/ts15\\\\back\n16391  two\\\nlines\\\r\n";
        let entries = [
            entry(16389, "/data/ts with space"),
            entry(16390, "/data/ts15\\back"),
            entry(16391, " two\nlines\r"),
        ];
        assert_eq!(parse_tablespace_map(content), Ok(entries.to_vec()));
        assert_eq!(format_tablespace_map(&entries), content);
        assert_eq!(parse_tablespace_map(b""), Ok(vec![]));
        assert_eq!(
            parse_tablespace_map(b"1 /a\r\n\n2 /b\r\n"),
            Ok(vec![entry(1, "/a"), entry(2, "/b")])
        );
    }

    #[test]
    fn bad_entries_are_refused_with_their_number() {
        for bad in [
            "x /a\n",
            "1\n",
            "1 \n",
            " /a\n",
            "4294967296 /a\n",
            "+1 /a\n",
        ] {
            let content = format!("5 /good\n{bad}");
            assert!(
                matches!(
                    parse_tablespace_map(content.as_bytes()),
                    Err(TablespaceMapError::Entry { entry: 2, .. })
                ),
                "{bad:?}"
            );
        }
        for bad in ["1 /a", "1 /a\\\n", "\\"] {
            assert_eq!(
                parse_tablespace_map(bad.as_bytes()),
                Err(TablespaceMapError::Unterminated { entry: 1 }),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_read_back(entries in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 1..20)), 0..5)) {
            let entries: Vec<_> = entries.into_iter().map(|(oid, path)| TablespaceMapEntry { oid, path }).collect();
            prop_assert_eq!(parse_tablespace_map(&format_tablespace_map(&entries)), Ok(entries));
        }
    }
}
