//! Numbers of SLRU pages in records: 4 bytes, since PostgreSQL 17 8 bytes, signed.

use super::RedoFault;
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};

/// Reads one.
pub(super) fn read(data: &mut Reader<'_>, dialect: &Dialect) -> Result<i64, OutOfBytes> {
    if dialect.major >= PgMajor::V17 {
        data.i64_le()
    } else {
        data.i32_le().map(i64::from)
    }
}

/// Takes it for a page.
pub(super) fn checked(page: i64) -> Result<u64, RedoFault> {
    // All indexes have 32 bits, and no page has less than one entry.
    u32::try_from(page)
        .map(u64::from)
        .map_err(|_| RedoFault::Record {
            what: "an SLRU page that there is not",
        })
}
