//! [`TimelineHistoryFile`], the answer to `TIMELINE_HISTORY`.

use super::row::{ResultColumn, Row, TextValue, text_value};
use crate::protocol::ProtocolError;

/// A timeline's history file. [`crate::timeline`] reads its content.
///
/// # Source
/// `SendTimeLineHistory` in `src/backend/replication/walsender.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistoryFile {
    /// Name of the file, such as `00000002.history`. The server's word: compare it with the name that is expected
    /// before a file is made of it.
    pub name: String,
    /// The file's bytes. They are sent as they are, also by servers before 14, which call the column bytea.
    pub content: Vec<u8>,
}

impl TimelineHistoryFile {
    /// The result's columns as a server with this `server_version_num` sends them: the content is bytea before 14.
    #[must_use]
    pub const fn columns(server_version_num: u32) -> [ResultColumn<'static>; 2] {
        [
            ResultColumn::text("filename"),
            if server_version_num >= 140_000 {
                ResultColumn::text("content")
            } else {
                ResultColumn::bytea("content")
            },
        ]
    }

    /// Reads the result's only row.
    ///
    /// # Errors
    /// [`ProtocolError::BadField`] when a column is missing or null, or the name is no text.
    pub fn parse(columns: &[Option<&[u8]>]) -> Result<Self, ProtocolError> {
        let row = Row::new("TIMELINE_HISTORY", columns);
        Ok(Self {
            name: row.required(0, "filename", "a file name")?,
            content: row
                .bytes(1, "content")?
                .ok_or_else(|| row.null("content", "a file's content"))?
                .to_vec(),
        })
    }

    /// The row's values.
    #[must_use]
    pub fn values(&self) -> [TextValue; 2] {
        [text_value(&self.name), Some(self.content.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::borrow;
    use super::*;

    #[test]
    fn values_then_parse_is_identity() {
        let file = TimelineHistoryFile {
            name: "00000002.history".to_owned(),
            content: b"1\t0/3000000\tno recovery target \xE9\n".to_vec(),
        };
        assert_eq!(
            TimelineHistoryFile::parse(&borrow(&file.values())),
            Ok(file)
        );
        assert!(TimelineHistoryFile::parse(&[Some(b"x"), None]).is_err());
        let column_type = |version| TimelineHistoryFile::columns(version)[1].type_oid;
        assert_eq!((column_type(139_999), column_type(140_000)), (17, 25));
    }
}
