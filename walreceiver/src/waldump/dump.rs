//! [`dump`]: the records of segments, from one LSN to another.

use std::io::Write;
use std::num::NonZeroUsize;

use walstream::wal::end::EndReason;
use walstream::{Dialect, Lsn};

use super::filter::RecordFilter;
use super::follow::follow;
use super::input::{InputRequest, WalInput};
use super::output::Output;
use super::statistics_table::StatisticsBy;
use super::visit::{DumpPlan, DumpVisitor, Form};
use super::waldump_error::WaldumpError;
use crate::wal_reader::{
    Cancel, ReadRequest, SegmentReader, SegmentSource as _, Stopped, WalEnd, judge_end, read_wal,
};

/// Bytes of the log that a thread decodes at once, where a part of a segment can be had by itself.
const SPAN: u64 = 4 << 20;

/// What to show of which segments, and how.
#[derive(Clone, Debug)]
pub struct DumpJob {
    /// Where WAL is.
    pub input: InputRequest,
    /// Which records, and in which form.
    pub show: Show,
    /// Wait for more at the end.
    pub follow: bool,
    /// Threads that decode.
    pub threads: NonZeroUsize,
}

/// Which records are shown, and how.
#[derive(Clone, Debug)]
pub struct Show {
    /// Begin at or after.
    pub start: Option<Lsn>,
    /// End at or before.
    pub end: Option<Lsn>,
    /// End after so many records.
    pub limit: Option<u64>,
    /// Which of them.
    pub filter: RecordFilter,
    /// As what.
    pub form: Form,
    /// Rows of the statistics.
    pub by: StatisticsBy,
    /// Whether standard output is to hold nothing but JSON.
    pub json: bool,
}

impl Show {
    /// What is done with records from `from` on.
    pub(super) fn plan(&self, dialect: Dialect, from: Lsn) -> DumpPlan {
        DumpPlan {
            dialect,
            from,
            filter: self.filter.clone(),
            form: self.form,
            limit: self.limit,
        }
    }
}

/// Shows what the job says on `out`, until `cancel` is raised. Gives the end of WAL when that is what ended it.
///
/// # Errors
/// [`WaldumpError`]; then what came before was shown.
pub fn dump(
    job: &DumpJob,
    out: impl Write,
    cancel: &Cancel,
) -> Result<Option<WalEnd>, WaldumpError> {
    let input = WalInput::open(&job.input)?;
    let dialect = input.dialect()?;
    let show = &job.show;
    let (from, until) = range(&input, show)?;
    let plan = show.plan(dialect, from);
    let mut output = Output::new(&plan, out, show.by, show.json);
    let request = ReadRequest {
        dialect,
        system_identifier: input.system_identifier(),
        from: from.page_start(dialect.wal_page_size),
        prev: None,
        until,
        span: if input.is_plain() { SPAN } else { u64::MAX },
        // Which records are the first so many is known only in order.
        threads: if show.limit.is_some() {
            NonZeroUsize::MIN
        } else {
            job.threads
        },
    };
    let fresh = || DumpVisitor::new(&plan);
    let mut end = read_wal(&input, &request, &fresh, &mut output, cancel)?;
    if job.follow {
        end = follow(&input, &request, end, &mut fresh(), &mut output, cancel)?;
    }
    let judged = match &end.stopped {
        Stopped::Reached | Stopped::Enough | Stopped::Cancelled => None,
        _ => Some(judge_end(&mut SegmentReader::new(&input), &end)?),
    };
    let first = output.first();
    output.finish().map_err(WaldumpError::Output)?;
    let wal_end = judged.transpose()?;
    if matches!(end.stopped, Stopped::Enough | Stopped::Cancelled) {
        return Ok(None);
    }
    if first.is_none() {
        let end = wal_end.map(|end| end.lsn);
        return Err(WaldumpError::NoRecord { from, end });
    }
    match (wal_end, show.end) {
        (Some(end), Some(until)) if end.lsn < until => Err(WaldumpError::EndsBefore {
            end: end.lsn,
            until,
        }),
        (end, _) => Ok(end),
    }
}

/// First and last byte to look at, the last exclusive.
///
/// # Source
/// `main` in `src/bin/pg_waldump/pg_waldump.c`.
fn range(input: &WalInput, show: &Show) -> Result<(Lsn, Lsn), WaldumpError> {
    let Some((first, last)) = input.range() else {
        let from = show.start.or_else(|| input.first_lsn());
        return Ok((
            from.ok_or(WaldumpError::NoWal)?,
            show.end.unwrap_or(Lsn::MAX),
        ));
    };
    let size = input.segment_size();
    let start_of = |number: walstream::SegmentNumber| number.start_lsn(size).unwrap_or(Lsn::MAX);
    let from = show.start.unwrap_or(start_of(first));
    if from.segment_number(size) != first {
        return Err(WaldumpError::Usage(format!(
            "start WAL location {from} is not inside the file that is named first"
        )));
    }
    let until = show.end.unwrap_or(start_of(last.next()));
    if until.segment_number(size) != last && until != start_of(last.next()) {
        return Err(WaldumpError::Usage(format!(
            "end WAL location {until} is not inside the file that is named last"
        )));
    }
    Ok((from, until))
}

/// What is told of the end of WAL.
pub(super) fn end_text(end: &WalEnd) -> String {
    let lsn = end.lsn;
    match end.reason {
        EndReason::Zeros => format!("WAL ends at {lsn}: zeros follow"),
        EndReason::RecycledPage { found } => {
            format!("WAL ends at {lsn}: the page there is of older WAL, from {found}")
        }
        EndReason::ImpossibleLength { total_len } => {
            format!("WAL ends at {lsn}: no record has the length {total_len} that stands there")
        }
        EndReason::TornRecord { record } => {
            format!("WAL ends at {lsn}: of the record at {record} only a part is there")
        }
        EndReason::NoRecord => format!("WAL ends at {lsn}: what follows is no record of it"),
        EndReason::OutOfBytes => format!("WAL ends at {lsn}: there is no more"),
    }
}
