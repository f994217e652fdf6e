//! Reads a file of the archive as what it holds, decompressed.

use std::io::{self, Read};
use std::path::Path;

use super::gzip_reader::GzipReader;
use crate::receive::compression::Compression;
use crate::wal_sink::Storage;

/// A reader of what the file holds.
///
/// # Errors
/// When it cannot be opened; damage shows while it is read.
pub fn decoder<'a, S: Storage>(
    storage: &'a S,
    path: &Path,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    let file = StoredFile {
        file: storage.open_to_read(path)?,
        storage,
        offset: 0,
    };
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip(_) => Box::new(GzipReader::new(file)),
        Compression::Lz4(_) => Box::new(lz4::Decoder::new(file)?),
        Compression::Zstd(_) => Box::new(zstd::Decoder::new(file)?),
    })
}

/// How many bytes of what a file holds can be decompressed: all, or those before its damaged or missing end. A file that
/// was being written when the power went may end in anything.
pub fn readable_bytes<S: Storage>(storage: &S, path: &Path, compression: Compression) -> u64 {
    let count = |from: u64, step: usize| {
        let mut reader = decoder(storage, path, compression).ok()?;
        io::copy(&mut reader.by_ref().take(from), &mut io::sink()).ok()?;
        let mut chunk = vec![0; step];
        let mut count = from;
        while let Ok(read) = reader.read(&mut chunk) {
            if read == 0 {
                break;
            }
            count += read as u64;
        }
        Some(count)
    };
    // A decompressor that meets the damage keeps what it had before it in the same call: the rest is read byte by byte.
    count(0, 64 << 10)
        .and_then(|most| count(most, 1))
        .unwrap_or_default()
}

/// A file of a storage, read from its start on.
struct StoredFile<'a, S: Storage> {
    storage: &'a S,
    file: S::File,
    offset: u64,
}

impl<S: Storage> Read for StoredFile<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.storage.read_at(&self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
