//! Fuzz targets of file names and of the small files beside the log.

use crate::lsn::SegmentSize;
use crate::storage::backup_label::{BackupHistory, BackupLabel};
use crate::storage::control::{ControlFile, ControlVersion};
use crate::storage::controldata::controldata_lines;
use crate::storage::tablespace_map::{format_tablespace_map, parse_tablespace_map};
use crate::timeline::TimelineHistory;
use crate::types::TimelineId;
use crate::wal::segment_name::WalFileName;

/// A WAL file name, under the smallest, the usual and the largest segment size.
pub fn wal_file_name(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else {
        return;
    };
    for size in [SegmentSize::MIN, SegmentSize::DEFAULT, SegmentSize::MAX] {
        if let Ok((kind, compression)) = WalFileName::parse(name, size) {
            let suffix = compression.map_or("", |c| c.suffix());
            assert_eq!(kind.file_name(size) + suffix, name);
        }
    }
}

/// A timeline's history file, as a low and as the highest timeline's.
pub fn history(data: &[u8]) {
    for timeline in [TimelineId(5), TimelineId(u32::MAX)] {
        let Ok(history) = TimelineHistory::parse(timeline, data) else {
            continue;
        };
        let again = TimelineHistory::parse(timeline, history.to_string().as_bytes());
        assert_eq!(again.as_ref(), Ok(&history));
        assert_eq!(
            history.common_ancestor(&history).map(|(t, _)| t),
            Some(timeline)
        );
        for ancestor in history.ancestors() {
            assert!(history.contains(history.timeline_at(ancestor.switch_lsn)));
            let next = history.next_timeline(ancestor.timeline);
            assert!(next.is_some_and(|next| next > ancestor.timeline));
        }
    }
}

/// A control file: as it is, and as each version with the version number and the CRC put right, which a fuzzer would
/// not find by itself.
pub fn control(data: &[u8]) {
    let _ = ControlFile::parse(data);
    for version in ControlVersion::ALL {
        let mut file = data.to_vec();
        file.resize(version.crc_offset() + 4, 0);
        let (content, crc) = file.split_at_mut(version.crc_offset());
        if let Some(number) = content.get_mut(8..12) {
            number.copy_from_slice(&version.number().to_le_bytes());
        }
        crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
        if let Ok(control) = ControlFile::parse(&file) {
            assert!(controldata_lines(&control).len() >= 49);
            let _ = control.dialect();
            assert_eq!(ControlFile::parse(&control.encode()), Ok(control));
        }
    }
}

/// A backup's label, its history file, and a tablespace map.
pub fn backup_label(data: &[u8]) {
    for size in [SegmentSize::MIN, SegmentSize::DEFAULT, SegmentSize::MAX] {
        if let Ok(label) = BackupLabel::parse(data, size) {
            assert_eq!(
                BackupLabel::parse(label.format(size).as_bytes(), size),
                Ok(label)
            );
        }
        if let Ok(history) = BackupHistory::parse(data, size) {
            assert_eq!(
                BackupHistory::parse(history.format(size).as_bytes(), size),
                Ok(history)
            );
        }
    }
    if let Ok(map) = parse_tablespace_map(data) {
        assert_eq!(parse_tablespace_map(&format_tablespace_map(&map)), Ok(map));
    }
}
