//! [`Effect`]: what a record does besides changing the blocks that it references.

use super::heap::{self, RewriteMapping};
use super::{RedoContext, RedoError, RedoRecord};
use crate::types::{BlockNumber, RelFileLocator, RmgrId};

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
    Message(&'a [u8]),
}

/// Gives what this record does besides changing blocks, in the order in which it is to be done.
///
/// # Errors
/// [`RedoError`] when the record's data is wrong; what was given before is to be given up.
pub fn effects<'a>(
    context: &RedoContext,
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoError> {
    let found = match record.header.rmgr {
        RmgrId::HEAP | RmgrId::HEAP2 => heap::effects(context, record, take),
        RmgrId::LOGICAL_MESSAGE => {
            take(Effect::Message(record.main_data()));
            Ok(())
        }
        _ => Ok(()),
    };
    found.map_err(|fault| RedoError::of_record(context, record, fault))
}
