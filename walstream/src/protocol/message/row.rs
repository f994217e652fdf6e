//! [`RowDescription`] and [`DataRow`], the results of commands.

use bytes::{BufMut, BytesMut};

use super::backend::expect_end;
use super::frame::encode_message;
use crate::protocol::ProtocolError;
use crate::protocol::identify::{ResultColumn, TextValue};
use crate::read::Reader;
use crate::types::Oid;

/// One column of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDescription<'a> {
    /// Name, in the server's encoding.
    pub name: &'a [u8],
    /// OID of its type.
    pub type_oid: Oid,
    /// Size of its type in bytes, -1 when it varies.
    pub type_len: i16,
}

/// The columns of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDescription<'a> {
    /// The columns in order.
    pub fields: Vec<FieldDescription<'a>>,
}

/// One row of a result, in text format; `None` is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRow<'a> {
    /// The columns in order.
    pub columns: Vec<Option<&'a [u8]>>,
}

impl<'a> RowDescription<'a> {
    /// Reads the content of a RowDescription.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short or goes on after its end.
    pub fn parse(content: &'a [u8]) -> Result<Self, ProtocolError> {
        const MESSAGE: &str = "RowDescription";
        let short = ProtocolError::cut_short(MESSAGE);
        let mut reader = Reader::new(content);
        let mut fields = Vec::new();
        for _ in 0..reader.u16_be().map_err(&short)? {
            let name = reader.c_str().map_err(&short)?;
            reader.take(6).map_err(&short)?;
            let type_oid = reader.u32_be().map_err(&short)?;
            let type_len = reader.i16_be().map_err(&short)?;
            reader.take(6).map_err(&short)?;
            fields.push(FieldDescription {
                name,
                type_oid,
                type_len,
            });
        }
        expect_end(MESSAGE, &reader)?;
        Ok(Self { fields })
    }

    /// Appends the message for these columns.
    pub fn encode(columns: &[ResultColumn<'_>], out: &mut BytesMut) {
        let fields = columns.iter().map(|column| FieldDescription {
            name: column.name.as_bytes(),
            type_oid: column.type_oid,
            type_len: column.type_len,
        });
        let fields = fields.collect();
        RowDescription { fields }.encode_fields(out);
    }

    pub(super) fn encode_fields(&self, out: &mut BytesMut) {
        encode_message(out, b'T', |out| {
            out.put_u16(u16::try_from(self.fields.len()).unwrap_or(u16::MAX));
            for field in &self.fields {
                out.put_slice(field.name);
                out.put_u8(0);
                out.put_u32(0);
                out.put_i16(0);
                out.put_u32(field.type_oid);
                out.put_i16(field.type_len);
                out.put_i32(-1);
                out.put_i16(0);
            }
        });
    }
}

impl<'a> DataRow<'a> {
    /// Reads the content of a DataRow.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, goes on after its end, or a column's length is below -1.
    pub fn parse(content: &'a [u8]) -> Result<Self, ProtocolError> {
        const MESSAGE: &str = "DataRow";
        let short = ProtocolError::cut_short(MESSAGE);
        let mut reader = Reader::new(content);
        let mut columns = Vec::new();
        for _ in 0..reader.u16_be().map_err(&short)? {
            let length = reader.i32_be().map_err(&short)?;
            let column = match usize::try_from(length) {
                Ok(length) => Some(reader.take(length).map_err(&short)?),
                Err(_) if length == -1 => None,
                Err(_) => {
                    return Err(ProtocolError::BadField {
                        message: MESSAGE,
                        field: "column length",
                        found: length.to_string(),
                        expected: "-1 or a number of bytes",
                    });
                }
            };
            columns.push(column);
        }
        expect_end(MESSAGE, &reader)?;
        Ok(Self { columns })
    }

    /// Appends the message for these values.
    pub fn encode(values: &[TextValue], out: &mut BytesMut) {
        let columns = values.iter().map(Option::as_deref).collect();
        DataRow { columns }.encode_columns(out);
    }

    pub(super) fn encode_columns(&self, out: &mut BytesMut) {
        encode_message(out, b'D', |out| {
            out.put_u16(u16::try_from(self.columns.len()).unwrap_or(u16::MAX));
            for column in &self.columns {
                match column {
                    Some(bytes) => {
                        out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                        out.put_slice(bytes);
                    }
                    None => out.put_i32(-1),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHeader;
    use super::*;
    use crate::protocol::identify::IdentifySystem;

    #[test]
    fn a_result_is_read_back() {
        let mut out = BytesMut::new();
        let columns = IdentifySystem::columns(160_000);
        RowDescription::encode(&columns, &mut out);
        let parsed = RowDescription::parse(&out[FrameHeader::LEN..]).unwrap();
        for (field, column) in parsed.fields.iter().zip(columns) {
            assert_eq!(field.name, column.name.as_bytes());
            assert_eq!(
                (field.type_oid, field.type_len),
                (column.type_oid, column.type_len)
            );
        }
        assert_eq!(parsed.fields.len(), 4);
        for cut in FrameHeader::LEN..out.len() {
            assert!(RowDescription::parse(&out[FrameHeader::LEN..cut]).is_err());
        }
        let mut out = BytesMut::new();
        DataRow::encode(&[None, Some(vec![]), Some(b"x".to_vec())], &mut out);
        let content = &out[FrameHeader::LEN..];
        assert_eq!(
            DataRow::parse(content).unwrap().columns,
            [None, Some(&b""[..]), Some(b"x")]
        );
        for cut in 0..content.len() {
            assert!(DataRow::parse(&content[..cut]).is_err());
        }
        assert!(DataRow::parse(b"\0\x01\xFF\xFF\xFF\xFE").is_err());
        assert!(
            DataRow::parse(b"\0\x01\x7F\xFF\xFF\xFF").is_err(),
            "2 GB claimed"
        );
        assert!(DataRow::parse(b"\0\0x").is_err());
    }
}
