//! `pg_control`: what a server keeps about its cluster as a whole, of PostgreSQL 12 to 18.
//!
//! The file is 8192 bytes, of which the first 292 or 296 count; the rest is zeros. Its format has a version of its own,
//! which changed less often than the server's: 1201 (PostgreSQL 12), 1300 (13 to 16), 1700 (17) and 1800 (18). The
//! layouts differ little:
//!
//! ```text
//!   0 system_identifier   136 minRecoveryPoint     204 maxAlign        248 float8ByVal (1201: float4ByVal first)
//!   8 pg_control_version  144 minRecoveryPointTLI  208 floatFormat     252 data_checksum_version
//!  12 catalog_version_no  152 backupStartPoint     216 blcksz          256 default_char_signedness (1800 only)
//!  16 state               160 backupEndPoint       220 relseg_size     256 mock_authentication_nonce (1800: 257)
//!  24 time                168 backupEndRequired    224 xlog_blcksz     288 crc, CRC-32C of all before it (1800: 292)
//!  32 checkPoint          172 wal_level ..         228 xlog_seg_size
//!  40 checkPointCopy      200 track_commit_        232 nameDataLen .. loblksize
//! 128 unloggedLSN             timestamp
//! ```
//!
//! Checks run in PostgreSQL's order: byte order, version, CRC, then values; so a file of another version is never
//! called damaged. Any input gives a value or an error.

use thiserror::Error;

use super::checkpoint::CheckPoint;
use super::fields::{Fields, FieldsMut};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::{Lsn, PageSize, SegmentSize, SizeError};
use crate::read::{OutOfBytes, Reader};
use crate::types::{SystemIdentifier, TimelineId};

mod types;

pub use types::{ControlVersion, DatabaseState, ServerSettings, WalLevel};

/// Size of the file in bytes, whatever its version.
///
/// # Source
/// `PG_CONTROL_FILE_SIZE` in `src/include/catalog/pg_control.h`.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// What `maxAlign` says on every machine whose layout this is.
const MAX_ALIGN: u32 = 8;

/// What `floatFormat` says on every machine with IEEE 754 numbers.
///
/// # Source
/// `FLOATFORMAT_VALUE` in `src/include/catalog/pg_control.h`.
const FLOAT_FORMAT: f64 = 1_234_567.0;

/// The content of `pg_control`.
///
/// # Source
/// `ControlFileData` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identifier.
    pub system_identifier: SystemIdentifier,
    /// Format of the file (`pg_control_version`).
    pub version: ControlVersion,
    /// Format of the system catalogs (`catalog_version_no`), which tells the server's major version.
    pub catalog_version: u32,
    /// What the server was doing when it last wrote the file.
    pub state: DatabaseState,
    /// When it last wrote the file, in seconds since 1970-01-01 UTC (`time`).
    pub time_unix_s: i64,
    /// Where the latest checkpoint's record starts (`checkPoint`).
    pub checkpoint_lsn: Lsn,
    /// Copy of the latest checkpoint (`checkPointCopy`).
    pub checkpoint: CheckPoint,
    /// Counter that stands in for LSNs of unlogged relations (`unloggedLSN`).
    pub unlogged_lsn: Lsn,
    /// Up to where recovery must run before the data is consistent; 0/0 outside archive recovery.
    pub min_recovery_point: Lsn,
    /// The timeline of that position; 0 outside archive recovery.
    pub min_recovery_point_timeline: TimelineId,
    /// Redo position of the backup that is being recovered; 0/0 once its end was reached, and when there is none.
    pub backup_start_point: Lsn,
    /// End of the backup that is being recovered, when it was taken from a standby; else 0/0.
    pub backup_end_point: Lsn,
    /// Whether recovery must see the backup's end record.
    pub backup_end_required: bool,
    /// Settings of the server that wrote the log, which standbys must match or exceed.
    pub settings: ServerSettings,
    /// Data page size (`blcksz`).
    pub block_size: PageSize,
    /// Pages in each file of a large relation (`relseg_size`).
    pub blocks_per_relation_segment: u32,
    /// WAL page size (`xlog_blcksz`).
    pub wal_block_size: PageSize,
    /// WAL segment size (`xlog_seg_size`).
    pub wal_segment_size: SegmentSize,
    /// Bytes of an identifier, its zero byte included (`nameDataLen`).
    pub name_data_len: u32,
    /// Most columns of an index.
    pub index_max_keys: u32,
    /// Most bytes in a TOAST chunk.
    pub toast_max_chunk_size: u32,
    /// Bytes in a chunk of a large object (`loblksize`).
    pub large_object_block_size: u32,
    /// Whether `float4` is passed by value; a build option up to PostgreSQL 12, `None` since.
    pub float4_by_value: Option<bool>,
    /// Whether 8-byte types are passed by value.
    pub float8_by_value: bool,
    /// Version of data page checksums, 0 when pages have none.
    pub data_checksum_version: u32,
    /// Whether C's `char` was signed where the cluster was initialised; `None` before PostgreSQL 18.
    pub default_char_signed: Option<bool>,
    /// Random bytes, unique to the cluster, for answers to users that do not exist.
    pub mock_authentication_nonce: [u8; 32],
}

