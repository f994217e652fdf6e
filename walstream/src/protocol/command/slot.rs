//! `CREATE_REPLICATION_SLOT` and `ALTER_REPLICATION_SLOT`.

use super::option::GenericOption;
use super::scanner::push_identifier;
use super::{CommandError, Grammar};

/// `CREATE_REPLICATION_SLOT`.
///
/// # Source
/// `CreateReplicationSlot`, `parseCreateReplSlotOptions` in `src/backend/replication/walsender.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReplicationSlot {
    /// Name of the slot.
    pub slot: String,
    /// Whether it goes away with the connection.
    pub temporary: bool,
    /// What it is for.
    pub kind: SlotKind,
}

/// What a slot is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// WAL.
    Physical {
        /// Whether to hold WAL from now on; if not, from the first connect on, and what is removed until then is
        /// lost.
        reserve_wal: bool,
    },
    /// Logical changes; recognised so that a physical server can refuse it.
    Logical {
        /// Output plugin.
        plugin: String,
        /// What to do with the snapshot; PostgreSQL exports it when nothing is said.
        snapshot: Option<SnapshotAction>,
        /// Whether prepared transactions are decoded.
        two_phase: bool,
        /// Whether the slot is carried over to standbys, since 17.
        failover: bool,
    },
}

/// What to do with the snapshot of a new logical slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAction {
    /// Export it for other sessions.
    Export,
    /// Nothing.
    Nothing,
    /// Use it in the running transaction.
    Use,
}

/// `ALTER_REPLICATION_SLOT`, since 17, for logical slots only.
///
/// # Source
/// `ParseAlterReplSlotOptions` in `src/backend/replication/walsender.c` of 17 and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterReplicationSlot {
    /// Name of the slot.
    pub slot: String,
    /// Whether it is carried over to standbys.
    pub failover: Option<bool>,
    /// Whether prepared transactions are decoded, since 18.
    pub two_phase: Option<bool>,
}

impl CreateReplicationSlot {
    /// Applies the options of either form; an option may come once and only for its kind of slot.
    pub(super) fn apply(
        &mut self,
        options: &[GenericOption],
        grammar: Grammar,
    ) -> Result<(), CommandError> {
        for (index, option) in options.iter().enumerate() {
            let is_known = match option.name.as_str() {
                "failover" => grammar.has_incremental_backups(),
                name => matches!(name, "reserve_wal" | "snapshot" | "two_phase"),
            };
            if !is_known {
                return Err(CommandError::UnknownSlotOption(option.name.clone()));
            }
            let is_repeated = options
                .iter()
                .take(index)
                .any(|other| other.name == option.name);
            match (option.name.as_str(), &mut self.kind) {
                _ if is_repeated => return Err(CommandError::ConflictingOptions),
                ("reserve_wal", SlotKind::Physical { reserve_wal }) => {
                    *reserve_wal = option.boolean()?;
                }
                ("two_phase", SlotKind::Logical { two_phase, .. }) => {
                    *two_phase = option.boolean()?;
                }
                ("failover", SlotKind::Logical { failover, .. }) => {
                    *failover = option.boolean()?;
                }
                ("snapshot", SlotKind::Logical { snapshot, .. }) => {
                    *snapshot = Some(match option.string()?.as_str() {
                        "export" => SnapshotAction::Export,
                        "nothing" => SnapshotAction::Nothing,
                        "use" => SnapshotAction::Use,
                        other => return Err(CommandError::UnknownSnapshotAction(other.to_owned())),
                    });
                }
                _ => return Err(CommandError::ConflictingOptions),
            }
        }
        Ok(())
    }

    pub(super) fn format(&self, grammar: Grammar, out: &mut String) {
        out.push_str("CREATE_REPLICATION_SLOT ");
        push_identifier(out, &self.slot);
        if self.temporary {
            out.push_str(" TEMPORARY");
        }
        let is_list = grammar.has_option_lists();
        let mut options = Vec::new();
        match &self.kind {
            SlotKind::Physical { reserve_wal } => {
                out.push_str(" PHYSICAL");
                if *reserve_wal {
                    options.push("RESERVE_WAL");
                }
            }
            SlotKind::Logical {
                plugin,
                snapshot,
                two_phase,
                failover,
            } => {
                out.push_str(" LOGICAL ");
                push_identifier(out, plugin);
                match (snapshot, is_list) {
                    (None, _) => {}
                    (Some(SnapshotAction::Export), true) => options.push("SNAPSHOT 'export'"),
                    (Some(SnapshotAction::Nothing), true) => options.push("SNAPSHOT 'nothing'"),
                    (Some(SnapshotAction::Use), true) => options.push("SNAPSHOT 'use'"),
                    (Some(SnapshotAction::Export), false) => options.push("EXPORT_SNAPSHOT"),
                    (Some(SnapshotAction::Nothing), false) => options.push("NOEXPORT_SNAPSHOT"),
                    (Some(SnapshotAction::Use), false) => options.push("USE_SNAPSHOT"),
                }
                if *two_phase {
                    options.push("TWO_PHASE");
                }
                if *failover {
                    options.push("FAILOVER");
                }
            }
        }
        match (options.is_empty(), is_list) {
            (true, _) => {}
            (false, true) => {
                out.push_str(" (");
                out.push_str(&options.join(", "));
                out.push(')');
            }
            (false, false) => {
                out.push(' ');
                out.push_str(&options.join(" "));
            }
        }
    }
}

impl AlterReplicationSlot {
    pub(super) fn from_options(
        slot: String,
        options: &[GenericOption],
    ) -> Result<Self, CommandError> {
        let mut alter = Self {
            slot,
            failover: None,
            two_phase: None,
        };
        for option in options {
            let value = match option.name.as_str() {
                "failover" => &mut alter.failover,
                "two_phase" => &mut alter.two_phase,
                other => return Err(CommandError::UnknownSlotOption(other.to_owned())),
            };
            if value.is_some() {
                return Err(CommandError::ConflictingOptions);
            }
            *value = Some(option.boolean()?);
        }
        Ok(alter)
    }

    pub(super) fn format(&self, out: &mut String) {
        out.push_str("ALTER_REPLICATION_SLOT ");
        push_identifier(out, &self.slot);
        let options: Vec<_> = [("FAILOVER", self.failover), ("TWO_PHASE", self.two_phase)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?)))
            .collect();
        out.push_str(" (");
        out.push_str(&options.join(", "));
        out.push(')');
    }
}
