//! Records of transactions as `pg_waldump` describes them.

use std::fmt::{self, Write};

use super::{ASSIGNMENT, COMMIT, Completion, OPERATION_MASK, Operation, PreparedTransaction};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::pg_time::{PgTimestamp, TimeZone};
use crate::read::Reader;
use crate::redo::text::Text;
use crate::redo::{DroppedStatisticsList, List, RedoFault, RedoRecord, invalidation};
use crate::types::{ForkNumber, RelFileLocator, TransactionId};

/// # Source
/// `xact_desc` in `src/backend/access/rmgrdesc/xactdesc.c`.
pub(in crate::redo) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let operation = match Operation::parse(record, dialect) {
        // pg_waldump prints nothing for them.
        Err(RedoFault::Operation { .. }) => return Ok(()),
        operation => operation?,
    };
    match operation {
        Operation::Completion(completion) => {
            let _ = complete(record, &completion, dialect, zone, out);
        }
        // Not described before 13.
        Operation::Prepare(_) if dialect.major < PgMajor::V13 => {}
        Operation::Prepare(prepared) => {
            let _ = prepare(record, &prepared, dialect, zone, out);
        }
        Operation::Assignment => {
            let mut data = Reader::new(record.main_data());
            let (top, count) = (data.u32_le()?, data.i32_le()?);
            let subxids: List<'_, TransactionId> = List::take(&mut data, count)?;
            let _ = write!(out, "xtop {top}: subxacts:");
            for xid in subxids.iter() {
                let _ = write!(out, " {xid}");
            }
        }
        Operation::Invalidations => {
            let mut data = Reader::new(record.main_data());
            let count = data.i32_le()?;
            let messages = List::take(&mut data, count)?;
            let _ = invalidation::describe(messages, (0, 0), false, out);
        }
    }
    Ok(())
}

fn complete(
    record: &RedoRecord<'_>,
    completion: &Completion<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> fmt::Result {
    if completion.prepared.is_some() {
        write!(out, "{}: ", completion.xid)?;
    }
    write!(out, "{}", completion.time.in_zone(zone))?;
    relations("rels", completion.relations, dialect, out)?;
    subtransactions(completion.subxids, out)?;
    if completion.is_commit {
        statistics("", completion.statistics, out)?;
        invalidation::describe(
            completion.invalidations,
            completion.database,
            completion.updates_init_file,
            out,
        )?;
        if completion.wants_apply_feedback && dialect.major >= PgMajor::V15 {
            out.write_str("; apply_feedback")?;
        }
        if completion.forces_sync {
            out.write_str("; sync")?;
        }
    }
    if let Some((id, lsn, time)) = completion.origin
        && (completion.is_commit || dialect.major >= PgMajor::V15)
    {
        origin((id, lsn, time), zone, out)?;
    }
    if !completion.is_commit {
        statistics("", completion.statistics, out)?;
    }
    let _ = (record, OPERATION_MASK, COMMIT, ASSIGNMENT);
    Ok(())
}

fn prepare(
    record: &RedoRecord<'_>,
    prepared: &PreparedTransaction<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(
        out,
        "gid {}: {}",
        Text(prepared.gid),
        prepared.prepared_at.in_zone(zone)
    )?;
    relations("rels(commit)", prepared.commit_relations, dialect, out)?;
    relations("rels(abort)", prepared.abort_relations, dialect, out)?;
    statistics("commit ", prepared.commit_statistics, out)?;
    statistics("abort ", prepared.abort_statistics, out)?;
    subtransactions(prepared.subxids, out)?;
    invalidation::describe(
        prepared.invalidations,
        (prepared.database, 0),
        prepared.invalidates_init_file,
        out,
    )?;
    match record.body.origin {
        Some(id) if id != 0 && dialect.major >= PgMajor::V15 => {
            origin((id, prepared.origin_lsn, prepared.origin_time), zone, out)
        }
        _ => Ok(()),
    }
}

fn relations(
    label: &str,
    relations: List<'_, RelFileLocator>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> fmt::Result {
    if !relations.is_empty() {
        write!(out, "; {label}:")?;
    }
    relations
        .iter()
        .try_for_each(|locator| write!(out, " {}", locator.path(ForkNumber::Main, dialect.major)))
}

fn subtransactions(subxids: List<'_, TransactionId>, out: &mut dyn Write) -> fmt::Result {
    if !subxids.is_empty() {
        out.write_str("; subxacts:")?;
    }
    subxids.iter().try_for_each(|xid| write!(out, " {xid}"))
}

fn statistics(
    label: &str,
    statistics: DroppedStatisticsList<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    if !statistics.is_empty() {
        write!(out, "; {label}dropped stats:")?;
    }
    statistics.iter().try_for_each(|dropped| {
        write!(
            out,
            " {}/{}/{}",
            dropped.kind, dropped.database, dropped.object
        )
    })
}

fn origin(
    (id, lsn, time): (u16, Lsn, PgTimestamp),
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(
        out,
        "; origin: node {id}, lsn {lsn}, at {}",
        time.in_zone(zone)
    )
}