/// A `pg_control` that cannot be read, or not by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// It ends too early.
    #[error("pg_control is too short: {0}; the copy is not complete")]
    Short(#[from] OutOfBytes),
    /// It was written by a machine of the other byte order.
    #[error(
        "pg_control has version {version:#x}, which is one in big-endian byte order; this mirror needs little-endian"
    )]
    ByteOrder {
        /// The version as it was read.
        version: u32,
    },
    /// Its format is not known.
    #[error(
        "pg_control has version {version}, known are 1201, 1300, 1700 and 1800 (PostgreSQL 12 to 18)"
    )]
    UnknownVersion {
        /// `pg_control_version`.
        version: u32,
    },
    /// Its checksum is wrong.
    #[error(
        "pg_control is damaged: it stores CRC {found:08X}, its content has {computed:08X}; read it again or restore it"
    )]
    Crc {
        /// The stored CRC-32C.
        found: u32,
        /// The content's CRC-32C.
        computed: u32,
    },
    /// The state is none that PostgreSQL has.
    #[error("pg_control says database state {value}, expected 0 to 6")]
    State {
        /// `state`.
        value: u32,
    },
    /// The WAL level is none that PostgreSQL has.
    #[error("pg_control says wal_level {value}, expected 0 to 2")]
    WalLevel {
        /// `wal_level`.
        value: i32,
    },
    /// A truth value is neither 0 nor 1.
    #[error("pg_control says {value} for the truth value at offset {offset}")]
    Boolean {
        /// The byte's offset.
        offset: usize,
        /// The byte.
        value: u8,
    },
    /// A size that PostgreSQL does not allow.
    #[error("pg_control: {0}")]
    Size(#[from] SizeError),
    /// The cluster is of a machine with another layout of data.
    #[error(
        "pg_control says alignment {max_align} and float pattern {float_bits:#018x}: the cluster is of another architecture"
    )]
    Architecture {
        /// `maxAlign` in bytes.
        max_align: u32,
        /// The bits of `floatFormat`.
        float_bits: u64,
    },
    /// The catalogs are of no known release.
    #[error(
        "pg_control has catalog version {catalog_version} (format {control_version}), which is no release of \
         PostgreSQL 12 to 18"
    )]
    UnknownCatalogVersion {
        /// `catalog_version_no`.
        catalog_version: u32,
        /// `pg_control_version`.
        control_version: u32,
    },
}

impl ControlFile {
    /// Reads the file's content. What follows the CRC is not looked at.
    ///
    /// # Errors
    /// [`ControlError`]. A wrong CRC can mean that the server was just writing: read again before giving up.
    ///
    /// # Source
    /// `ReadControlFile` in `src/backend/access/transam/xlog.c`, `get_controlfile` in
    /// `src/common/controldata_utils.c`.
    pub fn parse(file: &[u8]) -> Result<Self, ControlError> {
        let version = Self::check(file)?;
        let mut fields = Fields::new(file);
        let system_identifier = SystemIdentifier(fields.u64()?);
        fields.u32()?;
        let catalog_version = fields.u32()?;
        let state = DatabaseState::from_number(fields.u32()?)?;
        let time_unix_s = fields.i64()?;
        let checkpoint_lsn = Lsn(fields.u64()?);
        let checkpoint = CheckPoint::parse_fields(&mut fields, version.checkpoint_has_wal_level())?;
        let unlogged_lsn = Lsn(fields.u64()?);
        let min_recovery_point = Lsn(fields.u64()?);
        let min_recovery_point_timeline = TimelineId(fields.u32()?);
        let backup_start_point = Lsn(fields.u64()?);
        let backup_end_point = Lsn(fields.u64()?);
        let backup_end_required = fields.bool()?;
        let settings = ServerSettings::parse_fields(&mut fields)?;
        let max_align = fields.u32()?;
        let float_bits = fields.u64()?;
        if max_align != MAX_ALIGN || float_bits != FLOAT_FORMAT.to_bits() {
            return Err(ControlError::Architecture {
                max_align,
                float_bits,
            });
        }
        Ok(Self {
            system_identifier,
            version,
            catalog_version,
            state,
            time_unix_s,
            checkpoint_lsn,
            checkpoint,
            unlogged_lsn,
            min_recovery_point,
            min_recovery_point_timeline,
            backup_start_point,
            backup_end_point,
            backup_end_required,
            settings,
            block_size: PageSize::new(fields.u32()?)?,
            blocks_per_relation_segment: fields.u32()?,
            wal_block_size: PageSize::new(fields.u32()?)?,
            wal_segment_size: SegmentSize::new(fields.u32()?)?,
            name_data_len: fields.u32()?,
            index_max_keys: fields.u32()?,
            toast_max_chunk_size: fields.u32()?,
            large_object_block_size: fields.u32()?,
            float4_by_value: version
                .has_float4_by_value()
                .then(|| fields.bool())
                .transpose()?,
            float8_by_value: fields.bool()?,
            data_checksum_version: fields.u32()?,
            default_char_signed: version
                .has_char_signedness()
                .then(|| fields.bool())
                .transpose()?,
            mock_authentication_nonce: fields.array()?,
        })
    }

