//! [`BackendMessage`]: what a server sends while a session runs.

use bytes::{Buf, Bytes};

use super::frame::Frame;

/// A message of the server. Errors, notices and parameters are not among them: see
/// [`Connection::next_message`](super::Connection::next_message).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendMessage {
    /// Rows of this form follow.
    RowDescription(Vec<Column>),
    /// One row; `None` is NULL.
    DataRow(Vec<Option<Bytes>>),
    /// The command is done; its tag.
    CommandComplete(String),
    /// The query was empty.
    EmptyQueryResponse,
    /// The server waits for our data.
    CopyInResponse,
    /// The server will send data.
    CopyOutResponse,
    /// Both will send data.
    CopyBothResponse,
    /// Data: a slice of the receive buffer, which lives as long as this does.
    CopyData(Bytes),
    /// The server has no more data.
    CopyDone,
    /// The server waits for the next command.
    ReadyForQuery,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
}

/// What one command answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows in text form; `None` is NULL.
    pub rows: Vec<Vec<Option<Bytes>>>,
    /// Such as `SELECT 1`.
    pub command_tag: String,
}

impl ResultSet {
    /// The value in this row and column as text; `None` when it is NULL, absent, or no UTF-8.
    #[must_use]
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        std::str::from_utf8(self.rows.get(row)?.get(column)?.as_deref()?).ok()
    }
}

impl BackendMessage {
    /// The name in the protocol chapter.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RowDescription(_) => "RowDescription",
            Self::DataRow(_) => "DataRow",
            Self::CommandComplete(_) => "CommandComplete",
            Self::EmptyQueryResponse => "EmptyQueryResponse",
            Self::CopyInResponse => "CopyInResponse",
            Self::CopyOutResponse => "CopyOutResponse",
            Self::CopyBothResponse => "CopyBothResponse",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::ReadyForQuery => "ReadyForQuery",
        }
    }

    /// Reads a frame of one of these kinds; `None` when its body is malformed or the tag is another.
    ///
    /// # Source
    /// "Message Formats" in the protocol chapter.
    pub(super) fn parse(frame: &Frame) -> Option<Self> {
        Some(match frame.tag {
            b'd' => Self::CopyData(frame.body.clone()),
            b'D' => Self::DataRow(parse_row(frame.body.clone())?),
            b'T' => Self::RowDescription(parse_columns(frame.body.clone())?),
            b'C' => {
                let mut body = frame.body.clone();
                Self::CommandComplete(take_cstr(&mut body)?)
            }
            b'I' => Self::EmptyQueryResponse,
            b'G' => Self::CopyInResponse,
            b'H' => Self::CopyOutResponse,
            b'W' => Self::CopyBothResponse,
            b'c' => Self::CopyDone,
            b'Z' => Self::ReadyForQuery,
            _ => return None,
        })
    }
}

fn parse_columns(mut body: Bytes) -> Option<Vec<Column>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = take_cstr(&mut body)?;
        // Table OID (4) and column number (2) before the type; type length (2), modifier (4), format (2) after it.
        let _ = take(&mut body, 6)?;
        let type_oid = body.try_get_u32().ok()?;
        let _ = take(&mut body, 8)?;
        columns.push(Column { name, type_oid });
    }
    Some(columns)
}

fn parse_row(mut body: Bytes) -> Option<Vec<Option<Bytes>>> {
    let count = body.try_get_u16().ok()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = body.try_get_i32().ok()?;
        values.push(match length {
            -1 => None,
            length => Some(take(&mut body, usize::try_from(length).ok()?)?),
        });
    }
    Some(values)
}

fn take(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}

/// Text up to a zero byte; what is no UTF-8 becomes U+FFFD.
pub(super) fn take_cstr(body: &mut Bytes) -> Option<String> {
    let length = body.iter().position(|byte| *byte == 0)?;
    let text = body.split_to(length);
    body.advance(1);
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(tag: u8, body: &'static [u8]) -> Option<BackendMessage> {
        BackendMessage::parse(&Frame {
            tag,
            body: Bytes::from_static(body),
        })
    }

    #[test]
    fn reads_rows() {
        let row = parse(b'D', b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0");
        assert_eq!(
            row,
            Some(BackendMessage::DataRow(vec![
                Some("a".into()),
                None,
                Some("".into())
            ]))
        );
        let columns = parse(
            b'T',
            b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        );
        assert_eq!(
            columns,
            Some(BackendMessage::RowDescription(vec![Column {
                name: "name".into(),
                type_oid: 25
            }]))
        );
        assert_eq!(
            parse(b'C', b"SELECT 1\0"),
            Some(BackendMessage::CommandComplete("SELECT 1".into()))
        );
    }

    #[test]
    fn refuses_bodies_that_end_early() {
        for (tag, body) in [
            (b'D', &b"\0"[..]),
            (b'D', b"\0\x01"),
            (b'D', b"\0\x01\0\0\0\x02a"),
            (b'D', b"\0\x01\xff\xff\xff\xfe"),
            (b'D', b"\0\x01\x7f\xff\xff\xff"),
            (b'T', b"\0\x01name"),
            (b'T', b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19"),
            (b'C', b"SELECT"),
            (b'?', b""),
        ] {
            assert_eq!(parse(tag, body), None, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(tag in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = BackendMessage::parse(&Frame { tag, body: body.into() });
        }
    }
}
