//! Descriptions of Heap and Heap2 records: up to 15 in prose, since 16 as names with values.

use std::fmt::{self, Write};

use super::delete::Delete;
use super::freeze::{self, FreezePage, Plan};
use super::inplace::Inplace;
use super::insert::{self, Insert, MultiInsert};
use super::lock::Lock;
use super::offsets::Offsets;
use super::prune::{self, Prune, PruneFreeze};
use super::truncate::Truncate;
use super::update::Update;
use super::visible::Visible;
use super::{Operation, RedoFault, RedoRecord, makes_anew};
use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::storage::item_pointer::ItemPointer;
use crate::types::RelFileLocator;

/// # Source
/// `heap_desc` and `heap2_desc` in `src/backend/access/rmgrdesc/heapdesc.c`.
pub(in super::super) fn describe(
    record: &RedoRecord<'_>,
    major: PgMajor,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let operation = Operation::of(&record.header, major);
    let written = if major >= PgMajor::V16 {
        describe_named(operation, record, major, out)?
    } else {
        describe_prose(operation, record, major, out)?
    };
    // Who writes sees its own errors.
    let _ = written;
    Ok(())
}

/// Up to 15.
fn describe_prose(
    operation: Operation,
    record: &RedoRecord<'_>,
    major: PgMajor,
    out: &mut dyn Write,
) -> Result<fmt::Result, RedoFault> {
    Ok(match operation {
        Operation::Insert => {
            let Insert {
                offset_number,
                flags,
            } = Insert::parse(record)?;
            let flags = Hex(flags);
            write!(out, "off {offset_number} flags {flags}")
        }
        Operation::Delete => {
            let delete = Delete::parse(record)?;
            let (number, flags) = (delete.offset_number, Hex(delete.flags));
            let bits = ProseBits(delete.infobits);
            write!(out, "off {number} flags {flags} {bits}")
        }
        Operation::Update | Operation::HotUpdate => {
            let Update {
                old_xmax,
                old_offset_number,
                old_infobits,
                flags,
                new_xmax,
                new_offset_number,
            } = Update::parse(record)?;
            let (flags, bits) = (Hex(flags), ProseBits(old_infobits));
            write!(
                out,
                "off {old_offset_number} xmax {old_xmax} flags {flags} {bits}; \
                 new off {new_offset_number} xmax {new_xmax}"
            )
        }
        Operation::Truncate => {
            let truncate = Truncate::parse(record)?;
            let cascade = if truncate.is_cascade() {
                "cascade "
            } else {
                ""
            };
            let restart = if truncate.restarts_sequences() {
                "restart_seqs "
            } else {
                ""
            };
            let mut relations = truncate.relations();
            write!(out, "{cascade}{restart}nrelids {} relids", relations.len())
                .and_then(|()| relations.try_for_each(|oid| write!(out, " {oid}")))
        }
        Operation::Confirm | Operation::Inplace => {
            write!(out, "off {}", insert::offset_number(record)?)
        }
        Operation::Lock | Operation::LockUpdated => {
            let lock = Lock::parse(record)?;
            let name = if operation == Operation::Lock {
                "xid"
            } else {
                "xmax"
            };
            let (number, xmax) = (lock.offset_number, lock.xmax);
            let (flags, bits) = (Hex(lock.flags), ProseBits(lock.infobits));
            write!(out, "off {number}: {name} {xmax}: flags {flags} {bits}")
        }
        Operation::Prune => {
            let Prune {
                conflict_horizon,
                redirected,
                dead,
            } = Prune::parse(record)?;
            if major >= PgMajor::V14 {
                write!(
                    out,
                    "latestRemovedXid {conflict_horizon} nredirected {redirected} ndead {dead}"
                )
            } else {
                write!(out, "remxid {conflict_horizon}")
            }
        }
        Operation::CleanupInfo => {
            // Behind the relation.
            let mut data = Reader::new(record.main_data());
            locator(&mut data)?;
            write!(out, "remxid {}", data.u32_le()?)
        }
        Operation::Vacuum => write!(out, "nunused {}", prune::vacuumed(record)?),
        Operation::FreezePage => {
            let FreezePage { cutoff_xid, count } = FreezePage::parse(record)?;
            write!(out, "cutoff xid {cutoff_xid} ntuples {count}")
        }
        Operation::Visible => {
            let visible = Visible::parse(record)?;
            let (xid, flags) = (visible.conflict_horizon, Hex(visible.flags));
            write!(out, "cutoff xid {xid} flags {flags}")
        }
        Operation::MultiInsert => {
            let multi = MultiInsert::parse(record)?;
            write!(out, "{} tuples flags {}", multi.tuples, Hex(multi.flags))
        }
        Operation::NewCid => {
            let NewCid {
                locator,
                place,
                cids: [cmin, cmax, combo],
            } = NewCid::parse(record)?;
            write!(
                out,
                "rel {locator}; tid {}/{}; cmin: {cmin}, cmax: {cmax}, combo: {combo}",
                place.block, place.offset_number
            )
        }
        Operation::Rewrite | Operation::PruneFreeze => Ok(()),
    })
}

