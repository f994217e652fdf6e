//! A [`SenderStatus`] as Prometheus metrics.
//!
//! They are made of it whenever somebody asks: who has left is gone from them at once, and clients cannot make them grow by
//! coming back under other names. Positions are LSNs as byte numbers, exact up to 8 PiB of WAL.
//!
//! ```text
//! walstream_sender_flush_lsn                          end of the WAL that is served, bytes
//! walstream_sender_oldest_lsn                         start of the oldest WAL that there is, bytes
//! walstream_sender_timeline                           the timeline that is served
//! walstream_sender_standbys{state}                    connections by what is done for them
//! walstream_sender_standby_info{…,state,sync_state}   1 for each connection
//! walstream_sender_standby_{sent,write,flush,replay}_lsn{pid,application_name,client_addr}   bytes
//! walstream_sender_standby_{write,flush,replay}_lag_seconds{…}     absent while not known
//! walstream_sender_standby_{sent,write,flush,replay}_lag_bytes{…}  from that position to flush_lsn
//! walstream_sender_standby_sync_priority{…}           0: never synchronous
//! walstream_sender_released_{write,flush,replay}_lsn  what the synchronous standbys have, bytes
//! walstream_sender_waiting_commits{mode}              commits that wait for them: local, write, flush, replay
//! walstream_sender_slot_retained_bytes{slot}          WAL that is kept for it
//! walstream_sender_slot_restart_lsn{slot}             bytes
//! walstream_sender_slot_safe_wal_bytes{slot}          WAL that can be written before it may be lost
//! walstream_sender_slot_active{slot}                  1 while somebody uses it
//! walstream_sender_slot_wal_status{slot,wal_status}   1 for the one that holds
//! walstream_sender_wal_bytes_sent_total               WAL sent
//! walstream_sender_backup_bytes_sent_total            base backups sent
//! walstream_sender_base_backups_running               base backups that run
//! walstream_sender_base_backups_total                 base backups begun
//! walstream_sender_sessions, …_max_connections        sessions, and most at a time
//! walstream_sender_waiting_clients, …_max_waiting_clients   clients that are not let in yet, and most at a time
//! walstream_sender_connections_total                  connections taken, refused ones included
//! walstream_sender_connections_refused_total{reason}  those that were not let in
//! walstream_sender_start_time_seconds                 when it began to serve, Unix time
//! ```

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use walstream::Lsn;
use walstream::sync::WalSenderState;

use super::sender_status::SenderStatus;
use super::slot::SlotLine;
use super::standby::StandbyLine;
use crate::slot::wal_status::WalStatus;

const STATES: [WalSenderState; 5] = [
    WalSenderState::Startup,
    WalSenderState::Backup,
    WalSenderState::Catchup,
    WalSenderState::Streaming,
    WalSenderState::Stopping,
];

const WAL_STATUSES: [WalStatus; 4] = [
    WalStatus::Reserved,
    WalStatus::Extended,
    WalStatus::Unreserved,
    WalStatus::Lost,
];

/// The metrics in Prometheus's text format.
#[must_use]
pub fn render(status: &SenderStatus) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || record(status));
    recorder.handle().render()
}

/// A gauge with its help text.
fn set(name: &'static str, unit: Unit, help: &'static str, labels: Vec<Label>, value: f64) {
    describe_gauge!(name, unit, help);
    gauge!(name, labels).set(value);
}

/// A counter with its help text.
fn count(name: &'static str, unit: Unit, help: &'static str, labels: Vec<Label>, value: u64) {
    describe_counter!(name, unit, help);
    counter!(name, labels).absolute(value);
}

fn record(status: &SenderStatus) {
    source(status);
    for state in STATES {
        let count = status
            .standbys
            .iter()
            .filter(|standby| standby.state == state.name())
            .count();
        set(
            "walstream_sender_standbys",
            Unit::Count,
            "Connections by what is done for them.",
            vec![Label::new("state", state.name())],
            float(count as u64),
        );
    }
    for standby in &status.standbys {
        one_standby(standby, status.source.flush_lsn);
    }
    for slot in &status.slots {
        one_slot(slot);
    }
    activity(status);
}

