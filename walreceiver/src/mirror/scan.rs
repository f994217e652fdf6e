//! [`scan`]: reads a mirror's WAL record by record and says how far it is whole.
//!
//! Two questions need one answer: where does the WAL end, and is that really the end. A record that was being received when
//! the process or the machine died is an end. A record that does not check although WAL beyond it was acknowledged, or
//! although later pages of the same stream are there, is damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use thiserror::Error;
use walstream::read::Reader;
use walstream::storage::next_transaction::NextTransaction;
use walstream::types::{FullTransactionId, RmgrId};
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::end::{EndOfWal, EndProbe, Evidence, PROBE_LEN};
use walstream::wal::record::Record;
use walstream::{Lsn, PgMajor, PgTimestamp, SegmentNumber, SegmentSize};

use super::durable::FileError;
use super::state::MirrorFacts;
use super::wal_files::WalFiles;
use crate::exit::Exit;

/// Bytes read at once: a multiple of every page size, and a divisor of every segment size.
const CHUNK: usize = 1 << 20;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ScanRange {
    /// A record's start, or the start of a segment.
    pub from: Lsn,
    /// Everything before this was acknowledged: an end before it is damage.
    pub acknowledged: Lsn,
    /// Stop here, a record's end, although there may be more.
    pub until: Option<Lsn>,
}

/// How far WAL is whole, and what was seen on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanReport {
    /// End of the last whole record.
    pub end: Lsn,
    /// Start of that record, if there was any.
    pub last_record: Option<Lsn>,
    /// Whole records.
    pub records: u64,
    /// Bytes of WAL from the first to the end.
    pub bytes: u64,
    /// Records that commit a transaction.
    pub commits: u64,
    /// Time of the last of them.
    pub last_commit_at: Option<PgTimestamp>,
    /// The server's next transaction at the end; `None` when no checkpoint was read.
    pub next_transaction: Option<FullTransactionId>,
}

/// Why a mirror's WAL is not whole.
#[derive(Debug, Error)]
pub enum ScanError {
    /// A segment that must be there is not.
    #[error(
        "WAL segment \"{}\" is missing, which must hold WAL from {lsn} to {needed}: restore it from an archive or the \
         primary's pg_wal, or make a new mirror", path.display()
    )]
    Missing {
        /// The segment's file.
        path: PathBuf,
        /// First byte that is missing.
        lsn: Lsn,
        /// Everything before this must be there.
        needed: Lsn,
    },
    /// A segment is not as long as segments are.
    #[error(
        "WAL segment \"{}\" is {found} bytes long instead of {expected}: restore it from an archive or the primary's \
         pg_wal, or make a new mirror", path.display()
    )]
    WrongSize {
        /// The segment's file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// A segment's length in bytes.
        expected: u64,
    },
    /// Something in the middle does not check.
    #[error(
        "WAL is damaged in \"{}\" at offset {offset}: {source}; WAL before {valid_end} is whole, and this is not its end: {evidence}; \
         restore the segment from an archive or the primary's pg_wal, or make a new mirror", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What does not check.
        source: DecodeError,
        /// End of the last whole record before it.
        valid_end: Lsn,
        /// Why it cannot be the end.
        evidence: Evidence,
        /// What was acknowledged.
        acknowledged: Lsn,
    },
    /// The end comes too early.
    #[error(
        "WAL ends at {end} in \"{}\", but it was acknowledged up to {acknowledged}: what the file held is \
         lost; restore the segment from an archive or the primary's pg_wal, or make a new mirror", path.display()
    )]
    EndsEarly {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        end: Lsn,
        /// What was acknowledged.
        acknowledged: Lsn,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The watcher said no.
    #[error("reading WAL was cancelled at {at}")]
    Cancelled {
        /// How far it got.
        at: Lsn,
    },
}

impl ScanError {
    /// End of the whole WAL, when this is damage behind all that was acknowledged.
    #[must_use]
    pub fn behind_acknowledged(&self) -> Option<Lsn> {
        match self {
            Self::Damaged {
                valid_end,
                acknowledged,
                ..
            } if valid_end >= acknowledged => Some(*valid_end),
            _ => None,
        }
    }

    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::File(_) => Exit::LocalStorage,
            Self::Cancelled { .. } => Exit::Interrupted,
            _ => Exit::Corrupt,
        }
    }
}

