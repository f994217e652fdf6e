//! [`DumpVisitor`]: filters records, and turns them into text or counts.

use walstream::wal::decode::DecodeError;
use walstream::wal::record::{Record, RecordLengths, RecordSummary};
use walstream::{Dialect, Lsn};

use super::filter::RecordFilter;
use super::statistics::Statistics;
use super::{description, json_line, line};
use crate::wal_reader::{Flow, RecordVisitor};

/// Text is handed over in pieces of about this many bytes.
const FULL: usize = 1 << 20;

/// What becomes of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines as `pg_waldump` prints them.
    Text {
        /// With a line for each block reference (`--bkp-details`).
        details: bool,
    },
    /// Lines of JSON.
    Json,
    /// Counts.
    Statistics,
    /// Nothing: the records are only checked.
    Nothing,
}

/// What is done with records.
#[derive(Clone, Debug)]
pub struct DumpPlan {
    /// Format of the WAL.
    pub dialect: Dialect,
    /// Records that start before this are left out.
    pub from: Lsn,
    /// Which of the others are taken.
    pub filter: RecordFilter,
    /// What becomes of them.
    pub form: Form,
    /// End after so many.
    pub limit: Option<u64>,
}

/// Gathers text or counts of the records that the plan takes.
#[derive(Debug)]
pub struct DumpVisitor<'p> {
    plan: &'p DumpPlan,
    summary: RecordSummary,
    /// Of the record at hand.
    description: String,
    /// Start of the first record from the plan's start on, taken or not.
    pub first: Option<Lsn>,
    /// Records taken.
    pub taken: u64,
    /// Their text.
    pub text: Vec<u8>,
    /// Their counts.
    pub statistics: Option<Statistics>,
}

impl<'p> DumpVisitor<'p> {
    /// A visitor that has seen nothing.
    #[must_use]
    pub fn new(plan: &'p DumpPlan) -> Self {
        let text = match plan.form {
            Form::Text { .. } | Form::Json => Vec::with_capacity(FULL + FULL / 8),
            Form::Statistics | Form::Nothing => Vec::new(),
        };
        Self {
            plan,
            summary: RecordSummary::default(),
            description: String::new(),
            first: None,
            taken: 0,
            text,
            statistics: (plan.form == Form::Statistics).then(Statistics::default),
        }
    }
}

impl RecordVisitor for DumpVisitor<'_> {
    #[inline]
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        let plan = self.plan;
        if record.start_lsn < plan.from {
            return Ok(Flow::Continue);
        }
        if self.first.is_none() {
            self.first = Some(record.start_lsn);
        }
        if !plan.filter.allows_header(&record.header) {
            return Ok(Flow::Continue);
        }
        let by_length = matches!(plan.form, Form::Statistics | Form::Nothing);
        let lengths = if by_length && !plan.filter.looks_at_blocks() {
            RecordLengths::of(record)?
        } else {
            self.summary.fill(record)?;
            if !plan.filter.allows_blocks(&self.summary) {
                return Ok(Flow::Continue);
            }
            self.summary.lengths
        };
        if !by_length {
            description::describe(record, &plan.dialect, &mut self.description)?;
        }
        match plan.form {
            Form::Text { details } => line::append(
                &mut self.text,
                record,
                &self.summary,
                &self.description,
                &plan.dialect,
                details,
            ),
            Form::Json => {
                json_line::append(
                    &mut self.text,
                    record,
                    &self.summary,
                    &self.description,
                    &plan.dialect,
                );
            }
            Form::Statistics => {
                if let Some(statistics) = &mut self.statistics {
                    statistics.count(record, lengths);
                }
            }
            Form::Nothing => {}
        }
        self.taken += 1;
        Ok(match plan.limit {
            Some(limit) if self.taken >= limit => Flow::Stop,
            _ => Flow::Continue,
        })
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.text.len() >= FULL
    }
}
