//! What a source keeps of its WAL that has no own say in it: an archive, a mirror.

use walstream::{Lsn, SegmentNumber};

use super::SourceIdentity;
use crate::slot::wal_status::{KeptWal, WalKeepSettings};

/// What is kept where others remove WAL, as they do in an archive: WAL begins with `oldest_lsn`, where that is known.
pub(super) fn kept_by_others(identity: &SourceIdentity, oldest_lsn: Option<Lsn>) -> KeptWal {
    let settings = keep_settings(identity);
    KeptWal {
        last_removed: oldest_lsn.map_or(SegmentNumber(0), |lsn| {
            let oldest = lsn.segment_number(settings.segment_size);
            SegmentNumber(oldest.0.saturating_sub(1))
        }),
        // What is not there is kept for nobody, whatever a slot needs.
        kept_from: oldest_lsn,
        settings,
    }
}

/// How much WAL the server keeps that the source stands for, by its settings, or PostgreSQL's defaults.
fn keep_settings(identity: &SourceIdentity) -> WalKeepSettings {
    let size = |name: &str| bytes(identity.settings.get(name)?);
    let defaults = WalKeepSettings::new(identity.segment_size);
    WalKeepSettings {
        max_wal_size: size("max_wal_size").unwrap_or(defaults.max_wal_size),
        wal_keep_size: size("wal_keep_size").unwrap_or(defaults.wal_keep_size),
        ..defaults
    }
}

/// A size as `SHOW` gives it, in bytes: `1GB`, `64MB`, `0`.
fn bytes(setting: &str) -> Option<u64> {
    let digits = setting.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let factor = match setting.strip_prefix(digits)? {
        "" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use walstream::{Dialect, PgMajor, SystemIdentifier};

    use super::*;
    use crate::slot::wal_status::SlotWal;

    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn a_slot_whose_wal_was_removed_from_the_archive_is_lost() {
        let dialect = Dialect::with_default_sizes(PgMajor::V15);
        let identity = SourceIdentity::of_version(SystemIdentifier(7), &dialect, 150_000);
        // Segments 5 to 9 of an archive, from which the older ones were removed.
        let kept = kept_by_others(&identity, Some(Lsn(5 * SEGMENT)));
        let extent = kept.extent(Lsn(9 * SEGMENT + 100), Some(Lsn(4 * SEGMENT)));
        for (restart, is_active, status) in [
            (4, false, "lost"),
            (4, true, "unreserved"),
            (5, false, "reserved"),
            (9, false, "reserved"),
        ] {
            let slot = SlotWal {
                restart_lsn: Some(Lsn(restart * SEGMENT)),
                is_invalidated: false,
                is_active,
            };
            let found = kept.settings.wal_status(&extent, &slot).unwrap();
            assert_eq!(found.name(), status, "{restart}");
        }
    }

    #[test]
    fn sizes_are_read_as_show_gives_them() {
        for (text, size) in [
            ("0", Some(0)),
            ("64MB", Some(64 << 20)),
            ("1GB", Some(1 << 30)),
            ("-1", None),
            ("1PB", None),
            ("GB", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
