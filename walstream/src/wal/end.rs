//! Where WAL ends, told apart from damage in the middle.
//!
//! WAL in a file has no end mark. After the last record come zeros, or, in a recycled file, pages of older WAL; and a
//! crash may leave a last record of which only the front was written. A decoder sees all of these as errors.
//! [`EndProbe`] decides what they mean, from the error and from what follows it in the file:
//!
//! - **Some errors are no form of an end** whatever follows: another system identifier, a wrong size, a page that says
//!   it is further on, or at another place within its segment, or that does not continue the record before it, a magic
//!   number that is neither right nor zero, an older timeline, a body that breaks a rule though its checksum is right.
//! - **WAL that goes on is proof of damage**: a later page with the right magic number, flags, address, timeline and
//!   (if long) cluster, or, in the page of the error, a record whose checksum is right and whose link does not go back
//!   before the last good record. Recycled pages have neither: their address and their links are older.
//! - **What the caller knows to be flushed** is proof too: WAL that ends before it was lost.
//!
//! # What this cannot see
//! - Damage in the very last record, with nothing after it, looks as a torn write does. Only `known_flushed` tells.
//! - When an operating system (not just the server) crashes, later pages may have reached the disk before earlier ones.
//!   PostgreSQL takes the first gap for the end; here that is reported as damage, as both look the same and only one of
//!   the two guesses loses nothing. Such WAL was never reported as flushed by its server.
//! - Pages that the caller does not show are not considered.

use thiserror::Error;

use crate::dialect::Dialect;
use crate::lsn::{Lsn, PageSize};
use crate::wal::crc::RecordCrc;
use crate::wal::decode::{DecodeError, WalDecoder};
use crate::wal::fault::RecordFault;
use crate::wal::page::{PageExpectations, PageFault, PageHeader};
use crate::wal::record::RecordHeader;

/// The end of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfWal {
    /// Where the next record would start: the end of the last whole, verified one.
    pub lsn: Lsn,
    /// What is there instead.
    pub reason: EndReason,
}

/// What follows the last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Zeros: this part of the file was never written.
    Zeros,
    /// A page of older WAL: the file was recycled.
    RecycledPage {
        /// The address that the page has.
        found: Lsn,
    },
    /// A length that no record has.
    ImpossibleLength {
        /// The length found.
        total_len: u32,
    },
    /// A record of which only a part is there.
    TornRecord {
        /// Where it starts.
        record: Lsn,
    },
    /// Bytes that are no record of this place, such as older WAL's within a page.
    NoRecord,
    /// The bytes end, between two records.
    OutOfBytes,
}

/// Damage in the middle of WAL: it goes on after the place where it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("WAL is damaged after {valid_end}: {evidence}{}", DisplayError(*error))]
pub struct Corrupt {
    /// End of the last whole, verified record before the damage.
    pub valid_end: Lsn,
    /// What the decoder found; `None` when the bytes just ended.
    pub error: Option<DecodeError>,
    /// Why it is not the end.
    pub evidence: Evidence,
}

/// Why unreadable WAL is not the end of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Evidence {
    /// What was found is no form of an end.
    #[error("what is there is neither WAL nor a form of its end")]
    Fault,
    /// A later page belongs to the same WAL.
    #[error("it goes on with the page at {lsn}")]
    LaterPage {
        /// LSN of the page.
        lsn: Lsn,
    },
    /// A later record belongs to the same WAL.
    #[error("it goes on with the record at {lsn}")]
    LaterRecord {
        /// LSN of the record.
        lsn: Lsn,
    },
    /// WAL was flushed up to a later place.
    #[error("it was flushed up to {lsn}")]
    Flushed {
        /// The flushed LSN.
        lsn: Lsn,
    },
}

/// Decides between the end of WAL and damage. Needs no more than one page at a time.
///
/// Make it when the decoder gives an error, or when the bytes end. Show it the pages from [`EndProbe::first_page`] on with
/// [`EndProbe::page`], as far as there are files, while that says that more would help. Then ask [`EndProbe::verdict`].
#[derive(Clone, Debug)]
pub struct EndProbe {
    dialect: Dialect,
    expectations: PageExpectations,
    valid_end: Lsn,
    /// Links of records that continue this WAL do not go back before this.
    link_floor: Lsn,
    unfinished: Option<Lsn>,
    error: Option<DecodeError>,
    /// The page in which decoding stopped.
    page: Lsn,
    evidence: Option<Evidence>,
}

impl EndProbe {
    /// A probe for the place where this decoder stopped. `known_flushed` is a position up to which WAL certainly was
    /// durable, such as one that was acknowledged.
    #[must_use]
    pub fn new(decoder: &WalDecoder, known_flushed: Option<Lsn>) -> Self {
        let error = decoder.error();
        let valid_end = decoder.valid_end();
        let flushed = known_flushed
            .filter(|lsn| *lsn > valid_end)
            .map(|lsn| Evidence::Flushed { lsn });
        let fault = error
            .filter(|error| !may_be_an_end(error, decoder.dialect()))
            .map(|_| Evidence::Fault);
        Self {
            dialect: *decoder.dialect(),
            expectations: *decoder.expectations(),
            valid_end,
            link_floor: decoder.last_record().unwrap_or(valid_end),
            unfinished: decoder.unfinished_record(),
            error,
            page: decoder
                .position()
                .page_start(decoder.dialect().wal_page_size),
            evidence: fault.or(flushed),
        }
    }