fn source(status: &SenderStatus) {
    set(
        "walstream_sender_start_time_seconds",
        Unit::Seconds,
        "When the sender began to serve, in Unix time.",
        Vec::new(),
        seconds(u64::try_from(status.started_at_us).unwrap_or(0)),
    );
    set(
        "walstream_sender_timeline",
        Unit::Count,
        "The timeline that is served.",
        Vec::new(),
        f64::from(status.source.timeline),
    );
    let (source, sync) = (&status.source, &status.sync);
    for (name, help, lsn) in [
        (
            "walstream_sender_flush_lsn",
            "End of the WAL that is served, as a byte position.",
            source.flush_lsn,
        ),
        (
            "walstream_sender_oldest_lsn",
            "Start of the oldest WAL that there is, as a byte position.",
            source.oldest_lsn,
        ),
        (
            "walstream_sender_released_write_lsn",
            "Up to where the synchronous standbys have written WAL, as a byte position.",
            sync.released_write_lsn,
        ),
        (
            "walstream_sender_released_flush_lsn",
            "Up to where the synchronous standbys have flushed WAL, as a byte position.",
            sync.released_flush_lsn,
        ),
        (
            "walstream_sender_released_replay_lsn",
            "Up to where the synchronous standbys have replayed WAL, as a byte position.",
            sync.released_replay_lsn,
        ),
    ] {
        position(name, help, &[], lsn);
    }
    let waiting = sync.waiting_commits;
    for (mode, count) in [
        ("local", waiting.local),
        ("write", waiting.write),
        ("flush", waiting.flush),
        ("replay", waiting.replay),
    ] {
        set(
            "walstream_sender_waiting_commits",
            Unit::Count,
            "Commits that wait until their WAL is flushed here, or written, flushed or replayed by the synchronous standbys.",
            vec![Label::new("mode", mode)],
            float(count as u64),
        );
    }
}

fn one_standby(standby: &StandbyLine, flush_lsn: Option<Lsn>) {
    let labels = vec![
        Label::new("pid", standby.pid.to_string()),
        Label::new("application_name", standby.application_name.clone()),
        Label::new(
            "client_addr",
            standby.client_addr.clone().unwrap_or_default(),
        ),
    ];
    let mut info = labels.clone();
    info.extend([
        Label::new("usename", standby.usename.clone()),
        Label::new("state", standby.state.clone()),
        Label::new("sync_state", standby.sync_state.clone()),
    ]);
    set(
        "walstream_sender_standby_info",
        Unit::Count,
        "1 for each connection, with its states.",
        info,
        1.0,
    );
    set(
        "walstream_sender_standby_sync_priority",
        Unit::Count,
        "The standby's place among those that may be synchronous; 0 when it never is.",
        labels.clone(),
        f64::from(standby.sync_priority),
    );
    for (name, lag_name, help, lag_help, lsn) in [
        (
            "walstream_sender_standby_sent_lsn",
            "walstream_sender_standby_sent_lag_bytes",
            "End of the WAL that the standby was sent, as a byte position.",
            "WAL that is here and that the standby was not sent.",
            standby.sent_lsn,
        ),
        (
            "walstream_sender_standby_write_lsn",
            "walstream_sender_standby_write_lag_bytes",
            "End of the WAL that the standby has written, as a byte position.",
            "WAL that is here and that the standby has not written.",
            standby.write_lsn,
        ),
        (
            "walstream_sender_standby_flush_lsn",
            "walstream_sender_standby_flush_lag_bytes",
            "End of the WAL that the standby has flushed, as a byte position.",
            "WAL that is here and that the standby has not flushed.",
            standby.flush_lsn,
        ),
        (
            "walstream_sender_standby_replay_lsn",
            "walstream_sender_standby_replay_lag_bytes",
            "End of the WAL that the standby has replayed, as a byte position.",
            "WAL that is here and that the standby has not replayed.",
            standby.replay_lsn,
        ),
    ] {
        position(name, help, &labels, lsn);
        if let (Some(here), Some(there)) = (flush_lsn, lsn) {
            let behind = float(here.saturating_sub(there));
            set(lag_name, Unit::Bytes, lag_help, labels.clone(), behind);
        }
    }
    for (name, help, lag_us) in [
        (
            "walstream_sender_standby_write_lag_seconds",
            "How long WAL took to be written by the standby.",
            standby.write_lag_us,
        ),
        (
            "walstream_sender_standby_flush_lag_seconds",
            "How long WAL took to be flushed by the standby.",
            standby.flush_lag_us,
        ),
        (
            "walstream_sender_standby_replay_lag_seconds",
            "How long WAL took to be replayed by the standby.",
            standby.replay_lag_us,
        ),
    ] {
        if let Some(lag_us) = lag_us {
            set(name, Unit::Seconds, help, labels.clone(), seconds(lag_us));
        }
    }
}

