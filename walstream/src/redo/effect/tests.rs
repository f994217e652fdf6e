//! Effects and descriptions of records that workloads do not make, and of those that no server writes.

use proptest::prelude::*;

use super::{Effect, effects};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::redo::describe::describe;
use crate::redo::{RedoContext, RedoFault, RedoRecord, stop_point};
use crate::storage::slru::{MultiXactMember, Slru, TransactionStatus};
use crate::types::{RelFileLocator, RmgrId};
use crate::wal::record::{RecordBody, RecordHeader};

/// The bytes of a record with this main data, no blocks.
fn bytes_of(rmgr: RmgrId, info: u8, xid: u32, main: &[u8]) -> Vec<u8> {
    let total = 24 + 5 + main.len();
    let mut bytes = u32::try_from(total).unwrap().to_le_bytes().to_vec();
    bytes.extend(xid.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend([info, rmgr.0, 0, 0, 0, 0, 0, 0]);
    bytes.push(254);
    bytes.extend(u32::try_from(main.len()).unwrap().to_le_bytes());
    bytes.extend(main);
    bytes
}

fn record_of<'a>(bytes: &'a [u8], dialect: &Dialect) -> RedoRecord<'a> {
    RedoRecord {
        start_lsn: Lsn(0x100_0028),
        end_lsn: Lsn(0x100_0100),
        header: RecordHeader::from_bytes(bytes.first_chunk().unwrap()),
        body: RecordBody::parse(bytes, dialect).unwrap(),
    }
}

fn context(major: PgMajor) -> RedoContext {
    RedoContext {
        dialect: Dialect::with_default_sizes(major),
        logs_hints: true,
    }
}

