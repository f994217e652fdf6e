//! `Row`, typed access to text columns, and [`ResultColumn`], a column's description.

use std::str::FromStr;

use crate::protocol::ProtocolError;
use crate::types::Oid;
use crate::{Lsn, TimelineId};

/// Description of a result column, as RowDescription carries it; the format is always text.
///
/// # Source
/// RowDescription in the protocol chapter "Message Formats"; type OIDs in `src/include/catalog/pg_type.dat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultColumn<'a> {
    /// Name of the column.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: Oid,
    /// Size of its type in bytes, -1 when it varies.
    pub type_len: i16,
}

impl<'a> ResultColumn<'a> {
    /// A column of type `text`.
    #[must_use]
    pub const fn text(name: &'a str) -> Self {
        Self::new(name, 25, -1)
    }

    /// A column of type `int4`.
    #[must_use]
    pub const fn int4(name: &'a str) -> Self {
        Self::new(name, 23, 4)
    }

    /// A column of type `int8`.
    #[must_use]
    pub const fn int8(name: &'a str) -> Self {
        Self::new(name, 20, 8)
    }

    /// A column of type `oid`.
    #[must_use]
    pub const fn oid(name: &'a str) -> Self {
        Self::new(name, 26, 4)
    }

    /// A column of type `bytea`.
    #[must_use]
    pub const fn bytea(name: &'a str) -> Self {
        Self::new(name, 17, -1)
    }

    pub(crate) const fn new(name: &'a str, type_oid: Oid, type_len: i16) -> Self {
        Self {
            name,
            type_oid,
            type_len,
        }
    }
}

/// One value of a row in text format; `None` is null.
pub type TextValue = Option<Vec<u8>>;

/// A value in its text form.
pub(crate) fn text_value(value: &impl ToString) -> TextValue {
    Some(value.to_string().into_bytes())
}

/// The columns of one row, with the name of the result for errors.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    result: &'static str,
    columns: &'a [Option<&'a [u8]>],
}

impl<'a> Row<'a> {
    pub(crate) const fn new(result: &'static str, columns: &'a [Option<&'a [u8]>]) -> Self {
        Self { result, columns }
    }

    /// The column's bytes; `None` when it is null.
    pub(crate) fn bytes(
        &self,
        index: usize,
        field: &'static str,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        self.columns
            .get(index)
            .copied()
            .ok_or_else(|| ProtocolError::BadField {
                message: self.result,
                field,
                found: format!("missing from a row of {} columns", self.columns.len()),
                expected: "a column",
            })
    }

    /// The column as text; `None` when it is null.
    pub(crate) fn text(
        &self,
        index: usize,
        field: &'static str,
    ) -> Result<Option<&'a str>, ProtocolError> {
        let Some(bytes) = self.bytes(index, field)? else {
            return Ok(None);
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ProtocolError::bad_field(self.result, field, bytes, "text")),
        }
    }

    /// The column read as `T`; `None` when it is null.
    pub(crate) fn optional<T: FromStr>(
        &self,
        index: usize,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ProtocolError> {
        let Some(text) = self.text(index, field)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ProtocolError::bad_field(
                self.result,
                field,
                text.as_bytes(),
                expected,
            )),
        }
    }

    /// The column read as `T`, which must not be null.
    pub(crate) fn required<T: FromStr>(
        &self,
        index: usize,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, ProtocolError> {
        self.optional(index, field, expected)?
            .ok_or_else(|| self.null(field, expected))
    }

    /// An LSN, which must not be null.
    pub(crate) fn lsn(&self, index: usize, field: &'static str) -> Result<Lsn, ProtocolError> {
        self.required(index, field, "an LSN")
    }

    /// A timeline of at least 1, or `None` when the column is null.
    ///
    /// A server before 16 sends a timeline above 2^31 as a negative `int4`.
    pub(crate) fn optional_timeline(
        &self,
        index: usize,
        field: &'static str,
    ) -> Result<Option<TimelineId>, ProtocolError> {
        const EXPECTED: &str = "a timeline from 1 to 4294967295";
        let Some(number) = self.optional::<i64>(index, field, EXPECTED)? else {
            return Ok(None);
        };
        let timeline = match i32::try_from(number) {
            Ok(int4) => int4.cast_unsigned(),
            Err(_) => u32::try_from(number).unwrap_or(0),
        };
        if timeline == 0 {
            return Err(ProtocolError::bad_field(
                self.result,
                field,
                number.to_string().as_bytes(),
                EXPECTED,
            ));
        }
        Ok(Some(TimelineId(timeline)))
    }

    /// A timeline of at least 1, which must not be null.
    pub(crate) fn timeline(
        &self,
        index: usize,
        field: &'static str,
    ) -> Result<TimelineId, ProtocolError> {
        self.optional_timeline(index, field)?
            .ok_or_else(|| self.null(field, "a timeline"))
    }

    pub(crate) fn null(&self, field: &'static str, expected: &'static str) -> ProtocolError {
        ProtocolError::BadField {
            message: self.result,
            field,
            found: "null".to_owned(),
            expected,
        }
    }
}

/// Borrows a row of values the way `parse` takes it.
#[cfg(test)]
pub(crate) fn borrow(values: &[TextValue]) -> Vec<Option<&[u8]>> {
    values.iter().map(Option::as_deref).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timelines_of_every_width_are_read() {
        let read = |text: &str| Row::new("test", &[Some(text.as_bytes())]).timeline(0, "timeline");
        for (text, timeline) in [
            ("1", 1),
            ("2147483647", 0x7FFF_FFFF),
            ("2147483648", 0x8000_0000),
            ("-2147483648", 0x8000_0000),
            ("4294967295", u32::MAX),
            ("-1", u32::MAX),
        ] {
            assert_eq!(read(text), Ok(TimelineId(timeline)), "{text}");
        }
        for text in ["", "0", "4294967296", "-2147483649", "x", "1 "] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn null_and_missing_columns_are_errors_where_a_value_is_needed() {
        let row = Row::new("test", &[None]);
        assert!(row.lsn(0, "lsn").is_err());
        assert!(row.lsn(1, "lsn").is_err());
        assert_eq!(row.text(0, "text"), Ok(None));
        assert!(Row::new("test", &[Some(b"\xFF")]).text(0, "text").is_err());
    }
}