fn one_slot(slot: &SlotLine) {
    let labels = [Label::new("slot", slot.slot_name.clone())];
    set(
        "walstream_sender_slot_active",
        Unit::Count,
        "1 while a connection uses the slot.",
        labels.to_vec(),
        f64::from(u8::from(slot.active)),
    );
    position(
        "walstream_sender_slot_restart_lsn",
        "What the slot's standby has confirmed, as a byte position.",
        &labels,
        slot.restart_lsn,
    );
    if let Some(retained) = slot.retained_bytes {
        set(
            "walstream_sender_slot_retained_bytes",
            Unit::Bytes,
            "WAL from where it is kept for the slot to its end.",
            labels.to_vec(),
            float(retained),
        );
    }
    if let Some(safe) = slot.safe_wal_size {
        let size = float(safe.unsigned_abs());
        set(
            "walstream_sender_slot_safe_wal_bytes",
            Unit::Bytes,
            "WAL that can be written before the slot may be lost.",
            labels.to_vec(),
            if safe < 0 { -size } else { size },
        );
    }
    for wal_status in WAL_STATUSES {
        let [slot_label] = labels.clone();
        let holds = slot.wal_status.as_deref() == Some(wal_status.name());
        set(
            "walstream_sender_slot_wal_status",
            Unit::Count,
            "1 for the status of the slot's WAL.",
            vec![slot_label, Label::new("wal_status", wal_status.name())],
            f64::from(u8::from(holds)),
        );
    }
}

fn activity(status: &SenderStatus) {
    let counts = &status.connections;
    for (name, help, value) in [
        (
            "walstream_sender_sessions",
            "Clients that were let in and have not left.",
            counts.sessions as u64,
        ),
        (
            "walstream_sender_max_connections",
            "Most sessions at a time.",
            counts.max_connections as u64,
        ),
        (
            "walstream_sender_waiting_clients",
            "Clients that are not let in yet.",
            counts.waiting as u64,
        ),
        (
            "walstream_sender_max_waiting_clients",
            "Most clients at a time that are not let in yet.",
            counts.max_waiting_clients as u64,
        ),
        (
            "walstream_sender_base_backups_running",
            "Base backups that run.",
            status.backups_running,
        ),
    ] {
        set(name, Unit::Count, help, Vec::new(), float(value));
    }
    for (name, unit, help, value) in [
        (
            "walstream_sender_wal_bytes_sent_total",
            Unit::Bytes,
            "WAL sent to standbys.",
            status.wal_bytes_sent,
        ),
        (
            "walstream_sender_backup_bytes_sent_total",
            Unit::Bytes,
            "Archives and manifests of base backups sent.",
            status.backup_bytes_sent,
        ),
        (
            "walstream_sender_base_backups_total",
            Unit::Count,
            "Base backups begun.",
            status.backups,
        ),
        (
            "walstream_sender_connections_total",
            Unit::Count,
            "Connections taken, refused ones included.",
            counts.accepted,
        ),
    ] {
        count(name, unit, help, Vec::new(), value);
    }
    let refused = &counts.refused;
    for (reason, value) in [
        ("too_many_waiting", refused.too_many_waiting),
        ("too_many_connections", refused.too_many_connections),
        ("authentication", refused.authentication),
        ("timeout", refused.timeout),
        ("other", refused.other),
    ] {
        count(
            "walstream_sender_connections_refused_total",
            Unit::Count,
            "Clients that were not let in.",
            vec![Label::new("reason", reason)],
            value,
        );
    }
}

