//! The facts as a JSON object. Keys are stable; LSNs and the system identifier are strings, times RFC 3339, and what is
//! not known is null.

use serde_json::{Value, json};
use walstream::Lsn;

use super::facts::{Receiver, StatusFacts, Tail};
use super::primary_facts::{PrimaryAnswer, PrimaryFacts, Sender, SenderRow, Slot};
use super::verdict::Verdict;
use crate::cli::time_text::rfc3339_us;
use crate::run::live::LiveStatus;

/// The object.
#[must_use]
pub fn to_json(facts: &StatusFacts, verdict: &Verdict) -> Value {
    let live = facts.receiver.running();
    let row = facts.primary.facts().and_then(PrimaryFacts::sender_row);
    // What the primary says, else what the receiver says.
    let position = |of_row: fn(&SenderRow) -> Option<Lsn>,
                    of_live: fn(&LiveStatus) -> Option<Lsn>| {
        row.map_or_else(|| live.and_then(of_live), of_row)
            .map(|lsn| lsn.to_string())
    };
    let lag = facts.lag();
    json!({
        "synchronization": verdict.synchronization.key(),
        "reason": verdict.reason,
        "asked_at": rfc3339_us(facts.asked_at_us),
        "mirror": facts.mirror.to_string_lossy(),
        "role": "standby",
        "standby_status": facts.standby_status(),
        "system_identifier": facts.state.facts.system_identifier.to_string(),
        "timeline": facts.timeline().0,
        "state": facts.stream_state(),
        "sync_state": row.map(|row| row.sync_state.as_str()),
        "sent_lsn": position(|row| row.sent_lsn, |live| live.received_lsn),
        "write_lsn": position(|row| row.write_lsn, |live| live.write_lsn),
        "flush_lsn": position(|row| row.flush_lsn, |live| live.flush_lsn),
        "replay_lsn": position(|row| row.replay_lsn, |live| live.apply_lsn),
        "lag_bytes": lag.bytes,
        "lag_seconds": lag.time.map(|time| time.as_secs_f64()),
        "caught_up_at": lag.caught_up_at_us.map(rfc3339_us),
        "last_message_at": lag.heard_at_us.map(rfc3339_us),
        "last_message_age_seconds": lag.heard_at_us.map(|at| facts.age(at).as_secs_f64()),
        "acknowledged_lsn": facts.acknowledged.lsn.to_string(),
        "receiver": receiver(&facts.receiver),
        "local_wal": facts.tail.as_ref().map(|tail| match tail {
            Tail::Whole { end, unacknowledged_damage } => json!({
                "whole": true,
                "end_lsn": end.lsn.to_string(),
                "unacknowledged_damage": unacknowledged_damage,
                "error": null,
            }),
            Tail::Broken { reason } => json!({
                "whole": false,
                "end_lsn": null,
                "unacknowledged_damage": null,
                "error": reason,
            }),
        }),
        "replay": facts.receiver.last().and_then(|last| {
            let replay = last.replay.as_ref()?;
            let lag = live.and_then(|live| live.replay_lag(facts.asked_at_us));
            Some(json!({
                "state": replay.state.name(),
                "applied_lsn": last.apply_lsn.map(|lsn| lsn.to_string()),
                "timeline": replay.timeline,
                "consistent": replay.consistent,
                "redo_lsn": replay.redo_lsn.map(|lsn| lsn.to_string()),
                "restartpoints": replay.restartpoints,
                "records": replay.records,
                "lag_bytes": lag.map(|lag| lag.0),
                "lag_seconds": lag.map(|lag| lag.1.as_secs_f64()),
                "error": replay.error,
                "error_at": replay.error_at_us.map(rfc3339_us),
            }))
        }),
        "hub": live.and_then(|live| live.hub.as_ref()),
        "primary": primary(&facts.primary),
        "activation": facts.state.activation,
        "server_pid": facts.postmaster,
    })
}

fn receiver(receiver: &Receiver) -> Value {
    let last = receiver.last();
    let (running, locked_by, error) = match receiver {
        Receiver::Running(_) => (Some(true), None, None),
        Receiver::NotRunning { locked_by, .. } => (Some(false), *locked_by, None),
        Receiver::Unknown { reason, .. } => (None, None, Some(reason)),
    };
    let text = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
    json!({
        "running": running,
        "locked_by_pid": locked_by,
        "error": error,
        // Of a receiver that does not run any more, what it said last.
        "pid": last.map(|live| live.pid),
        "started_at": last.map(|live| rfc3339_us(live.started_at_us)),
        "state": last.map(|live| live.state.name()),
        "primary": last.map(|live| &live.primary),
        "application_name": last.map(|live| &live.application_name),
        "slot": last.and_then(|live| live.slot.as_ref()),
        "received_lsn": text(last.and_then(|live| live.received_lsn)),
        "write_lsn": text(last.and_then(|live| live.write_lsn)),
        "flush_lsn": text(last.and_then(|live| live.flush_lsn)),
        "server_wal_end": text(last.and_then(|live| live.server_wal_end)),
        "records": last.map(|live| live.records),
        "bytes": last.map(|live| live.bytes),
        "reconnects": last.map(|live| live.reconnects),
        "last_error": last.and_then(|live| live.last_error.as_ref()),
        "last_error_at": last.and_then(|live| live.last_error_at_us).map(rfc3339_us),
    })
}

fn primary(answer: &PrimaryAnswer) -> Value {
    let facts = match answer {
        PrimaryAnswer::None { reason, .. } => return json!({"answers": false, "error": reason}),
        PrimaryAnswer::Answer(facts) => facts,
    };
    let sender_error = match &facts.sender {
        Sender::Row(_) => None,
        Sender::Hidden { role, .. } => Some(format!("role \"{role}\" lacks pg_read_all_stats")),
        Sender::Absent => Some("no entries found".to_owned()),
        Sender::Several(count) => Some(format!("{count} rows of this name")),
        Sender::Unknown { reason } => Some(reason.clone()),
    };
    let sender_pid = match &facts.sender {
        Sender::Row(row) => Some(row.pid),
        Sender::Hidden { pid, .. } => Some(*pid),
        _ => None,
    };
    json!({
        "answers": true,
        "error": null,
        "peer": facts.peer,
        "server_version": facts.version,
        "is_standby": facts.is_standby,
        "timeline": facts.timeline.map(|timeline| timeline.0),
        "wal_end_lsn": facts.wal_end.map(|lsn| lsn.to_string()),
        "synchronous_standby_names": facts.synchronous_standby_names,
        "sender_pid": sender_pid,
        "sender_error": sender_error,
        "slot": slot(&facts.slot),
    })
}

fn slot(slot: &Slot) -> Value {
    match slot {
        Slot::Unused => Value::Null,
        Slot::Missing => json!({"found": false, "error": "the primary has no slot of this name"}),
        Slot::Unknown { reason } => json!({"found": null, "error": reason}),
        Slot::Row(row) => json!({
            "found": true,
            "error": null,
            "active": row.active,
            "restart_lsn": row.restart_lsn.map(|lsn| lsn.to_string()),
            "wal_status": row.wal_status,
            "safe_wal_size": row.safe_wal_size,
        }),
    }
}
