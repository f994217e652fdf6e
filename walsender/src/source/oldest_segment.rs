//! [`oldest_segment`]: where the WAL of a directory begins.

use std::io;
use std::path::Path;

use walstream::wal::segment_name::{SegmentName, WalFileName};
use walstream::{Lsn, SegmentSize};

/// Start of the oldest segment in a `pg_wal`, of whatever timeline; `None` when there is none. A server that recycles
/// segments gives their files higher numbers, so such a file is never the oldest.
///
/// # Errors
/// When the directory cannot be listed.
pub fn oldest_segment(directory: &Path, segment_size: SegmentSize) -> io::Result<Option<Lsn>> {
    let mut oldest: Option<SegmentName> = None;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let parsed = name
            .to_str()
            .and_then(|name| WalFileName::parse(name, segment_size).ok());
        if let Some((WalFileName::Segment(found) | WalFileName::Partial(found), _)) = parsed
            && oldest.is_none_or(|known| found.number < known.number)
        {
            oldest = Some(found);
        }
    }
    Ok(oldest.and_then(|name| name.start_lsn(segment_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_number_of_any_timeline() {
        let directory = tempfile::tempdir().unwrap();
        let oldest = || oldest_segment(directory.path(), SegmentSize::DEFAULT).unwrap();
        assert_eq!(oldest(), None);
        for name in [
            "00000002.history",
            "000000020000000000000007",
            "000000010000000000000009",
            "000000010000000000000001.00000028.backup",
            "xlogtemp.17",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(oldest(), Some(Lsn(7 << 24)));
        let partial = directory.path().join("000000010000000000000006.partial");
        std::fs::write(partial, "").unwrap();
        assert_eq!(oldest(), Some(Lsn(6 << 24)));
        let missing = directory.path().join("missing");
        assert!(oldest_segment(&missing, SegmentSize::DEFAULT).is_err());
    }
}