    /// LSN of the page in which decoding stopped: the first that is worth showing.
    #[must_use]
    pub const fn first_page(&self) -> Lsn {
        self.page
    }

    /// Size of the pages to show.
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        self.dialect.wal_page_size
    }

    /// Shows the page at `lsn`, or the front of it. Gives whether further pages may change the verdict; when it says
    /// no, damage is proven.
    pub fn page(&mut self, lsn: Lsn, bytes: &[u8]) -> bool {
        if self.evidence.is_none() && lsn >= self.page {
            let later =
                lsn > self.page && matches!(self.expectations.check(lsn, bytes), Ok(Some(_)));
            self.evidence = if later {
                Some(Evidence::LaterPage { lsn })
            } else if lsn == self.page {
                self.later_record(bytes)
                    .map(|lsn| Evidence::LaterRecord { lsn })
            } else {
                None
            };
        }
        self.evidence.is_none()
    }

    /// A record of this WAL in the page of the error, after the error.
    fn later_record(&self, page: &[u8]) -> Option<Lsn> {
        // A record's length may be what is damaged, so its own bytes count too. A page fault leaves the whole page open.
        let from = match (self.error, self.unfinished) {
            (Some(DecodeError::Page { .. }), _) => self.page + 16,
            (Some(DecodeError::Record { lsn, .. }), _) | (None, Some(lsn)) if lsn >= self.page => {
                lsn + 8
            }
            _ => return None,
        };
        let mut offset = usize::try_from(from.saturating_sub(self.page)).ok()?;
        while let Some(rest) = page.get(offset..) {
            let head = rest.first_chunk::<{ RecordHeader::LEN }>()?;
            let lsn = self.page + u64::try_from(offset).ok()?;
            let header = RecordHeader::from_bytes(head);
            if header.prev >= self.link_floor
                && header.check(lsn, None, &self.dialect).is_ok()
                && let Some(body) =
                    rest.get(RecordHeader::LEN..usize::try_from(header.total_len).ok()?)
            {
                let mut crc = RecordCrc::default();
                crc.update(body);
                if crc.finish(head) == header.crc {
                    return Some(lsn);
                }
            }
            offset += 8;
        }
        None
    }

    /// What the place where decoding stopped is.
    ///
    /// # Errors
    /// [`Corrupt`] when it is damage.
    pub fn verdict(&self) -> Result<EndOfWal, Corrupt> {
        match self.evidence {
            Some(evidence) => Err(Corrupt {
                valid_end: self.valid_end,
                error: self.error,
                evidence,
            }),
            None => Ok(EndOfWal {
                lsn: self.valid_end,
                reason: self.reason(),
            }),
        }
    }

    fn reason(&self) -> EndReason {
        match (self.error, self.unfinished) {
            (
                Some(DecodeError::Record {
                    fault: RecordFault::TotalLen { found: 0 },
                    ..
                }),
                _,
            ) => EndReason::Zeros,
            (
                Some(DecodeError::Record {
                    fault: RecordFault::TotalLen { found },
                    ..
                }),
                _,
            ) => EndReason::ImpossibleLength { total_len: found },
            (
                Some(DecodeError::Record {
                    lsn,
                    fault: RecordFault::Crc { .. },
                    ..
                }),
                _,
            ) => EndReason::TornRecord { record: lsn },
            (_, Some(record)) => EndReason::TornRecord { record },
            (
                Some(DecodeError::Page {
                    fault: PageFault::Magic { .. },
                    ..
                }),
                None,
            ) => EndReason::Zeros,
            (
                Some(DecodeError::Page {
                    fault: PageFault::Address { found },
                    ..
                }),
                None,
            ) => EndReason::RecycledPage { found },
            (Some(_), None) => EndReason::NoRecord,
            (None, None) => EndReason::OutOfBytes,
        }
    }
}

/// Whether the end of WAL can look like this at all.
fn may_be_an_end(error: &DecodeError, dialect: &Dialect) -> bool {
    let within = |lsn: Lsn| lsn.segment_offset(dialect.segment_size);
    match error {
        DecodeError::Page { lsn, fault, .. } => match fault {
            PageFault::Magic { zeros, .. } => *zeros,
            // A file is recycled as a whole: its older pages are as far from its start as they were.
            PageFault::Address { found } => found < lsn && within(*found) == within(*lsn),
            _ => false,
        },
        DecodeError::Record { fault, .. } => matches!(
            fault,
            RecordFault::TotalLen { .. }
                | RecordFault::Rmgr { .. }
                | RecordFault::Prev { .. }
                | RecordFault::Crc { .. }
        ),
    }
}

/// Length in bytes of the front of a later page that [`EndProbe::page`] needs: enough for the long header. Of the
/// first page it wants all.
pub const PROBE_LEN: usize = PageHeader::LEN + 16;

struct DisplayError(Option<DecodeError>);

impl std::fmt::Display for DisplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

#[cfg(test)]
mod misplaced_tests;
#[cfg(test)]
mod tests;
