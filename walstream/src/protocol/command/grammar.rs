//! [`Grammar`], the replication grammar of one server version.

/// The replication grammar of one server version.
///
/// Versions differ in their keywords and in the form of options: `BASE_BACKUP` took a list of keywords before 15
/// and takes options in parentheses since. Slots may be created with options in either form since 15.
///
/// # Source
/// `src/backend/replication/repl_gram.y` and `repl_scanner.l` of each version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grammar {
    major: u32,
}

/// Keywords of every version.
const KEYWORDS: [&str; 17] = [
    "BASE_BACKUP",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "EXPORT_SNAPSHOT",
    "IDENTIFY_SYSTEM",
    "LOGICAL",
    "NOEXPORT_SNAPSHOT",
    "PHYSICAL",
    "RESERVE_WAL",
    "SHOW",
    "SLOT",
    "START_REPLICATION",
    "TEMPORARY",
    "TIMELINE",
    "TIMELINE_HISTORY",
    "USE_SNAPSHOT",
    "WAIT",
];

/// Keywords of `BASE_BACKUP` before 15.
const BACKUP_KEYWORDS: [&str; 8] = [
    "FAST",
    "LABEL",
    "MAX_RATE",
    "NOVERIFY_CHECKSUMS",
    "NOWAIT",
    "PROGRESS",
    "TABLESPACE_MAP",
    "WAL",
];

impl Grammar {
    /// The grammar of a server with this `server_version_num`, such as 150018.
    #[must_use]
    pub const fn for_version(server_version_num: u32) -> Self {
        Self {
            major: server_version_num / 10_000,
        }
    }

    /// Whether `BASE_BACKUP` takes options in parentheses; if not, keywords.
    #[must_use]
    pub const fn has_option_lists(self) -> bool {
        self.major >= 15
    }

    /// Whether backups have manifests.
    #[must_use]
    pub const fn has_manifests(self) -> bool {
        self.major >= 13
    }

    /// Whether there are `ALTER_REPLICATION_SLOT`, `UPLOAD_MANIFEST` and incremental backups.
    #[must_use]
    pub const fn has_incremental_backups(self) -> bool {
        self.major >= 17
    }

    /// Whether `READ_REPLICATION_SLOT` exists.
    #[must_use]
    pub const fn has_read_replication_slot(self) -> bool {
        self.major >= 15
    }

    /// Whether this unquoted word is a keyword. Keywords are written in capitals only.
    pub(crate) fn is_keyword(self, word: &str) -> bool {
        KEYWORDS.contains(&word)
            || match word {
                "TWO_PHASE" => self.has_option_lists(),
                "READ_REPLICATION_SLOT" => self.has_read_replication_slot(),
                "ALTER_REPLICATION_SLOT" | "UPLOAD_MANIFEST" => self.has_incremental_backups(),
                "MANIFEST" | "MANIFEST_CHECKSUMS" => {
                    self.has_manifests() && !self.has_option_lists()
                }
                _ => !self.has_option_lists() && BACKUP_KEYWORDS.contains(&word),
            }
    }
}
