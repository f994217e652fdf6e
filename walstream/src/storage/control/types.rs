//! Values within `pg_control`.

use super::{ControlError, Fields, FieldsMut};
use crate::dialect::PgMajor;

/// Format of `pg_control`.
///
/// # Source
/// `PG_CONTROL_VERSION` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ControlVersion {
    /// PostgreSQL 12.
    V1201,
    /// PostgreSQL 13 to 16.
    V1300,
    /// PostgreSQL 17: `wal_level` in checkpoints.
    V1700,
    /// PostgreSQL 18: signedness of `char`.
    V1800,
}

/// What a server is doing, or was doing when it stopped.
///
/// # Source
/// `DBState` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatabaseState {
    /// Just initialised, or starting.
    StartingUp,
    /// Stopped cleanly as a primary.
    ShutDown,
    /// Stopped cleanly as a standby.
    ShutDownInRecovery,
    /// Stopping.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive or as a standby.
    InArchiveRecovery,
    /// Running as a primary.
    InProduction,
}

/// How much a server logs.
///
/// # Source
/// `WalLevel` in `src/include/access/xlog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalLevel {
    /// Enough for recovery from a crash only: such WAL keeps no mirror.
    Minimal,
    /// Enough for archives and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

/// Settings of the primary that a hot standby must match or exceed, or that change what is logged.
///
/// # Source
/// The parameters in `ControlFileData` (`src/include/catalog/pg_control.h`), and `xl_parameter_change` in
/// `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerSettings {
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

impl ControlVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V1201, Self::V1300, Self::V1700, Self::V1800];

    /// The version as the file has it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V1201 => 1201,
            Self::V1300 => 1300,
            Self::V1700 => 1700,
            Self::V1800 => 1800,
        }
    }

    /// The version of this number, if this crate knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.number() == number)
    }

    /// The version that a server of this major version writes.
    #[must_use]
    pub const fn of(major: PgMajor) -> Self {
        match major {
            PgMajor::V12 => Self::V1201,
            PgMajor::V13 | PgMajor::V14 | PgMajor::V15 | PgMajor::V16 => Self::V1300,
            PgMajor::V17 => Self::V1700,
            PgMajor::V18 => Self::V1800,
        }
    }

    /// Offset of the CRC, in bytes: the length of what it covers.
    #[must_use]
    pub const fn crc_offset(self) -> usize {
        match self {
            Self::V1201 | Self::V1300 | Self::V1700 => 288,
            Self::V1800 => 292,
        }
    }

    pub(super) fn checkpoint_has_wal_level(self) -> bool {
        self >= Self::V1700
    }

    pub(super) fn has_float4_by_value(self) -> bool {
        self == Self::V1201
    }

    pub(super) fn has_char_signedness(self) -> bool {
        self >= Self::V1800
    }
}

impl DatabaseState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::StartingUp,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::InCrashRecovery,
        Self::InArchiveRecovery,
        Self::InProduction,
    ];

    pub(super) fn from_number(value: u32) -> Result<Self, ControlError> {
        let found = Self::ALL.into_iter().find(|state| state.number() == value);
        found.ok_or(ControlError::State { value })
    }

    /// The state as the file has it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::StartingUp => 0,
            Self::ShutDown => 1,
            Self::ShutDownInRecovery => 2,
            Self::ShuttingDown => 3,
            Self::InCrashRecovery => 4,
            Self::InArchiveRecovery => 5,
            Self::InProduction => 6,
        }
    }

    /// The state as `pg_controldata` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }
}

impl WalLevel {
    /// The level of this number.
    ///
    /// # Errors
    /// [`ControlError::WalLevel`] when no level has it.
    pub const fn from_number(value: i32) -> Result<Self, ControlError> {
        match value {
            0 => Ok(Self::Minimal),
            1 => Ok(Self::Replica),
            2 => Ok(Self::Logical),
            value => Err(ControlError::WalLevel { value }),
        }
    }

    /// The level as files have it.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Minimal => 0,
            Self::Replica => 1,
            Self::Logical => 2,
        }
    }

    /// The level as the setting has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

impl ServerSettings {
    pub(super) fn parse_fields(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        Ok(Self {
            wal_level: WalLevel::from_number(fields.i32()?)?,
            wal_log_hints: fields.bool()?,
            max_connections: fields.i32()?,
            max_worker_processes: fields.i32()?,
            max_wal_senders: fields.i32()?,
            max_prepared_transactions: fields.i32()?,
            max_locks_per_transaction: fields.i32()?,
            track_commit_timestamp: fields.bool()?,
        })
    }

    pub(super) fn encode_fields(&self, out: &mut FieldsMut) {
        out.i32(self.wal_level.number());
        out.bool(self.wal_log_hints);
        out.i32(self.max_connections);
        out.i32(self.max_worker_processes);
        out.i32(self.max_wal_senders);
        out.i32(self.max_prepared_transactions);
        out.i32(self.max_locks_per_transaction);
        out.bool(self.track_commit_timestamp);
    }
}
