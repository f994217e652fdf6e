//! Entries in their page. A page's size is that of the buffer.

use super::{
    COMMIT_TS_LEN, GROUP_MEMBERS, MEMBER_GROUP_LEN, MultiXactMember, TransactionStatus,
    XACTS_PER_BYTE,
};
use crate::pg_time::PgTimestamp;
use crate::storage::page::PageFault;
use crate::types::TransactionId;

/// Bits of a transaction's status.
const STATUS_BITS: u32 = 2;

impl TransactionStatus {
    const fn bits(self) -> u8 {
        match self {
            Self::InProgress => 0,
            Self::Committed => 1,
            Self::Aborted => 2,
            Self::SubCommitted => 3,
        }
    }

    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::InProgress,
            1 => Self::Committed,
            2 => Self::Aborted,
            _ => Self::SubCommitted,
        }
    }
}

/// The status of a transaction, in the page of `pg_xact` that has it.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
pub fn transaction_status(page: &[u8], xid: TransactionId) -> Result<TransactionStatus, PageFault> {
    let (at, shift) = status_place(page, xid)?;
    let [byte] = array_at(page, at)?;
    Ok(TransactionStatus::from_bits(byte >> shift))
}

/// Sets the status of a transaction, in the page of `pg_xact` that has it.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
///
/// # Source
/// `TransactionIdSetStatusBit` in `src/backend/access/transam/clog.c`.
pub fn set_transaction_status(
    page: &mut [u8],
    xid: TransactionId,
    status: TransactionStatus,
) -> Result<(), PageFault> {
    let (at, shift) = status_place(page, xid)?;
    let [byte] = array_at(page, at)?;
    put(page, at, &[byte & !(3 << shift) | status.bits() << shift])
}

/// Where the members of a multixact start; 0 when that is not known yet. The page is the one of `pg_multixact/offsets` that has it.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
pub fn multixact_offset(page: &[u8], multi: u32) -> Result<u32, PageFault> {
    array_at(page, start_in(page, multi, 4)?).map(u32::from_le_bytes)
}

/// Sets where the members of a multixact start.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
pub fn set_multixact_offset(page: &mut [u8], multi: u32, offset: u32) -> Result<(), PageFault> {
    let at = start_in(page, multi, 4)?;
    put(page, at, &offset.to_le_bytes())
}

/// The member at an offset, in the page of `pg_multixact/members` that has it.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
pub fn member(page: &[u8], offset: u32) -> Result<MultiXactMember, PageFault> {
    let (flags, xid) = member_place(page, offset)?;
    let [status] = array_at(page, flags)?;
    Ok(MultiXactMember {
        xid: array_at(page, xid).map(u32::from_le_bytes)?,
        status: status.into(),
    })
}

/// Sets the member at an offset.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
///
/// # Source
/// `RecordNewMultiXact` in `src/backend/access/transam/multixact.c`.
pub fn set_member(page: &mut [u8], offset: u32, member: MultiXactMember) -> Result<(), PageFault> {
    let (flags, xid) = member_place(page, offset)?;
    let [status, ..] = member.status.to_le_bytes();
    put(page, flags, &[status])?;
    put(page, xid, &member.xid.to_le_bytes())
}

/// When a transaction committed, and its replication origin, in the page of `pg_commit_ts` that has it. Zeros when that is not known.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
pub fn commit_timestamp(page: &[u8], xid: TransactionId) -> Result<(PgTimestamp, u16), PageFault> {
    let at = start_in(page, xid, COMMIT_TS_LEN)?;
    Ok((
        PgTimestamp(array_at(page, at).map(i64::from_le_bytes)?),
        array_at(page, at + 8).map(u16::from_le_bytes)?,
    ))
}

/// Sets when a transaction committed.
///
/// # Errors
/// [`PageFault::OutOfPage`] when the buffer is no page.
///
/// # Source
/// `TransactionIdSetCommitTs` in `src/backend/access/transam/commit_ts.c`.
pub fn set_commit_timestamp(
    page: &mut [u8],
    xid: TransactionId,
    time: PgTimestamp,
    origin: u16,
) -> Result<(), PageFault> {
    let at = start_in(page, xid, COMMIT_TS_LEN)?;
    put(page, at, &time.0.to_le_bytes())?;
    put(page, at + 8, &origin.to_le_bytes())
}

/// The byte of a transaction's status, and by how much its bits are shifted there.
fn status_place(page: &[u8], xid: TransactionId) -> Result<(usize, u32), PageFault> {
    let at = start_in(page, xid / XACTS_PER_BYTE, 1)?;
    Ok((at, xid % XACTS_PER_BYTE * STATUS_BITS))
}

/// Where a member's flags and its transaction are.
fn member_place(page: &[u8], offset: u32) -> Result<(usize, usize), PageFault> {
    let start = start_in(page, offset / GROUP_MEMBERS, MEMBER_GROUP_LEN)?;
    let member = (offset % GROUP_MEMBERS) as usize;
    Ok((start + member, start + 4 + member * 4))
}

/// Where the entry of this index starts in its page, of entries of `len` bytes.
fn start_in(page: &[u8], index: u32, len: u32) -> Result<usize, PageFault> {
    let size = page.len();
    let entries = u32::try_from(size).ok().map_or(0, |size| size / len);
    let entry = index.checked_rem(entries).ok_or(PageFault::Size { size })?;
    Ok((entry * len) as usize)
}

fn array_at<const N: usize>(page: &[u8], start: usize) -> Result<[u8; N], PageFault> {
    page.get(start..)
        .and_then(|bytes| bytes.first_chunk::<N>())
        .copied()
        .ok_or(PageFault::OutOfPage { start, len: N })
}

fn put(page: &mut [u8], start: usize, bytes: &[u8]) -> Result<(), PageFault> {
    let len = bytes.len();
    page.get_mut(start..start + len)
        .ok_or(PageFault::OutOfPage { start, len })?
        .copy_from_slice(bytes);
    Ok(())
}
