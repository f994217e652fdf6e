//! Statistics as the table that `pg_waldump --stats` prints, and as one JSON object.

use serde_json::{Value, json};
use walstream::types::RmgrId;
use walstream::wal::record::RecordHeader;
use walstream::{Dialect, Lsn};

use super::statistics::{Count, Statistics};

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsBy {
    /// Resource managers; those of PostgreSQL itself also without any record.
    Rmgr,
    /// Record types that occurred.
    Record,
}

const COLUMNS: [&str; 4] = ["N", "Record size", "FPI size", "Combined size"];

/// The table; empty when nothing was counted. `start` is where the first record starts, counted or not.
///
/// # Source
/// `XLogDumpDisplayStats` in `src/bin/pg_waldump/pg_waldump.c`.
pub(super) fn table(
    statistics: &Statistics,
    start: Lsn,
    by: StatisticsBy,
    dialect: &Dialect,
) -> String {
    let Some(end) = statistics.end() else {
        return String::new();
    };
    let total = statistics.total();
    let mut text = format!("WAL statistics between {start} and {end}:\n");
    heading(&mut text, "Type", COLUMNS.map(str::to_owned), "(%)");
    let dashes = COLUMNS.map(|name| "-".repeat(name.len()));
    heading(&mut text, "----", dashes, "---");
    for (name, count) in rows(statistics, by, dialect) {
        row(&mut text, &name, &count, &total);
    }
    let rule = "--------";
    text += &format!(
        "{0:27} {rule:>20} {0:8} {rule:>20} {0:8} {rule:>20} {0:8} {rule:>20}\n",
        ""
    );
    text += &format!(
        "{:<27} {:>20} {:<9}{:>20} {:<9}{:>20} {:<9}{:>20} {:<6}\n",
        "Total",
        total.records,
        "",
        total.rec_len,
        format!("[{:.2}%]", percent(total.rec_len, total.total_len())),
        total.fpi_len,
        format!("[{:.2}%]", percent(total.fpi_len, total.total_len())),
        total.total_len(),
        "[100%]",
    );
    text
}

fn heading(text: &mut String, first: &str, columns: [String; 4], mark: &str) {
    *text += &format!("{first:<27}");
    for column in columns {
        *text += &format!(" {column:>20} {mark:>8}");
    }
    text.push('\n');
}

fn row(text: &mut String, name: &str, count: &Count, total: &Count) {
    *text += &format!("{name:<27}");
    for (value, of) in [
        (count.records, total.records),
        (count.rec_len, total.rec_len),
        (count.fpi_len, total.fpi_len),
        (count.total_len(), total.total_len()),
    ] {
        *text += &format!(" {value:>20} ({:6.2})", percent(value, of));
    }
    text.push('\n');
}

/// The names and counts of the rows, in the order of the numbers.
fn rows(statistics: &Statistics, by: StatisticsBy, dialect: &Dialect) -> Vec<(String, Count)> {
    let mut rows = Vec::new();
    for rmgr in (0..=u8::MAX)
        .map(RmgrId)
        .filter(|rmgr| rmgr.is_valid(dialect))
    {
        let name = rmgr.name();
        match by {
            StatisticsBy::Rmgr => {
                let count = statistics.of_rmgr(rmgr);
                if name.built_in().is_some() || count.records > 0 {
                    rows.push((name.to_string(), count));
                }
            }
            StatisticsBy::Record => {
                for (info, count) in statistics.operations(rmgr) {
                    if count.records > 0 {
                        let type_name = header(rmgr, info).type_name(dialect);
                        rows.push((format!("{name}/{type_name}"), *count));
                    }
                }
            }
        }
    }
    rows
}

/// A header of which only the type counts.
const fn header(rmgr: RmgrId, info: u8) -> RecordHeader {
    RecordHeader {
        total_len: 0,
        xid: 0,
        prev: Lsn::INVALID,
        info,
        rmgr,
        crc: 0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "as PostgreSQL computes it, for two digits after the point"
)]
fn percent(value: u64, of: u64) -> f64 {
    if of == 0 {
        0.0
    } else {
        100.0 * value as f64 / of as f64
    }
}

/// The object: where, the totals, and the rows that occurred.
pub(super) fn object(
    statistics: &Statistics,
    start: Option<Lsn>,
    by: StatisticsBy,
    dialect: &Dialect,
) -> Value {
    let count = |count: &Count| {
        json!({
            "records": count.records,
            "rec_len": count.rec_len,
            "fpi_len": count.fpi_len,
            "total_len": count.total_len(),
        })
    };
    let rows: Vec<Value> = rows(statistics, by, dialect)
        .iter()
        .filter(|(_, row)| row.records > 0)
        .map(|(name, row)| {
            let mut row = count(row);
            if let Some(row) = row.as_object_mut() {
                row.insert("name".to_owned(), name.as_str().into());
            }
            row
        })
        .collect();
    json!({
        "start": start.map(|lsn| lsn.to_string()),
        "end": statistics.end().map(|lsn| lsn.to_string()),
        "by": match by { StatisticsBy::Rmgr => "rmgr", StatisticsBy::Record => "record" },
        "total": count(&statistics.total()),
        "rows": rows,
    })
}
