//! [`CompressedInput`]: a file as the decompressors read it, front to back.

use std::io::{self, BufRead, Read};

use super::place::ReadAt;

/// Bytes read from the file at a time.
const BUFFER: usize = 64 << 10;

/// A file read from its start to its end through a buffer. It remembers what the decompressors do not tell: that the
/// file ended, and the error of a failed read.
pub(crate) struct CompressedInput {
    file: Box<dyn ReadAt>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes handed out.
    consumed: u64,
    offset: u64,
    at_end: bool,
    error: Option<io::Error>,
}

impl CompressedInput {
    pub(crate) fn new(file: Box<dyn ReadAt>) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            consumed: 0,
            offset: 0,
            at_end: false,
            error: None,
        }
    }

    /// Whether a reader was told that the file ends.
    pub(crate) const fn at_end(&self) -> bool {
        self.at_end
    }

    /// Bytes that were handed out so far.
    pub(crate) const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The error of the file itself, if that is what failed.
    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The file, to read it again from its start.
    pub(crate) fn into_file(self) -> Box<dyn ReadAt> {
        self.file
    }
}

impl BufRead for CompressedInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.end {
            self.buffer.resize(BUFFER, 0);
            (self.start, self.end) = (0, 0);
            match self.file.fill_at(self.offset, &mut self.buffer) {
                Ok(count) => {
                    self.offset = self.offset.saturating_add(count as u64);
                    self.end = count;
                    self.at_end = count == 0;
                }
                Err(error) => {
                    let kind = error.kind();
                    self.error = Some(error);
                    return Err(kind.into());
                }
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.end.saturating_sub(self.start));
        self.start = self.start.saturating_add(count);
        self.consumed = self.consumed.saturating_add(count as u64);
    }
}

impl Read for CompressedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
