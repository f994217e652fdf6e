//! The name of a record's type, as `pg_waldump` prints it after `desc:`.
//!
//! Each resource manager numbers its operations in the high four bits of `xl_info`; what a number means changed between
//! versions in few places, which are the only ones that look at the version here. The low four bits are flags of the
//! record and no part of the operation, but two resource managers compare the whole byte, so a flag makes theirs unknown.
//!
//! The tables of 12 to 14 and 16 to 18 were read out of those servers, by calling the functions named below for every value.

use std::fmt;

use crate::dialect::{Dialect, PgMajor};
use crate::types::RmgrId;
use crate::wal::record::RecordHeader;

/// The name of a record's type: `INSERT`, `HOT_UPDATE+INIT`, `UNKNOWN (f0)`. Printing it allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordTypeName {
    known: Option<&'static str>,
    operation: u8,
}

impl RecordTypeName {
    /// The name, if the resource manager has one for this operation.
    #[must_use]
    pub const fn as_static(self) -> Option<&'static str> {
        self.known
    }

    /// The name, or the text that stands for an operation without one: `UNKNOWN (f0)`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.known {
            Some(name) => name,
            None => unknown(self.operation),
        }
    }
}

impl fmt::Display for RecordTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl RecordHeader {
    /// The name of this record's type in this dialect.
    ///
    /// # Source
    /// `rm_identify` of each resource manager, in `src/backend/access/rmgrdesc/`; `XLogDumpDisplayRecord` in
    /// `src/bin/pg_waldump/pg_waldump.c` for those without a name.
    #[must_use]
    pub fn type_name(&self, dialect: &Dialect) -> RecordTypeName {
        RecordTypeName {
            known: identify(self.rmgr, self.info, dialect.major),
            operation: self.operation(),
        }
    }
}

fn identify(rmgr: RmgrId, info: u8, major: PgMajor) -> Option<&'static str> {
    let operation = info & 0xF0;
    let name = match rmgr.0 {
        0 => xlog(operation, major)?,
        1 => transaction(operation, major)?,
        2 => storage(operation)?,
        3 => clog(operation)?,
        4 => database(operation, major)?,
        5 => tablespace(operation)?,
        6 => multixact(operation)?,
        7 if operation == 0x00 => "UPDATE",
        8 => standby(operation)?,
        9 => heap2(operation, major)?,
        10 => heap(operation)?,
        11 => btree(operation, major)?,
        12 => hash(operation)?,
        13 => gin(operation)?,
        14 => gist(operation, major)?,
        15 if operation == 0x00 => "LOG",
        16 => spgist(operation)?,
        17 => brin(operation)?,
        // These two compare the whole byte.
        18 => commit_ts(info, major)?,
        19 => replication_origin(info)?,
        20 => "Generic",
        21 if operation == 0x00 => "MESSAGE",
        _ => return None,
    };
    Some(name)
}

fn xlog(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "CHECKPOINT_SHUTDOWN",
        0x10 => "CHECKPOINT_ONLINE",
        0x20 => "NOOP",
        0x30 => "NEXTOID",
        0x40 => "SWITCH",
        0x50 => "BACKUP_END",
        0x60 => "PARAMETER_CHANGE",
        0x70 => "RESTORE_POINT",
        0x80 => "FPW_CHANGE",
        0x90 => "END_OF_RECOVERY",
        0xA0 => "FPI_FOR_HINT",
        0xB0 => "FPI",
        0xD0 => "OVERWRITE_CONTRECORD",
        0xE0 if major >= PgMajor::V17 => "CHECKPOINT_REDO",
        _ => return None,
    })
}

fn transaction(operation: u8, major: PgMajor) -> Option<&'static str> {
    // The highest bit says that the body has further parts.
    Some(match operation & 0x70 {
        0x00 => "COMMIT",
        0x10 => "PREPARE",
        0x20 => "ABORT",
        0x30 => "COMMIT_PREPARED",
        0x40 => "ABORT_PREPARED",
        0x50 => "ASSIGNMENT",
        0x60 if major >= PgMajor::V14 => "INVALIDATION",
        _ => return None,
    })
}

fn storage(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x10 => "CREATE",
        0x20 => "TRUNCATE",
        _ => return None,
    })
}

fn clog(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "ZEROPAGE",
        0x10 => "TRUNCATE",
        _ => return None,
    })
}

fn database(operation: u8, major: PgMajor) -> Option<&'static str> {
    if major < PgMajor::V15 {
        return Some(match operation {
            0x00 => "CREATE",
            0x10 => "DROP",
            _ => return None,
        });
    }
    Some(match operation {
        0x00 => "CREATE_FILE_COPY",
        0x10 => "CREATE_WAL_LOG",
        0x20 => "DROP",
        _ => return None,
    })
}

fn tablespace(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "CREATE",
        0x10 => "DROP",
        _ => return None,
    })
}

fn multixact(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "ZERO_OFF_PAGE",
        0x10 => "ZERO_MEM_PAGE",
        0x20 => "CREATE_ID",
        0x30 => "TRUNCATE_ID",
        _ => return None,
    })
}

