//! Reads a file of the archive as what it holds, decompressed.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

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
        Compression::Gzip(_) => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(
            64 << 10,
            file,
        ))),
        Compression::Lz4(_) => Box::new(lz4::Decoder::new(file)?),
        Compression::Zstd(_) => Box::new(zstd::Decoder::new(file)?),
    })
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
