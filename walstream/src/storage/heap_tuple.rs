//! [`HeapTuple`]: a row's tuple in a heap page.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `t_xmin` |
//! | 4 | 4 | `t_xmax` |
//! | 8 | 4 | `t_cid`, or `t_xvac` of a server before 9.0 |
//! | 12 | 6 | `t_ctid`: this tuple, or the next version of the row |
//! | 18 | 2 | `t_infomask2` |
//! | 20 | 2 | `t_infomask` |
//! | 22 | 1 | `t_hoff`: where the row's data begins |
//!
//! Behind that are the bitmap of nulls, padding, and the data.
//!
//! # Source
//! `HeapTupleHeaderData` in `src/include/access/htup_details.h`.

use super::item_pointer::ItemPointer;
use super::page::PageFault;
use crate::types::TransactionId;

/// Bytes of the header (`SizeofHeapTupleHeader`).
pub const HEADER_LEN: usize = 23;

/// Flags in `t_infomask`, and what they are masked with.
pub mod infomask {
    /// `HEAP_XMAX_KEYSHR_LOCK`.
    pub const XMAX_KEYSHR_LOCK: u16 = 0x0010;
    /// `HEAP_COMBOCID`.
    pub const COMBO_CID: u16 = 0x0020;
    /// `HEAP_XMAX_EXCL_LOCK`.
    pub const XMAX_EXCL_LOCK: u16 = 0x0040;
    /// `HEAP_XMAX_LOCK_ONLY`.
    pub const XMAX_LOCK_ONLY: u16 = 0x0080;
    /// `HEAP_XMIN_FROZEN`: committed and aborted at once.
    pub const XMIN_FROZEN: u16 = 0x0300;
    /// `HEAP_XMAX_COMMITTED`.
    pub const XMAX_COMMITTED: u16 = 0x0400;
    /// `HEAP_XMAX_INVALID`.
    pub const XMAX_INVALID: u16 = 0x0800;
    /// `HEAP_XMAX_IS_MULTI`.
    pub const XMAX_IS_MULTI: u16 = 0x1000;
    /// `HEAP_MOVED`: moved by a server before 9.0.
    pub const MOVED: u16 = 0xC000;
    /// `HEAP_LOCK_MASK`.
    pub const LOCK_MASK: u16 = XMAX_EXCL_LOCK | XMAX_KEYSHR_LOCK;
    /// `HEAP_XMAX_BITS`: all that says what `t_xmax` is.
    pub const XMAX_BITS: u16 =
        XMAX_COMMITTED | XMAX_INVALID | XMAX_IS_MULTI | LOCK_MASK | XMAX_LOCK_ONLY;
    /// `HEAP_XACT_MASK`: all that is about transactions.
    pub const XACT_MASK: u16 = 0xFFF0;
}

/// Flags in `t_infomask2`.
pub mod infomask2 {
    /// `HEAP_KEYS_UPDATED`.
    pub const KEYS_UPDATED: u16 = 0x2000;
    /// `HEAP_HOT_UPDATED`.
    pub const HOT_UPDATED: u16 = 0x4000;
}

/// A tuple in the bytes that its line pointer leads to.
#[derive(Clone, Copy, Debug)]
pub struct HeapTuple<B> {
    bytes: B,
}

