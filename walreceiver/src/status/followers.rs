//! The hub's followers as a table: a line each, with the columns of `pg_stat_replication`.

use crate::cli::time_text::rfc3339_us;
use crate::hub::status::{FollowerStatus, HubStatus};
use walstream::Lsn;

const HEADINGS: [&str; 15] = [
    "pid",
    "usename",
    "application_name",
    "client_addr",
    "state",
    "sent_lsn",
    "write_lsn",
    "flush_lsn",
    "replay_lsn",
    "write_lag",
    "flush_lag",
    "replay_lag",
    "sync_priority",
    "sync_state",
    "reply_time",
];

/// The table; unknown values are empty, as psql shows them.
pub(super) fn table(hub: &HubStatus) -> String {
    let rows: Vec<[String; 15]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(hub.followers.iter().map(row))
        .collect();
    let mut widths = [0; 15];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

fn row(follower: &FollowerStatus) -> [String; 15] {
    let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string()).unwrap_or_default();
    let lag = |us: Option<u64>| us.map(lag).unwrap_or_default();
    let client = match (&follower.client_addr, follower.client_port) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address.clone(),
        (None, _) => "[local]".to_owned(),
    };
    [
        follower.pid.to_string(),
        shown(&follower.usename),
        shown(&follower.application_name),
        client,
        follower.state.clone(),
        lsn(follower.sent_lsn),
        lsn(follower.write_lsn),
        lsn(follower.flush_lsn),
        lsn(follower.replay_lsn),
        lag(follower.write_lag_us),
        lag(follower.flush_lag_us),
        lag(follower.replay_lag_us),
        follower.sync_priority.to_string(),
        follower.sync_state.clone(),
        follower.reply_time_us.map(rfc3339_us).unwrap_or_default(),
    ]
}

/// A name that a client gave; what is no text for a terminal stays out of it.
fn shown(name: &str) -> String {
    name.chars()
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}

/// An interval as PostgreSQL shows it.
fn lag(us: u64) -> String {
    let seconds = us / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        us % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_in_columns() {
        let follower = FollowerStatus {
            pid: 7,
            application_name: "a\x1b[2J".to_owned(),
            state: "streaming".to_owned(),
            flush_lsn: Some(Lsn(0x16_0000_0001)),
            write_lag_us: Some(3_661_000_001),
            sync_state: "async".to_owned(),
            ..FollowerStatus::default()
        };
        let text = table(&HubStatus {
            followers: vec![follower.clone(), follower],
            ..HubStatus::default()
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at = |name: &str| lines[0].find(name).unwrap();
        assert!(lines[1][at("flush_lsn")..].starts_with("16/1 "), "{text}");
        assert!(
            lines[1][at("write_lag")..].starts_with("01:01:01.000001"),
            "{text}"
        );
        assert!(
            lines[1][at("application_name")..].starts_with("a?[2J "),
            "{text}"
        );
        assert_eq!(table(&HubStatus::default()).lines().count(), 1);
    }
}
