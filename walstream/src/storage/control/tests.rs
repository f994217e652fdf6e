//! Real control files of PostgreSQL 12 to 18 against what the servers' own programs said about them.
//!
//! A fixture is the first 512 bytes of a file, whose rest was zeros. `.txt` is the output of the same version's
//! `LC_ALL=C TZ=UTC pg_controldata`; for 12 and 13, `.sql.txt` is that of `pg_control_system()` and its siblings.

use std::collections::BTreeMap;

use super::*;
use crate::storage::controldata::controldata_lines;

macro_rules! fixtures {
    ($($name:literal $major:ident $text:expr;)*) => {
        [$(($name, PgMajor::$major, include_bytes!(concat!("fixtures/", $name, ".bin")) as &[u8], $text)),*]
    };
    (text $name:literal) => { Some(include_str!(concat!("fixtures/", $name, ".txt"))) };
}

/// Name, version, bytes and the program's output of every fixture.
const FIXTURES: [(&str, PgMajor, &[u8], Option<&str>); 16] = fixtures! {
    "12_in_production" V12 None;
    "12_shut_down" V12 None;
    "13_in_production" V13 None;
    "13_shut_down" V13 None;
    "14_in_production" V14 fixtures!(text "14_in_production");
    "14_shut_down" V14 fixtures!(text "14_shut_down");
    "15_in_production" V15 fixtures!(text "15_in_production");
    "15_shut_down" V15 fixtures!(text "15_shut_down");
    "15_standby" V15 fixtures!(text "15_standby");
    "15_promoted" V15 fixtures!(text "15_promoted");
    "16_in_production" V16 fixtures!(text "16_in_production");
    "16_shut_down" V16 fixtures!(text "16_shut_down");
    "17_in_production" V17 fixtures!(text "17_in_production");
    "17_shut_down" V17 fixtures!(text "17_shut_down");
    "18_in_production" V18 fixtures!(text "18_in_production");
    "18_shut_down" V18 fixtures!(text "18_shut_down");
};

fn fixture(name: &str) -> (Vec<u8>, ControlFile) {
    let (_, _, bytes, _) = FIXTURES.into_iter().find(|f| f.0 == name).unwrap();
    (bytes.to_vec(), ControlFile::parse(bytes).unwrap())
}

/// The bytes with the CRC that their content has.
fn with_crc(mut bytes: Vec<u8>, version: ControlVersion) -> Vec<u8> {
    let at = version.crc_offset();
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn every_line_is_what_pg_controldata_printed() {
    for (name, _, bytes, text) in FIXTURES {
        let Some(text) = text else { continue };
        let lines = controldata_lines(&ControlFile::parse(bytes).unwrap());
        let printed: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), printed.len(), "{name}");
        for ((label, value), printed) in lines.iter().zip(printed) {
            assert_eq!(format!("{label:<38}{value}"), printed, "{name}");
        }
    }
}

