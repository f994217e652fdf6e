//! Commands of each version, both ways. That real servers read what is formatted here is tested against them.

use proptest::prelude::*;

use super::*;

const V12: Grammar = Grammar::for_version(120_022);
const V14: Grammar = Grammar::for_version(140_023);
const V15: Grammar = Grammar::for_version(150_018);
const V17: Grammar = Grammar::for_version(170_011);

fn parse(text: &str) -> Result<Command, CommandError> {
    Command::parse(text, V15)
}

#[test]
fn what_postgresql_clients_send_is_read() {
    let start = |slot: Option<&str>, timeline: Option<u32>| Command::StartReplication {
        slot: slot.map(ToOwned::to_owned),
        start_lsn: Lsn(0x300_0000),
        timeline: timeline.map(TimelineId),
    };
    let slot = |temporary, reserve_wal| {
        Command::CreateReplicationSlot(CreateReplicationSlot {
            slot: "s".to_owned(),
            temporary,
            kind: SlotKind::Physical { reserve_wal },
        })
    };
    for (text, command) in [
        ("IDENTIFY_SYSTEM", Command::IdentifySystem),
        ("IDENTIFY_SYSTEM;", Command::IdentifySystem),
        (
            "SHOW wal_segment_size",
            Command::Show {
                name: "wal_segment_size".to_owned(),
            },
        ),
        (
            "SHOW a.\"B\"",
            Command::Show {
                name: "a.B".to_owned(),
            },
        ),
        (
            "TIMELINE_HISTORY 2",
            Command::TimelineHistory {
                timeline: TimelineId(2),
            },
        ),
        (
            "START_REPLICATION SLOT \"s\" 0/3000000 TIMELINE 1",
            start(Some("s"), Some(1)),
        ),
        (
            "START_REPLICATION 0/3000000 TIMELINE 4294967295",
            start(None, Some(u32::MAX)),
        ),
        (
            "START_REPLICATION PHYSICAL 00000000/03000000",
            start(None, None),
        ),
        ("CREATE_REPLICATION_SLOT \"s\" PHYSICAL", slot(false, false)),
        (
            "CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL RESERVE_WAL",
            slot(true, true),
        ),
        (
            "CREATE_REPLICATION_SLOT \"s\" PHYSICAL (RESERVE_WAL)",
            slot(false, true),
        ),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL (reserve_wal false)",
            slot(false, false),
        ),
        (
            "READ_REPLICATION_SLOT s",
            Command::ReadReplicationSlot {
                slot: "s".to_owned(),
            },
        ),
        (
            "DROP_REPLICATION_SLOT S WAIT",
            Command::DropReplicationSlot {
                slot: "s".to_owned(),
                wait: true,
            },
        ),
        ("BASE_BACKUP", Command::BaseBackup(BaseBackup::default())),
    ] {
        assert_eq!(parse(text), Ok(command), "{text}");
    }
}

#[test]
fn the_backup_of_pg_basebackup_is_read_in_both_grammars() {
    let mut backup = BaseBackup {
        label: Some("it's".to_owned()),
        progress: true,
        checkpoint: BackupCheckpoint::Fast,
        wal: true,
        wait: false,
        max_rate_kib: Some(32),
        tablespace_map: true,
        verify_checksums: false,
        manifest: ManifestOption::Yes,
        manifest_checksums: Some(ManifestChecksums::Sha256),
        ..BaseBackup::default()
    };
    let keywords = "BASE_BACKUP LABEL 'it''s' PROGRESS WAL FAST NOWAIT MAX_RATE 32 TABLESPACE_MAP \
                    NOVERIFY_CHECKSUMS MANIFEST 'yes' MANIFEST_CHECKSUMS 'sha256'";
    assert_eq!(
        Command::parse(keywords, V14),
        Ok(Command::BaseBackup(backup.clone()))
    );
    assert!(
        Command::parse(keywords, V12).is_err(),
        "12 has no manifests"
    );
    assert!(
        Command::parse(keywords, V15).is_err(),
        "15 has option lists only"
    );
    backup.target = Some(BackupTarget {
        name: "server".to_owned(),
        detail: Some("/b".to_owned()),
    });
    backup.compression = Some(BackupCompression {
        algorithm: CompressionAlgorithm::Zstd,
        detail: Some("level=3".to_owned()),
    });
    let list = "BASE_BACKUP ( LABEL 'it''s', PROGRESS, WAL, CHECKPOINT 'fast', WAIT 0, MAX_RATE 32, TABLESPACE_MAP, \
                VERIFY_CHECKSUMS 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'sha256', TARGET 'server', \
                TARGET_DETAIL '/b', COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=3')";
    assert_eq!(Command::parse(list, V15), Ok(Command::BaseBackup(backup)));
    assert!(Command::parse(list, V14).is_err());
    assert!(Command::parse("BASE_BACKUP (INCREMENTAL)", V15).is_err());
    assert!(Command::parse("BASE_BACKUP (INCREMENTAL)", V17).is_ok());
}

