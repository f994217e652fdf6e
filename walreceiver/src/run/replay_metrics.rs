//! Prometheus metrics of the replay of a mirror, as text, from what [`LiveStatus`] says when they are asked for. So a lag by time grows
//! while nothing happens. There are none with `--no-replay`.
//!
//! ```text
//! walstream_receiver_apply_lsn             end of the WAL that is replayed, bytes
//! walstream_receiver_replay_lag_bytes      WAL that is flushed and not replayed, bytes
//! walstream_receiver_replay_lag_seconds    how long the first of it has been flushed
//! walstream_receiver_replay_redo_lsn       where replay begins after a restart, bytes
//! walstream_receiver_replay_records_total  records replayed
//! walstream_receiver_restartpoints_total   restartpoints made
//! walstream_receiver_replay_consistent     1 when the end of the base backup was reached
//! walstream_receiver_replay_state          1 for the state that is, 0 for the others: label state
//! ```

use std::fmt::{Display, Write as _};

use walstream::Lsn;

use super::live::{LiveStatus, ReplayState};

/// The metrics as of now, in microseconds since 1970.
#[must_use]
pub(super) fn render(status: &LiveStatus, now_us: i64) -> String {
    let Some(replay) = &status.replay else {
        return String::new();
    };
    let mut text = Text(String::new());
    let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.0);
    text.gauge(
        "apply_lsn",
        "End of the WAL that is replayed, as a byte position.",
        lsn(status.apply_lsn),
    );
    let lag = status.replay_lag(now_us);
    text.gauge(
        "replay_lag_bytes",
        "WAL that is flushed and not replayed, in bytes.",
        lag.map(|lag| lag.0),
    );
    text.gauge(
        "replay_lag_seconds",
        "How long the first WAL that is not replayed has been flushed.",
        lag.map(|lag| lag.1.as_secs_f64()),
    );
    text.gauge(
        "replay_redo_lsn",
        "Where replay begins after a restart, as a byte position.",
        lsn(replay.redo_lsn),
    );
    text.metric("replay_records_total", "counter", "WAL records replayed.");
    text.value("replay_records_total", replay.records);
    text.metric("restartpoints_total", "counter", "Restartpoints made.");
    text.value("restartpoints_total", replay.restartpoints);
    text.gauge(
        "replay_consistent",
        "1 when the end of the base backup was reached.",
        Some(u8::from(replay.consistent)),
    );
    text.metric(
        "replay_state",
        "gauge",
        "1 for the state that replay is in, 0 for the others.",
    );
    for state in [
        ReplayState::Starting,
        ReplayState::Replaying,
        ReplayState::Failed,
        ReplayState::Ended,
    ] {
        let name = format!("replay_state{{state=\"{}\"}}", state.name());
        text.value(&name, u8::from(state == replay.state));
    }
    text.0
}

struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP walstream_receiver_{name} {help}");
        let _ = writeln!(self.0, "# TYPE walstream_receiver_{name} {kind}");
    }

    fn value(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "walstream_receiver_{name} {value}");
    }

    /// A gauge, unless it is not known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.metric(name, "gauge", help);
            self.value(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::live::ReplayStatus;

    #[test]
    fn lag_grows_while_nothing_happens_and_is_none_when_all_is_replayed() {
        let mut status = LiveStatus::default();
        assert_eq!(render(&status, 0), "");
        status.flush_lsn = Some(Lsn(300));
        status.apply_lsn = Some(Lsn(200));
        status.replay = Some(ReplayStatus {
            state: ReplayState::Failed,
            behind_since_us: Some(1_000_000),
            restartpoints: 3,
            ..ReplayStatus::default()
        });
        let has = |text: &str, line: &str| text.lines().any(|found| found == line);
        let text = render(&status, 3_500_000);
        for line in [
            "walstream_receiver_apply_lsn 200",
            "walstream_receiver_replay_lag_bytes 100",
            "walstream_receiver_replay_lag_seconds 2.5",
            "# TYPE walstream_receiver_restartpoints_total counter",
            "walstream_receiver_restartpoints_total 3",
            "walstream_receiver_replay_state{state=\"failed\"} 1",
            "walstream_receiver_replay_state{state=\"replaying\"} 0",
        ] {
            assert!(has(&text, line), "{line} in {text}");
        }
        assert!(!text.contains("redo_lsn"), "not known: {text}");
        status.apply_lsn = status.flush_lsn;
        let text = render(&status, 3_500_000);
        assert!(
            has(&text, "walstream_receiver_replay_lag_seconds 0"),
            "{text}"
        );
    }
}
