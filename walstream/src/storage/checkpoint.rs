//! [`CheckPoint`]: the state of the cluster's counters at a checkpoint.
//!
//! It is the body of a checkpoint's WAL record, and `pg_control` keeps a copy of the latest one. Its 88 bytes have the
//! same offsets in PostgreSQL 12 to 18; what 17 added lies in what was padding:
//!
//! ```text
//!  0 redo             24 nextXid (64 bits)   44 oldestXid       60 -                    80 oldestActiveXid
//!  8 ThisTimeLineID   32 nextOid             48 oldestXidDB     64 time (64 bits)       84 -
//! 12 PrevTimeLineID   36 nextMulti           52 oldestMulti     72 oldestCommitTsXid
//! 16 fullPageWrites   40 nextMultiOffset     56 oldestMultiDB   76 newestCommitTsXid
//! 20 wal_level (17)
//! ```

use super::control::{ControlError, WalLevel};
use super::fields::{Fields, FieldsMut};
use crate::dialect::PgMajor;
use crate::lsn::Lsn;
use crate::types::{Oid, TimelineId, TransactionId};

/// The cluster's counters at a checkpoint.
///
/// # Source
/// `CheckPoint` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckPoint {
    /// Where replay starts (`redo`).
    pub redo_lsn: Lsn,
    /// Timeline of the checkpoint (`ThisTimeLineID`).
    pub timeline: TimelineId,
    /// The timeline before, when this checkpoint began a new one; else the same (`PrevTimeLineID`).
    pub prev_timeline: TimelineId,
    /// Whether `full_page_writes` was on.
    pub full_page_writes: bool,
    /// `wal_level` at the checkpoint, since PostgreSQL 17.
    pub wal_level: Option<WalLevel>,
    /// Next free transaction number, its epoch in the upper 32 bits (`nextXid`).
    pub next_full_xid: u64,
    /// Next free OID.
    pub next_oid: Oid,
    /// Next free multixact number.
    pub next_multi: u32,
    /// Next free offset of multixact members.
    pub next_multi_offset: u32,
    /// Lowest `datfrozenxid` of the cluster.
    pub oldest_xid: TransactionId,
    /// A database that has it.
    pub oldest_xid_database: Oid,
    /// Lowest `datminmxid` of the cluster.
    pub oldest_multi: u32,
    /// A database that has it.
    pub oldest_multi_database: Oid,
    /// When it was taken, in seconds since 1970-01-01 UTC.
    pub time_unix_s: i64,
    /// Oldest transaction with a valid commit timestamp, 0 when there is none.
    pub oldest_commit_ts_xid: TransactionId,
    /// Newest transaction with a valid commit timestamp, 0 when there is none.
    pub newest_commit_ts_xid: TransactionId,
    /// Oldest transaction that was running; 0 at a shutdown, and with `wal_level = minimal`.
    pub oldest_active_xid: TransactionId,
}

impl CheckPoint {
    /// Bytes that it takes, padding at the end included.
    pub const SIZE: usize = 88;

    /// Reads a checkpoint record's body.
    ///
    /// # Errors
    /// [`ControlError`] when there are fewer than [`CheckPoint::SIZE`] bytes, or a value that its type does not have.
    pub fn parse(bytes: &[u8], major: PgMajor) -> Result<Self, ControlError> {
        Self::parse_fields(&mut Fields::new(bytes), major >= PgMajor::V17)
    }

    /// A checkpoint record's body.
    #[must_use]
    pub fn encode(&self, major: PgMajor) -> Vec<u8> {
        let mut out = FieldsMut::default();
        self.encode_fields(&mut out, major >= PgMajor::V17);
        out.into_bytes()
    }

    pub(super) fn parse_fields(
        fields: &mut Fields<'_>,
        has_wal_level: bool,
    ) -> Result<Self, ControlError> {
        let checkpoint = Self {
            redo_lsn: Lsn(fields.u64()?),
            timeline: TimelineId(fields.u32()?),
            prev_timeline: TimelineId(fields.u32()?),
            full_page_writes: fields.bool()?,
            wal_level: {
                let value = fields.i32()?;
                has_wal_level
                    .then(|| WalLevel::from_number(value))
                    .transpose()?
            },
            next_full_xid: fields.u64()?,
            next_oid: fields.u32()?,
            next_multi: fields.u32()?,
            next_multi_offset: fields.u32()?,
            oldest_xid: fields.u32()?,
            oldest_xid_database: fields.u32()?,
            oldest_multi: fields.u32()?,
            oldest_multi_database: fields.u32()?,
            time_unix_s: fields.i64()?,
            oldest_commit_ts_xid: fields.u32()?,
            newest_commit_ts_xid: fields.u32()?,
            oldest_active_xid: fields.u32()?,
        };
        fields.align(8)?;
        Ok(checkpoint)
    }

    pub(super) fn encode_fields(&self, out: &mut FieldsMut, has_wal_level: bool) {
        out.u64(self.redo_lsn.0);
        out.u32(self.timeline.0);
        out.u32(self.prev_timeline.0);
        out.bool(self.full_page_writes);
        let wal_level = self.wal_level.filter(|_| has_wal_level);
        out.i32(wal_level.map_or(0, WalLevel::number));
        out.u64(self.next_full_xid);
        out.u32(self.next_oid);
        out.u32(self.next_multi);
        out.u32(self.next_multi_offset);
        out.u32(self.oldest_xid);
        out.u32(self.oldest_xid_database);
        out.u32(self.oldest_multi);
        out.u32(self.oldest_multi_database);
        out.i64(self.time_unix_s);
        out.u32(self.oldest_commit_ts_xid);
        out.u32(self.newest_commit_ts_xid);
        out.u32(self.oldest_active_xid);
        out.align(8);
    }
}