#[test]
fn errors_carry_postgresqls_texts_and_codes() {
    for (text, message, sqlstate) in [
        (
            "BASE_BACKUP (LABEL 'a', LABEL 'b')",
            "duplicate option \"label\"",
            "42601",
        ),
        (
            "BASE_BACKUP (nonsense)",
            "unrecognized base backup option: \"nonsense\"",
            "42601",
        ),
        (
            "BASE_BACKUP (CHECKPOINT 'slow')",
            "unrecognized checkpoint type: \"slow\"",
            "42601",
        ),
        ("BASE_BACKUP (LABEL)", "label requires a parameter", "42601"),
        (
            "BASE_BACKUP (WAL 2)",
            "wal requires a Boolean value",
            "42601",
        ),
        (
            "BASE_BACKUP (MAX_RATE 31)",
            "31 is outside the valid range for parameter \"MAX_RATE\" (32 .. 1048576)",
            "22003",
        ),
        (
            "BASE_BACKUP (MANIFEST_CHECKSUMS 'none')",
            "manifest checksums require a backup manifest",
            "42601",
        ),
        (
            "BASE_BACKUP (TARGET_DETAIL 'x')",
            "target detail cannot be used without target",
            "42601",
        ),
        ("TIMELINE_HISTORY 0", "invalid timeline 0", "42601"),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL (two_phase)",
            "conflicting or redundant options",
            "42601",
        ),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL (failover)",
            "unrecognized option: failover",
            "XX000",
        ),
        ("IDENTIFY_SYSTEM now", "syntax error", "42601"),
        ("SHOW 'x", "unterminated quoted string", "42601"),
        (
            "identify_system",
            "cannot execute SQL commands in WAL sender for physical replication",
            "0A000",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate()),
            (message, sqlstate),
            "{text}"
        );
    }
    for text in [
        "",
        ";",
        "SELECT 1",
        "START_REPLICATION",
        "START_REPLICATION SLOT 0/0",
        "START_REPLICATION SLOT SLOT 0/0",
        "START_REPLICATION 0/0 TIMELINE 0",
        "CREATE_REPLICATION_SLOT s",
        "CREATE_REPLICATION_SLOT s PHYSICAL ()",
        "DROP_REPLICATION_SLOT",
        "BASE_BACKUP (",
        "BASE_BACKUP ()",
        "BASE_BACKUP (WAL,)",
        "UPLOAD_MANIFEST",
        "SHOW a.",
        "IDENTIFY_SYSTEM;;",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert_eq!(
        Command::parse("UPLOAD_MANIFEST", V17),
        Ok(Command::UploadManifest)
    );
}

