//! [`Output`]: where text and counts go, in the order of the log.

use std::io::{self, Write};

use walstream::Lsn;

use super::statistics::Statistics;
use super::statistics_table::{StatisticsBy, object, table};
use super::visit::{DumpPlan, DumpVisitor, Form};
use crate::wal_reader::{Flow, VisitorSink};

/// Takes what visitors gathered, writes text and adds up counts.
#[derive(Debug)]
pub struct Output<'p, W> {
    plan: &'p DumpPlan,
    out: W,
    first: Option<Lsn>,
    statistics: Option<(Statistics, StatisticsBy)>,
    /// Whether the statistics are to be one JSON object.
    json: bool,
    failed: Option<io::Error>,
}

impl<'p, W: Write> Output<'p, W> {
    /// Writes to `out`; `by` and `json` say how statistics look.
    pub fn new(plan: &'p DumpPlan, out: W, by: StatisticsBy, json: bool) -> Self {
        let statistics = (plan.form == Form::Statistics).then(|| (Statistics::default(), by));
        Self {
            plan,
            out,
            first: None,
            statistics,
            json,
            failed: None,
        }
    }

    /// Start of the first record from the plan's start on.
    #[must_use]
    pub const fn first(&self) -> Option<Lsn> {
        self.first
    }

    /// Prints statistics, if they are what was asked for.
    ///
    /// # Errors
    /// When writing failed now or before. A reader that went away, such as `head`, is no failure.
    pub fn finish(mut self) -> io::Result<()> {
        let plan = self.plan;
        if let Some((statistics, by)) = self.statistics.take() {
            let text = if self.json {
                format!("{}\n", object(&statistics, self.first, by, &plan.dialect))
            } else {
                let start = self.first.unwrap_or(plan.from);
                table(&statistics, start, by, &plan.dialect)
            };
            self.write(text.as_bytes());
        }
        match self.failed {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() && !bytes.is_empty() {
            self.failed = self
                .out
                .write_all(bytes)
                .and_then(|()| self.out.flush())
                .err();
        }
    }

    /// Says that the start was not that of a record.
    fn announce(&mut self, first: Lsn) {
        self.first = Some(first);
        let from = self.plan.from;
        let skipped = first.saturating_sub(from);
        if skipped == 0 || from.segment_offset(self.plan.dialect.segment_size) == 0 {
            return;
        }
        let plural = if skipped == 1 { "" } else { "s" };
        let text = format!(
            "first record is after {from}, at {first}, skipping over {skipped} byte{plural}\n"
        );
        if self.json {
            // Between lines of JSON it would be a stray.
            eprint!("{text}");
        } else {
            self.write(text.as_bytes());
        }
    }
}

impl<'p, W: Write> VisitorSink for Output<'p, W> {
    type Visitor = DumpVisitor<'p>;

    fn take(&mut self, visitor: &mut DumpVisitor<'p>) -> Flow {
        if let (None, Some(first)) = (self.first, visitor.first.take()) {
            self.announce(first);
        }
        visitor.first = None;
        if let (Some((sum, _)), Some(later)) = (&mut self.statistics, &mut visitor.statistics) {
            sum.take(later);
        }
        if !visitor.text.is_empty() {
            let text = std::mem::take(&mut visitor.text);
            self.write(&text);
            visitor.text = text;
            visitor.text.clear();
        }
        if self.failed.is_some() {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }
}