#[test]
fn every_column_is_what_12_and_13_answered() {
    let answers = [
        (
            "12_in_production",
            include_str!("fixtures/12_in_production.sql.txt"),
            Some(true),
        ),
        (
            "13_in_production",
            include_str!("fixtures/13_in_production.sql.txt"),
            None,
        ),
    ];
    for (name, answer, float4) in answers {
        let (_, control) = fixture(name);
        assert_eq!(control.float4_by_value, float4);
        let lines: BTreeMap<_, _> = controldata_lines(&control).into_iter().collect();
        let mut compared = 0;
        for line in answer.lines() {
            let (column, value) = line.split_once('|').unwrap();
            let label = match column {
                "pg_control_version" => "pg_control version number:",
                "catalog_version_no" => "Catalog version number:",
                "system_identifier" => "Database system identifier:",
                "checkpoint_lsn" => "Latest checkpoint location:",
                "redo_lsn" => "Latest checkpoint's REDO location:",
                "redo_wal_file" => "Latest checkpoint's REDO WAL file:",
                "timeline_id" => "Latest checkpoint's TimeLineID:",
                "prev_timeline_id" => "Latest checkpoint's PrevTimeLineID:",
                "full_page_writes" => "Latest checkpoint's full_page_writes:",
                "next_xid" => "Latest checkpoint's NextXID:",
                "next_oid" => "Latest checkpoint's NextOID:",
                "next_multixact_id" => "Latest checkpoint's NextMultiXactId:",
                "next_multi_offset" => "Latest checkpoint's NextMultiOffset:",
                "oldest_xid" => "Latest checkpoint's oldestXID:",
                "oldest_xid_dbid" => "Latest checkpoint's oldestXID's DB:",
                "oldest_active_xid" => "Latest checkpoint's oldestActiveXID:",
                "oldest_multi_xid" => "Latest checkpoint's oldestMultiXid:",
                "oldest_multi_dbid" => "Latest checkpoint's oldestMulti's DB:",
                "oldest_commit_ts_xid" => "Latest checkpoint's oldestCommitTsXid:",
                "newest_commit_ts_xid" => "Latest checkpoint's newestCommitTsXid:",
                "min_recovery_end_lsn" => "Minimum recovery ending location:",
                "min_recovery_end_timeline" => "Min recovery ending loc's timeline:",
                "backup_start_lsn" => "Backup start location:",
                "backup_end_lsn" => "Backup end location:",
                "end_of_backup_record_required" => "End-of-backup record required:",
                "max_data_alignment" => "Maximum data alignment:",
                "database_block_size" => "Database block size:",
                "blocks_per_segment" => "Blocks per segment of large relation:",
                "wal_block_size" => "WAL block size:",
                "bytes_per_wal_segment" => "Bytes per WAL segment:",
                "max_identifier_length" => "Maximum length of identifiers:",
                "max_index_columns" => "Maximum columns in an index:",
                "max_toast_chunk_size" => "Maximum size of a TOAST chunk:",
                "large_object_chunk_size" => "Size of a large-object chunk:",
                "float4_pass_by_value" => "Float4 argument passing:",
                "float8_pass_by_value" => "Float8 argument passing:",
                "data_page_checksum_version" => "Data page checksum version:",
                // Both are the second in which the fixtures were made, in another notation.
                "pg_control_last_modified" | "checkpoint_time" => {
                    let clock = value.get(11..19).unwrap();
                    assert!(
                        lines["Time of latest checkpoint:"].contains(clock),
                        "{name}: {value}"
                    );
                    continue;
                }
                other => panic!("{name}: {other} is not compared"),
            };
            let ours = match lines[label].as_str() {
                "on" | "by value" => "t",
                "no" => "f",
                other => other,
            };
            assert_eq!(ours, value, "{name}: {column}");
            compared += 1;
        }
        assert!(compared >= 36, "{name}: {compared} columns");
    }
}

/// The settings of the fixtures' servers, which SQL does not answer for 12 and 13.
#[test]
fn settings_of_the_primary_are_read_in_every_version() {
    let expected = ServerSettings {
        wal_level: WalLevel::Logical,
        wal_log_hints: true,
        max_connections: 37,
        max_worker_processes: 9,
        max_wal_senders: 5,
        max_prepared_transactions: 3,
        max_locks_per_transaction: 71,
        track_commit_timestamp: true,
    };
    for (name, major, bytes, _) in FIXTURES {
        let control = ControlFile::parse(bytes).unwrap();
        assert_eq!(control.settings, expected, "{name}");
        let since_17 = (major >= PgMajor::V17).then_some(WalLevel::Logical);
        assert_eq!(control.checkpoint.wal_level, since_17, "{name}");
        assert!(control.has_data_checksums(), "{name}");
        let state = match name.split_once('_').unwrap().1 {
            "in_production" | "promoted" => DatabaseState::InProduction,
            "shut_down" => DatabaseState::ShutDown,
            _ => DatabaseState::InArchiveRecovery,
        };
        assert_eq!(control.state, state, "{name}");
    }
}

