//! [`Reader`], the one bounds-checked cursor that every parser of this crate slices through.
//!
//! It never panics and never allocates. A read past the end is [`OutOfBytes`], which says the offset; the layer that
//! knows the LSN or the message wraps it.

use thiserror::Error;

/// A read went past the end of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at offset {offset}: {needed} bytes needed, {available} left")]
pub struct OutOfBytes {
    /// Offset from the start of what the reader was given, in bytes.
    pub offset: usize,
    /// Bytes that the read asked for.
    pub needed: usize,
    /// Bytes that were left.
    pub available: usize,
}

/// A cursor over borrowed bytes. `_le` reads are for what lies on disk, `_be` reads for the wire.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

macro_rules! integers {
    ($($name:ident: $type:ty = $from:ident, $order:literal;)*) => {
        $(
            #[doc = concat!("The next `", stringify!($type), "`, ", $order, "-endian.")]
            ///
            /// # Errors
            /// [`OutOfBytes`] when fewer bytes are left.
            #[inline]
            pub fn $name(&mut self) -> Result<$type, OutOfBytes> {
                self.array().map(<$type>::$from)
            }
        )*
    };
}

impl<'a> Reader<'a> {
    /// A cursor at the first of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not yet read.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything not yet read, leaving the reader empty.
    pub fn rest(&mut self) -> &'a [u8] {
        self.offset += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer are left.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], OutOfBytes> {
        let (head, tail) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| self.out_of_bytes(count))?;
        self.bytes = tail;
        self.offset += count;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], OutOfBytes> {
        let (head, tail) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or_else(|| self.out_of_bytes(N))?;
        self.bytes = tail;
        self.offset += N;
        Ok(*head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`OutOfBytes`] when none is left.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, OutOfBytes> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The bytes up to the next zero byte, which is consumed too.
    ///
    /// # Errors
    /// [`OutOfBytes`] when no zero byte is left.
    pub fn c_str(&mut self) -> Result<&'a [u8], OutOfBytes> {
        let length = self
            .bytes
            .iter()
            .position(|&b| b == 0)
            .ok_or_else(|| self.out_of_bytes(self.bytes.len() + 1))?;
        let text = self.take(length)?;
        self.take(1)?;
        Ok(text)
    }

    integers! {
        u16_le: u16 = from_le_bytes, "little";
        u32_le: u32 = from_le_bytes, "little";
        u64_le: u64 = from_le_bytes, "little";
        i32_le: i32 = from_le_bytes, "little";
        i64_le: i64 = from_le_bytes, "little";
        u16_be: u16 = from_be_bytes, "big";
        u32_be: u32 = from_be_bytes, "big";
        u64_be: u64 = from_be_bytes, "big";
        i16_be: i16 = from_be_bytes, "big";
        i32_be: i32 = from_be_bytes, "big";
        i64_be: i64 = from_be_bytes, "big";
    }

    #[cold]
    fn out_of_bytes(&self, needed: usize) -> OutOfBytes {
        OutOfBytes {
            offset: self.offset,
            needed,
            available: self.bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_stops_at_the_end() {
        let mut reader = Reader::new(&[1, 2, 0, 0, 0, 3, b'a', 0, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16_le(), Ok(2));
        assert_eq!(reader.clone().u32_be(), Ok(0x0000_0361));
        assert_eq!(reader.take(3), Ok(&[0, 0, 3][..]));
        assert_eq!(reader.c_str(), Ok(&b"a"[..]));
        assert_eq!(
            reader.u16_be(),
            Err(OutOfBytes {
                offset: 8,
                needed: 2,
                available: 1
            })
        );
        assert_eq!(reader.offset(), 8);
        assert!(reader.c_str().is_err(), "no zero byte is left");
        assert_eq!(reader.rest(), &[9]);
        assert!(reader.is_empty());
    }
}
