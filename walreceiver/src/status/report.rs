//! The facts as text: what a person reads, one screen.

use std::fmt::Write;

use indicatif::BinaryBytes;
use walsender::status::standby::standby_table;
use walstream::Lsn;

use super::facts::{Receiver, StatusFacts, Tail};
use super::primary_facts::{PrimaryAnswer, PrimaryFacts, Sender, Slot, SlotRow};
use super::verdict::Verdict;
use crate::cli::time_text::{rfc3339_us, short_duration};
use crate::hub::status::HubStatus;
use crate::run::live::LiveStatus;

const UNKNOWN: &str = "unknown";

/// Lines of names and values, aligned.
#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn heading(&mut self, title: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "\n{title}\n{}", "-".repeat(title.len()));
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name:<25} = {value}");
    }
}

/// The whole text; its first line is the answer.
#[must_use]
pub fn report(facts: &StatusFacts, verdict: &Verdict) -> String {
    let mut table = Table {
        text: format!("{}: {}\n", verdict.synchronization.title(), verdict.reason),
    };
    standby(&mut table, facts);
    if facts.state.activation.is_none() {
        replication(&mut table, facts);
        lag(&mut table, facts);
    }
    if let Some(hub) = facts.receiver.running().and_then(|live| live.hub.as_ref()) {
        hub_followers(&mut table, hub);
    }
    table.text
}

fn standby(table: &mut Table, facts: &StatusFacts) {
    table.heading("Standby coordinator details");
    table.line("Role", "Standby");
    table.line("Standby status", facts.standby_status());
    table.line("Standby data directory", facts.mirror.display());
    match &facts.receiver {
        Receiver::Running(live) => {
            let uptime = short_duration(facts.age(live.started_at_us));
            table.line("Standby PID", format_args!("{}, up {uptime}", live.pid));
        }
        Receiver::NotRunning {
            last: Some(live), ..
        } => {
            table.line("Standby PID", format_args!("0 (last was {})", live.pid));
        }
        Receiver::NotRunning { last: None, .. } => {
            table.line("Standby PID", "0 (no receiver has run on this mirror yet)");
        }
        Receiver::Unknown { reason, pid, .. } => {
            let pid = pid.map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string());
            table.line("Standby PID", format_args!("{pid} ({reason})"));
        }
    }
    if let Some(activation) = &facts.state.activation {
        table.line(
            "Activated",
            format_args!(
                "{}, at {} on timeline {}",
                activation.at, activation.end_lsn, activation.timeline
            ),
        );
        return;
    }
    if let Some(pid) = facts.postmaster {
        table.line(
            "PostgreSQL server",
            format_args!("process {pid} RUNS on this directory"),
        );
    }
    table.line("System identifier", facts.state.facts.system_identifier);
    table.line("Timeline", facts.timeline());
    if let Some(live) = facts.receiver.running() {
        table.line("Written here", lsn(live.write_lsn));
    }
    table.line("Flushed here", facts.flush_lsn());
    if let Some(live) = facts.receiver.last() {
        replaying(table, facts, live);
    }
    match &facts.tail {
        Some(Tail::Whole {
            end,
            unacknowledged_damage,
        }) => {
            table.line("WAL is whole up to", end.lsn);
            if let Some(damage) = unacknowledged_damage {
                table.line(
                    "WAL behind that",
                    format_args!(
                        "not known to have been acknowledged, received again by run; {damage}"
                    ),
                );
            }
        }
        Some(Tail::Broken { reason }) => table.line("WAL IS NOT WHOLE", reason),
        None => {}
    }
    if let Some(live) = facts.receiver.last() {
        trouble(table, facts, live);
    }
}

/// How the replay of the mirror stands, or stood.
fn replaying(table: &mut Table, facts: &StatusFacts, live: &LiveStatus) {
    let Some(replay) = &live.replay else {
        return;
    };
    let consistent = if replay.consistent {
        ""
    } else {
        ", the end of the base backup is not reached"
    };
    table.line(
        "Replayed here",
        format_args!(
            "{} (timeline {}{consistent})",
            lsn(live.apply_lsn),
            replay.timeline
        ),
    );
    table.line(
        "Last restartpoint",
        format_args!(
            "redo from {}; {} since the start",
            lsn(replay.redo_lsn),
            replay.restartpoints
        ),
    );
    match &replay.error {
        Some(error) => {
            let since = replay.error_at_us.map_or_else(String::new, |at| {
                format!(" {} ago", short_duration(facts.age(at)))
            });
            table.line("Replay", format_args!("STOPPED{since}: {error}"));
        }
        None => table.line("Replay", replay.state.name()),
    }
}

