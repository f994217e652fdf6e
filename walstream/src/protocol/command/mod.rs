//! The commands of the replication protocol: parsed as a server reads them, formatted as a client writes them.
//!
//! Keywords are written in capitals only, as PostgreSQL's scanner has them. Any text may be parsed: what is no
//! command is a [`CommandError`].

mod base_backup;
mod error;
mod grammar;
mod manifest_checksums;
mod option;
mod parser;
mod scanner;
mod slot;
#[cfg(test)]
mod tests;

pub use base_backup::{
    BackupCheckpoint, BackupCompression, BackupTarget, BaseBackup, CompressionAlgorithm,
    ManifestOption,
};
pub use error::CommandError;
pub use grammar::Grammar;
pub use manifest_checksums::{ManifestChecksums, UnknownChecksums};
pub use slot::{AlterReplicationSlot, CreateReplicationSlot, SlotKind, SnapshotAction};

use std::fmt::Write;

use crate::{Lsn, TimelineId};
use parser::Parser;
use scanner::{push_identifier, push_literal};

/// A command of the replication protocol.
///
/// # Source
/// `src/backend/replication/repl_gram.y`; protocol chapter "Streaming Replication Protocol".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `IDENTIFY_SYSTEM`: who the server is and how far its WAL goes.
    IdentifySystem,
    /// `SHOW`: the value of a setting.
    Show {
        /// Name of the setting, with dots between its parts.
        name: String,
    },
    /// `TIMELINE_HISTORY`: a timeline's history file.
    TimelineHistory {
        /// The timeline, at least 1.
        timeline: TimelineId,
    },
    /// `CREATE_REPLICATION_SLOT`.
    CreateReplicationSlot(CreateReplicationSlot),
    /// `ALTER_REPLICATION_SLOT`, since 17.
    AlterReplicationSlot(AlterReplicationSlot),
    /// `READ_REPLICATION_SLOT`, since 15.
    ReadReplicationSlot {
        /// Name of the slot.
        slot: String,
    },
    /// `DROP_REPLICATION_SLOT`.
    DropReplicationSlot {
        /// Name of the slot.
        slot: String,
        /// Whether to wait while the slot is in use, instead of failing.
        wait: bool,
    },
    /// `START_REPLICATION` of physical WAL.
    StartReplication {
        /// Name of the slot to hold the WAL with.
        slot: Option<String>,
        /// Where to begin.
        start_lsn: Lsn,
        /// Timeline to send, at least 1; the server's own when not given.
        timeline: Option<TimelineId>,
    },
    /// `START_REPLICATION` of logical changes, which a physical server refuses.
    StartLogicalReplication {
        /// Name of the slot.
        slot: String,
        /// Where to begin.
        start_lsn: Lsn,
        /// Options for the output plugin.
        options: Vec<(String, Option<String>)>,
    },
    /// `BASE_BACKUP`.
    BaseBackup(BaseBackup),
    /// `UPLOAD_MANIFEST`, since 17: the manifest that an incremental backup builds on.
    UploadManifest,
}

impl Command {
    /// Reads a command, as a server with this grammar does. A semicolon may follow.
    ///
    /// # Errors
    /// [`CommandError`]; [`CommandError::NotReplication`] when the first word is of no replication command.
    pub fn parse(text: &str, grammar: Grammar) -> Result<Self, CommandError> {
        Parser::new(text, grammar).command()
    }

    /// Writes the command for a server with this grammar.
    ///
    /// Nothing that was asked for is left out: where the grammar has no word for it, the server gets the newest
    /// form and refuses it.
    #[must_use]
    pub fn format(&self, grammar: Grammar) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        match self {
            Self::IdentifySystem => out.push_str("IDENTIFY_SYSTEM"),
            Self::Show { name } => {
                out.push_str("SHOW ");
                push_dotted(&mut out, name);
            }
            Self::TimelineHistory { timeline } => {
                let _ = write!(out, "TIMELINE_HISTORY {timeline}");
            }
            Self::CreateReplicationSlot(create) => create.format(grammar, &mut out),
            Self::AlterReplicationSlot(alter) => alter.format(&mut out),
            Self::ReadReplicationSlot { slot } => {
                out.push_str("READ_REPLICATION_SLOT ");
                push_dotted(&mut out, slot);
            }
            Self::DropReplicationSlot { slot, wait } => {
                out.push_str("DROP_REPLICATION_SLOT ");
                push_identifier(&mut out, slot);
                if *wait {
                    out.push_str(" WAIT");
                }
            }
            Self::StartReplication {
                slot,
                start_lsn,
                timeline,
            } => {
                out.push_str("START_REPLICATION ");
                if let Some(slot) = slot {
                    out.push_str("SLOT ");
                    push_identifier(&mut out, slot);
                    out.push(' ');
                }
                let _ = write!(out, "PHYSICAL {start_lsn}");
                if let Some(timeline) = timeline {
                    let _ = write!(out, " TIMELINE {timeline}");
                }
            }
            Self::StartLogicalReplication {
                slot,
                start_lsn,
                options,
            } => {
                out.push_str("START_REPLICATION SLOT ");
                push_identifier(&mut out, slot);
                let _ = write!(out, " LOGICAL {start_lsn}");
                for (index, (name, value)) in options.iter().enumerate() {
                    out.push_str(if index == 0 { " (" } else { ", " });
                    push_identifier(&mut out, name);
                    if let Some(value) = value {
                        out.push(' ');
                        push_literal(&mut out, value);
                    }
                }
                if !options.is_empty() {
                    out.push(')');
                }
            }
            Self::BaseBackup(backup) => backup.format(grammar, &mut out),
            Self::UploadManifest => out.push_str("UPLOAD_MANIFEST"),
        }
        out
    }
}

/// Appends a name whose parts are separated by dots.
fn push_dotted(out: &mut String, name: &str) {
    for (index, part) in name.split('.').enumerate() {
        if index > 0 {
            out.push('.');
        }
        push_identifier(out, part);
    }
}
