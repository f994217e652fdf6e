//! [`LoggedHeader`]: the part of a new tuple's header that its record holds; the rest follows from the record.

use super::{RedoFault, RedoPage};
use crate::read::{OutOfBytes, Reader};
use crate::storage::heap_tuple::{HEADER_LEN, HeapTuple};
use crate::storage::item_pointer::ItemPointer;
use crate::types::TransactionId;

/// # Source
/// `xl_heap_header` in `heapam_xlog.h`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoggedHeader {
    pub(super) infomask2: u16,
    pub(super) infomask: u16,
    pub(super) data_offset: u8,
}

impl LoggedHeader {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        Ok(Self {
            infomask2: reader.u16_le()?,
            infomask: reader.u16_le()?,
            data_offset: reader.u8()?,
        })
    }

    /// Adds a tuple with this header, whose line pointer its `ctid` names, and with room for so many bytes behind the header; gives
    /// their offset in the page.
    pub(super) fn add(
        self,
        page: &mut RedoPage<'_>,
        ctid: ItemPointer,
        (xmin, xmax): (TransactionId, u32),
        len: usize,
    ) -> Result<usize, RedoFault> {
        let offset = page.reserve_heap_item(HEADER_LEN + len, ctid.offset_number)?;
        let mut tuple = HeapTuple::new(page.slice_mut(offset, HEADER_LEN)?)?;
        tuple.set_xmin(xmin);
        tuple.set_xmax(xmax);
        tuple.set_ctid(ctid);
        tuple.set_infomask2(self.infomask2);
        tuple.set_infomask(self.infomask);
        tuple.set_data_offset(self.data_offset);
        tuple.set_first_command();
        Ok(offset + HEADER_LEN)
    }
}
