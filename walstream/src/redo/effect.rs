//! [`Effect`]: what a record does besides changing the blocks that it references.
//!
//! Effects are what outlives the record on disk, or must be known to go on after a restart. What a hot standby does for its
//! readers is left out, as there are none: known transactions and their subtransactions (`pg_subtrans` is made anew at each start), locks,
//! conflicts, cache invalidations.
//!
//! Carrying one out twice must give what carrying it out once does, as replay may begin again at an earlier record: files that are to
//! be made may exist, those to be dropped may be gone, and SLRU pages of later records may exist.

use super::heap::{self, RewriteMapping};
use super::{
    DroppedStatisticsList, List, LogicalMessage, RedoContext, RedoError, RedoRecord, clog,
    commit_ts, database, logical_message, multixact, relmap, replication_origin, smgr, standby,
    tablespace, transaction, xlog,
};
use crate::lsn::Lsn;
use crate::pg_time::PgTimestamp;
use crate::storage::checkpoint::CheckPoint;
use crate::storage::control::ServerSettings;
use crate::storage::relation_path::DatabaseDirectory;
use crate::storage::slru::{MultiXactMember, Slru, TransactionStatus};
use crate::types::{
    BlockNumber, ForkNumber, Oid, RelFileLocator, RmgrId, TimelineId, TransactionId,
};

