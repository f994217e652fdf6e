//! [`FlushedFile`]: the LSN that was last acknowledged, kept where a killed process cannot lose it.
//!
//! Before a flush LSN is told to anybody (a receiver's primary, a writer's callers and standbys) it is written here, without
//! a sync. When the process is killed the page cache keeps it, so the next start knows to the byte what was promised. After
//! a power loss an older value may be read, which is still a true lower bound. So a local end of WAL before this LSN is
//! damage, not an end.
//!
//! ```text
//! offset  0  magic "WSFLUSH1"
//!         8  flush LSN, u64 little-endian
//!        16  timeline, u32 little-endian
//!        20  CRC-32 of the bytes before, u32 little-endian
//! ```
//! The 24 bytes lie in one disk sector, so they are written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walstream::read::Reader;
use walstream::{Lsn, TimelineId};

use crate::durable::FileError;

const MAGIC: &[u8; 8] = b"WSFLUSH1";
const LENGTH: usize = 24;

/// A position on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelinePosition {
    /// The timeline on which the WAL before `lsn` lies.
    pub timeline: TimelineId,
    /// Exclusive end, or start, depending on the use.
    pub lsn: Lsn,
}

/// The open file `walstream.flushed`.
#[derive(Debug)]
pub struct FlushedFile {
    file: File,
    path: PathBuf,
}

impl FlushedFile {
    /// Name within its directory.
    pub const NAME: &'static str = "walstream.flushed";

    /// Opens the file of this directory, creating it when it is not there.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be created or opened.
    pub fn open(directory: &Path) -> Result<Self, FileError> {
        let path = directory.join(Self::NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::of("open", &path))?;
        Ok(Self { file, path })
    }

    /// Remembers that everything before this position is about to be acknowledged as flushed.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be written; then the position must not be acknowledged.
    pub fn record(&self, position: TimelinePosition) -> Result<(), FileError> {
        self.file
            .write_all_at(&encode(position), 0)
            .map_err(FileError::of("write", &self.path))
    }

    /// Makes what was recorded survive a loss of power, too.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be synced.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file
            .sync_data()
            .map_err(FileError::of("sync", &self.path))
    }

    /// What was acknowledged last; `None` when nothing is recorded or the record is damaged, in which case only
    /// what other files say is known.
    ///
    /// # Errors
    /// [`FileError`] when the file exists and cannot be read.
    pub fn read(directory: &Path) -> Result<Option<TimelinePosition>, FileError> {
        let path = directory.join(Self::NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error)),
        }
    }
}

fn encode(position: TimelinePosition) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let fields = MAGIC
        .iter()
        .copied()
        .chain(position.lsn.0.to_le_bytes())
        .chain(position.timeline.0.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    for (slot, byte) in bytes.iter_mut().zip(fields) {
        *slot = byte;
        crc.update(&[byte]);
    }
    for (slot, byte) in bytes
        .iter_mut()
        .skip(LENGTH - 4)
        .zip(crc.finalize().to_le_bytes())
    {
        *slot = byte;
    }
    bytes
}

fn parse(bytes: &[u8]) -> Option<TimelinePosition> {
    let mut reader = Reader::new(bytes);
    let magic = reader.array::<8>().ok()?;
    let lsn = Lsn(reader.u64_le().ok()?);
    let timeline = TimelineId(reader.u32_le().ok()?);
    let crc = reader.u32_le().ok()?;
    let sum = crc32fast::hash(bytes.get(..LENGTH - 4)?);
    (magic == *MAGIC && crc == sum).then_some(TimelinePosition { timeline, lsn })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: TimelinePosition = TimelinePosition {
        timeline: TimelineId(3),
        lsn: Lsn(0x16_B374_D848),
    };

    #[test]
    fn the_last_recorded_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FlushedFile::read(dir.path()).unwrap(), None);
        let file = FlushedFile::open(dir.path()).unwrap();
        assert_eq!(
            FlushedFile::read(dir.path()).unwrap(),
            None,
            "created, nothing recorded"
        );
        file.record(TimelinePosition {
            timeline: TimelineId(1),
            lsn: Lsn(8),
        })
        .unwrap();
        file.record(POSITION).unwrap();
        assert_eq!(FlushedFile::read(dir.path()).unwrap(), Some(POSITION));
    }

    #[test]
    fn any_damaged_byte_makes_it_unknown() {
        let good = encode(POSITION);
        assert_eq!(parse(&good), Some(POSITION));
        for at in 0..LENGTH {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(parse(&bad), None, "byte {at}");
            assert_eq!(parse(&good[..at]), None, "cut to {at}");
        }
    }
}