    /// The whole file with this content and its CRC, [`CONTROL_FILE_SIZE`] bytes.
    ///
    /// # Source
    /// `update_controlfile` in `src/common/controldata_utils.c`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldsMut::default();
        out.u64(self.system_identifier.0);
        out.u32(self.version.number());
        out.u32(self.catalog_version);
        out.u32(self.state.number());
        out.i64(self.time_unix_s);
        out.u64(self.checkpoint_lsn.0);
        self.checkpoint
            .encode_fields(&mut out, self.version.checkpoint_has_wal_level());
        out.u64(self.unlogged_lsn.0);
        out.u64(self.min_recovery_point.0);
        out.u32(self.min_recovery_point_timeline.0);
        out.u64(self.backup_start_point.0);
        out.u64(self.backup_end_point.0);
        out.bool(self.backup_end_required);
        self.settings.encode_fields(&mut out);
        out.u32(MAX_ALIGN);
        out.u64(FLOAT_FORMAT.to_bits());
        out.u32(self.block_size.bytes_u32());
        out.u32(self.blocks_per_relation_segment);
        out.u32(self.wal_block_size.bytes_u32());
        out.u32(self.wal_segment_size.bytes_u32());
        out.u32(self.name_data_len);
        out.u32(self.index_max_keys);
        out.u32(self.toast_max_chunk_size);
        out.u32(self.large_object_block_size);
        if self.version.has_float4_by_value() {
            out.bool(self.float4_by_value.unwrap_or(true));
        }
        out.bool(self.float8_by_value);
        out.u32(self.data_checksum_version);
        if self.version.has_char_signedness() {
            out.bool(self.default_char_signed.unwrap_or(true));
        }
        out.array(&self.mock_authentication_nonce);
        out.align(4);
        out.u32(crc32c::crc32c(out.as_bytes()));
        let mut file = out.into_bytes();
        file.resize(CONTROL_FILE_SIZE, 0);
        file
    }

    /// The format of the cluster's log and files.
    ///
    /// # Errors
    /// [`ControlError::UnknownCatalogVersion`] when the catalogs are of no release that this crate knows: a
    /// development version or another server of the family.
    pub fn dialect(&self) -> Result<Dialect, ControlError> {
        let major = PgMajor::ALL.into_iter().find(|&major| {
            catalog_version(major) == self.catalog_version
                && ControlVersion::of(major) == self.version
        });
        Ok(Dialect {
            major: major.ok_or(ControlError::UnknownCatalogVersion {
                catalog_version: self.catalog_version,
                control_version: self.version.number(),
            })?,
            wal_page_size: self.wal_block_size,
            segment_size: self.wal_segment_size,
            block_size: self.block_size,
        })
    }

    /// Whether data pages carry checksums.
    #[must_use]
    pub const fn has_data_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }

    /// Byte order, version and CRC.
    fn check(file: &[u8]) -> Result<ControlVersion, ControlError> {
        let mut header = Reader::new(file);
        header.take(8)?;
        let number = header.u32_le()?;
        let Some(version) = ControlVersion::from_number(number) else {
            // A small number in the other byte order has its lower half zero.
            return Err(if number % 65_536 == 0 && number / 65_536 != 0 {
                ControlError::ByteOrder { version: number }
            } else {
                ControlError::UnknownVersion { version: number }
            });
        };
        let mut whole = Reader::new(file);
        let computed = crc32c::crc32c(whole.take(version.crc_offset())?);
        let found = whole.u32_le()?;
        if found == computed {
            Ok(version)
        } else {
            Err(ControlError::Crc { found, computed })
        }
    }
}

/// Catalog version of a major version's releases.
///
/// # Source
/// `CATALOG_VERSION_NO` in each version's `src/include/catalog/catversion.h`.
pub(super) const fn catalog_version(major: PgMajor) -> u32 {
    match major {
        PgMajor::V12 => 201_909_212,
        PgMajor::V13 => 202_007_201,
        PgMajor::V14 => 202_107_181,
        PgMajor::V15 => 202_209_061,
        PgMajor::V16 => 202_307_071,
        PgMajor::V17 => 202_406_281,
        PgMajor::V18 => 202_506_291,
    }
}

#[cfg(test)]
mod tests;
