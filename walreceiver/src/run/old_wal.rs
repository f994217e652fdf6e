//! [`remove_wal_before`]: segments of `pg_wal` that nobody needs any more.

use std::io;
use std::path::Path;

use walstream::wal::segment_name::WalFileName;
use walstream::{Lsn, SegmentSize};

use crate::mirror::durable::FileError;

/// Removes the segments, of any timeline, that hold nothing from `lsn` on, and gives their number. History files stay.
///
/// Nothing is synced: a file that comes back after a loss of power is removed another time.
///
/// # Errors
/// [`FileError`]; some may be gone then.
pub(super) fn remove_wal_before(
    pg_wal: &Path,
    segment_size: SegmentSize,
    lsn: Lsn,
) -> Result<u64, FileError> {
    let first_kept = lsn.segment_number(segment_size);
    let listed = FileError::of("list", pg_wal);
    let entries: Vec<_> = match std::fs::read_dir(pg_wal).and_then(Iterator::collect) {
        Ok(entries) => entries,
        Err(error) => return Err(listed(error)),
    };
    let mut removed = 0;
    for entry in entries as Vec<std::fs::DirEntry> {
        let file_name = entry.file_name();
        let name = file_name.to_str().unwrap_or_default();
        let Ok((WalFileName::Segment(segment), None)) = WalFileName::parse(name, segment_size)
        else {
            continue;
        };
        if segment.number >= first_kept {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::of("remove", &entry.path())(error)),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_before_the_position_go() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "000000010000000000000002",
            "000000010000000000000003",
            "000000020000000000000003",
            "000000020000000000000004",
            "000000010000000000000002.partial",
            "00000002.history",
            "archive_status",
        ];
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let size = SegmentSize::DEFAULT;
        assert_eq!(
            remove_wal_before(dir.path(), size, Lsn(0x0200_0000)).unwrap(),
            0
        );
        assert_eq!(
            remove_wal_before(dir.path(), size, Lsn(0x0400_0028)).unwrap(),
            3
        );
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "000000010000000000000002.partial",
                "00000002.history",
                "000000020000000000000004",
                "archive_status"
            ]
        );
    }
}
