//! What activation tells: the progress of the proof, the summary before the question, the facts at the end.

use std::fmt::Write;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use walstream::{Lsn, PgTimestamp};

use super::{ActivateConfig, Findings, PrimaryState};
use crate::cli::time_text::rfc3339_us;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::resume::Resume;
use crate::mirror::state::MirrorState;
use crate::replay::Promotion;
use crate::run::live::LiveStatus;

/// How far a mirror's WAL is whole, and what could be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivateReport {
    /// End of the last whole record.
    pub end: TimelinePosition,
    /// What was acknowledged to the primary; never behind `end`.
    pub acknowledged: TimelinePosition,
    /// Whole records from the base backup on.
    pub records: u64,
    /// Bytes of WAL from there.
    pub bytes: u64,
    /// Transactions committed in them.
    pub commits: u64,
    /// When the last of them was.
    pub last_commit_at: Option<PgTimestamp>,
    /// The primary's end of WAL as it last told the receiver.
    pub last_known_primary_end: Option<Lsn>,
    /// When it told.
    pub last_heard_at_us: Option<i64>,
    /// WAL behind the end is damaged and is given up; it is not known to have been acknowledged.
    pub unacknowledged_damage: bool,
    /// `synchronous_standby_names` was emptied.
    pub cleared_synchronous_standby_names: bool,
    /// The timeline that was begun; `None` when PostgreSQL is to do it.
    pub promotion: Option<Promotion>,
}

impl ActivateReport {
    pub(super) fn new(resume: &Resume, last_seen: Option<&LiveStatus>) -> Self {
        Self {
            end: resume.end,
            acknowledged: resume.acknowledged,
            records: resume.report.records,
            bytes: resume.end.lsn.saturating_sub(resume.needed_from),
            commits: resume.report.commits,
            last_commit_at: resume.report.last_commit_at,
            last_known_primary_end: last_seen.and_then(|status| status.server_wal_end),
            last_heard_at_us: last_seen.and_then(|status| status.last_message_at_us),
            unacknowledged_damage: resume.unacknowledged_damage.is_some(),
            cleared_synchronous_standby_names: false,
            promotion: None,
        }
    }

    /// The receiver received more, and it was proven too.
    pub(super) fn extend(&mut self, resume: &Resume) {
        self.bytes += resume.end.lsn.saturating_sub(self.end.lsn);
        self.end = resume.end;
        self.acknowledged = resume.acknowledged;
        self.records = resume.report.records;
        self.commits = resume.report.commits;
        self.last_commit_at = resume.report.last_commit_at;
        self.unacknowledged_damage = resume.unacknowledged_damage.is_some();
    }

    /// Bytes that the primary said it had and the mirror lacks; `None` when nothing is known of it.
    #[must_use]
    pub fn behind(&self) -> Option<u64> {
        self.last_known_primary_end
            .map(|end| end.saturating_sub(self.end.lsn))
    }

    /// The facts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({
            "timeline": self.end.timeline.0,
            "end_lsn": self.end.lsn.to_string(),
            "acknowledged_lsn": self.acknowledged.lsn.to_string(),
            "records": self.records,
            "bytes": self.bytes,
            "commits": self.commits,
            "last_commit_at": self.last_commit_at.map(|at| rfc3339_us(at.unix_us())),
            "last_known_primary_end": self.last_known_primary_end.map(|lsn| lsn.to_string()),
            "last_heard_at": self.last_heard_at_us.map(rfc3339_us),
            "behind_bytes": self.behind(),
            "unacknowledged_damage": self.unacknowledged_damage,
            "cleared_synchronous_standby_names": self.cleared_synchronous_standby_names,
            "promotion": self.promotion.as_ref().map(Promotion::to_json),
        })
        .to_string()
    }
}

/// Recovery that was ended here.
#[derive(Clone, Copy, Debug)]
pub(super) struct NativeReport {
    /// Where WAL ended.
    pub(super) end: TimelinePosition,
    /// The timeline that was begun.
    pub(super) promotion: Promotion,
    /// `synchronous_standby_names` was emptied.
    pub(super) cleared_synchronous_standby_names: bool,
}

impl NativeReport {
    /// What is told when an activation was gone on with: less is known then.
    pub(super) fn resumed(&self, config: &ActivateConfig, as_json: bool) -> String {
        if as_json {
            return json!({
                "timeline": self.end.timeline.0,
                "end_lsn": self.end.lsn.to_string(),
                "cleared_synchronous_standby_names": self.cleared_synchronous_standby_names,
                "promotion": self.promotion.to_json(),
            })
            .to_string();
        }
        let mirror = std::path::absolute(&config.mirror).unwrap_or(config.mirror.clone());
        done(
            &mirror,
            self.end,
            Some(&self.promotion),
            self.cleared_synchronous_standby_names,
        )
    }
}

