//! Fields of a C structure, laid out as compilers do it on 64-bit machines: each at a multiple of its own size.

use crate::read::{OutOfBytes, Reader};

use super::control::ControlError;

/// Reads fields in order, skipping the padding before each.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
}

/// Writes fields in order, with zeros for the padding before each.
#[derive(Debug, Default)]
pub(super) struct FieldsMut {
    bytes: Vec<u8>,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    /// Skips to the next multiple of `size`.
    pub(super) fn align(&mut self, size: usize) -> Result<(), OutOfBytes> {
        let padding = self.reader.offset().next_multiple_of(size) - self.reader.offset();
        self.reader.take(padding).map(|_| ())
    }

    pub(super) fn u32(&mut self) -> Result<u32, OutOfBytes> {
        self.align(4)?;
        self.reader.u32_le()
    }

    pub(super) fn i32(&mut self) -> Result<i32, OutOfBytes> {
        self.align(4)?;
        self.reader.i32_le()
    }

    pub(super) fn u64(&mut self) -> Result<u64, OutOfBytes> {
        self.align(8)?;
        self.reader.u64_le()
    }

    pub(super) fn i64(&mut self) -> Result<i64, OutOfBytes> {
        self.align(8)?;
        self.reader.i64_le()
    }

    pub(super) fn bool(&mut self) -> Result<bool, ControlError> {
        let offset = self.reader.offset();
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(ControlError::Boolean { offset, value }),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], OutOfBytes> {
        self.reader.array()
    }
}

impl FieldsMut {
    /// Adds zeros up to the next multiple of `size`.
    pub(super) fn align(&mut self, size: usize) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(size), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.array(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.align(4);
        self.array(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.align(8);
        self.array(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.align(8);
        self.array(&value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    pub(super) fn array(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What was written so far.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
