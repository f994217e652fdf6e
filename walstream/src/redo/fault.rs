//! What stops redo.

use std::fmt;

use thiserror::Error;

use super::{RedoContext, RedoRecord};
use crate::lsn::Lsn;
use crate::read::OutOfBytes;
use crate::storage::page::PageFault;
use crate::types::{BlockNumber, ForkNumber, RelFileLocator};
use crate::wal::image::ImageError;
use crate::wal::record::BlockRef;

/// Why a record cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RedoFault {
    /// Nobody knows how: a resource manager that an extension brings, or a newer one.
    #[error("resource manager {found} is not known, so its changes cannot be replayed")]
    Rmgr {
        /// Its number.
        found: u8,
    },
    /// The resource manager has no such operation.
    #[error("operation {info:#04x} is not known")]
    Operation {
        /// `xl_info`.
        info: u8,
    },
    /// The record does not say what such a record must say about this block.
    #[error("a record of this kind changes no block {id}")]
    Block {
        /// The block's number in the record.
        id: u8,
    },
    /// The record's data ends too early.
    #[error("record data ends too early: {0}")]
    Data(#[from] OutOfBytes),
    /// The record's data contradicts itself.
    #[error("record data is wrong: {what}")]
    Record {
        /// What is wrong.
        what: &'static str,
    },
    /// The page does not allow the change.
    #[error(transparent)]
    Page(#[from] PageFault),
    /// The image gives no page.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A record that cannot be replayed at a block, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedoError {
    /// Where the record starts.
    pub lsn: Lsn,
    /// Its type as `pg_waldump` names it, resource manager first.
    pub record: (&'static str, &'static str),
    /// The block, if it is about one.
    pub block: Option<(RelFileLocator, ForkNumber, BlockNumber)>,
    /// Why.
    pub fault: RedoFault,
}

impl RedoError {
    pub(super) fn of(
        context: &RedoContext,
        record: &RedoRecord<'_>,
        block: &BlockRef<'_>,
        fault: RedoFault,
    ) -> Self {
        Self {
            block: Some((block.locator, block.fork, block.block)),
            ..Self::of_record(context, record, fault)
        }
    }

    pub(super) fn of_record(
        context: &RedoContext,
        record: &RedoRecord<'_>,
        fault: RedoFault,
    ) -> Self {
        let name = record.header.type_name(&context.dialect);
        Self {
            lsn: record.start_lsn,
            record: (
                record.header.rmgr.name().built_in().unwrap_or("custom"),
                name.as_str(),
            ),
            block: None,
            fault,
        }
    }
}

impl fmt::Display for RedoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rmgr, operation) = self.record;
        write!(f, "record {rmgr}/{operation} at {}", self.lsn)?;
        if let Some((locator, fork, block)) = &self.block {
            write!(f, ", relation {locator}")?;
            if *fork != ForkNumber::Main {
                write!(f, " fork {}", fork.name())?;
            }
            write!(f, " block {block}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for RedoError {}