/// Reads WAL in this range.
///
/// `watch` is told the position now and then, and may end it by giving false. Without `until`, the end of WAL is looked for;
/// what lies behind the last whole record and was acknowledged, or is followed by more of the same WAL, is damage.
///
/// # Errors
/// [`ScanError`].
pub fn scan(
    files: &WalFiles,
    facts: &MirrorFacts,
    range: ScanRange,
    watch: &mut dyn FnMut(Lsn) -> bool,
) -> Result<ScanReport, ScanError> {
    let (report, damage) = scan_acknowledged(files, facts, range, watch)?;
    damage.map_or(Ok(report), Err)
}

/// As [`scan`], but damage behind all that was acknowledged ends the reading and is no failure: it is given beside the report.
///
/// # Errors
/// [`ScanError`] for everything else.
pub fn scan_acknowledged(
    files: &WalFiles,
    facts: &MirrorFacts,
    range: ScanRange,
    watch: &mut dyn FnMut(Lsn) -> bool,
) -> Result<(ScanReport, Option<ScanError>), ScanError> {
    let mut scan = Scan {
        files,
        segment_size: facts.dialect.segment_size,
        decoder: WalDecoder::new(facts.dialect, range.from)
            .expect_system_identifier(facts.system_identifier),
        tally: Tally::default(),
        buffer: vec![0; CHUNK],
    };
    let stopped = scan.read(range.until, watch)?;
    let (end, damage) = match stopped {
        Stopped::Reached => (scan.decoder.valid_end(), None),
        Stopped::EndOfBytes | Stopped::Fault => match scan.judge(range) {
            Ok(end) => (end, None),
            Err(damage) => match damage.behind_acknowledged() {
                Some(end) => (end, Some(damage)),
                None => return Err(damage),
            },
        },
    };
    let report = ScanReport {
        end,
        last_record: scan.decoder.last_record(),
        records: scan.tally.records,
        bytes: end.saturating_sub(range.from),
        commits: scan.tally.commits,
        last_commit_at: scan.tally.last_commit_at,
        next_transaction: scan.tally.transactions.get(),
    };
    Ok((report, damage))
}

/// Makes sure that every segment with WAL between these positions is there at its full size.
///
/// # Errors
/// [`ScanError::Missing`], [`ScanError::WrongSize`], [`ScanError::File`].
pub fn require_segments(
    files: &WalFiles,
    segment_size: SegmentSize,
    from: Lsn,
    until: Lsn,
) -> Result<(), ScanError> {
    let mut number = from.segment_number(segment_size);
    let last = until.prev_segment_number(segment_size);
    while number <= last {
        if open_segment(files, segment_size, number)?.is_none() {
            return Err(ScanError::Missing {
                path: files.path(number),
                lsn: number.start_lsn(segment_size).unwrap_or(Lsn::MAX).max(from),
                needed: until,
            });
        }
        number = number.next();
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    records: u64,
    commits: u64,
    last_commit_at: Option<PgTimestamp>,
    transactions: NextTransaction,
}

enum Stopped {
    /// At `until`.
    Reached,
    /// At the end of the last segment.
    EndOfBytes,
    /// At something that does not check.
    Fault,
}

struct Scan<'a> {
    files: &'a WalFiles,
    segment_size: SegmentSize,
    decoder: WalDecoder,
    tally: Tally,
    buffer: Vec<u8>,
}

