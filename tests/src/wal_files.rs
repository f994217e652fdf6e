//! WAL as files: reading what a server left, and writing what a test has made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walreceiver::demo::server_user::ServerUser;
use walstream::read::Reader;
use walstream::wal::page::LongPageHeader;
use walstream::wal::segment_name::SegmentName;
use walstream::{Dialect, Lsn, PageSize, TimelineId};

use crate::cluster::Cluster;

/// The WAL of a stopped server: all segments of one timeline, without gaps.
#[derive(Debug)]
pub struct WalFiles {
    /// Where they are.
    pub directory: PathBuf,
    /// Their format.
    pub dialect: Dialect,
    /// The first byte's LSN.
    pub start: Lsn,
    /// Their bytes, one after the other, and those of segments that were made ready for later.
    pub bytes: Vec<u8>,
}

impl WalFiles {
    /// Reads them all.
    ///
    /// # Errors
    /// When there are none, or one cannot be read.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.data_dir().join("pg_wal");
        let names: BTreeSet<String> = fs::read_dir(&directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        let mut bytes = Vec::new();
        for name in names.iter().filter(|name| name.len() == 24) {
            bytes.extend(cluster.wal_file(name)?);
        }
        ensure!(!bytes.is_empty(), "no WAL in {}", directory.display());
        let first = LongPageHeader::parse(&mut Reader::new(&bytes))?;
        Ok(Self {
            directory,
            dialect: first.dialect(PageSize::DEFAULT)?,
            start: first.page.address,
            bytes,
        })
    }

    /// The header of the first page.
    ///
    /// # Errors
    /// When there is less than a header.
    pub fn first_page(&self) -> Result<LongPageHeader> {
        Ok(LongPageHeader::parse(&mut Reader::new(&self.bytes))?)
    }
}

/// Writes WAL that begins at `start` as whole segments of this timeline into a directory of the server's user: the first
/// one over what is there, later ones anew, the rest of the last one with zeros.
///
/// # Errors
/// When a file cannot be written, or `start` is inside a segment whose file is not there.
pub fn write_segments(
    user: &ServerUser,
    directory: &Path,
    wal: &[u8],
    dialect: &Dialect,
    start: Lsn,
    timeline: TimelineId,
) -> Result<()> {
    let size = usize::try_from(dialect.segment_size.bytes())?;
    let mut rest = wal;
    let mut lsn = start;
    while !rest.is_empty() {
        let number = lsn.segment_number(dialect.segment_size);
        let name = SegmentName { timeline, number }.file_name(dialect.segment_size);
        let path = directory.join(name);
        let offset = usize::try_from(lsn.segment_offset(dialect.segment_size))?;
        let mut segment = if offset == 0 {
            Vec::new()
        } else {
            fs::read(&path).with_context(|| path.display().to_string())?
        };
        segment.truncate(offset);
        let (piece, after) = rest.split_at((size - offset).min(rest.len()));
        segment.extend_from_slice(piece);
        segment.resize(size, 0);
        fs::write(&path, segment)?;
        user.own(&path)?;
        lsn = lsn + u64::try_from(piece.len())?;
        rest = after;
    }
    Ok(())
}
