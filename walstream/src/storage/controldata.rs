//! The content of `pg_control` as `pg_controldata` prints it.

use super::control::ControlFile;
use crate::lsn::Lsn;
use crate::pg_time::civil_date;
use crate::wal::segment_name::SegmentName;

/// The lines of `pg_controldata` about this file: each label with its colon, and the value, in English and UTC.
///
/// The labels and their order are those of the server's own version, so the output can be compared line by line with
/// that of `LC_ALL=C TZ=UTC pg_controldata`.
///
/// # Source
/// `main` in `src/bin/pg_controldata/pg_controldata.c`.
#[must_use]
pub fn controldata_lines(control: &ControlFile) -> Vec<(&'static str, String)> {
    let on_off = |value| if value { "on" } else { "off" }.to_owned();
    let by_value = |value| if value { "by value" } else { "by reference" }.to_owned();
    let lsn = |lsn: Lsn| lsn.to_string();
    let checkpoint = &control.checkpoint;
    let settings = &control.settings;
    let redo_file = SegmentName::at(
        checkpoint.timeline,
        checkpoint.redo_lsn,
        control.wal_segment_size,
    );
    let (epoch, xid) = Lsn(checkpoint.next_full_xid).halves();
    let nonce = control
        .mock_authentication_nonce
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();

    let mut lines = vec![
        (
            "pg_control version number:",
            control.version.number().to_string(),
        ),
        (
            "Catalog version number:",
            control.catalog_version.to_string(),
        ),
        (
            "Database system identifier:",
            control.system_identifier.to_string(),
        ),
        ("Database cluster state:", control.state.name().to_owned()),
        ("pg_control last modified:", c_time(control.time_unix_s)),
        ("Latest checkpoint location:", lsn(control.checkpoint_lsn)),
        (
            "Latest checkpoint's REDO location:",
            lsn(checkpoint.redo_lsn),
        ),
        (
            "Latest checkpoint's REDO WAL file:",
            redo_file.file_name(control.wal_segment_size),
        ),
        (
            "Latest checkpoint's TimeLineID:",
            checkpoint.timeline.to_string(),
        ),
        (
            "Latest checkpoint's PrevTimeLineID:",
            checkpoint.prev_timeline.to_string(),
        ),
        (
            "Latest checkpoint's full_page_writes:",
            on_off(checkpoint.full_page_writes),
        ),
        ("Latest checkpoint's NextXID:", format!("{epoch}:{xid}")),
        (
            "Latest checkpoint's NextOID:",
            checkpoint.next_oid.to_string(),
        ),
        (
            "Latest checkpoint's NextMultiXactId:",
            checkpoint.next_multi.to_string(),
        ),
        (
            "Latest checkpoint's NextMultiOffset:",
            checkpoint.next_multi_offset.to_string(),
        ),
        (
            "Latest checkpoint's oldestXID:",
            checkpoint.oldest_xid.to_string(),
        ),
        (
            "Latest checkpoint's oldestXID's DB:",
            checkpoint.oldest_xid_database.to_string(),
        ),
        (
            "Latest checkpoint's oldestActiveXID:",
            checkpoint.oldest_active_xid.to_string(),
        ),
        (
            "Latest checkpoint's oldestMultiXid:",
            checkpoint.oldest_multi.to_string(),
        ),
        (
            "Latest checkpoint's oldestMulti's DB:",
            checkpoint.oldest_multi_database.to_string(),
        ),
        (
            "Latest checkpoint's oldestCommitTsXid:",
            checkpoint.oldest_commit_ts_xid.to_string(),
        ),
        (
            "Latest checkpoint's newestCommitTsXid:",
            checkpoint.newest_commit_ts_xid.to_string(),
        ),
        ("Time of latest checkpoint:", c_time(checkpoint.time_unix_s)),
        (
            "Fake LSN counter for unlogged rels:",
            lsn(control.unlogged_lsn),
        ),
        (
            "Minimum recovery ending location:",
            lsn(control.min_recovery_point),
        ),
        (
            "Min recovery ending loc's timeline:",
            control.min_recovery_point_timeline.to_string(),
        ),
        ("Backup start location:", lsn(control.backup_start_point)),
        ("Backup end location:", lsn(control.backup_end_point)),
        (
            "End-of-backup record required:",
            if control.backup_end_required {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
        ),
        ("wal_level setting:", settings.wal_level.name().to_owned()),
        ("wal_log_hints setting:", on_off(settings.wal_log_hints)),
        (
            "max_connections setting:",
            settings.max_connections.to_string(),
        ),
        (
            "max_worker_processes setting:",
            settings.max_worker_processes.to_string(),
        ),
        (
            "max_wal_senders setting:",
            settings.max_wal_senders.to_string(),
        ),
        (
            "max_prepared_xacts setting:",
            settings.max_prepared_transactions.to_string(),
        ),
        (
            "max_locks_per_xact setting:",
            settings.max_locks_per_transaction.to_string(),
        ),
        (
            "track_commit_timestamp setting:",
            on_off(settings.track_commit_timestamp),
        ),
        ("Maximum data alignment:", "8".to_owned()),
        (
            "Database block size:",
            control.block_size.bytes().to_string(),
        ),
        (
            "Blocks per segment of large relation:",
            control.blocks_per_relation_segment.to_string(),
        ),
        (
            "WAL block size:",
            control.wal_block_size.bytes().to_string(),
        ),
        (
            "Bytes per WAL segment:",
            control.wal_segment_size.bytes().to_string(),
        ),
        (
            "Maximum length of identifiers:",
            control.name_data_len.to_string(),
        ),
        (
            "Maximum columns in an index:",
            control.index_max_keys.to_string(),
        ),
        (
            "Maximum size of a TOAST chunk:",
            control.toast_max_chunk_size.to_string(),
        ),
        (
            "Size of a large-object chunk:",
            control.large_object_block_size.to_string(),
        ),
        ("Date/time type storage:", "64-bit integers".to_owned()),
    ];
    lines.extend(
        control
            .float4_by_value
            .map(|value| ("Float4 argument passing:", by_value(value))),
    );
    lines.push((
        "Float8 argument passing:",
        by_value(control.float8_by_value),
    ));
    lines.push((
        "Data page checksum version:",
        control.data_checksum_version.to_string(),
    ));
    let signed = |signed| if signed { "signed" } else { "unsigned" }.to_owned();
    lines.extend(
        control
            .default_char_signed
            .map(|value| ("Default char data signedness:", signed(value))),
    );
    lines.push(("Mock authentication nonce:", nonce));
    lines
}

/// A time as C's `%c` prints it in the C locale: `Sun Nov 22 03:08:19 2026`. UTC.
fn c_time(unix_s: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = unix_s.div_euclid(86_400);
    let second = unix_s.rem_euclid(86_400);
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| names.get(index).copied())
            .unwrap_or("???")
    };
    let (year, month, day) = civil_date(days);
    format!(
        "{} {} {day:2} {:02}:{:02}:{:02} {year}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_c_prints_them() {
        for (unix_s, text) in [
            (0, "Thu Jan  1 00:00:00 1970"),
            (-1, "Wed Dec 31 23:59:59 1969"),
            (951_782_399, "Mon Feb 28 23:59:59 2000"),
            (951_782_400, "Tue Feb 29 00:00:00 2000"),
            (951_868_800, "Wed Mar  1 00:00:00 2000"),
            (4_107_542_399, "Sun Feb 28 23:59:59 2100"),
            (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
        ] {
            assert_eq!(c_time(unix_s), text);
        }
        c_time(i64::MAX);
        c_time(i64::MIN);
    }
}
