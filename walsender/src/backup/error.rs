//! [`BackupError`]: why a base backup fails.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A base backup that fails.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file or directory cannot be used.
    #[error("could not {operation} \"{}\": {source}", path.display())]
    File {
        /// What was tried: `open file`, `read file`, `stat file or directory`.
        operation: &'static str,
        /// The file, as the server would name it.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A member's name does not fit into a tar header.
    #[error("file name too long for tar format: \"{name}\"")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// The target of a symbolic link does not fit into a tar header.
    #[error(
        "symbolic link target too long for tar format: file name \"{name}\", target \"{target}\""
    )]
    LinkTooLong {
        /// The link's name.
        name: String,
        /// Where it points.
        target: String,
    },
    /// A file of a large relation has no number after its dot.
    #[error("invalid segment number {number} in file \"{name}\"")]
    SegmentNumber {
        /// The number.
        number: u32,
        /// The file's name.
        name: String,
    },
    /// WAL that the backup needs is not there.
    #[error("could not find WAL file \"{name}\"")]
    WalMissing {
        /// The segment's file.
        name: String,
    },
    /// There is no WAL at all.
    #[error("could not find any WAL files")]
    NoWal,
    /// A segment has another size than it must have.
    #[error("unexpected WAL file size \"{name}\"")]
    WalSize {
        /// The segment's file.
        name: String,
    },
    /// WAL that the backup needs went away while it was read.
    #[error("requested WAL segment {name} has already been removed")]
    WalRemoved {
        /// The segment's file.
        name: String,
    },
    /// Pages are damaged.
    #[error("checksum verification failure during base backup")]
    Checksums,
    /// The compression that was asked for is impossible.
    #[error("invalid compression specification: {reason}")]
    Compression {
        /// What is wrong with it.
        reason: String,
    },
    /// There cannot be so many workers.
    #[error("could not set compression worker count to {count}: {reason}")]
    Workers {
        /// How many were asked for.
        count: i32,
        /// What the compressor says.
        reason: String,
    },
    /// Compressing failed.
    #[error("could not compress data: {0}")]
    Compress(io::Error),
    /// The manifest's temporary file cannot be used.
    #[error("could not write to temporary file: {0}")]
    Spool(io::Error),
    /// The server cannot be put into backup mode, or does not end it properly.
    #[error("{reason}")]
    Server {
        /// What it says.
        reason: String,
        /// Its SQLSTATE.
        sqlstate: Option<String>,
    },
    /// The server says another thing about the backup than we do.
    #[error(
        "the server's backup_label says \"{server}\", the one that was sent \"{sent}\": the backup must not be used, take another"
    )]
    OtherLabel {
        /// The server's line.
        server: String,
        /// Ours.
        sent: String,
    },
    /// The history of the timeline at the end does not hold that at the start.
    #[error("start timeline {start} not found in history of timeline {end}")]
    NotInHistory {
        /// The timeline at the start.
        start: walstream::TimelineId,
        /// The timeline at the end.
        end: walstream::TimelineId,
    },
    /// Nobody takes what is read any more.
    #[error("the client has gone")]
    ClientGone,
}

/// What a server may answer when it is put into backup mode: not configured for it, no right, a bad label, stopped, no
/// connection left.
const SERVER_SQLSTATES: [&str; 8] = [
    "55000", "42501", "22023", "57014", "57P01", "57P03", "53300", "28P01",
];

impl BackupError {
    /// For `map_err`: what was tried, and on what.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }

    /// SQLSTATE, as `errcode_for_file_access` and the like choose it.
    pub(crate) fn sqlstate(&self) -> &'static str {
        match self {
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "58P01",
                io::ErrorKind::PermissionDenied => "42501",
                _ => "58030",
            },
            Self::Compression { .. } => "42601",
            Self::WalRemoved { .. } | Self::WalSize { .. } => "58P01",
            Self::Checksums => "XX001",
            Self::Workers { .. } => "22023",
            Self::Server { sqlstate, .. } => {
                let known = SERVER_SQLSTATES
                    .into_iter()
                    .find(|known| sqlstate.as_deref() == Some(*known));
                known.unwrap_or("XX000")
            }
            _ => "XX000",
        }
    }
}