/// Since 16.
fn describe_named(
    operation: Operation,
    record: &RedoRecord<'_>,
    major: PgMajor,
    out: &mut dyn Write,
) -> Result<fmt::Result, RedoFault> {
    // What is in the block's data is left out when an image took its place.
    let block_data = record.block(0).map_or(&[][..], |block| block.data);
    Ok(match operation {
        Operation::Insert => {
            let insert = Insert::parse(record)?;
            let (number, flags) = (insert.offset_number, Hex(insert.flags));
            write!(out, "off: {number}, flags: {flags}")
        }
        Operation::Delete => {
            let delete = Delete::parse(record)?;
            let (xmax, number) = (delete.xmax, delete.offset_number);
            let (bits, flags) = (NamedBits(delete.infobits), Hex(delete.flags));
            write!(
                out,
                "xmax: {xmax}, off: {number}, infobits: {bits}, flags: {flags}"
            )
        }
        Operation::Update | Operation::HotUpdate => {
            let Update {
                old_xmax,
                old_offset_number,
                old_infobits,
                flags,
                new_xmax,
                new_offset_number,
            } = Update::parse(record)?;
            let (bits, flags) = (NamedBits(old_infobits), Hex(flags));
            write!(
                out,
                "old_xmax: {old_xmax}, old_off: {old_offset_number}, old_infobits: {bits}, \
                 flags: {flags}, new_xmax: {new_xmax}, new_off: {new_offset_number}"
            )
        }
        Operation::Truncate => {
            let truncate = Truncate::parse(record)?;
            let cascade = truncate.is_cascade().then_some("CASCADE");
            let restart = truncate.restarts_sequences().then_some("RESTART_SEQS");
            let relations = truncate.relations();
            out.write_str("flags: ")
                .and_then(|()| array(out, cascade.iter().chain(&restart)))
                .and_then(|()| write!(out, ", nrelids: {}", relations.len()))
                .and_then(|()| named_array(out, "relids", relations))
        }
        Operation::Confirm => write!(out, "off: {}", insert::offset_number(record)?),
        Operation::Inplace if major >= PgMajor::V18 => {
            let inplace = Inplace::parse(record)?;
            write!(out, "off: {}", inplace.offset_number)
                .and_then(|()| inplace.describe_messages(out))
        }
        Operation::Inplace => write!(out, "off: {}", insert::offset_number(record)?),
        Operation::Lock | Operation::LockUpdated => {
            let lock = Lock::parse(record)?;
            let (xmax, number) = (lock.xmax, lock.offset_number);
            let (bits, flags) = (NamedBits(lock.infobits), Hex(lock.flags));
            write!(
                out,
                "xmax: {xmax}, off: {number}, infobits: {bits}, flags: {flags}"
            )
        }
        Operation::Prune => describe_prune(&Prune::parse(record)?, block_data, out)?,
        Operation::PruneFreeze => {
            describe_prune_freeze(PruneFreeze::parse(record)?, block_data, out)?
        }
        Operation::Vacuum => {
            let count = prune::vacuumed(record)?;
            let unused = Offsets::take(&mut Reader::new(block_data), count.into());
            write!(out, "nunused: {count}").and_then(|()| match unused {
                Ok(unused) => named_array(out, "unused", unused.iter()),
                Err(_) => Ok(()),
            })
        }
        Operation::FreezePage => {
            let FreezePage { cutoff_xid, count } = FreezePage::parse(record)?;
            let written = write!(
                out,
                "snapshotConflictHorizon: {cutoff_xid}, nplans: {count}"
            );
            if block_data.is_empty() {
                return Ok(written);
            }
            let plans = freeze::plans(count, block_data)?;
            written.and_then(|()| named_array(out, "plans", plans.iter().flatten()))
        }
        Operation::Visible => {
            let visible = Visible::parse(record)?;
            let (xid, flags) = (visible.conflict_horizon, Hex(visible.flags));
            write!(out, "snapshotConflictHorizon: {xid}, flags: {flags}")
        }
        Operation::MultiInsert => {
            let multi = MultiInsert::parse(record)?;
            let (tuples, flags) = (multi.tuples, Hex(multi.flags));
            let written = write!(out, "ntuples: {tuples}, flags: {flags}");
            if block_data.is_empty() || makes_anew(record) {
                return Ok(written);
            }
            written.and_then(|()| named_array(out, "offsets", multi.offsets.iter()))
        }
        Operation::NewCid => {
            let NewCid {
                locator,
                place,
                cids: [cmin, cmax, combo],
            } = NewCid::parse(record)?;
            write!(
                out,
                "rel: {locator}, tid: {}/{}, cmin: {cmin}, cmax: {cmax}, combo: {combo}",
                place.block, place.offset_number
            )
        }
        Operation::Rewrite | Operation::CleanupInfo => Ok(()),
    })
}

