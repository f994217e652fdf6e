//! [`WalFacts`]: what a mirror holds, told from its files and its WAL alone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use walstream::Lsn;
use walstream::wal::decode::WalDecoder;

use super::DemoError;
use super::workplace::io_error;
use crate::mirror::resume::ResumeError;
use crate::mirror::state::MirrorFacts;
use crate::mirror::wal_files::WalFiles;

/// Bytes read at once; a divisor of every segment size.
const CHUNK: usize = 1 << 20;

/// What a mirror holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WalFacts {
    /// Databases that have files in the base backup or are changed by the WAL.
    pub(super) databases: usize,
    /// Relation files that the WAL changes.
    pub(super) relations: usize,
}

impl WalFacts {
    /// Reads the mirror's directory, and its WAL from the base backup's start up to `end`, which is whole.
    pub(super) fn read(mirror: &Path, facts: &MirrorFacts, end: Lsn) -> Result<Self, DemoError> {
        let segment_size = facts.dialect.segment_size;
        let files = WalFiles::open(mirror, facts.start.timeline, segment_size)
            .map_err(ResumeError::from)?;
        let mut databases = databases_with_files(mirror)?;
        let mut relations = BTreeSet::new();
        let mut decoder = WalDecoder::new(facts.dialect, facts.start.lsn);
        let mut buffer = vec![0; CHUNK];
        while decoder.valid_end() < end {
            let position = decoder.position();
            let path = files.path(position.segment_number(segment_size));
            let offset = position.segment_offset(segment_size);
            let length = CHUNK - usize::try_from(offset).unwrap_or(0) % CHUNK;
            let bytes = buffer.get_mut(..length).unwrap_or_default();
            File::open(&path)
                .and_then(|file| file.read_exact_at(bytes, offset))
                .map_err(io_error("read", &path))?;
            let mut feed = decoder.feed(bytes);
            while let Ok(Some(record)) = feed.next_record() {
                let blocks = record.block_refs().into_iter().flatten();
                for block in blocks.filter(|_| record.start_lsn < end) {
                    databases.insert(block.locator.database);
                    relations.insert(block.locator);
                }
            }
            if decoder.position() == position || decoder.error().is_some() {
                break;
            }
        }
        // Relations that all databases share are in none.
        databases.remove(&0);
        Ok(Self {
            databases: databases.len(),
            relations: relations.len(),
        })
    }
}

/// The databases that have a directory in the default tablespace.
fn databases_with_files(mirror: &Path) -> Result<BTreeSet<u32>, DemoError> {
    let base = mirror.join("base");
    let entries = fs::read_dir(&base).map_err(io_error("read", &base))?;
    let names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io_error("read", &base))?;
    Ok(names
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}
