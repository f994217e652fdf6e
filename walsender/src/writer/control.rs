//! [`LogControl`], the file `walstream.log`: what never changes of a log.
//!
//! ```text
//! offset  0  magic "WSWRITE1"
//!         8  system identifier, u64 little-endian
//!        16  LSN at which the log begins, u64 little-endian
//!        24  timeline, u32 little-endian
//!        28  PostgreSQL's major version, u32 little-endian
//!        32  WAL page size, 36 segment size, 40 block size in bytes, u32 little-endian each
//!        44  CRC-32 of the bytes before, u32 little-endian
//! ```

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use walstream::read::Reader;
use walstream::{Dialect, Lsn, PageSize, PgMajor, SegmentSize, SystemIdentifier, TimelineId};

use super::error::OpenError;
use crate::durable::{FileError, replace_file};

const MAGIC: &[u8; 8] = b"WSWRITE1";
const LENGTH: usize = 48;

/// What a log is. It is chosen when the log is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogControl {
    /// The cluster that the log says to be of.
    pub system_identifier: SystemIdentifier,
    /// Its timeline.
    pub timeline: TimelineId,
    /// The format: that of a PostgreSQL version, whose tools then read it.
    pub dialect: Dialect,
    /// Where it begins: a segment's start.
    pub start_lsn: Lsn,
}

impl LogControl {
    /// Name within the log's directory.
    pub const NAME: &'static str = "walstream.log";

    /// A new log in the format of this version with its default sizes, of a system identifier that no other has. It begins
    /// with the second segment, as that of a server does.
    ///
    /// # Source
    /// `BootStrapXLOG` in `src/backend/access/transam/xlog.c`.
    #[must_use]
    pub fn new(major: PgMajor) -> Self {
        let dialect = Dialect::with_default_sizes(major);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let id = (now.as_secs() << 32)
            | (u64::from(now.subsec_micros()) << 12)
            | (u64::from(std::process::id()) & 0xFFF);
        Self {
            system_identifier: SystemIdentifier(id),
            timeline: TimelineId(1),
            dialect,
            start_lsn: Lsn(dialect.segment_size.bytes()),
        }
    }

    /// The same log in segments of this size.
    #[must_use]
    pub const fn with_segment_size(mut self, segment_size: SegmentSize) -> Self {
        self.dialect.segment_size = segment_size;
        self.start_lsn = Lsn(segment_size.bytes());
        self
    }

    /// Writes the file, durably.
    pub(super) fn write(&self, directory: &Path) -> Result<(), FileError> {
        replace_file(&directory.join(Self::NAME), &self.encode())
    }

    /// Reads the file; `None` when there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join(Self::NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes)
                .map(Some)
                .ok_or(OpenError::Control { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error).into()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.system_identifier.0.to_le_bytes());
        bytes.extend_from_slice(&self.start_lsn.0.to_le_bytes());
        for field in [
            self.timeline.0,
            self.dialect.major.number(),
            self.dialect.wal_page_size.bytes_u32(),
            self.dialect.segment_size.bytes_u32(),
            self.dialect.block_size.bytes_u32(),
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let sum = crc32fast::hash(bytes.get(..LENGTH - 4)?);
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<8>().ok()?;
        let system_identifier = SystemIdentifier(reader.u64_le().ok()?);
        let start_lsn = Lsn(reader.u64_le().ok()?);
        let timeline = TimelineId(reader.u32_le().ok()?);
        let major = PgMajor::from_number(reader.u32_le().ok()?)?;
        let wal_page_size = PageSize::new(reader.u32_le().ok()?).ok()?;
        let segment_size = SegmentSize::new(reader.u32_le().ok()?).ok()?;
        let block_size = PageSize::new(reader.u32_le().ok()?).ok()?;
        let crc = reader.u32_le().ok()?;
        let control = Self {
            system_identifier,
            timeline,
            dialect: Dialect {
                major,
                wal_page_size,
                segment_size,
                block_size,
            },
            start_lsn,
        };
        (magic == *MAGIC && crc == sum && bytes.len() == LENGTH && control.is_possible())
            .then_some(control)
    }

    /// Whether a log can be this.
    pub(super) const fn is_possible(&self) -> bool {
        self.timeline.0 != 0
            && self.start_lsn.is_valid()
            && self.start_lsn.segment_offset(self.dialect.segment_size) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LogControl::read(dir.path()).unwrap(), None);
        let control = LogControl::new(PgMajor::V15).with_segment_size(SegmentSize::MIN);
        control.write(dir.path()).unwrap();
        assert_eq!(LogControl::read(dir.path()).unwrap(), Some(control));
        let good = control.encode();
        assert_eq!(good.len(), LENGTH);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(LogControl::parse(&bad), None, "byte {at}");
            assert_eq!(LogControl::parse(&good[..at]), None, "cut to {at}");
        }
        std::fs::write(dir.path().join(LogControl::NAME), b"x").unwrap();
        let error = LogControl::read(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Control { .. }), "{error}");
    }
}