/// Progress of reading all WAL: a bar on a terminal, nothing elsewhere.
#[derive(Debug)]
pub(super) struct ScanProgress {
    bar: ProgressBar,
    start: Lsn,
}

impl ScanProgress {
    pub(super) fn new(state: &MirrorState, quiet: bool) -> Self {
        let start = state.facts.start.lsn;
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            // Drawn on standard error, and only when that is a terminal.
            ProgressBar::new(state.flushed.lsn.saturating_sub(start))
        };
        if let Ok(style) = ProgressStyle::with_template(
            "Proving WAL {bar:30} {bytes} of {total_bytes} at {bytes_per_sec}, {eta} left",
        ) {
            bar.set_style(style);
        }
        Self { bar, start }
    }

    pub(super) fn watch(&self) -> impl FnMut(Lsn) -> bool + Send + 'static {
        let (bar, start) = (self.bar.clone(), self.start);
        move |lsn| {
            let done = lsn.saturating_sub(start);
            if bar.length().is_some_and(|length| length < done) {
                bar.set_length(done);
            }
            bar.set_position(done);
            true
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What the person reads before the question.
pub(super) fn summary(config: &ActivateConfig, findings: &Findings) -> String {
    let mut text = String::new();
    let report = &findings.report;
    let title = "Standby coordinator activation parameters";
    let rule = "-".repeat(title.len());
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<28} = {value}");
    };
    line(
        "Standby data directory",
        &config.mirror.display().to_string(),
    );
    line("Old coordinator", &describe_primary(&findings.primary));
    line(
        "Receiver running",
        &match findings.receiver_pid {
            Some(pid) => format!("yes (process {pid}, will be stopped)"),
            None => "no".to_owned(),
        },
    );
    line("Forced activation", if config.force { "yes" } else { "no" });
    line(
        "WAL proven whole up to",
        &format!("{} on timeline {}", report.end.lsn, report.end.timeline),
    );
    if report.unacknowledged_damage {
        line(
            "WAL behind that",
            "damaged, not known to have been acknowledged, will be given up",
        );
    }
    line(
        "Acknowledged as flushed",
        &report.acknowledged.lsn.to_string(),
    );
    line(
        "Records, commits",
        &format!("{}, {}", report.records, report.commits),
    );
    line(
        "Last commit",
        &report
            .last_commit_at
            .map_or_else(|| "none".to_owned(), |at| rfc3339_us(at.unix_us())),
    );
    line("Behind the coordinator", &describe_lag(report));
    format!("{rule}\n{title}\n{rule}\n{text}")
}

fn describe_primary(primary: &PrimaryState) -> String {
    match primary {
        PrimaryState::Silent { reason } => format!("does not answer ({reason})"),
        PrimaryState::Answers {
            peer,
            is_standby: true,
            ..
        } => format!("answers at {peer}, as a standby"),
        PrimaryState::Answers { peer, .. } => format!("STILL ANSWERS at {peer}"),
        PrimaryState::Refuses { reason } => format!("STILL ANSWERS: {reason}"),
        PrimaryState::OtherSystem { peer, .. } => format!("another system answers at {peer}"),
    }
}

fn describe_lag(report: &ActivateReport) -> String {
    match (report.behind(), report.last_heard_at_us) {
        (Some(0), Some(at)) => format!(
            "had all WAL that it told of when last heard, at {}",
            rfc3339_us(at)
        ),
        (Some(bytes), Some(at)) => {
            format!(
                "{bytes} bytes that it told of when last heard, at {}, are not here",
                rfc3339_us(at)
            )
        }
        _ => "not known: no receiver has run since the mirror was made".to_owned(),
    }
}

/// What the person reads at the end.
pub(super) fn done(
    mirror: &Path,
    end: TimelinePosition,
    promotion: Option<&Promotion>,
    cleared_synchronous_standby_names: bool,
) -> String {
    let (outcome, start) = match promotion {
        Some(promotion) => (
            "has completed successfully",
            format!(
                "PostgreSQL has nothing to recover: it accepts connections on timeline {} as soon as it is up.",
                promotion.timeline
            ),
        ),
        None => (
            "has been prepared successfully",
            "PostgreSQL then replays the mirror's WAL, opens a new timeline and accepts connections; pg_isready says \
             when."
                .to_owned(),
        ),
    };
    let mut text = format!(
        "The activation of the standby coordinator {outcome}.\n\
         Every transaction up to {} on timeline {} is kept.\n\n\
         Next:\n  pg_ctl start -D {}\n\n\
         {start}\n\
         Keep the old coordinator from starting as it was.\n",
        end.lsn,
        end.timeline,
        mirror.display()
    );
    if cleared_synchronous_standby_names {
        text.push_str(
            "synchronous_standby_names is now empty (postgresql.auto.conf): set it again once a standby follows.\n",
        );
    }
    text.push_str("When convenient, run ANALYZE against all user databases.\n");
    text
}