/// The last trouble: of a running receiver always, of another only what it ended with or had not got over.
fn trouble(table: &mut Table, facts: &StatusFacts, live: &LiveStatus) {
    let (Some(error), Some(at)) = (&live.last_error, live.last_error_at_us) else {
        return;
    };
    let ago = short_duration(facts.age(at));
    let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
    table.line("Last trouble", format_args!("{ago} ago: {error}"));
}

fn replication(table: &mut Table, facts: &StatusFacts) {
    table.heading("pg_stat_replication");
    let answer = match &facts.primary {
        PrimaryAnswer::None { reason, .. } => {
            table.line(
                "Primary",
                format_args!("Status could not be determined: {reason}"),
            );
            return receivers_view(table, facts);
        }
        PrimaryAnswer::Answer(answer) => answer,
    };
    let role = if answer.is_standby { "a standby, " } else { "" };
    let timeline = answer
        .timeline
        .map(|timeline| format!(", timeline {timeline}"))
        .unwrap_or_default();
    table.line(
        "Primary",
        format_args!(
            "{} ({role}PostgreSQL {}{timeline})",
            answer.peer, answer.version
        ),
    );
    table.line("Primary's WAL end", lsn(answer.wal_end));
    match &answer.sender {
        Sender::Row(row) => {
            table.line("WAL sender state", format_args!("{} (process {})", row.state, row.pid));
            table.line("Sync state", sync_state(&row.sync_state, answer));
            table.line("Sent location", lsn(row.sent_lsn));
            table.line("Write location", lsn(row.write_lsn));
            table.line("Flush location", lsn(row.flush_lsn));
            table.line("Replay location", replay(row.replay_lsn));
        }
        Sender::Hidden { pid, role } => {
            table.line(
                "WAL sender state",
                format_args!(
                    "hidden from role \"{role}\" (process {pid}): GRANT pg_read_all_stats TO \"{role}\" shows it"
                ),
            );
            receivers_view(table, facts);
        }
        Sender::Absent => table.line("WAL sender state", "No entries found."),
        Sender::Several(count) => table.line(
            "WAL sender state",
            format_args!("pg_stat_replication shows {count} rows of this name, none known to be this mirror's"),
        ),
        Sender::Unknown { reason } => {
            table.line(
                "WAL sender state",
                format_args!("Status could not be determined: {reason}"),
            );
            receivers_view(table, facts);
        }
    }
    match &answer.slot {
        Slot::Unused => table.line(
            "Replication slot",
            "none: the primary may remove WAL before it is sent",
        ),
        Slot::Missing => table.line("Replication slot", "MISSING on the primary"),
        Slot::Unknown { .. } => {}
        Slot::Row(row) => table.line("Replication slot", slot(facts, row)),
    }
}

/// Without the primary's own word, what a running receiver knows of the stream.
fn receivers_view(table: &mut Table, facts: &StatusFacts) {
    let Some(live) = facts.receiver.running() else {
        return;
    };
    table.line(
        "Receiver state",
        format_args!("{} ({})", live.state.name(), live.primary),
    );
    if facts.primary.facts().is_none() {
        table.line(
            "Primary's WAL end",
            format_args!("{} when last heard", lsn(live.server_wal_end)),
        );
    }
    table.line("Received location", lsn(live.received_lsn));
    table.line("Write location", lsn(live.write_lsn));
    table.line("Flush location", lsn(live.flush_lsn));
    table.line("Replay location", replay(live.apply_lsn));
}

fn sync_state(state: &str, answer: &PrimaryFacts) -> String {
    match answer.synchronous_standby_names.as_deref() {
        Some("") if state == "async" => "async (synchronous_standby_names is empty)".to_owned(),
        Some(names) => format!("{state} (synchronous_standby_names = '{names}')"),
        None => state.to_owned(),
    }
}

