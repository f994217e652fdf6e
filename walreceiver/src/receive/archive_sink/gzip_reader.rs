//! [`GzipReader`]: a gzip file read to its end or its damage, and not a byte less.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

/// The base-2 logarithm of the greatest window.
const WINDOW_BITS: u8 = 15;
const CHUNK: usize = 64 << 10;

/// Decompresses. What came before damage, or before an end that is missing, is given before the error.
pub(super) struct GzipReader<R> {
    file: R,
    decompress: Decompress,
    input: Vec<u8>,
    /// What of the input is taken.
    taken: usize,
    ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> GzipReader<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            decompress: Decompress::new_gzip(WINDOW_BITS),
            input: Vec::new(),
            taken: 0,
            ended: false,
            failure: None,
        }
    }

    /// Reads more of the file when all of it is taken. Gives false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.taken < self.input.len() {
            return Ok(true);
        }
        self.input.resize(CHUNK, 0);
        let count = self.file.read(&mut self.input)?;
        self.input.truncate(count);
        self.taken = 0;
        Ok(count > 0)
    }
}

impl<R: Read> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            let more = self.fill()?;
            let (taken, given) = (self.decompress.total_in(), self.decompress.total_out());
            let rest = self.input.get(self.taken..).unwrap_or_default();
            let result = self
                .decompress
                .decompress(rest, buffer, FlushDecompress::None);
            let taken = self.decompress.total_in() - taken;
            let given = self.decompress.total_out() - given;
            self.taken += usize::try_from(taken).unwrap_or(rest.len());
            match result {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(_) if more || given > 0 => {}
                Ok(_) => self.failure = Some(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => self.failure = Some(error.into()),
            }
            if given > 0 {
                return Ok(usize::try_from(given).unwrap_or(buffer.len()));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn gives_everything_before_the_damage() {
        let wal: Vec<u8> = (0..300_000_u32)
            .map(|at| (at % 97).to_le_bytes()[0])
            .collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&wal).unwrap();
        encoder.flush().unwrap();
        let flushed = encoder.get_ref().len();
        encoder.write_all(b"more").unwrap();
        let whole = encoder.finish().unwrap();
        let read = |bytes: &[u8], step: usize| {
            let mut reader = GzipReader::new(bytes);
            let (mut all, mut chunk) = (Vec::new(), vec![0; step]);
            let result = loop {
                match reader.read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    Ok(count) => all.extend_from_slice(&chunk[..count]),
                    Err(error) => break Err(error.kind()),
                }
            };
            (all, result)
        };
        for step in [1, 7, 1 << 20] {
            let (all, result) = read(&whole, step);
            assert_eq!((all.len(), result), (wal.len() + 4, Ok(())));
            let (all, result) = read(&whole[..flushed], step);
            assert_eq!(
                (all == wal, result),
                (true, Err(io::ErrorKind::UnexpectedEof))
            );
            let garbage = [&whole[..flushed], &[0; 600]].concat();
            let (all, result) = read(&garbage, step);
            assert!(all == wal && result.is_err(), "{} {result:?}", all.len());
        }
    }
}