/// As PostgreSQL 14 answers.
#[test]
fn an_option_given_twice_is_named_as_it_was_given() {
    for (text, name) in [
        ("FAST FAST", "fast"),
        ("NOWAIT NOWAIT", "nowait"),
        ("WAL WAL", "wal"),
    ] {
        let error = Command::parse(&format!("BASE_BACKUP {text}"), V14);
        assert_eq!(error, Err(CommandError::DuplicateOption(name.to_owned())));
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_][a-z0-9_]{0,10}", "[A-Za-z0-9 '\"é.;]{1,20}"]
}

fn dotted() -> impl Strategy<Value = String> {
    prop::collection::vec("[A-Za-z_' \"]{1,8}", 1..4).prop_map(|parts| parts.join("."))
}

fn slot_kind() -> impl Strategy<Value = SlotKind> {
    let snapshot = prop::option::of(prop_oneof![
        Just(SnapshotAction::Export),
        Just(SnapshotAction::Nothing),
        Just(SnapshotAction::Use)
    ]);
    prop_oneof![
        any::<bool>().prop_map(|reserve_wal| SlotKind::Physical { reserve_wal }),
        (name(), snapshot, any::<bool>()).prop_map(|(plugin, snapshot, two_phase)| {
            SlotKind::Logical {
                plugin,
                snapshot,
                two_phase,
                failover: false,
            }
        }),
    ]
}

/// A backup that every version since 13 has words for.
fn backup() -> impl Strategy<Value = BaseBackup> {
    let manifest = prop_oneof![
        Just((ManifestOption::No, None)),
        Just((ManifestOption::Yes, None)),
        Just((ManifestOption::ForceEncode, Some(ManifestChecksums::Crc32c))),
        Just((ManifestOption::Yes, Some(ManifestChecksums::None))),
    ];
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (
        prop::option::of(".*"),
        flags,
        prop::option::of(32..=1_048_576u32),
        manifest,
    )
        .prop_map(
            |(
                label,
                (progress, fast, wal, wait, tablespace_map, verify_checksums),
                max_rate_kib,
                manifest,
            )| BaseBackup {
                label,
                progress,
                checkpoint: if fast {
                    BackupCheckpoint::Fast
                } else {
                    BackupCheckpoint::Spread
                },
                wal,
                wait,
                max_rate_kib,
                tablespace_map,
                verify_checksums,
                manifest: manifest.0,
                manifest_checksums: manifest.1,
                ..BaseBackup::default()
            },
        )
}

fn command() -> impl Strategy<Value = Command> {
    let timeline = || (1..=u32::MAX).prop_map(TimelineId);
    prop_oneof![
        Just(Command::IdentifySystem),
        dotted().prop_map(|name| Command::Show { name }),
        timeline().prop_map(|timeline| Command::TimelineHistory { timeline }),
        (name(), any::<bool>(), slot_kind())
            .prop_map(|(slot, temporary, kind)| CreateReplicationSlot {
                slot,
                temporary,
                kind
            })
            .prop_map(Command::CreateReplicationSlot),
        (name(), any::<bool>())
            .prop_map(|(slot, wait)| Command::DropReplicationSlot { slot, wait }),
        (
            prop::option::of(name()),
            any::<u64>(),
            prop::option::of(timeline())
        )
            .prop_map(|(slot, lsn, timeline)| Command::StartReplication {
                slot,
                start_lsn: Lsn(lsn),
                timeline
            }),
        (
            name(),
            any::<u64>(),
            prop::collection::vec((name(), prop::option::of(".*")), 0..3)
        )
            .prop_map(|(slot, lsn, options)| Command::StartLogicalReplication {
                slot,
                start_lsn: Lsn(lsn),
                options
            }),
        backup().prop_map(Command::BaseBackup),
    ]
}

proptest! {
    #[test]
    fn format_then_parse_is_identity(command in command(), version in 13u32..=18) {
        let grammar = Grammar::for_version(version * 10_000);
        let text = command.format(grammar);
        let has_two_phase = text.ends_with(" TWO_PHASE");
        match Command::parse(&text, grammar) {
            Err(CommandError::Syntax { .. }) if has_two_phase => prop_assert!(version < 15, "{}", text),
            parsed => prop_assert_eq!(parsed, Ok(command), "{}", text),
        }
    }

    #[test]
    fn newer_commands_survive_too(
        (slot, failover, two_phase) in (name(), any::<bool>(), prop::option::of(any::<bool>())),
        read in dotted(),
        (target, compression, detail) in (prop::option::of("[a-z' ]{1,9}"), 0..4usize, prop::option::of(".*")),
        base in backup(),
    ) {
        let algorithm = [
            CompressionAlgorithm::None,
            CompressionAlgorithm::Gzip,
            CompressionAlgorithm::Lz4,
            CompressionAlgorithm::Zstd,
        ][compression];
        for command in [
            Command::AlterReplicationSlot(AlterReplicationSlot { slot, failover: Some(failover), two_phase }),
            Command::ReadReplicationSlot { slot: read },
            Command::UploadManifest,
            Command::BaseBackup(BaseBackup {
                incremental: true,
                target: target.map(|name| BackupTarget {
                    detail: detail.clone().filter(|_| name != "client"),
                    name,
                }),
                compression: Some(BackupCompression { algorithm, detail }),
                ..base
            }),
        ] {
            let text = command.format(V17);
            prop_assert_eq!(Command::parse(&text, V17), Ok(command), "{}", text);
        }
    }

    #[test]
    fn no_text_is_too_odd(text in "([A-Z_]{1,4}|BASE_BACKUP|SHOW|SLOT|WAIT|'|\"|[0-9]{1,11}|/|\\(|\\)|,| |é){0,12}") {
        for version in 12..=18 {
            let _ = Command::parse(&text, Grammar::for_version(version * 10_000));
        }
    }
}