fn standby(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "LOCK",
        0x10 => "RUNNING_XACTS",
        0x20 => "INVALIDATIONS",
        _ => return None,
    })
}

fn heap2(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "REWRITE",
        // How a page is pruned and frozen was cut into records anew twice.
        0x10 if major >= PgMajor::V17 => "PRUNE_ON_ACCESS",
        0x20 if major >= PgMajor::V17 => "PRUNE_VACUUM_SCAN",
        0x30 if major >= PgMajor::V17 => "PRUNE_VACUUM_CLEANUP",
        0x10 if major >= PgMajor::V14 => "PRUNE",
        0x20 if major >= PgMajor::V14 => "VACUUM",
        0x30 if major >= PgMajor::V14 => "FREEZE_PAGE",
        0x10 => "CLEAN",
        0x20 => "FREEZE_PAGE",
        0x30 => "CLEANUP_INFO",
        0x40 => "VISIBLE",
        0x50 => "MULTI_INSERT",
        0xD0 => "MULTI_INSERT+INIT",
        0x60 => "LOCK_UPDATED",
        0x70 => "NEW_CID",
        _ => return None,
    })
}

fn heap(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INSERT",
        0x80 => "INSERT+INIT",
        0x10 => "DELETE",
        0x20 => "UPDATE",
        0xA0 => "UPDATE+INIT",
        0x30 => "TRUNCATE",
        0x40 => "HOT_UPDATE",
        0xC0 => "HOT_UPDATE+INIT",
        0x50 => "HEAP_CONFIRM",
        0x60 => "LOCK",
        0x70 => "INPLACE",
        _ => return None,
    })
}

fn btree(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INSERT_LEAF",
        0x10 => "INSERT_UPPER",
        0x20 => "INSERT_META",
        0x30 => "SPLIT_L",
        0x40 => "SPLIT_R",
        0x50 if major >= PgMajor::V13 => "INSERT_POST",
        0x60 if major >= PgMajor::V13 => "DEDUP",
        0x70 => "DELETE",
        0x80 => "UNLINK_PAGE",
        0x90 => "UNLINK_PAGE_META",
        0xA0 => "NEWROOT",
        0xB0 => "MARK_PAGE_HALFDEAD",
        0xC0 => "VACUUM",
        0xD0 => "REUSE_PAGE",
        0xE0 => "META_CLEANUP",
        _ => return None,
    })
}

fn hash(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INIT_META_PAGE",
        0x10 => "INIT_BITMAP_PAGE",
        0x20 => "INSERT",
        0x30 => "ADD_OVFL_PAGE",
        0x40 => "SPLIT_ALLOCATE_PAGE",
        0x50 => "SPLIT_PAGE",
        0x60 => "SPLIT_COMPLETE",
        0x70 => "MOVE_PAGE_CONTENTS",
        0x80 => "SQUEEZE_PAGE",
        0x90 => "DELETE",
        0xA0 => "SPLIT_CLEANUP",
        0xB0 => "UPDATE_META_PAGE",
        0xC0 => "VACUUM_ONE_PAGE",
        _ => return None,
    })
}

fn gin(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x10 => "CREATE_PTREE",
        0x20 => "INSERT",
        0x30 => "SPLIT",
        0x40 => "VACUUM_PAGE",
        0x50 => "DELETE_PAGE",
        0x60 => "UPDATE_META_PAGE",
        0x70 => "INSERT_LISTPAGE",
        0x80 => "DELETE_LISTPAGE",
        0x90 => "VACUUM_DATA_LEAF_PAGE",
        _ => return None,
    })
}

fn gist(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "PAGE_UPDATE",
        0x10 => "DELETE",
        0x20 => "PAGE_REUSE",
        0x30 => "PAGE_SPLIT",
        0x60 => "PAGE_DELETE",
        0x70 if major >= PgMajor::V13 => "ASSIGN_LSN",
        _ => return None,
    })
}

fn spgist(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x10 => "ADD_LEAF",
        0x20 => "MOVE_LEAFS",
        0x30 => "ADD_NODE",
        0x40 => "SPLIT_TUPLE",
        0x50 => "PICKSPLIT",
        0x60 => "VACUUM_LEAF",
        0x70 => "VACUUM_ROOT",
        0x80 => "VACUUM_REDIRECT",
        _ => return None,
    })
}

fn brin(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "CREATE_INDEX",
        0x10 => "INSERT",
        0x90 => "INSERT+INIT",
        0x20 => "UPDATE",
        0xA0 => "UPDATE+INIT",
        0x30 => "SAMEPAGE_UPDATE",
        0x40 => "REVMAP_EXTEND",
        0x50 => "DESUMMARIZE",
        _ => return None,
    })
}

fn commit_ts(info: u8, major: PgMajor) -> Option<&'static str> {
    Some(match info {
        0x00 => "ZEROPAGE",
        0x10 => "TRUNCATE",
        0x20 if major < PgMajor::V14 => "SETTS",
        _ => return None,
    })
}

