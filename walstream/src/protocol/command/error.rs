//! [`CommandError`], what is wrong with a replication command.

use thiserror::Error;

/// What is wrong with a replication command.
///
/// The texts are those with which PostgreSQL answers, since clients show them and tests look for them; the code for
/// the wire is [`CommandError::sqlstate`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The first word is none of a replication command: perhaps it is SQL, which a physical connection cannot run.
    #[error("cannot execute SQL commands in WAL sender for physical replication")]
    NotReplication,
    /// A word or sign that may not stand where it does.
    #[error("syntax error")]
    Syntax {
        /// Offset of it in the command, in bytes.
        offset: usize,
    },
    /// A quoted string that does not end.
    #[error("unterminated quoted string")]
    UnterminatedString {
        /// Offset of its first quote, in bytes.
        offset: usize,
    },
    /// An LSN or a number with more digits than it can have.
    #[error("{what} at offset {offset} is out of range")]
    OutOfRange {
        /// What it is.
        what: &'static str,
        /// Offset of it in the command, in bytes.
        offset: usize,
    },
    /// Timeline 0.
    #[error("invalid timeline {0}")]
    InvalidTimeline(u32),
    /// An option that was given before.
    #[error("duplicate option \"{0}\"")]
    DuplicateOption(String),
    /// A slot option that was given before or is for the other kind of slot.
    #[error("conflicting or redundant options")]
    ConflictingOptions,
    /// A slot option that there is none of.
    #[error("unrecognized option: {0}")]
    UnknownSlotOption(String),
    /// A base backup option that there is none of.
    #[error("unrecognized base backup option: \"{0}\"")]
    UnknownBackupOption(String),
    /// An option without a value that needs one.
    #[error("{option} requires a {kind}")]
    ValueNeeded {
        /// The option.
        option: String,
        /// What it needs: `parameter`, `Boolean value`, `numeric value`.
        kind: &'static str,
    },
    /// A value that is none of the option's.
    #[error("unrecognized {what}: \"{value}\"")]
    UnknownValue {
        /// What the value should have been.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A snapshot action that there is none of.
    #[error("unrecognized value for CREATE_REPLICATION_SLOT option \"snapshot\": \"{0}\"")]
    UnknownSnapshotAction(String),
    /// A transfer rate out of bounds.
    #[error("{0} is outside the valid range for parameter \"MAX_RATE\" (32 .. 1048576)")]
    MaxRate(u32),
    /// Manifest checksums without a manifest.
    #[error("manifest checksums require a backup manifest")]
    ChecksumsWithoutManifest,
    /// A target's detail without a target.
    #[error("target detail cannot be used without target")]
    DetailWithoutTarget,
    /// A detail for the target that takes none.
    #[error("target \"client\" does not accept a target detail")]
    DetailForClient,
    /// A compression's detail without a compression.
    #[error("compression detail cannot be specified unless compression is enabled")]
    DetailWithoutCompression,
}

impl CommandError {
    /// The SQLSTATE with which PostgreSQL answers.
    ///
    /// # Source
    /// `src/backend/utils/errcodes.txt`; the calls of `ereport` in `repl_gram.y`, `walsender.c` and
    /// `src/backend/backup/basebackup.c`.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::NotReplication => "0A000",
            Self::MaxRate(_) => "22003",
            Self::UnknownSnapshotAction(_) => "22023",
            Self::UnknownSlotOption(_) => "XX000",
            _ => "42601",
        }
    }
}
