//! [`Verdict`]: the answer at a glance, is the mirror current, with the reason.

use std::time::Duration;

use indicatif::BinaryBytes;

use super::facts::{Receiver, StatusFacts, Tail};
use super::primary_facts::Sender;
use crate::cli::time_text::{rfc3339_us, short_duration};
use crate::run::live::ReplayState;

/// WAL that the mirror lacks, and no message for this long: the stream is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Whether the mirror is current, in the words of the Greenplum family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronization {
    /// It streams and is not far behind.
    Synchronized,
    /// It does not stream, or is far behind.
    NotSynchronized,
    /// Nobody can tell.
    Unknown,
    /// It is no mirror any more.
    Activated,
}

/// The answer and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub synchronization: Synchronization,
    /// Why, in a line.
    pub reason: String,
    /// Another look in a moment may tell otherwise.
    pub may_be_chance: bool,
}

impl Synchronization {
    /// As people read it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Synchronized => "Synchronized",
            Self::NotSynchronized => "Not Synchronized",
            Self::Unknown => "Status could not be determined",
            Self::Activated => "Activated",
        }
    }

    /// As programs read it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Synchronized => "synchronized",
            Self::NotSynchronized => "not_synchronized",
            Self::Unknown => "unknown",
            Self::Activated => "activated",
        }
    }
}

impl Verdict {
    /// Judges the facts. A mirror may be `max_lag` bytes behind, by default a WAL segment.
    #[must_use]
    pub fn of(facts: &StatusFacts, max_lag: Option<u64>) -> Self {
        let mut verdict = Self::of_wal(facts, max_lag);
        let replay = facts
            .receiver
            .running()
            .and_then(|live| live.replay.as_ref());
        if replay.is_some_and(|replay| replay.state == ReplayState::Failed) {
            // Its WAL is all that the primary asked for; what is missing is only not applied.
            verdict.reason.push_str("; REPLAY HAS STOPPED, see below");
        }
        verdict
    }

    fn of_wal(facts: &StatusFacts, max_lag: Option<u64>) -> Self {
        let verdict = |synchronization, reason| Self {
            synchronization,
            reason,
            may_be_chance: false,
        };
        use Synchronization::{Activated, NotSynchronized, Unknown};
        if let Some(activation) = &facts.state.activation {
            let server = match facts.postmaster {
                Some(pid) => format!("a server runs on it (process {pid})"),
                None => "no server runs on it yet".to_owned(),
            };
            let reason = format!("at {}, no mirror any more; {server}", activation.at);
            return verdict(Activated, reason);
        }
        match &facts.receiver {
            Receiver::Running(_) if facts.receiver.is_streaming() => judge_stream(facts, max_lag),
            Receiver::Running(live) => {
                let since = since_caught_up(facts);
                let reason = format!("receiver is {}, not streaming; {since}", live.state.name());
                verdict(NotSynchronized, reason)
            }
            Receiver::NotRunning { .. } => verdict(NotSynchronized, not_running(facts)),
            Receiver::Unknown { reason, .. } => {
                let extent = match facts.lag().bytes {
                    Some(bytes) => format!("{} behind", BinaryBytes(bytes)),
                    None => since_caught_up(facts),
                };
                verdict(Unknown, format!("{reason}; {extent}"))
            }
        }
    }
}

fn judge_stream(facts: &StatusFacts, max_lag: Option<u64>) -> Verdict {
    use Synchronization::{NotSynchronized, Synchronized, Unknown};
    let verdict = |synchronization, reason, may_be_chance| Verdict {
        synchronization,
        reason,
        may_be_chance,
    };
    let lag = facts.lag();
    let limit = max_lag.unwrap_or_else(|| facts.state.facts.dialect.segment_size.bytes());
    let state = facts.stream_state().unwrap_or("unknown");
    let answer = facts.primary.facts();
    if let Some(Sender::Absent) = answer.map(|answer| &answer.sender) {
        let reason = "the primary that was asked has no sender for this receiver".to_owned();
        return verdict(Unknown, reason, true);
    }
    let behind = |bytes| format!("{} behind", BinaryBytes(bytes));
    if facts.primary.is_silent() {
        let reason = format!("the primary does not answer; {}", since_caught_up(facts));
        return verdict(Unknown, reason, false);
    }
    let Some(bytes) = lag.bytes else {
        return verdict(Unknown, since_caught_up(facts), false);
    };
    // A receiver that nothing was sent to, since it has everything, calls itself catching up.
    if state != "streaming" && bytes > 0 {
        return verdict(
            NotSynchronized,
            format!("{state}, {}", behind(bytes)),
            false,
        );
    }
    if bytes > limit {
        return verdict(
            NotSynchronized,
            format!("streaming, but {}", behind(bytes)),
            true,
        );
    }
    let heard = lag.heard_at_us.map(|at| facts.age(at)).unwrap_or_default();
    if bytes > 0 && heard > STUCK {
        let reason = format!(
            "{}, and nothing has arrived for {}",
            behind(bytes),
            short_duration(heard)
        );
        return verdict(NotSynchronized, reason, true);
    }
    let sync_state = answer
        .and_then(|answer| answer.sender_row())
        .map(|row| row.sync_state.as_str());
    let standby = sync_state.map_or_else(String::new, |sync_state| {
        format!(" as {sync_state} standby")
    });
    let extent = match (bytes, answer) {
        (0, Some(_)) => "the mirror has all WAL of the primary".to_owned(),
        (0, None) => format!(
            "the mirror had all WAL of the primary when last heard of it, {} ago",
            short_duration(heard)
        ),
        (bytes, _) => format!("{bytes} bytes on their way"),
    };
    verdict(Synchronized, format!("streaming{standby}; {extent}"), false)
}

