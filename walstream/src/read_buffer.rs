//! [`ReadBuffer`]: memory to read files into, aligned.
//!
//! The allocator puts a large `Vec<u8>` 16 bytes behind a page's start. To copy there out of the page cache takes half as
//! long again as to an address that is a multiple of 32 (measured on Zen 4, whose `rep movsb` the kernel uses), and
//! reading is the greater part of the time in which WAL is decoded.

/// Alignment in bytes: a cache line.
const ALIGNMENT: usize = 64;

/// A buffer of fixed length whose first byte is at a multiple of 64.
#[derive(Debug)]
pub struct ReadBuffer {
    // Never grows, so it stays where it is.
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl ReadBuffer {
    /// Length in bytes that reads WAL out of the page cache fastest: 1 MiB. Of 256 KiB upwards it matters by a tenth.
    pub const LEN: usize = 1 << 20;

    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len.saturating_add(ALIGNMENT)];
        // Where the address cannot be told, the buffer is whole but not aligned.
        let from = match bytes.as_ptr().align_offset(ALIGNMENT) {
            from if from < ALIGNMENT => from,
            _ => 0,
        };
        Self { bytes, from, len }
    }

    /// The buffer, to be written.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let to = self.from.saturating_add(self.len);
        self.bytes.get_mut(self.from..to).unwrap_or_default()
    }

    /// The first `count` bytes of it; all of it when there are fewer.
    #[must_use]
    pub fn filled(&self, count: usize) -> &[u8] {
        let to = self.from.saturating_add(count.min(self.len));
        self.bytes.get(self.from..to).unwrap_or_default()
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self::new(Self::LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_of_the_length_asked_for() {
        for len in [0, 1, 64, 8192, 8193, ReadBuffer::LEN] {
            let mut buffer = ReadBuffer::new(len);
            assert_eq!(buffer.as_mut_slice().len(), len);
            assert_eq!(buffer.as_mut_slice().as_ptr().addr() % ALIGNMENT, 0);
            buffer.as_mut_slice().fill(7);
            assert_eq!(buffer.filled(len), vec![7; len]);
            assert_eq!(buffer.filled(usize::MAX).len(), len);
            let moved = buffer;
            assert_eq!(moved.filled(1).as_ptr().addr() % ALIGNMENT, 0);
        }
    }
}