impl<B: AsRef<[u8]>> HeapTuple<B> {
    /// A tuple in these bytes.
    ///
    /// # Errors
    /// [`PageFault::Unexpected`] when there are fewer than a header has.
    pub fn new(bytes: B) -> Result<Self, PageFault> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(PageFault::Unexpected {
                what: "has a tuple that is shorter than its header",
            });
        }
        Ok(Self { bytes })
    }

    /// A field. `new` made sure that the header is there.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        let rest = self.bytes.as_ref().get(offset..);
        rest.and_then(<[u8]>::first_chunk)
            .copied()
            .unwrap_or([0; N])
    }

    /// The transaction that inserted it, whatever became of it.
    #[must_use]
    pub fn xmin(&self) -> TransactionId {
        u32::from_le_bytes(self.field(0))
    }

    /// The transaction or multixact that deleted, updated or locked it.
    #[must_use]
    pub fn xmax(&self) -> u32 {
        u32::from_le_bytes(self.field(4))
    }

    /// Itself, or the next version of the row.
    #[must_use]
    pub fn ctid(&self) -> ItemPointer {
        ItemPointer::from_bytes(self.field(12))
    }

    /// Number of columns and flags, see [`infomask2`].
    #[must_use]
    pub fn infomask2(&self) -> u16 {
        u16::from_le_bytes(self.field(18))
    }

    /// Flags, see [`infomask`].
    #[must_use]
    pub fn infomask(&self) -> u16 {
        u16::from_le_bytes(self.field(20))
    }

    /// Where the row's data begins, in bytes from the tuple's start (`t_hoff`). Not checked.
    #[must_use]
    pub fn data_offset(&self) -> usize {
        let [offset] = self.field(22);
        offset.into()
    }

    /// Whether what inserted it is frozen (`HeapTupleHeaderXminFrozen`).
    #[must_use]
    pub fn is_xmin_frozen(&self) -> bool {
        self.infomask() & infomask::XMIN_FROZEN == infomask::XMIN_FROZEN
    }

    /// Whether `t_xmax` is known to be only a lock (`HEAP_XMAX_IS_LOCKED_ONLY`).
    #[must_use]
    pub fn is_xmax_lock_only(&self) -> bool {
        let mask = self.infomask();
        mask & infomask::XMAX_LOCK_ONLY != 0
            || mask & (infomask::XMAX_IS_MULTI | infomask::LOCK_MASK) == infomask::XMAX_EXCL_LOCK
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> HeapTuple<B> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if let Some(field) = self.bytes.as_mut().get_mut(offset..end) {
            field.copy_from_slice(bytes);
        }
    }

    /// Sets `t_xmin`.
    pub fn set_xmin(&mut self, xid: TransactionId) {
        self.put(0, &xid.to_le_bytes());
    }

    /// Sets `t_xmax`.
    pub fn set_xmax(&mut self, xid: u32) {
        self.put(4, &xid.to_le_bytes());
    }

    /// Sets `t_cid`, or `t_xvac`, which is in the same place.
    pub fn set_cid(&mut self, cid: u32) {
        self.put(8, &cid.to_le_bytes());
    }

    /// Sets `t_cid` to the first command, as redo does.
    pub fn set_first_command(&mut self) {
        self.set_cid(0);
        self.set_infomask(self.infomask() & !infomask::COMBO_CID);
    }

    /// Sets `t_ctid`.
    pub fn set_ctid(&mut self, ctid: ItemPointer) {
        self.put(12, &ctid.to_bytes());
    }

    /// Sets `t_infomask2`.
    pub fn set_infomask2(&mut self, mask: u16) {
        self.put(18, &mask.to_le_bytes());
    }

    /// Sets `t_infomask`.
    pub fn set_infomask(&mut self, mask: u16) {
        self.put(20, &mask.to_le_bytes());
    }

    /// Sets `t_hoff`.
    pub fn set_data_offset(&mut self, offset: u8) {
        self.put(22, &[offset]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_layout_says() {
        assert!(HeapTuple::new([0; 22]).is_err());
        let mut tuple = HeapTuple::new([0; 24]).unwrap();
        tuple.set_xmin(0x0102_0304);
        tuple.set_xmax(0x0506_0708);
        tuple.set_cid(0x090A_0B0C);
        tuple.set_ctid(ItemPointer {
            block: 7,
            offset_number: 9,
        });
        tuple.set_infomask2(0x1112);
        tuple.set_infomask(0x1314);
        tuple.set_data_offset(24);
        let expected = [
            4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 0, 0, 7, 0, 9, 0, 0x12, 0x11, 0x14, 0x13, 24, 0,
        ];
        assert_eq!(tuple.bytes, expected);
        assert_eq!((tuple.xmin(), tuple.xmax()), (0x0102_0304, 0x0506_0708));
        assert_eq!(tuple.ctid().to_string(), "(7,9)");
        assert_eq!(tuple.data_offset(), 24);
        tuple.set_infomask(infomask::COMBO_CID | infomask::XMIN_FROZEN);
        tuple.set_first_command();
        assert_eq!(tuple.infomask(), infomask::XMIN_FROZEN);
        assert!(tuple.is_xmin_frozen() && !tuple.is_xmax_lock_only());
    }

    #[test]
    fn a_lock_is_told_from_an_update() {
        let mut tuple = HeapTuple::new([0; 23]).unwrap();
        for (mask, is_lock) in [
            (infomask::XMAX_LOCK_ONLY, true),
            (infomask::XMAX_EXCL_LOCK, true),
            (infomask::XMAX_EXCL_LOCK | infomask::XMAX_IS_MULTI, false),
            (infomask::LOCK_MASK, false),
            (infomask::XMAX_KEYSHR_LOCK, false),
            (0, false),
        ] {
            tuple.set_infomask(mask);
            assert_eq!(tuple.is_xmax_lock_only(), is_lock, "{mask:#06x}");
        }
    }
}