#[test]
fn encoding_gives_back_the_servers_bytes() {
    for (name, major, bytes, _) in FIXTURES {
        let control = ControlFile::parse(bytes).unwrap();
        let encoded = control.encode();
        assert_eq!(encoded.len(), CONTROL_FILE_SIZE);
        assert!(encoded.starts_with(bytes), "{name}");
        let checkpoint = control.checkpoint.encode(major);
        assert_eq!(checkpoint, bytes[40..40 + CheckPoint::SIZE], "{name}");
        assert_eq!(
            CheckPoint::parse(&checkpoint, major),
            Ok(control.checkpoint),
            "{name}"
        );
    }
}

#[test]
fn the_dialect_follows_from_the_file() {
    for (name, major, bytes, _) in FIXTURES {
        let dialect = ControlFile::parse(bytes).unwrap().dialect().unwrap();
        let mut expected = Dialect::with_default_sizes(major);
        if major == PgMajor::V16 {
            expected.segment_size = SegmentSize::new(64 << 20).unwrap();
        }
        assert_eq!(dialect, expected, "{name}");
    }
    let (_, mut control) = fixture("15_shut_down");
    control.catalog_version += 1;
    assert_eq!(
        control.dialect(),
        Err(ControlError::UnknownCatalogVersion {
            catalog_version: 202_209_062,
            control_version: 1300
        })
    );
    control.catalog_version = catalog_version(PgMajor::V17);
    assert!(control.dialect().is_err(), "17 does not write format 1300");
}

#[test]
fn no_damaged_byte_goes_unseen() {
    for name in ["12_shut_down", "15_standby", "18_in_production"] {
        let (bytes, control) = fixture(name);
        for offset in 0..control.version.crc_offset() + 4 {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[offset] ^= 1 << bit;
                assert!(
                    ControlFile::parse(&damaged).is_err(),
                    "{name}: byte {offset}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn a_short_file_is_told_from_a_damaged_one() {
    let (bytes, control) = fixture("18_shut_down");
    let needed = control.version.crc_offset() + 4;
    for length in 0..needed {
        assert!(
            matches!(
                ControlFile::parse(&bytes[..length]),
                Err(ControlError::Short(_))
            ),
            "{length}"
        );
    }
    assert_eq!(ControlFile::parse(&bytes[..needed]), Ok(control));
}

#[test]
fn byte_order_and_version_are_looked_at_before_the_crc() {
    let (mut bytes, _) = fixture("15_shut_down");
    bytes[8..12].copy_from_slice(&1300u32.to_be_bytes());
    assert_eq!(
        ControlFile::parse(&bytes),
        Err(ControlError::ByteOrder {
            version: 0x1405_0000
        })
    );
    for version in [0, 1100, 1299, 1301, 1900, u32::MAX] {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        assert_eq!(
            ControlFile::parse(&bytes),
            Err(ControlError::UnknownVersion { version })
        );
    }
}

#[test]
fn values_that_no_server_writes_are_refused_though_the_crc_is_right() {
    let version = ControlVersion::V1300;
    let cases: &[(usize, &[u8], ControlError)] = &[
        (16, &[7], ControlError::State { value: 7 }),
        (
            56,
            &[2],
            ControlError::Boolean {
                offset: 56,
                value: 2,
            },
        ),
        (
            168,
            &[255],
            ControlError::Boolean {
                offset: 168,
                value: 255,
            },
        ),
        (172, &[3], ControlError::WalLevel { value: 3 }),
        (
            204,
            &[4],
            ControlError::Architecture {
                max_align: 4,
                float_bits: FLOAT_FORMAT.to_bits(),
            },
        ),
        (
            208,
            &[1],
            ControlError::Architecture {
                max_align: 8,
                float_bits: FLOAT_FORMAT.to_bits() + 1,
            },
        ),
        (216, &[1], ControlError::Size(SizeError::Page(8193))),
        (228, &[0; 4], ControlError::Size(SizeError::Segment(0))),
    ];
    for (offset, patch, error) in cases {
        let (mut bytes, _) = fixture("15_shut_down");
        bytes[*offset..offset + patch.len()].copy_from_slice(patch);
        assert_eq!(ControlFile::parse(&with_crc(bytes, version)), Err(*error));
    }
}