fn replication_origin(info: u8) -> Option<&'static str> {
    Some(match info {
        0x00 => "SET",
        0x10 => "DROP",
        _ => return None,
    })
}

/// What stands for an operation without a name; all sixteen are written out so that none has to be put together.
const fn unknown(operation: u8) -> &'static str {
    match operation >> 4 {
        0x0 => "UNKNOWN (0)",
        0x1 => "UNKNOWN (10)",
        0x2 => "UNKNOWN (20)",
        0x3 => "UNKNOWN (30)",
        0x4 => "UNKNOWN (40)",
        0x5 => "UNKNOWN (50)",
        0x6 => "UNKNOWN (60)",
        0x7 => "UNKNOWN (70)",
        0x8 => "UNKNOWN (80)",
        0x9 => "UNKNOWN (90)",
        0xA => "UNKNOWN (a0)",
        0xB => "UNKNOWN (b0)",
        0xC => "UNKNOWN (c0)",
        0xD => "UNKNOWN (d0)",
        0xE => "UNKNOWN (e0)",
        _ => "UNKNOWN (f0)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn name(major: PgMajor, rmgr: u8, info: u8) -> RecordTypeName {
        let header = RecordHeader {
            total_len: 24,
            xid: 0,
            prev: Lsn(0),
            info,
            rmgr: RmgrId(rmgr),
            crc: 0,
        };
        header.type_name(&Dialect::with_default_sizes(major))
    }

    #[test]
    fn what_changed_between_versions() {
        use PgMajor::{V12, V13, V14, V15, V16, V17, V18};
        for (rmgr, info, last, before, first, since) in [
            (0, 0xE0, V16, "UNKNOWN (e0)", V17, "CHECKPOINT_REDO"),
            (1, 0xE0, V13, "UNKNOWN (e0)", V14, "INVALIDATION"),
            (4, 0x00, V14, "CREATE", V15, "CREATE_FILE_COPY"),
            (4, 0x10, V14, "DROP", V15, "CREATE_WAL_LOG"),
            (4, 0x20, V14, "UNKNOWN (20)", V15, "DROP"),
            (9, 0x10, V13, "CLEAN", V14, "PRUNE"),
            (9, 0x20, V13, "FREEZE_PAGE", V14, "VACUUM"),
            (9, 0x30, V13, "CLEANUP_INFO", V14, "FREEZE_PAGE"),
            (9, 0x10, V16, "PRUNE", V17, "PRUNE_ON_ACCESS"),
            (9, 0x20, V16, "VACUUM", V17, "PRUNE_VACUUM_SCAN"),
            (9, 0x30, V16, "FREEZE_PAGE", V17, "PRUNE_VACUUM_CLEANUP"),
            (11, 0x50, V12, "UNKNOWN (50)", V13, "INSERT_POST"),
            (11, 0x60, V12, "UNKNOWN (60)", V13, "DEDUP"),
            (14, 0x70, V12, "UNKNOWN (70)", V13, "ASSIGN_LSN"),
            (18, 0x20, V13, "SETTS", V14, "UNKNOWN (20)"),
            (10, 0xC0, V12, "HOT_UPDATE+INIT", V18, "HOT_UPDATE+INIT"),
        ] {
            assert_eq!(name(last, rmgr, info).as_str(), before, "{rmgr} {info:x}");
            assert_eq!(name(first, rmgr, info).as_str(), since, "{rmgr} {info:x}");
        }
        // How many of the 22 * 16 operations have a name, as counted by calling the servers' own functions.
        for (major, expected) in [
            (V12, 140),
            (V13, 143),
            (V14, 144),
            (V15, 145),
            (V16, 145),
            (V17, 146),
            (V18, 146),
        ] {
            let operations = (0..22).flat_map(|rmgr| (0..16).map(move |high| (rmgr, high << 4)));
            let named =
                operations.filter(|&(rmgr, info)| name(major, rmgr, info).as_static().is_some());
            assert_eq!(named.count(), expected, "{major:?}");
        }
    }

    #[test]
    fn flags_matter_only_where_the_whole_byte_is_compared() {
        for rmgr in 0..22 {
            for info in 0..=255 {
                let with_flags = name(PgMajor::V15, rmgr, info);
                let without = name(PgMajor::V15, rmgr, info & 0xF0);
                if matches!(rmgr, 18 | 19) && info & 0x0F != 0 {
                    assert_eq!(with_flags.as_static(), None, "{rmgr} {info:x}");
                } else {
                    assert_eq!(with_flags, without, "{rmgr} {info:x}");
                }
            }
        }
    }

    #[test]
    fn unknown_operations_and_extensions_print_their_number() {
        for info in 0..=255u8 {
            for rmgr in [22, 127, 128, 255] {
                let unknown = name(PgMajor::V18, rmgr, info);
                assert_eq!(unknown.as_static(), None);
                assert_eq!(unknown.to_string(), format!("UNKNOWN ({:x})", info & 0xF0));
            }
        }
        assert_eq!(
            format!("{:<8}|", name(PgMajor::V12, 10, 0x60)),
            "LOCK    |",
            "width and alignment are kept"
        );
    }
}