fn not_running(facts: &StatusFacts) -> String {
    let who = match &facts.receiver {
        Receiver::NotRunning {
            locked_by: Some(pid),
            ..
        } => format!("no receiver runs; process {pid} has the mirror locked"),
        _ => "no receiver runs".to_owned(),
    };
    let extent = match (&facts.tail, facts.lag().bytes) {
        (Some(Tail::Broken { .. }), _) => "the mirror's WAL is not whole".to_owned(),
        (_, Some(0)) => "the mirror has all WAL of the primary at this moment".to_owned(),
        (_, Some(bytes)) => format!("{} behind", BinaryBytes(bytes)),
        (_, None) => since_caught_up(facts),
    };
    format!("{who}; {extent}")
}

/// When the mirror last had everything, as far as is known.
fn since_caught_up(facts: &StatusFacts) -> String {
    let lag = facts.lag();
    match (lag.caught_up_at_us, lag.heard_at_us) {
        (Some(at), _) => format!(
            "the mirror last had all WAL of the primary at {}, {} ago",
            rfc3339_us(at),
            short_duration(facts.age(at))
        ),
        (None, Some(at)) => format!("the primary was last heard of at {}", rfc3339_us(at)),
        (None, None) => "nothing has been received yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use walstream::{Dialect, Lsn, PgMajor, SystemIdentifier, TimelineId};

    use super::*;
    use crate::mirror::flushed::TimelinePosition;
    use crate::mirror::state::{MirrorFacts, MirrorState};
    use crate::run::live::{LiveStatus, ReceiverState};
    use crate::status::primary_facts::PrimaryAnswer;

    const SECOND_US: i64 = 1_000_000;

    /// A mirror at 1/0 whose receiver heard of the primary `heard_s` seconds ago, when that ended at `end`; the primary
    /// refuses to be asked.
    fn facts(state: ReceiverState, end: u64, heard_s: i64) -> StatusFacts {
        let position = TimelinePosition {
            timeline: TimelineId(1),
            lsn: Lsn(1 << 32),
        };
        let asked_at_us = 1_000_000 * SECOND_US;
        let heard_at_us = Some(asked_at_us - heard_s * SECOND_US);
        StatusFacts {
            mirror: "mirror".into(),
            asked_at_us,
            state: MirrorState {
                facts: MirrorFacts {
                    system_identifier: SystemIdentifier(1),
                    server_version_num: 150_018,
                    dialect: Dialect::with_default_sizes(PgMajor::V15),
                    start: position,
                    consistent_lsn: position.lsn,
                    slot: None,
                    primary: String::new(),
                    tablespaces: std::collections::BTreeMap::new(),
                },
                flushed: position,
                activation: None,
            },
            receiver: Receiver::Running(LiveStatus {
                state,
                flush_lsn: Some(position.lsn),
                server_wal_end: Some(Lsn(end)),
                last_message_at_us: heard_at_us,
                // As a receiver has it whose connection died unnoticed.
                caught_up_at_us: Some(asked_at_us),
                ..LiveStatus::default()
            }),
            acknowledged: position,
            tail: None,
            postmaster: None,
            primary: PrimaryAnswer::None {
                reason: String::new(),
                silent: false,
            },
        }
    }

    #[test]
    fn what_counts_as_synchronized_has_limits() {
        use ReceiverState::{Catchup, Connecting, Streaming};
        use Synchronization::{NotSynchronized, Synchronized, Unknown};
        let segment = 16 << 20;
        for (state, behind, heard_s, max_lag, expected) in [
            (Streaming, 0, 0, None, Synchronized),
            (Streaming, segment, 0, None, Synchronized),
            (Streaming, segment + 1, 0, None, NotSynchronized),
            (Streaming, segment + 1, 0, Some(1 << 30), Synchronized),
            (Streaming, 1, 0, Some(0), NotSynchronized),
            (Streaming, 1, 10, None, Synchronized),
            (Streaming, 1, 11, None, NotSynchronized),
            (Streaming, 0, 60, None, Synchronized),
            (Streaming, 0, 61, None, Unknown),
            (Catchup, 1, 0, None, NotSynchronized),
            (Connecting, 0, 0, None, NotSynchronized),
        ] {
            let facts = facts(state, (1 << 32) + behind, heard_s);
            let verdict = Verdict::of(&facts, max_lag);
            assert_eq!(
                verdict.synchronization, expected,
                "{state:?}, {behind} bytes, {heard_s} s: {}",
                verdict.reason
            );
        }
    }

    #[test]
    fn time_counts_from_the_last_message_and_bytes_need_a_living_stream() {
        let idle = facts(ReceiverState::Streaming, 1 << 32, 40).lag();
        assert_eq!(idle.time, Some(Duration::from_secs(40)));
        assert_eq!(idle.bytes, Some(0));
        let mut silent = facts(ReceiverState::Streaming, 1 << 32, 40);
        silent.primary = PrimaryAnswer::None {
            reason: String::new(),
            silent: true,
        };
        assert_eq!(silent.lag().bytes, None);
        assert_eq!(
            Verdict::of(&silent, None).synchronization,
            Synchronization::Unknown
        );
        let lost = facts(ReceiverState::Connecting, 1 << 32, 40).lag();
        assert_eq!(
            (lost.bytes, lost.time),
            (None, Some(Duration::from_secs(40)))
        );
    }
}