impl Scan<'_> {
    fn read(
        &mut self,
        until: Option<Lsn>,
        watch: &mut dyn FnMut(Lsn) -> bool,
    ) -> Result<Stopped, ScanError> {
        loop {
            let position = self.decoder.position();
            if until.is_some_and(|until| self.decoder.valid_end() >= until) {
                return Ok(Stopped::Reached);
            }
            if !watch(position) {
                return Err(ScanError::Cancelled { at: position });
            }
            let number = position.segment_number(self.segment_size);
            let Some(file) = open_segment(self.files, self.segment_size, number)? else {
                return Ok(Stopped::EndOfBytes);
            };
            let offset = position.segment_offset(self.segment_size);
            let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
            // Up to the next multiple of a chunk, so that all further reads are whole chunks; and not past the limit,
            // behind which somebody may be writing.
            let limit = until.map_or(u64::MAX, |until| until.saturating_sub(position));
            let length = usize::try_from((chunk - offset % chunk).min(limit)).unwrap_or(CHUNK);
            let Some(bytes) = self.buffer.get_mut(..length) else {
                return Ok(Stopped::EndOfBytes);
            };
            file.read_exact_at(bytes, offset)
                .map_err(FileError::of("read", &self.files.path(number)))?;
            let major = self.decoder.dialect().major;
            let mut feed = self.decoder.feed(bytes);
            loop {
                match feed.next_record() {
                    Ok(Some(record)) => self.tally.count(&record, major),
                    Ok(None) => break,
                    // The decoder keeps the error for the probe.
                    Err(_) => return Ok(Stopped::Fault),
                }
            }
        }
    }

    /// Whether the place where reading stopped is the end.
    fn judge(&mut self, range: ScanRange) -> Result<Lsn, ScanError> {
        let acknowledged = Some(range.acknowledged.max(range.until.unwrap_or(Lsn::INVALID)));
        let mut probe = EndProbe::new(&self.decoder, acknowledged);
        self.show_pages(&mut probe)?;
        let corrupt = match probe.verdict() {
            Ok(EndOfWal { lsn, .. }) => return Ok(lsn),
            Err(corrupt) => corrupt,
        };
        let at = corrupt.error.map_or(corrupt.valid_end, |error| error.lsn());
        let path = self.files.path(at.segment_number(self.segment_size));
        Err(match (corrupt.error, corrupt.evidence) {
            (Some(source), evidence) => ScanError::Damaged {
                path,
                offset: at.segment_offset(self.segment_size),
                source,
                valid_end: corrupt.valid_end,
                evidence,
                acknowledged: range.acknowledged,
            },
            (None, _) => ScanError::EndsEarly {
                path,
                end: corrupt.valid_end,
                acknowledged: range.acknowledged,
            },
        })
    }

    /// Shows the probe the page where reading stopped, and the front of every page behind it.
    fn show_pages(&mut self, probe: &mut EndProbe) -> Result<(), ScanError> {
        let page_size = self.decoder.dialect().wal_page_size;
        let whole = usize::try_from(page_size.bytes()).unwrap_or(CHUNK);
        let mut lsn = probe.first_page();
        let mut segment = None;
        loop {
            let number = lsn.segment_number(self.segment_size);
            if segment.as_ref().is_none_or(|(open, _)| *open != number) {
                let Some(file) = open_segment(self.files, self.segment_size, number)? else {
                    return Ok(());
                };
                segment = Some((number, file));
            }
            let Some((_, file)) = &segment else {
                return Ok(());
            };
            let length = if lsn == probe.first_page() {
                whole
            } else {
                PROBE_LEN
            };
            let Some(bytes) = self.buffer.get_mut(..length) else {
                return Ok(());
            };
            file.read_exact_at(bytes, lsn.segment_offset(self.segment_size))
                .map_err(FileError::of("read", &self.files.path(number)))?;
            if !probe.page(lsn, bytes) {
                return Ok(());
            }
            let Some(next) = lsn.next_page_start(page_size) else {
                return Ok(());
            };
            lsn = next;
        }
    }
}

impl Tally {
    fn count(&mut self, record: &Record<'_>, major: PgMajor) {
        self.records += 1;
        self.transactions.see(record, major);
        // XLOG_XACT_COMMIT and XLOG_XACT_COMMIT_PREPARED of the resource manager Transaction; both begin with the time.
        let header = &record.header;
        if header.rmgr == RmgrId(1) && matches!(header.info & 0x70, 0x00 | 0x30) {
            self.commits += 1;
            let time = record
                .main_data()
                .ok()
                .and_then(|data| Reader::new(data).i64_le().ok());
            self.last_commit_at = time.map(PgTimestamp).or(self.last_commit_at);
        }
    }
}

/// Opens a segment for reading; `None` when it is not there.
fn open_segment(
    files: &WalFiles,
    segment_size: SegmentSize,
    number: SegmentNumber,
) -> Result<Option<File>, ScanError> {
    let path = files.path(number);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("open", &path)(error).into()),
    };
    let found = file
        .metadata()
        .map_err(FileError::of("look at", &path))?
        .len();
    let expected = segment_size.bytes();
    if found == expected {
        Ok(Some(file))
    } else {
        Err(ScanError::WrongSize {
            path,
            found,
            expected,
        })
    }
}
