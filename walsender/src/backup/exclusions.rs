//! Which files of a data directory are left out of a backup, by their names.
//!
//! # Source
//! `excludeDirContents`, `excludeFiles`, `noChecksumFiles` and `sendDir` in `src/backend/backup/basebackup.c`.

/// Directories that are kept, without what is in them: the server empties or fills them when it starts.
const EMPTIED_DIRECTORIES: [&[u8]; 7] = [
    b"pg_stat_tmp",
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
];

/// Files of this name, wherever they are.
const EXCLUDED_NAMES: [&[u8]; 8] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    // Of the file manager of another system.
    b".DS_Store",
];

/// Files whose names begin so: temporary files, and the cache of catalog contents.
const EXCLUDED_PREFIXES: [&[u8]; 2] = [b"pgsql_tmp", RELATION_CACHE];

const RELATION_CACHE: &[u8] = b"pg_internal.init";

/// Files in directories of relations that have no pages with checksums.
const WITHOUT_CHECKSUMS: [&[u8]; 3] = [b"pg_control", b"pg_filenode.map", b"PG_VERSION"];

/// Most digits of an OID.
const OID_DIGITS: usize = 10;

/// Forks but the main one, as names of files end with them.
const FORKS: [&[u8]; 3] = [b"fsm", b"vm", INIT_FORK];

const INIT_FORK: &[u8] = b"init";

/// Whether a file or directory of this name is left out.
pub(super) fn is_excluded(name: &[u8]) -> bool {
    EXCLUDED_NAMES.contains(&name)
        || EXCLUDED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether what is in a directory of this name is left out.
pub(super) fn is_emptied_directory(name: &[u8]) -> bool {
    EMPTIED_DIRECTORIES.contains(&name)
}

/// Whether pages in a file of this name, in a directory of relations, have checksums.
pub(super) fn has_page_checksums(name: &[u8]) -> bool {
    !WITHOUT_CHECKSUMS.contains(&name) && !name.starts_with(RELATION_CACHE)
}

/// Name of the file that tells, when it is there, that a relation's file belongs to an unlogged relation and is left out;
/// `None` for files of no relation, and for those that it names themselves.
///
/// # Source
/// `parse_filename_for_nontemp_relation` in `src/backend/storage/file/reinit.c`.
pub(super) fn init_fork_of(name: &[u8]) -> Option<Vec<u8>> {
    let (oid, rest) = digits(name);
    if oid.is_empty() || oid.len() > OID_DIGITS {
        return None;
    }
    let (fork, rest) = match rest.strip_prefix(b"_") {
        Some(rest) => fork(rest)?,
        None => (&b""[..], rest),
    };
    if !is_segment_ending(rest) || fork == INIT_FORK {
        return None;
    }
    Some([oid, b"_", INIT_FORK].concat())
}

/// Whether a file of this name belongs to a temporary relation.
///
/// # Source
/// `looks_like_temp_rel_name` in `src/backend/storage/file/fd.c`.
pub(super) fn is_temporary_relation(name: &[u8]) -> bool {
    let parse = || {
        let (backend, rest) = digits(name.strip_prefix(b"t")?);
        let (relation, rest) = digits(rest.strip_prefix(b"_")?);
        if backend.is_empty() || relation.is_empty() {
            return None;
        }
        let rest = match rest.strip_prefix(b"_") {
            Some(rest) => fork(rest)?.1,
            None => rest,
        };
        Some(is_segment_ending(rest))
    };
    parse().unwrap_or_default()
}

/// Whether a name is all digits, as that of a database's directory.
pub(super) fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at_checked(count).unwrap_or((text, b""))
}

/// The fork that a text begins with, and what follows.
fn fork(text: &[u8]) -> Option<(&'static [u8], &[u8])> {
    FORKS
        .into_iter()
        .find_map(|fork| Some((fork, text.strip_prefix(fork)?)))
}

/// Nothing, or a dot and a number.
fn is_segment_ending(text: &[u8]) -> bool {
    text.is_empty() || text.strip_prefix(b".").is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, expected) in [
            ("16384", Some("16384_init")),
            ("16384.12", Some("16384_init")),
            ("16384_fsm", Some("16384_init")),
            ("16384_vm.1", Some("16384_init")),
            ("16384_init", None),
            ("16384_init.1", None),
            ("16384_", None),
            ("16384_fsmx", None),
            ("16384.", None),
            ("16384.1x", None),
            ("12345678901", None),
            ("pg_filenode.map", None),
            ("", None),
        ] {
            assert_eq!(
                init_fork_of(name.as_bytes()).as_deref(),
                expected.map(str::as_bytes),
                "{name}"
            );
        }
        for name in ["t1_2", "t12_345.6", "t1_2_fsm", "t1_2_init.3"] {
            assert!(is_temporary_relation(name.as_bytes()), "{name}");
        }
        for name in [
            "t", "t1", "t1_", "t_1", "t1_2_", "t1_2_x", "t1_2.", "x1_2", "1_2", "t1_2.x",
        ] {
            assert!(!is_temporary_relation(name.as_bytes()), "{name}");
        }
        for name in [
            "pgsql_tmp",
            "pgsql_tmp1.2",
            "pg_internal.init.99",
            "postmaster.pid",
            "backup_label",
        ] {
            assert!(is_excluded(name.as_bytes()), "{name}");
        }
        for name in [
            "backup_label.old",
            "postgresql.auto.conf",
            "current_logfiles",
            "postmaster.pid2",
            "pg_notify",
        ] {
            assert!(!is_excluded(name.as_bytes()), "{name}");
        }
        assert!(is_emptied_directory(b"pg_notify") && !is_emptied_directory(b"pg_wal"));
        assert!(has_page_checksums(b"1259") && !has_page_checksums(b"PG_VERSION"));
    }
}
