//! [`Dialect`]: what differs between the on-disk formats of the servers, in one value.
//!
//! A dialect is found from what a server wrote (the magic number of a WAL page, the version of `pg_control`) and from
//! the sizes in the same headers; a user is never asked for it. Nothing outside this module and the parsers of
//! resource managers may ask "which version".

use crate::lsn::{PageSize, SegmentSize};

/// A PostgreSQL major version whose WAL this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PgMajor {
    /// PostgreSQL 12.
    V12,
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl PgMajor {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V12,
        Self::V13,
        Self::V14,
        Self::V15,
        Self::V16,
        Self::V17,
        Self::V18,
    ];

    /// The version as a number, 12 to 18.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V12 => 12,
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// The version of this number, if this crate knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|major| major.number() == number)
    }

    /// Magic number at the start of every WAL page.
    ///
    /// # Source
    /// `XLOG_PAGE_MAGIC` in each version's `src/include/access/xlog_internal.h`.
    #[must_use]
    pub const fn page_magic(self) -> u16 {
        match self {
            Self::V12 => 0xD101,
            Self::V13 => 0xD106,
            Self::V14 => 0xD10D,
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// The version whose WAL pages begin with this magic number.
    #[must_use]
    pub fn from_page_magic(magic: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|major| major.page_magic() == magic)
    }
}

/// How a full-page image says that it is compressed; the bits moved in PostgreSQL 15.
///
/// # Source
/// `BKPIMAGE_*` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBits {
    /// Before 15: `0x02` compressed (always pglz), `0x04` apply.
    Pglz,
    /// Since 15: `0x02` apply, `0x04` pglz, `0x08` lz4, `0x10` zstd.
    Methods,
}

/// The format of one cluster's WAL and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The server's major version, which fixes record layouts and resource managers.
    pub major: PgMajor,
    /// WAL page size (`XLOG_BLCKSZ`).
    pub wal_page_size: PageSize,
    /// WAL segment size.
    pub segment_size: SegmentSize,
    /// Data page size (`BLCKSZ`), which bounds full-page images.
    pub block_size: PageSize,
}

impl Dialect {
    /// A cluster of this version with the sizes that `initdb` gives it unless told otherwise.
    #[must_use]
    pub const fn with_default_sizes(major: PgMajor) -> Self {
        Self {
            major,
            wal_page_size: PageSize::DEFAULT,
            segment_size: SegmentSize::DEFAULT,
            block_size: PageSize::DEFAULT,
        }
    }

    /// Where the compression bits of images are.
    #[must_use]
    pub const fn image_bits(&self) -> ImageBits {
        match self.major {
            PgMajor::V12 | PgMajor::V13 | PgMajor::V14 => ImageBits::Pglz,
            PgMajor::V15 | PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => ImageBits::Methods,
        }
    }

    /// Whether a record may carry its top-level transaction (`XLR_BLOCK_ID_TOPLEVEL_XID`, since 14).
    #[must_use]
    pub fn has_toplevel_xid(&self) -> bool {
        self.major >= PgMajor::V14
    }

    /// Whether recording a multixact records, too, where the next one's members begin.
    ///
    /// It is a fix that came with 14.21, 15.16, 16.12, 17.8 and 18.2, when 13 had had its last release. Servers before and after it
    /// write the same records but for the order in which a page of offsets is made, and a server of either kind recovers from both;
    /// what WAL does not say is which kind wrote it. So redo does as the newest of a major version does.
    ///
    /// # Source
    /// `RecordNewMultiXact` in `src/backend/access/transam/multixact.c`; `GetMultiXactIdMembers` there, which before the fix waited
    /// for the next offset to be written.
    #[must_use]
    pub fn records_next_multixact_offset(&self) -> bool {
        self.major >= PgMajor::V14
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_found_by_its_magic_and_number() {
        for major in PgMajor::ALL {
            assert_eq!(PgMajor::from_page_magic(major.page_magic()), Some(major));
            assert_eq!(PgMajor::from_number(major.number()), Some(major));
        }
        assert_eq!(PgMajor::from_page_magic(0), None);
        assert_eq!(PgMajor::from_page_magic(0xD117), None);
        assert_eq!(PgMajor::from_number(11), None);
        assert_eq!(PgMajor::from_number(19), None);
    }
}