fn position(name: &'static str, help: &'static str, labels: &[Label], lsn: Option<Lsn>) {
    if let Some(lsn) = lsn {
        set(name, Unit::Bytes, help, labels.to_vec(), float(lsn.0));
    }
}

/// Prometheus knows no other numbers.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, as the module says"
)]
const fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(us: u64) -> f64 {
    float(us) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ConnectionCounts, SourceStatus};

    #[test]
    fn every_metric_has_help_type_labels_and_value() {
        let mut status = SenderStatus {
            source: SourceStatus {
                flush_lsn: Some(Lsn(0x1_0000_0300)),
                timeline: 3,
                ..SourceStatus::default()
            },
            connections: ConnectionCounts {
                sessions: 2,
                ..ConnectionCounts::default()
            },
            wal_bytes_sent: 4096,
            standbys: vec![StandbyLine {
                pid: 7,
                application_name: "a\"b\\c\nd".to_owned(),
                client_addr: Some("10.0.0.1".to_owned()),
                state: "streaming".to_owned(),
                sync_state: "sync".to_owned(),
                flush_lsn: Some(Lsn(0x1_0000_0100)),
                write_lag_us: Some(1_500),
                ..StandbyLine::default()
            }],
            slots: vec![SlotLine {
                slot_name: "s".to_owned(),
                active: true,
                wal_status: Some("extended".to_owned()),
                safe_wal_size: Some(-5),
                retained_bytes: Some(99),
                ..SlotLine::default()
            }],
            ..SenderStatus::default()
        };
        status.connections.refused.authentication = 6;
        status.sync.waiting_commits.flush = 4;
        let text = render(&status);
        let labels = r#"pid="7",application_name="a\"b\\c\nd",client_addr="10.0.0.1""#;
        for line in [
            "# TYPE walstream_sender_flush_lsn gauge".to_owned(),
            "walstream_sender_flush_lsn 4294968064".to_owned(),
            "walstream_sender_timeline 3".to_owned(),
            "walstream_sender_standbys{state=\"streaming\"} 1".to_owned(),
            "walstream_sender_standbys{state=\"backup\"} 0".to_owned(),
            format!("walstream_sender_standby_flush_lsn{{{labels}}} 4294967552"),
            format!("walstream_sender_standby_flush_lag_bytes{{{labels}}} 512"),
            format!("walstream_sender_standby_write_lag_seconds{{{labels}}} 0.0015"),
            format!(
                "walstream_sender_standby_info{{{labels},usename=\"\",state=\"streaming\",sync_state=\"sync\"}} 1"
            ),
            "walstream_sender_slot_retained_bytes{slot=\"s\"} 99".to_owned(),
            "walstream_sender_slot_safe_wal_bytes{slot=\"s\"} -5".to_owned(),
            "walstream_sender_slot_wal_status{slot=\"s\",wal_status=\"extended\"} 1".to_owned(),
            "walstream_sender_slot_wal_status{slot=\"s\",wal_status=\"lost\"} 0".to_owned(),
            "# TYPE walstream_sender_wal_bytes_sent_total counter".to_owned(),
            "walstream_sender_wal_bytes_sent_total 4096".to_owned(),
            "walstream_sender_sessions 2".to_owned(),
            "walstream_sender_waiting_commits{mode=\"flush\"} 4".to_owned(),
            "walstream_sender_waiting_commits{mode=\"write\"} 0".to_owned(),
            "walstream_sender_connections_refused_total{reason=\"authentication\"} 6".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("# HELP walstream_sender_sessions "), "{text}");
        // What is not known is not there.
        assert!(!text.contains("standby_replay_lsn"), "{text}");
        let gone = SenderStatus::default();
        assert!(!render(&gone).contains("pid="));
    }
}
