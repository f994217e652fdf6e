//! [`sync_wal`]: WAL is on the disk before pages are that it changed.
//!
//! WAL that a receiver wrote and did not sync before it was killed is read from the system's memory like any other. Were it replayed
//! and then lost with the power, pages and the minimum recovery point would be ahead of the log.

use std::io;
use std::path::Path;

use walstream::wal::segment_name::WalFileName;
use walstream::{Lsn, SegmentSize};

use super::listing::list;
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Makes durable what a directory has of WAL from `from` on, and its names.
///
/// # Errors
/// [`FileError`]; nothing may be replayed then.
pub(super) fn sync_wal<S: DataStorage>(
    storage: &S,
    directory: &Path,
    segment_size: SegmentSize,
    from: Lsn,
) -> Result<(), FileError> {
    let first = from.segment_number(segment_size);
    for name in list(storage, directory)? {
        let is_needed = match WalFileName::parse(&name, segment_size) {
            Ok((WalFileName::Segment(segment) | WalFileName::Partial(segment), _)) => {
                segment.number >= first
            }
            Ok((WalFileName::History(_), _)) => true,
            _ => false,
        };
        if !is_needed {
            continue;
        }
        let path = directory.join(name);
        let file = storage
            .open_to_read(&path)
            .map_err(FileError::of("open", &path))?;
        synced(storage.sync_data(&file)).map_err(FileError::of("sync", &path))?;
    }
    synced(storage.sync_directory(directory)).map_err(FileError::of("sync", directory))
}

/// What cannot be written here cannot be unsynced here, either.
fn synced(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}
