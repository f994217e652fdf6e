//! The words at the end of a demonstration.

use std::fmt::Write;

use super::report::DemoReport;

/// What was kept, for a person.
pub(super) fn summary(report: &DemoReport) -> String {
    let mut text = String::from("\nWhat was kept\n");
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "   {name:<22}{value}");
    };
    line("acknowledged up to", report.acknowledged_lsn.to_string());
    line(
        "whole up to",
        format!("{} on timeline {}", report.end_lsn, report.timeline),
    );
    line(
        "records checked",
        format!("{}, {} MiB of WAL", report.records, report.wal_bytes >> 20),
    );
    line("commits", report.commits.to_string());
    line(
        "databases",
        match &report.live {
            Some(live) => live.database_names.join(", "),
            None => report.databases.to_string(),
        },
    );
    line("relations changed", report.relations.to_string());
    let (acknowledged, found) = (report.acknowledged_commits, report.found_commits);
    line(
        "acknowledged commits",
        if found == acknowledged {
            format!("{acknowledged}, all found")
        } else {
            format!("{acknowledged}, found {found}")
        },
    );
    if let Some(live) = &report.live {
        line("new timeline", live.new_timeline.to_string());
    }
    text.push('\n');
    for check in &report.checks {
        let mark = if check.passed { "ok    " } else { "FAILED" };
        let _ = writeln!(text, "   {mark}  {}: {}", check.name, check.found);
    }
    let seconds = f64::from(u32::try_from(report.elapsed_ms).unwrap_or(u32::MAX)) / 1000.0;
    let verdict = if report.passed {
        "Nothing that was acknowledged is lost."
    } else {
        "The mirror is not what it must be."
    };
    let _ = writeln!(text, "\n{verdict} All of this took {seconds:.1} s.");
    if let Some(mirror) = &report.kept {
        let _ = writeln!(text, "The mirror stays in {}", mirror.display());
    }
    text
}
