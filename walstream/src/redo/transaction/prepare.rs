//! [`PreparedTransaction`]: the state of a transaction that waits for its end, which is the main data of a `PREPARE` record.
//!
//! ```text
//!         0 magic 0x57F94534   16 prepared_at   32 ncommitrels    40 ncommitstats    52 initfileinval    56 origin_lsn
//!         4 total_len          24 owner         36 nabortrels     44 nabortstats     54 gidlen           64 origin_timestamp
//!         8 xid                28 nsubxacts                       48 ninvalmsgs
//!        12 database
//! ```
//!
//! Before PostgreSQL 15 there are no statistics, and what follows them lies 8 bytes earlier. Each part behind the header starts at a
//! multiple of 8 bytes: the name with its zero byte, subtransactions, files to drop at commit and at abort, statistics to drop at
//! commit and at abort, cache invalidations; then what parts of the server want to remember, which is kept as it is.
//!
//! # Source
//! `xl_xact_prepare` in `src/include/access/xact.h`.

use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::pg_time::PgTimestamp;
use crate::read::Reader;
use crate::redo::{DroppedStatisticsList, Invalidation, List, RedoFault};
use crate::storage::two_phase::MAGIC;
use crate::types::{Oid, RelFileLocator, TransactionId};

/// Most bytes of a name, its zero byte included (`GIDSIZE`).
const MAX_GID_LEN: usize = 200;

/// The state of a prepared transaction, up to its CRC. Borrows from the record or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreparedTransaction<'a> {
    /// Length of the state file, its CRC included (`total_len`).
    pub total_len: u32,
    /// The transaction.
    pub xid: TransactionId,
    /// Database that it was in.
    pub database: Oid,
    /// When it was prepared.
    pub prepared_at: PgTimestamp,
    /// User that ran it.
    pub owner: Oid,
    /// Its name.
    pub gid: &'a [u8],
    /// Its subtransactions.
    pub subxids: List<'a, TransactionId>,
    /// Relations that go when it commits.
    pub commit_relations: List<'a, RelFileLocator>,
    /// Relations that go when it is rolled back.
    pub abort_relations: List<'a, RelFileLocator>,
    /// Statistics that go when it commits.
    pub commit_statistics: DroppedStatisticsList<'a>,
    /// Statistics that go when it is rolled back.
    pub abort_statistics: DroppedStatisticsList<'a>,
    /// Cache invalidations that it sends when it commits.
    pub invalidations: List<'a, Invalidation>,
    /// Whether it then removes the relation cache's file.
    pub invalidates_init_file: bool,
    /// Its position at the replication origin, 0/0 for none.
    pub origin_lsn: Lsn,
    /// When it was prepared at the origin.
    pub origin_time: PgTimestamp,
}

impl<'a> PreparedTransaction<'a> {
    /// Reads a `PREPARE` record's main data.
    ///
    /// # Errors
    /// [`RedoFault`] when it ends too early or contradicts itself.
    ///
    /// # Source
    /// `ParsePrepareRecord` in `src/backend/access/rmgrdesc/xactdesc.c`.
    pub fn parse(data: &'a [u8], dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut reader = Reader::new(data);
        if reader.u32_le()? != MAGIC {
            return Err(RedoFault::Record {
                what: "a prepared transaction's state has another magic number",
            });
        }
        let total_len = reader.u32_le()?;
        let (xid, database) = (reader.u32_le()?, reader.u32_le()?);
        let prepared_at = PgTimestamp(reader.i64_le()?);
        let owner = reader.u32_le()?;
        let subxids = reader.i32_le()?;
        let (commit_relations, abort_relations) = (reader.i32_le()?, reader.i32_le()?);
        let (commit_statistics, abort_statistics) = if dialect.major >= PgMajor::V15 {
            (reader.i32_le()?, reader.i32_le()?)
        } else {
            (0, 0)
        };
        let invalidations = reader.i32_le()?;
        let invalidates_init_file = reader.u8()? != 0;
        reader.take(1)?;
        let gid_len = reader.u16_le()?;
        align(&mut reader)?;
        let origin_lsn = Lsn(reader.u64_le()?);
        let origin_time = PgTimestamp(reader.i64_le()?);
        let gid = Reader::new(reader.take(gid_len.into())?).c_str()?;
        if gid.len() >= MAX_GID_LEN {
            return Err(RedoFault::Record {
                what: "a prepared transaction has a name that is too long",
            });
        }
        align(&mut reader)?;
        let subxids = aligned(&mut reader, |r| List::take(r, subxids))?;
        let commit_relations = aligned(&mut reader, |r| List::take(r, commit_relations))?;
        let abort_relations = aligned(&mut reader, |r| List::take(r, abort_relations))?;
        let mut statistics = |count| {
            aligned(&mut reader, |r| {
                DroppedStatisticsList::take(r, count, dialect)
            })
        };
        let commit_statistics = statistics(commit_statistics)?;
        let abort_statistics = statistics(abort_statistics)?;
        let invalidations = aligned(&mut reader, |r| List::take(r, invalidations))?;
        Ok(Self {
            total_len,
            xid,
            database,
            prepared_at,
            owner,
            gid,
            subxids,
            commit_relations,
            abort_relations,
            commit_statistics,
            abort_statistics,
            invalidations,
            invalidates_init_file,
            origin_lsn,
            origin_time,
        })
    }
}

/// Reads a part, and the padding behind it.
fn aligned<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, RedoFault>,
) -> Result<T, RedoFault> {
    let part = read(reader)?;
    align(reader)?;
    Ok(part)
}

fn align(reader: &mut Reader<'_>) -> Result<(), RedoFault> {
    let padding = reader.offset().next_multiple_of(8) - reader.offset();
    reader.take(padding)?;
    Ok(())
}
