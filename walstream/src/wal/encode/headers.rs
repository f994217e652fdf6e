//! The fixed headers as bytes. Their layouts stand in [`crate::wal::page`] and [`crate::wal::record`].

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, transmute};

use crate::wal::page::{LongPageHeader, PageHeader};
use crate::wal::record::RecordHeader;

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct RawPage {
    magic: U16,
    info: U16,
    timeline: U32,
    page_address: U64,
    remaining_len: U32,
    padding: U32,
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct RawLongPage {
    page: RawPage,
    system_identifier: U64,
    segment_size: U32,
    wal_page_size: U32,
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct RawRecord {
    total_len: U32,
    xid: U32,
    prev: U64,
    info: u8,
    rmgr: u8,
    padding: U16,
    crc: U32,
}

impl PageHeader {
    fn raw(&self) -> RawPage {
        RawPage {
            magic: self.magic.into(),
            info: self.flags.0.into(),
            timeline: self.timeline.0.into(),
            page_address: self.address.0.into(),
            remaining_len: self.remaining_len.into(),
            padding: U32::ZERO,
        }
    }

    /// The header as it stands at the page's start.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        transmute!(self.raw())
    }
}

impl LongPageHeader {
    /// The header as it stands at the segment's start.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        transmute!(RawLongPage {
            page: self.page.raw(),
            system_identifier: self.system_identifier.0.into(),
            segment_size: self.segment_size.into(),
            wal_page_size: self.wal_page_size.into(),
        })
    }
}

impl RecordHeader {
    /// The header as it stands at the record's start.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        transmute!(RawRecord {
            total_len: self.total_len.into(),
            xid: self.xid.into(),
            prev: self.prev.0.into(),
            info: self.info,
            rmgr: self.rmgr.0,
            padding: U16::ZERO,
            crc: self.crc.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::read::Reader;
    use crate::types::{RmgrId, SystemIdentifier, TimelineId};
    use crate::wal::page::PageFlags;

    #[test]
    fn headers_read_back_and_their_bytes_are_in_place() {
        let page = PageHeader {
            magic: 0xD110,
            flags: PageFlags(0x0007),
            timeline: TimelineId(0x0102_0304),
            address: Lsn(0x1112_1314_1516_1718),
            remaining_len: 0x2122_2324,
        };
        let long = LongPageHeader {
            page,
            system_identifier: SystemIdentifier(0x3132_3334_3536_3738),
            segment_size: 1 << 24,
            wal_page_size: 8192,
        };
        let bytes = long.to_bytes();
        assert_eq!(LongPageHeader::parse(&mut Reader::new(&bytes)), Ok(long));
        assert_eq!(bytes[..24], page.to_bytes());
        assert_eq!(bytes[..4], [0x10, 0xD1, 7, 0]);
        assert_eq!(bytes[20..25], [0, 0, 0, 0, 0x38]);
        let record = RecordHeader {
            total_len: 0x0102_0304,
            xid: 0x1112_1314,
            prev: Lsn(0x2122_2324_2526_2728),
            info: 0x31,
            rmgr: RmgrId(0x32),
            crc: 0x4142_4344,
        };
        assert_eq!(RecordHeader::from_bytes(&record.to_bytes()), record);
        assert_eq!(record.to_bytes()[16..21], [0x31, 0x32, 0, 0, 0x44]);
    }
}