fn slot(facts: &StatusFacts, row: &SlotRow) -> String {
    let last = facts.receiver.last().and_then(|live| live.slot.as_deref());
    let name = last
        .or(facts.state.facts.slot.as_deref())
        .unwrap_or_default();
    let mut text = format!(
        "{name}, {}",
        if row.active { "active" } else { "not active" }
    );
    if let Some(status) = &row.wal_status {
        let _ = match status.as_str() {
            "lost" => write!(text, ", WAL LOST: make the mirror anew"),
            "unreserved" => write!(text, ", WAL unreserved: IN DANGER of being removed"),
            status => write!(text, ", WAL {status}"),
        };
    }
    if let Some(from) = row.restart_lsn {
        let _ = write!(text, " from {from}");
    }
    if let Some(size) = row.safe_wal_size.and_then(|size| u64::try_from(size).ok()) {
        let _ = write!(text, ", {} more is safe", BinaryBytes(size));
    }
    text
}

fn lag(table: &mut Table, facts: &StatusFacts) {
    table.heading("Lag");
    let lag = facts.lag();
    let since = lag.heard_at_us.or(lag.caught_up_at_us).map(rfc3339_us);
    let unknown = match since {
        Some(since) => format!("unknown since {since}"),
        None => UNKNOWN.to_owned(),
    };
    match lag.bytes {
        Some(bytes) if bytes < 1024 => table.line("Lag in bytes", bytes),
        Some(bytes) => table.line(
            "Lag in bytes",
            format_args!("{bytes} ({})", BinaryBytes(bytes)),
        ),
        None => table.line("Lag in bytes", &unknown),
    }
    match lag.time {
        Some(time) if time.is_zero() => table.line("Lag in time", "0 s"),
        Some(time) => table.line(
            "Lag in time",
            format_args!("at most {}", short_duration(time)),
        ),
        None => table.line("Lag in time", &unknown),
    }
    let live = facts.receiver.running();
    if let Some((bytes, time)) = live.and_then(|live| live.replay_lag(facts.asked_at_us)) {
        table.line(
            "Replay lag",
            format_args!("{}, {}", BinaryBytes(bytes), short_duration(time)),
        );
    }
    match lag.heard_at_us {
        Some(at) => table.line(
            "Last message",
            format_args!("{}, {} ago", rfc3339_us(at), short_duration(facts.age(at))),
        ),
        None => table.line("Last message", "none yet"),
    }
}

/// Those who follow the mirror.
fn hub_followers(table: &mut Table, hub: &HubStatus) {
    table.heading("Followers of this mirror");
    table.line("Serving at", &hub.address);
    table.line(
        "Served WAL ends at",
        format_args!("{} on timeline {}", lsn(hub.served_lsn), hub.timeline),
    );
    let by_range = hub.sync_rule == "greenplum";
    if by_range {
        table.line(
            "Synchronous followers",
            "those that are near enough (Greenplum rule)",
        );
    } else if !hub.synchronous_standby_names.is_empty() {
        table.line("Synchronous followers", &hub.synchronous_standby_names);
    }
    if hub.relay_sync {
        table.line(
            "Reported to the primary",
            format_args!(
                "what they have{}: written {}, flushed {}, replayed {}",
                if by_range {
                    ", or the mirror while there is none"
                } else {
                    ""
                },
                lsn(hub.released_write_lsn),
                lsn(hub.released_flush_lsn),
                lsn(hub.released_replay_lsn)
            ),
        );
    }
    for slot in &hub.slots {
        let used = match slot.active_pid {
            Some(pid) => format!("used by {pid}"),
            None => "not active".to_owned(),
        };
        table.line(
            "Replication slot",
            format_args!(
                "{}, {used}, from {}, {}",
                slot.slot_name,
                lsn(slot.restart_lsn),
                slot.wal_status.as_deref().unwrap_or("no WAL reserved")
            ),
        );
    }
    if hub.followers.is_empty() {
        table.line("Followers", "none");
    } else {
        table.text.push('\n');
        table.text.push_str(&standby_table(&hub.followers).lines());
    }
}

fn lsn(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| UNKNOWN.to_owned(), |lsn| lsn.to_string())
}

fn replay(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| "not replaying".to_owned(), |lsn| lsn.to_string())
}