/// 16.
fn describe_prune(
    prune: &Prune,
    block_data: &[u8],
    out: &mut dyn Write,
) -> Result<fmt::Result, OutOfBytes> {
    let Prune {
        conflict_horizon,
        redirected,
        dead,
    } = prune;
    let written = write!(
        out,
        "snapshotConflictHorizon: {conflict_horizon}, nredirected: {redirected}, ndead: {dead}"
    );
    if block_data.is_empty() {
        return Ok(written);
    }
    let items = prune.items(block_data)?;
    Ok(written
        .and_then(|()| write!(out, ", nunused: {}", items.unused.len()))
        .and_then(|()| named_array(out, "redirected", items.redirected.pairs().map(Redirect)))
        .and_then(|()| named_array(out, "dead", items.dead.iter()))
        .and_then(|()| named_array(out, "unused", items.unused.iter())))
}

/// Since 17.
fn describe_prune_freeze(
    prune: PruneFreeze,
    block_data: &[u8],
    out: &mut dyn Write,
) -> Result<fmt::Result, OutOfBytes> {
    let written = match prune.conflict_horizon {
        Some(xid) => write!(out, "snapshotConflictHorizon: {xid}"),
        None => Ok(()),
    };
    let is_catalog = if prune.is_catalog() { 'T' } else { 'F' };
    let written = written.and_then(|()| write!(out, ", isCatalogRel: {is_catalog}"));
    if block_data.is_empty() {
        return Ok(written);
    }
    let (plans, items) = prune.changes(block_data)?;
    let mut describe_lists = || {
        let (redirected, dead, unused) = (items.redirected, items.dead, items.unused);
        write!(
            out,
            ", nplans: {}, nredirected: {}, ndead: {}, nunused: {}",
            plans.len(),
            redirected.len() / 2,
            dead.len(),
            unused.len()
        )?;
        if !plans.is_empty() {
            named_array(out, "plans", plans.iter().flatten())?;
        }
        if !redirected.is_empty() {
            named_array(out, "redirected", redirected.pairs().map(Redirect))?;
        }
        if !dead.is_empty() {
            named_array(out, "dead", dead.iter())?;
        }
        if !unused.is_empty() {
            named_array(out, "unused", unused.iter())?;
        }
        Ok(())
    };
    Ok(written.and_then(|()| describe_lists()))
}

/// # Source
/// `xl_heap_new_cid` in `heapam_xlog.h`.
struct NewCid {
    locator: RelFileLocator,
    place: ItemPointer,
    cids: [u32; 3],
}

impl NewCid {
    fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        // The top-level transaction.
        data.u32_le()?;
        Ok(Self {
            cids: [data.u32_le()?, data.u32_le()?, data.u32_le()?],
            locator: locator(&mut data)?,
            place: ItemPointer::parse(&mut data)?,
        })
    }
}

fn locator(data: &mut Reader<'_>) -> Result<RelFileLocator, OutOfBytes> {
    Ok(RelFileLocator {
        tablespace: data.u32_le()?,
        database: data.u32_le()?,
        relation: data.u32_le()?,
    })
}

/// `, name: [1, 2]`.
fn named_array(
    out: &mut dyn Write,
    name: &str,
    items: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    write!(out, ", {name}: ")?;
    array(out, items)
}

/// `[1, 2]`.
///
/// # Source
/// `array_desc` in `src/backend/access/rmgrdesc/rmgrdesc_utils.c`.
fn array(out: &mut dyn Write, items: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    out.write_char('[')?;
    let mut separator = "";
    for item in items {
        write!(out, "{separator}{item}")?;
        separator = ", ";
    }
    out.write_char(']')
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{ xmax: {}, infomask: {}, infomask2: {}, ntuples: {}",
            self.fields.xmax,
            self.fields.infomask,
            self.fields.infomask2,
            self.tuples.len()
        )?;
        named_array(f, "offsets", self.tuples.iter())?;
        f.write_str(" }")
    }
}

/// `3->4`.
struct Redirect((u16, u16));

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.0;
        write!(f, "{from}->{to}")
    }
}

/// `0x0F`.
struct Hex(u8);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X}", self.0)
    }
}

/// Names of what a record says of `t_xmax`, by their bits (`XLHL_*`).
const INFOBITS: [(u8, &str); 5] = [
    (0x01, "IS_MULTI"),
    (0x02, "LOCK_ONLY"),
    (0x04, "EXCL_LOCK"),
    (0x08, "KEYSHR_LOCK"),
    (0x10, "KEYS_UPDATED"),
];

/// Each with a space behind.
struct ProseBits(u8);

impl fmt::Display for ProseBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = INFOBITS.iter().filter(|(bit, _)| self.0 & bit != 0);
        names.try_for_each(|(_, name)| write!(f, "{name} "))
    }
}

/// As an array.
struct NamedBits(u8);

impl fmt::Display for NamedBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = INFOBITS.iter().filter(|(bit, _)| self.0 & bit != 0);
        array(f, names.map(|(_, name)| name))
    }
}