/// Something that a record does to what it does not reference as a block. Borrows lists from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect<'a> {
    /// Clears bits of a heap block in its relation's visibility map ([`crate::storage::visibility_map`]), however new that page is,
    /// as it has no LSN of this. A page that the map does not have is made, empty.
    ClearVisibility {
        /// The heap.
        locator: RelFileLocator,
        /// Its block.
        heap_block: BlockNumber,
        /// Bits to clear (`VISIBILITYMAP_*`).
        flags: u8,
    },
    /// Writes a piece of a file for logical decoding.
    RewriteMapping(RewriteMapping<'a>),
    /// A message that a service wrote (`pg_logical_emit_message`): redo does nothing with it.
    Message(LogicalMessage<'a>),
    /// The next transaction number is beyond this one: with the epoch of the counter as it is, or one more when that would put it
    /// behind. A counter that is further stays (`AdvanceNextFullTransactionIdPastXid`).
    NextXidPast(TransactionId),
    /// The next OID is exactly this one.
    NextOid(Oid),
    /// The next multixact is at least this one, and the next member's offset at least this; both wrap around
    /// (`MultiXactAdvanceNextMXact`).
    NextMultiXact {
        /// The multixact. 0 stands for the first, 1.
        multi: u32,
        /// The offset.
        offset: u32,
    },
    /// Sets the status of a transaction and of its subtransactions in `pg_xact`.
    TransactionStatus {
        /// The transaction. An abort may be one of a subtransaction.
        xid: TransactionId,
        /// Its subtransactions, in ascending order.
        subxids: List<'a, TransactionId>,
        /// What became of all of them.
        status: TransactionStatus,
        /// The record's end: what must be on disk before the status is.
        lsn: Lsn,
    },
    /// Sets when a transaction and its subtransactions committed, in `pg_commit_ts`: only if the primary tracks it
    /// ([`ServerSettings::track_commit_timestamp`], as the last [`Effect::Settings`] or `pg_control` has it).
    CommitTimestamp {
        /// The transaction.
        xid: TransactionId,
        /// Its subtransactions, in ascending order.
        subxids: List<'a, TransactionId>,
        /// When, at the origin if it has one.
        time: PgTimestamp,
        /// The replication origin, 0 for none.
        origin: u16,
    },
    /// Makes a page of zeros in an SLRU, and writes it at once.
    ZeroSlruPage {
        /// Which SLRU.
        slru: Slru,
        /// Its page. An offsets page that [`Effect::NewMultiXact`] made already, since it set the first entry, stays as it is.
        page: u64,
    },
    /// Removes the segments of an SLRU that lie wholly before this page, in the circle of its numbers. For offsets and members of
    /// multixacts see [`Effect::TruncateMultiXacts`].
    TruncateSlru {
        /// Which SLRU.
        slru: Slru,
        /// The first page that is kept.
        cutoff_page: u64,
        /// The oldest transaction that is still known; for commit timestamps also the least that
        /// [`CheckPoint::oldest_commit_ts_xid`] may be from now on, if that is set.
        oldest_xid: TransactionId,
    },
    /// Records a multixact's members: its offset, that of the next multixact (which is its end; 1 stands for 0 there, and for the
    /// multixact itself), and each member. The next one's offset may be the first of a page that does not exist yet, which is then
    /// made; releases of before 2025-11 leave that to the next multixact.
    NewMultiXact {
        /// The multixact.
        multi: u32,
        /// Where its members start.
        offset: u32,
        /// The members, one after another from `offset` on; offsets wrap around.
        members: List<'a, MultiXactMember>,
    },
    /// Removes segments of multixact offsets and members, and sets the oldest multixact.
    TruncateMultiXacts {
        /// A database that has the oldest multixact.
        oldest_database: Oid,
        /// The oldest one before.
        start_multi: u32,
        /// The oldest one from now on. Offsets segments before the one that holds the multixact before it go.
        end_multi: u32,
        /// The oldest member before.
        start_offset: u32,
        /// The oldest member from now on. Members segments from that of `start_offset` up to the one before this one's go.
        end_offset: u32,
    },
    /// Makes a fork of a relation, empty, if it does not exist; directories above it too.
    CreateFork {
        /// The relation.
        locator: RelFileLocator,
        /// Its fork.
        fork: ForkNumber,
    },
    /// Cuts a relation's forks to what `blocks` blocks of its main fork need. The main fork is made if it does not exist; the maps
    /// are cut only if they exist.
    Truncate {
        /// The relation.
        locator: RelFileLocator,
        /// Blocks of the main fork that stay.
        blocks: BlockNumber,
        /// Whether the main fork is cut.
        main: bool,
        /// Whether the visibility map is.
        visibility_map: bool,
        /// Whether the free space map is.
        free_space_map: bool,
    },
    /// Removes all forks of these relations.
    DropRelations(List<'a, RelFileLocator>),
    /// Cumulative statistics that go with dropped objects. A server that starts after recovery has none, so this is for observers.
    DropStatistics(DroppedStatisticsList<'a>),
    /// Makes a database's directory anew as a copy of another: what the target had is removed, all changed pages of the source are
    /// written first, subdirectories are not copied. If the source is missing it is made empty, as a later record drops it.
    CopyDatabase {
        /// The database that is copied.
        from: DatabaseDirectory,
        /// The new one.
        to: DatabaseDirectory,
    },
    /// Makes a database's directory with its `PG_VERSION`; it may exist. Its files come by records of their own.
    CreateDatabase(DatabaseDirectory),
    /// Removes a database: its directory in each of these tablespaces, and all cached pages of it.
    DropDatabase {
        /// The database.
        database: Oid,
        /// Tablespaces that have a directory of it.
        tablespaces: List<'a, Oid>,
    },
    /// Makes a tablespace: the version's directory at its location, and the link to it.
    CreateTablespace {
        /// The tablespace.
        tablespace: Oid,
        /// Its location on the primary, empty for one inside the data directory (`allow_in_place_tablespaces`).
        location: &'a [u8],
    },
    /// Removes a tablespace: the version's directory at its location, which is empty of relations, and the link.
    DropTablespace(Oid),
    /// Writes a relation map, whole ([`crate::storage::relation_map`]).
    RelationMap {
        /// Where: database 0 in tablespace 1664 is the shared one, in `global`.
        directory: DatabaseDirectory,
        /// The file's content.
        map: &'a [u8],
    },
    /// Prepares a transaction: it is kept until [`Effect::EndPrepared`], in a file of its own at the latest at the next
    /// restartpoint ([`crate::storage::two_phase`]).
    Prepare {
        /// The transaction.
        xid: TransactionId,
        /// The state file's content up to its CRC, which is the whole record's data.
        state: &'a [u8],
    },
    /// A prepared transaction was committed or rolled back: its state goes.
    EndPrepared {
        /// The transaction.
        xid: TransactionId,
    },
    /// How far changes of a replication origin were applied.
    OriginProgress {
        /// The origin.
        origin: u16,
        /// Its position there.
        remote_lsn: Lsn,
        /// The record's end here.
        local_lsn: Lsn,
        /// Whether the position may go back; without, an earlier one is ignored.
        backward: bool,
    },
    /// Forgets the progress of a replication origin.
    DropOrigin {
        /// The origin.
        origin: u16,
    },
    /// A checkpoint of the primary: a restartpoint can be made here.
    ///
    /// At a shutdown the counters for transactions, OIDs and multixacts are exactly the checkpoint's. An online one is a minimum for
    /// transactions, multixacts and the oldest ones, and says nothing of OIDs ([`Effect::NextOid`] does). Its timeline must be the one
    /// that is replayed.
    CheckPoint {
        /// Its content.
        checkpoint: CheckPoint,
        /// Where its record starts (`checkPoint` in `pg_control`).
        lsn: Lsn,
        /// Whether the primary was shut down.
        is_shutdown: bool,
    },
    /// Where an online checkpoint began, since 17: redo starts at this record.
    CheckPointRedo {
        /// `wal_level` as a number.
        wal_level: Option<i32>,
    },
    /// Settings of the primary changed: they go to `pg_control` at once, with a minimum recovery point of the record's end. Commit
    /// timestamps begin or end to be kept when theirs changed (`CommitTsParameterChange`).
    Settings(ServerSettings),
    /// The primary's `full_page_writes` changed.
    FullPageWrites(bool),
    /// The base backup that began at this position is over: when it is ours, the data is consistent from the record's end on.
    BackupEnd {
        /// The backup's redo position.
        start_lsn: Lsn,
    },
    /// The primary was promoted, and this is the first record of the new timeline; as is a shutdown checkpoint with another
    /// timeline than the one before it.
    EndOfRecovery {
        /// The new timeline.
        timeline: TimelineId,
        /// The one before.
        prev_timeline: TimelineId,
        /// When.
        time: PgTimestamp,
    },
    /// A place in the log with a name (`pg_create_restore_point`).
    RestorePoint {
        /// Its name.
        name: &'a [u8],
        /// When it was made.
        time: PgTimestamp,
    },
    /// A record that a crash cut off is left out. It must be the one that the reader found missing.
    OverwriteContrecord {
        /// Where it began.
        lsn: Lsn,
        /// When that was found.
        time: PgTimestamp,
    },
    /// A commit that somebody waits for (`synchronous_commit = remote_apply`): the position that is applied is to be reported at once.
    ReportApply,
    /// The minimum recovery point in `pg_control` must be at least the record's end before what follows, as that cannot be undone:
    /// files go, or a client was told that its commit is safe (`XLogFlush` in recovery).
    MinRecoveryPoint,
}

/// Gives what this record does besides changing blocks, in the order in which it is to be done.
///
/// Every record with a transaction first advances the next transaction number past it ([`Effect::NextXidPast`]).
///
/// # Errors
/// [`RedoError`] when the record's data is wrong; what was given before is to be given up.
///
/// # Source
/// `ApplyWalRecord` in `src/backend/access/transam/xlogrecovery.c`, and each resource manager's `rm_redo`.
pub fn effects<'a>(
    context: &RedoContext,
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoError> {
    if record.xid() != 0 {
        take(Effect::NextXidPast(record.xid()));
    }
    let dialect = &context.dialect;
    let found = match record.header.rmgr {
        RmgrId::XLOG => xlog::effects(record, dialect, take),
        RmgrId::TRANSACTION => transaction::effects(record, dialect, take),
        RmgrId::STORAGE => smgr::effects(record, take),
        RmgrId::CLOG => clog::effects(record, dialect, take),
        RmgrId::DATABASE => database::effects(record, dialect, take),
        RmgrId::TABLESPACE => tablespace::effects(record, take),
        RmgrId::MULTIXACT => multixact::effects(record, dialect, take),
        RmgrId::RELMAP => relmap::effects(record, dialect, take),
        RmgrId::STANDBY => standby::effects(record),
        RmgrId::COMMIT_TS => commit_ts::effects(record, dialect, take),
        RmgrId::REPLICATION_ORIGIN => replication_origin::effects(record, take),
        RmgrId::LOGICAL_MESSAGE => logical_message::effects(record, take),
        RmgrId::HEAP | RmgrId::HEAP2 => heap::effects(context, record, take),
        _ => Ok(()),
    };
    found.map_err(|fault| RedoError::of_record(context, record, fault))
}

#[cfg(test)]
mod tests;
