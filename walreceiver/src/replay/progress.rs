//! What replay tells while it works, and the summary at its end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use walstream::Lsn;

use super::{Promotion, ReplayReport};
use crate::cli::time_text::short_duration;

/// Is told how far replay is.
pub trait ReplayObserver: Send {
    /// Redo begins here; WAL that is there ends before `last`, if that is known.
    fn began(&mut self, start: Lsn, last: Option<Lsn>);

    /// Everything before this LSN was replayed. Told now and then.
    fn replayed(&mut self, lsn: Lsn);

    /// It is over.
    fn ended(&mut self) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl ReplayObserver for Silent {
    fn began(&mut self, _start: Lsn, _last: Option<Lsn>) {}

    fn replayed(&mut self, _lsn: Lsn) {}
}

/// A bar on the terminal; nothing elsewhere.
#[derive(Debug, Default)]
pub struct Bar {
    start: Lsn,
    bar: Option<ProgressBar>,
}

impl ReplayObserver for Bar {
    fn began(&mut self, start: Lsn, last: Option<Lsn>) {
        let length = last.map(|last| last.saturating_sub(start));
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(4));
        let template =
            "replaying {msg} {bar:30} {bytes}/{total_bytes} of WAL, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.start = start;
        self.bar = Some(bar);
    }

    fn replayed(&mut self, lsn: Lsn) {
        if let Some(bar) = &self.bar {
            bar.set_position(lsn.saturating_sub(self.start));
            bar.set_message(lsn.to_string());
        }
    }

    fn ended(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bytes_per_second(report: &ReplayReport) -> f64 {
    let bytes = report.end.lsn.saturating_sub(report.start);
    let millions = f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0;
    millions / report.elapsed.max(Duration::from_micros(1)).as_secs_f64()
}

pub(super) fn summary_text(report: &ReplayReport) -> String {
    let compared = match report.compared {
        None => String::new(),
        Some(0) => "; no record had a page to compare: set wal_consistency_checking on the primary"
            .to_owned(),
        Some(count) => format!("; {count} pages were compared, and all are the primary's"),
    };
    let outcome = match &report.promotion {
        None => "the directory is that of a standby shut down there".to_owned(),
        Some(promotion) => format!(
            "timeline {} was begun at {} within {}, and PostgreSQL starts on it with nothing to recover",
            promotion.timeline,
            promotion.switch_lsn,
            short_duration(promotion.elapsed),
        ),
    };
    format!(
        "replayed {} records from {} to {} (timeline {}) in {}, {:.0} MB/s: {} was reached; {outcome}{compared}",
        report.counts.records,
        report.start,
        report.end.lsn,
        report.end.timeline,
        short_duration(report.elapsed),
        bytes_per_second(report),
        report.target,
    )
}

pub(super) fn summary_json(report: &ReplayReport) -> Value {
    let counts = &report.counts;
    json!({
        "start_lsn": report.start.to_string(),
        "end_lsn": report.end.lsn.to_string(),
        "timeline": report.end.timeline.0,
        "target": report.target.to_string(),
        "records": counts.records,
        "bytes": report.end.lsn.saturating_sub(report.start),
        "blocks_changed": counts.changed,
        "blocks_restored": counts.restored,
        "blocks_done_before": counts.done,
        "blocks_missing": counts.missing,
        "restartpoints": counts.restartpoints,
        "pages_read": report.pages.read,
        "pages_written": report.pages.written,
        "pages_evicted": report.pages.evicted,
        "pages_compared": report.compared,
        "prepared_transactions": report.prepared,
        "next_xid": report.counters.next_full_xid,
        "next_oid": report.counters.next_oid,
        "milliseconds": milliseconds(report.elapsed),
        "promotion": report.promotion.as_ref().map(Promotion::to_json),
    })
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
