//! [`judge_end`]: whether the place where reading stopped is the end of WAL, or damage.

use thiserror::Error;
use walstream::wal::decode::DecodeError;
use walstream::wal::end::{EndOfWal, EndProbe, EndReason, Evidence, PROBE_LEN};
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, SegmentNumber, TimelineId};

use super::{ReadEnd, ReadError, SegmentReader, SegmentSource, Stopped};

/// The end of WAL.
pub type WalEnd = EndOfWal;

/// WAL that cannot be read on, although it is not its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// Something in the middle does not check.
    #[error(
        "WAL is damaged at {}, in \"{name}\" at offset {offset}: {fault}; WAL before {valid_end} is whole, and this is not \
         its end: {evidence}; get an intact copy of this segment, or read on behind it with --start", fault.lsn()
    )]
    Bytes {
        /// What does not check.
        fault: DecodeError,
        /// The segment's file.
        name: String,
        /// Where in the segment, in bytes.
        offset: u64,
        /// End of the last whole record before it.
        valid_end: Lsn,
        /// Why it cannot be the end.
        evidence: Evidence,
    },
    /// A record's checksum is right, but its body breaks a rule.
    #[error(
        "WAL cannot be understood at {}, in \"{name}\" at offset {offset}: {fault}; its checksum is right, so the server wrote it \
         so: please report this with the record", fault.lsn()
    )]
    Body {
        /// What is wrong.
        fault: DecodeError,
        /// The segment's file.
        name: String,
        /// Where in the segment the record starts, in bytes.
        offset: u64,
    },
    /// A segment is missing, although later ones are there.
    #[error(
        "WAL segment {name} is missing, which must hold WAL from {lsn} on; {later} is there: get a copy of it, or read on behind \
         it with --start"
    )]
    Missing {
        /// Its name.
        name: String,
        /// First byte that is missing.
        lsn: Lsn,
        /// Name of a later segment that is there.
        later: String,
    },
    /// A segment's file is too short.
    #[error(
        "WAL segment \"{name}\" was cut short: it ends at {lsn}, offset {offset}, and its name says that it is complete; get an \
         intact copy of it"
    )]
    Short {
        /// The file.
        name: String,
        /// Where it ends.
        lsn: Lsn,
        /// Its length in bytes.
        offset: u64,
    },
}

impl Damage {
    /// LSN of the page, record or byte that is wrong or missing.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::Bytes { fault, .. } | Self::Body { fault, .. } => fault.lsn(),
            Self::Missing { lsn, .. } | Self::Short { lsn, .. } => *lsn,
        }
    }
}

/// Decides what the place is where reading stopped: one of [`Stopped::NoSegment`], [`Stopped::ShortSegment`],
/// [`Stopped::Fault`]. Of any other it says that the bytes end.
///
/// # Errors
/// [`ReadError`] when it cannot look.
pub fn judge_end<S: SegmentSource>(
    reader: &mut SegmentReader<'_, S>,
    end: &ReadEnd,
) -> Result<Result<WalEnd, Damage>, ReadError> {
    let size = reader.source().segment_size();
    let timeline = end.decoder.timeline().unwrap_or(TimelineId(1));
    let name = |number| SegmentName { timeline, number }.file_name(size);
    match &end.stopped {
        Stopped::Fault(fault) if end.decoder.error() != Some(*fault) => {
            let number = fault.lsn().segment_number(size);
            return Ok(Err(Damage::Body {
                fault: *fault,
                name: name_of(reader, number, name(number)),
                offset: fault.lsn().segment_offset(size),
            }));
        }
        Stopped::ShortSegment {
            name,
            lsn,
            is_partial: false,
            ..
        } => {
            return Ok(Err(Damage::Short {
                name: name.clone(),
                lsn: *lsn,
                offset: lsn.segment_offset(size),
            }));
        }
        _ => {}
    }
    let mut probe = EndProbe::new(&end.decoder, None);
    let gap = show_pages(reader, &mut probe)?;
    Ok(match (probe.verdict(), gap) {
        (Ok(end), None) => Ok(end),
        (Ok(_), Some(Gap { missing, later })) => Err(Damage::Missing {
            name: name(missing),
            lsn: missing
                .start_lsn(size)
                .unwrap_or(Lsn::MAX)
                .max(end.decoder.valid_end()),
            later: name(later),
        }),
        (Err(corrupt), _) => {
            let at = corrupt.error.map_or(corrupt.valid_end, |fault| fault.lsn());
            let number = at.segment_number(size);
            match (corrupt.error, &end.stopped) {
                (Some(fault), _) => Err(Damage::Bytes {
                    fault,
                    name: name_of(reader, number, name(number)),
                    offset: at.segment_offset(size),
                    valid_end: corrupt.valid_end,
                    evidence: corrupt.evidence,
                }),
                (None, Stopped::ShortSegment { name, lsn, .. }) => Err(Damage::Short {
                    name: name.clone(),
                    lsn: *lsn,
                    offset: lsn.segment_offset(size),
                }),
                // Without a fault there is no evidence but a later segment, which the gap names.
                (None, _) => Ok(EndOfWal {
                    lsn: corrupt.valid_end,
                    reason: EndReason::OutOfBytes,
                }),
            }
        }
    })
}

/// A segment that is missing before one that is there and belongs to the same log.
struct Gap {
    missing: SegmentNumber,
    later: SegmentNumber,
}

/// Shows the probe the page where reading stopped, and the front of every page behind it.
fn show_pages<S: SegmentSource>(
    reader: &mut SegmentReader<'_, S>,
    probe: &mut EndProbe,
) -> Result<Option<Gap>, ReadError> {
    let size = reader.source().segment_size();
    let first = probe.first_page();
    let page_size = probe.page_size();
    let mut lsn = first;
    loop {
        let whole = lsn.next_page_start(page_size).unwrap_or(Lsn::MAX);
        let front = lsn + u64::try_from(PROBE_LEN).unwrap_or(u64::MAX);
        let bytes = reader.peek(lsn, if lsn == first { whole } else { front })?;
        let is_there = !bytes.is_empty();
        let goes_on = probe.page(lsn, bytes);
        if !goes_on {
            return Ok(None);
        }
        if is_there {
            lsn = whole;
        } else {
            // Not there, or cut off: on with the next segment that is there.
            let missing = lsn.segment_number(size);
            let Some(later) = reader.source().next_after(missing) else {
                return Ok(None);
            };
            let Some(start) = later.start_lsn(size) else {
                return Ok(None);
            };
            let bytes = reader.peek(start, start + u64::try_from(PROBE_LEN).unwrap_or(u64::MAX))?;
            if probe.clone().page(start, bytes) {
                // Not of this log, such as a recycled file.
                lsn = start;
            } else {
                return Ok(Some(Gap { missing, later }));
            }
        }
        if lsn == Lsn::MAX {
            return Ok(None);
        }
    }
}

fn name_of<S: SegmentSource>(
    reader: &mut SegmentReader<'_, S>,
    number: SegmentNumber,
    otherwise: String,
) -> String {
    let size = reader.source().segment_size();
    // What it is called is known once it is open.
    if let Some(start) = number.start_lsn(size)
        && reader.open_name(number).is_none()
    {
        let _ = reader.peek(start, start + 1);
    }
    reader.open_name(number).map_or(otherwise, str::to_owned)
}
