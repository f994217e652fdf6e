//! [`ErrorFields`], the content of ErrorResponse and NoticeResponse.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::protocol::ProtocolError;
use crate::read::Reader;

/// What an error or notice says, field by field.
///
/// # Source
/// Protocol chapter "Error and Notice Message Fields".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// Kinds and texts, in the order of their coming; texts are in the server's encoding.
    fields: Vec<(u8, Vec<u8>)>,
}

impl ErrorFields {
    /// An error or notice of this severity (`ERROR`, `FATAL`, ...), SQLSTATE and message.
    #[must_use]
    pub fn new(severity: &str, sqlstate: &str, message: &str) -> Self {
        Self::default()
            .with(b'S', severity)
            .with(b'V', severity)
            .with(b'C', sqlstate)
            .with(b'M', message)
    }

    /// The same with one more field: `D` detail, `H` hint, and so on. A zero byte ends the text.
    #[must_use]
    pub fn with(mut self, kind: u8, text: &str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        self.fields.push((kind, text.as_bytes().to_vec()));
        self
    }

    /// The text of the first field of this kind.
    #[must_use]
    pub fn field(&self, kind: u8) -> Option<Cow<'_, str>> {
        let (_, text) = self.fields.iter().find(|(other, _)| *other == kind)?;
        Some(String::from_utf8_lossy(text))
    }

    /// Severity, not translated where the server says so (`V`), else as it comes (`S`).
    #[must_use]
    pub fn severity(&self) -> Cow<'_, str> {
        self.field(b'V')
            .or_else(|| self.field(b'S'))
            .unwrap_or_default()
    }

    /// The five characters by which programs tell errors apart.
    #[must_use]
    pub fn sqlstate(&self) -> Cow<'_, str> {
        self.field(b'C').unwrap_or_default()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        self.field(b'M').unwrap_or_default()
    }

    /// More about it.
    #[must_use]
    pub fn detail(&self) -> Option<Cow<'_, str>> {
        self.field(b'D')
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        self.field(b'H')
    }

    /// Reads the content of an ErrorResponse or NoticeResponse.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short or goes on after its end.
    pub fn parse(content: &[u8]) -> Result<Self, ProtocolError> {
        const MESSAGE: &str = "ErrorResponse";
        let mut reader = Reader::new(content);
        let mut fields = Vec::new();
        loop {
            let kind = reader.u8().map_err(ProtocolError::cut_short(MESSAGE))?;
            if kind == 0 {
                break;
            }
            let text = reader.c_str().map_err(ProtocolError::cut_short(MESSAGE))?;
            fields.push((kind, text.to_vec()));
        }
        super::backend::expect_end(MESSAGE, &reader)?;
        Ok(Self { fields })
    }

    /// Appends the content.
    pub fn encode(&self, out: &mut BytesMut) {
        for (kind, text) in &self.fields {
            out.put_u8(*kind);
            out.put_slice(text);
            out.put_u8(0);
        }
        out.put_u8(0);
    }
}

impl fmt::Display for ErrorFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (SQLSTATE {})",
            self.severity(),
            self.message(),
            self.sqlstate()
        )?;
        for (name, text) in [("DETAIL", self.detail()), ("HINT", self.hint())] {
            if let Some(text) = text {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_back_and_shown() {
        let error = ErrorFields::new("ERROR", "58P01", "gone")
            .with(b'H', "make a new one")
            .with(b'D', "a\0b");
        let mut bytes = BytesMut::new();
        error.encode(&mut bytes);
        assert_eq!(ErrorFields::parse(&bytes), Ok(error.clone()));
        assert_eq!(
            error.to_string(),
            "ERROR: gone (SQLSTATE 58P01); DETAIL: a; HINT: make a new one"
        );
        for cut in 0..bytes.len() {
            assert!(ErrorFields::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes.put_u8(0);
        assert!(ErrorFields::parse(&bytes).is_err());
        assert_eq!(ErrorFields::parse(b"\0").unwrap().sqlstate(), "");
    }
}