/// Calls with the effects of a record, or what stopped it.
fn with_effects(
    major: PgMajor,
    (rmgr, info, xid): (RmgrId, u8, u32),
    main: &[u8],
    check: impl FnOnce(Result<&[Effect<'_>], RedoFault>),
) {
    let context = context(major);
    let bytes = bytes_of(rmgr, info, xid, main);
    let record = record_of(&bytes, &context.dialect);
    let mut found = Vec::new();
    match effects(&context, &record, &mut |effect| found.push(effect)) {
        Ok(()) => check(Ok(&found)),
        Err(error) => check(Err(error.fault)),
    }
}

fn described(major: PgMajor, rmgr: RmgrId, info: u8, main: &[u8]) -> String {
    let dialect = Dialect::with_default_sizes(major);
    let bytes = bytes_of(rmgr, info, 9, main);
    let mut text = String::new();
    describe(&record_of(&bytes, &dialect), &dialect, &mut text).unwrap();
    text
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_commit_does_everything_in_the_server_s_order() {
    let mut main = 7i64.to_le_bytes().to_vec();
    // Subtransactions, dropped files and statistics, prepared transaction with name, origin; feedback and sync wanted.
    main.extend(words(&[0b1_1011_0110 | 1 << 29 | 1 << 31]));
    main.extend(words(&[
        2, 701, 705, 1, 1663, 5, 16384, 1, 2, 5, 16384, 700,
    ]));
    main.extend(b"name\0");
    main.extend(0x1234u64.to_le_bytes());
    main.extend(8i64.to_le_bytes());
    with_effects(
        PgMajor::V15,
        (RmgrId::TRANSACTION, 0xB0, 699),
        &main,
        |found| {
            let found = found.unwrap();
            let kinds: Vec<String> = found
                .iter()
                .map(|effect| {
                    format!("{effect:?}")
                        .chars()
                        .take_while(|c| c.is_alphanumeric())
                        .collect()
                })
                .collect();
            assert_eq!(
                kinds,
                [
                    "NextXidPast",
                    "NextXidPast",
                    "CommitTimestamp",
                    "TransactionStatus",
                    "OriginProgress",
                    "MinRecoveryPoint",
                    "DropRelations",
                    "MinRecoveryPoint",
                    "DropStatistics",
                    "MinRecoveryPoint",
                    "ReportApply",
                    "EndPrepared"
                ]
            );
            assert_eq!(found[0], Effect::NextXidPast(699));
            assert_eq!(found[1], Effect::NextXidPast(705));
            let Effect::TransactionStatus {
                xid: 700,
                subxids,
                status: TransactionStatus::Committed,
                lsn,
            } = found[3]
            else {
                panic!("{found:?}")
            };
            assert_eq!(
                (subxids.iter().collect::<Vec<_>>(), lsn),
                (vec![701, 705], Lsn(0x100_0100))
            );
            let Effect::DropRelations(relations) = found[6] else {
                panic!("{found:?}")
            };
            let dropped = RelFileLocator {
                tablespace: 1663,
                database: 5,
                relation: 16384,
            };
            assert_eq!(relations.iter().collect::<Vec<_>>(), [dropped]);
            assert_eq!(found[11], Effect::EndPrepared { xid: 700 });
        },
    );
    // The same as an abort neither has a timestamp nor tells anyone.
    with_effects(
        PgMajor::V15,
        (RmgrId::TRANSACTION, 0xC0, 699),
        &main,
        |found| {
            let found = found.unwrap();
            assert!(!found.contains(&Effect::ReportApply));
            assert!(
                !found
                    .iter()
                    .any(|effect| matches!(effect, Effect::CommitTimestamp { .. }))
            );
        },
    );
    assert_eq!(
        described(PgMajor::V15, RmgrId::TRANSACTION, 0xB0, &main),
        "700: 2000-01-01 00:00:00.000007 UTC; rels: base/5/16384; subxacts: 701 705; dropped stats: 2/5/16384; apply_feedback; \
         sync; origin: node 0, lsn 0/1234, at 2000-01-01 00:00:00.000008 UTC"
    );
    assert_eq!(
        described(PgMajor::V14, RmgrId::TRANSACTION, 0x00, &7i64.to_le_bytes()),
        "2000-01-01 00:00:00.000007 UTC"
    );
}

#[test]
fn transactions_are_compared_in_their_circle() {
    let mut main = 7i64.to_le_bytes().to_vec();
    main.extend(words(&[0b10, 1, 3]));
    with_effects(
        PgMajor::V15,
        (RmgrId::TRANSACTION, 0x80, u32::MAX),
        &main,
        |found| {
            assert_eq!(found.unwrap()[1], Effect::NextXidPast(3));
        },
    );
}

#[test]
fn what_differs_between_versions() {
    // Database: what was a drop became the creation of an empty one.
    let main = words(&[16384, 1, 1663]);
    with_effects(PgMajor::V14, (RmgrId::DATABASE, 0x10, 9), &main, |found| {
        assert!(matches!(
            found.unwrap()[1],
            Effect::DropDatabase {
                database: 16384,
                ..
            }
        ));
    });
    with_effects(PgMajor::V15, (RmgrId::DATABASE, 0x10, 9), &main, |found| {
        assert!(matches!(found.unwrap()[1], Effect::CreateDatabase(_)));
    });
    with_effects(PgMajor::V14, (RmgrId::DATABASE, 0x20, 9), &main, |found| {
        assert_eq!(found, Err(RedoFault::Operation { info: 0x20 }));
    });
    let one = words(&[16384, 1663]);
    assert_eq!(
        described(PgMajor::V12, RmgrId::DATABASE, 0x10, &one),
        "dir 1663/16384"
    );
    assert_eq!(
        described(PgMajor::V13, RmgrId::DATABASE, 0x10, &main),
        "dir 1663/16384"
    );
    assert_eq!(
        described(PgMajor::V18, RmgrId::DATABASE, 0x20, &main),
        "dir 1663/16384"
    );
    // SLRU pages became wider.
    let page = 5i64.to_le_bytes();
    for major in PgMajor::ALL {
        with_effects(major, (RmgrId::CLOG, 0x00, 0), &page, |found| {
            assert_eq!(
                found.unwrap(),
                [Effect::ZeroSlruPage {
                    slru: Slru::Xact,
                    page: 5
                }]
            );
        });
        let mut truncate = if major >= PgMajor::V17 {
            page.to_vec()
        } else {
            5i32.to_le_bytes().to_vec()
        };
        truncate.extend(words(&[700, 1]));
        assert_eq!(
            described(major, RmgrId::CLOG, 0x10, &truncate),
            "page 5; oldestXact 700"
        );
        assert_eq!(
            described(major, RmgrId::COMMIT_TS, 0x10, &truncate),
            "pageno 5, oldestXid 700"
        );
    }
    with_effects(
        PgMajor::V17,
        (RmgrId::CLOG, 0x00, 0),
        &(-1i64).to_le_bytes(),
        |found| {
            assert!(matches!(found, Err(RedoFault::Record { .. })));
        },
    );
    let mut set = 7i64.to_le_bytes().to_vec();
    set.extend([3, 0, 0, 0]);
    set.extend(words(&[700, 701, 702]));
    assert_eq!(
        described(PgMajor::V13, RmgrId::COMMIT_TS, 0x20, &set),
        "set 2000-01-01 00:00:00.000007 UTC/3 for: 700, 701, 702"
    );
    assert_eq!(described(PgMajor::V14, RmgrId::COMMIT_TS, 0x20, &set), "");
    let mut running = words(&[1, 1]);
    running.extend([1, 0, 0, 0]);
    running.extend(words(&[9, 7, 8, 7, 6]));
    let common = "nextXid 9 latestCompletedXid 8 oldestRunningXid 7; 1 xacts: 7";
    assert_eq!(
        described(PgMajor::V15, RmgrId::STANDBY, 0x10, &running),
        format!("{common}; subxid ovf")
    );
    assert_eq!(
        described(PgMajor::V16, RmgrId::STANDBY, 0x10, &running),
        format!("{common}; subxid overflowed; 1 subxacts: 6")
    );
    let mut end = 7i64.to_le_bytes().to_vec();
    end.extend(words(&[2, 1, 1]));
    let common = "tli 2; prev tli 1; time 2000-01-01 00:00:00.000007 UTC";
    assert_eq!(described(PgMajor::V16, RmgrId::XLOG, 0x90, &end), common);
    assert_eq!(
        described(PgMajor::V17, RmgrId::XLOG, 0x90, &end),
        format!("{common}; wal_level replica")
    );
}

#[test]
fn a_multixact_advances_the_counters_past_it() {
    let main = words(&[u32::MAX, u32::MAX, 2, 700, 5, 701, 9]);
    with_effects(
        PgMajor::V15,
        (RmgrId::MULTIXACT, 0x20, 700),
        &main,
        |found| {
            let found = found.unwrap();
            let Effect::NewMultiXact {
                multi: u32::MAX,
                offset: u32::MAX,
                members,
            } = found[1]
            else {
                panic!("{found:?}")
            };
            assert_eq!(
                members.iter().nth(1),
                Some(MultiXactMember {
                    xid: 701,
                    status: 9
                })
            );
            assert_eq!(
                found[2..],
                [
                    Effect::NextMultiXact {
                        multi: 0,
                        offset: 1
                    },
                    Effect::NextXidPast(701)
                ]
            );
        },
    );
    assert_eq!(
        described(PgMajor::V15, RmgrId::MULTIXACT, 0x20, &main),
        "4294967295 offset 4294967295 nmembers 2: 700 (upd) 701 (unk) "
    );
}

#[test]
fn lists_that_claim_more_than_there_is_are_faults() {
    for (rmgr, info, main) in [
        (RmgrId::STANDBY, 0x00, words(&[u32::MAX])),
        (RmgrId::STANDBY, 0x00, words(&[0x7FFF_FFFF])),
        (RmgrId::MULTIXACT, 0x20, words(&[1, 1, 0x7FFF_FFFF])),
        (RmgrId::DATABASE, 0x20, words(&[1, 2, 1663])),
        (RmgrId::STORAGE, 0x10, words(&[1663, 5, 16384, 4])),
        (RmgrId::TRANSACTION, 0x00, vec![0; 7]),
        (RmgrId::RELMAP, 0x00, words(&[5, 1663, 512, 0x59_2717])),
        (
            RmgrId::LOGICAL_MESSAGE,
            0x00,
            [[0; 8], [255; 8], [255; 8]].concat(),
        ),
    ] {
        with_effects(PgMajor::V15, (rmgr, info, 9), &main, |found| {
            assert!(found.is_err(), "{rmgr:?} {info:#x}: {found:?}");
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever the main data is, for every resource manager, operation and version. (Pages: see the tests of redo.)
    #[test]
    fn no_record_panics(
        major in prop::sample::select(PgMajor::ALL.to_vec()),
        rmgr in 0u8..24,
        info in any::<u8>(),
        main in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..4, 1 => any::<u8>()], 0..200),
    ) {
        let context = context(major);
        let bytes = bytes_of(RmgrId(rmgr), info, 9, &main);
        let record = record_of(&bytes, &context.dialect);
        let _ = effects(&context, &record, &mut |effect| {
            let _ = format!("{effect:?}");
        });
        let _ = stop_point(&context, &record);
        let _ = describe(&record, &context.dialect, &mut String::new());
    }
}
