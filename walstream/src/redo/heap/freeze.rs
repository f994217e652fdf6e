//! Freezing tuples: their transactions are forgotten.
//!
//! Up to 15 a record says for each tuple what becomes of it; since 16 it has plans, each for many tuples, whose numbers lie behind the
//! plans in the same order. Since 17 that is a part of the record that prunes.

use super::offsets::Offsets;
use super::{RedoContext, RedoFault, RedoPage, RedoRecord};
use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::storage::heap_tuple::HeapTuple;
use crate::types::TransactionId;
use crate::wal::record::BlockRef;

/// `XLH_FREEZE_XVAC`.
const FREEZE_XVAC: u8 = 0x02;
/// `XLH_INVALID_XVAC`.
const INVALID_XVAC: u8 = 0x04;
/// `FrozenTransactionId`.
const FROZEN: TransactionId = 2;

/// # Source
/// `xl_heap_freeze_page` in `heapam_xlog.h`.
pub(super) struct FreezePage {
    /// Up to 15 transactions before this one are forgotten, since 16 up to it (`snapshotConflictHorizon`).
    pub(super) cutoff_xid: TransactionId,
    /// Number of tuples, since 16 of plans.
    pub(super) count: u16,
}

impl FreezePage {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            cutoff_xid: data.u32_le()?,
            count: data.u16_le()?,
        })
    }
}

/// What becomes of a tuple.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrozenFields {
    pub(super) xmax: u32,
    pub(super) infomask2: u16,
    pub(super) infomask: u16,
    flags: u8,
}

impl FrozenFields {
    /// # Source
    /// `heap_execute_freeze_tuple` in `heapam.c`.
    fn apply(self, page: &mut RedoPage<'_>, offset_number: u16) -> Result<(), RedoFault> {
        let mut tuple = HeapTuple::new(page.item_mut(offset_number)?)?;
        tuple.set_xmax(self.xmax);
        if self.flags & FREEZE_XVAC != 0 {
            tuple.set_cid(FROZEN);
        }
        if self.flags & INVALID_XVAC != 0 {
            tuple.set_cid(0);
        }
        tuple.set_infomask(self.infomask);
        tuple.set_infomask2(self.infomask2);
        Ok(())
    }
}

/// One plan for many tuples.
///
/// # Source
/// `xl_heap_freeze_plan`, since 17 `xlhp_freeze_plan` in `heapam_xlog.h`: 12 bytes, one of padding before the number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) fields: FrozenFields,
    pub(super) tuples: Offsets<'a>,
}

/// A list of plans, and the tuples of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plans<'a> {
    plans: &'a [u8],
    tuples: &'a [u8],
}

impl<'a> Plans<'a> {
    const PLAN_LEN: usize = 12;

    /// Takes so many plans, whose tuples [`with_tuples`](Self::with_tuples) adds.
    pub(super) fn take(reader: &mut Reader<'a>, count: u16) -> Result<Self, OutOfBytes> {
        Ok(Self {
            plans: reader.take(usize::from(count) * Self::PLAN_LEN)?,
            tuples: &[],
        })
    }

    pub(super) const fn with_tuples(self, tuples: &'a [u8]) -> Self {
        Self { tuples, ..self }
    }

    pub(super) const fn len(&self) -> usize {
        self.plans.len() / Self::PLAN_LEN
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// The plans, each with its tuples, until one has too few.
    pub(super) fn iter(self) -> impl Iterator<Item = Result<Plan<'a>, OutOfBytes>> {
        let mut plans = Reader::new(self.plans);
        let mut tuples = Reader::new(self.tuples);
        let mut next = move || {
            let xmax = plans.u32_le()?;
            let (infomask2, infomask) = (plans.u16_le()?, plans.u16_le()?);
            let [flags, _] = plans.array()?;
            let count = plans.u16_le()?.into();
            Ok(Plan {
                fields: FrozenFields {
                    xmax,
                    infomask2,
                    infomask,
                    flags,
                },
                tuples: Offsets::take(&mut tuples, count)?,
            })
        };
        (0..self.len()).map(move |_| next())
    }

    pub(super) fn apply(self, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
        for plan in self.iter() {
            let plan = plan?;
            for number in plan.tuples.iter() {
                plan.fields.apply(page, number)?;
            }
        }
        Ok(())
    }
}

/// The plans of a record of 16.
pub(super) fn plans<'a>(count: u16, data: &'a [u8]) -> Result<Plans<'a>, OutOfBytes> {
    let mut data = Reader::new(data);
    let plans = Plans::take(&mut data, count)?;
    Ok(plans.with_tuples(data.rest()))
}

/// # Source
/// `heap_xlog_freeze_page` in `heapam.c`; up to 15 the block's data is a list of `xl_heap_freeze_tuple`, 12 bytes each.
pub(super) fn redo(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let freeze = FreezePage::parse(record)?;
    if context.dialect.major >= PgMajor::V16 {
        return plans(freeze.count, block.data)?.apply(page);
    }
    let mut data = Reader::new(block.data);
    for _ in 0..freeze.count {
        let xmax = data.u32_le()?;
        let number = data.u16_le()?;
        let (infomask2, infomask) = (data.u16_le()?, data.u16_le()?);
        let [flags, _] = data.array()?;
        let fields = FrozenFields {
            xmax,
            infomask2,
            infomask,
            flags,
        };
        fields.apply(page, number)?;
    }
    Ok(())
}
