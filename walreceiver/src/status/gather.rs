//! Finding out: the receiver is asked, the primary is asked, and without a receiver the mirror's files are read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walstream::PgTimestamp;

use super::facts::{Receiver, StatusFacts, Tail};
use super::primary::{Question, ask_primary};
use super::primary_facts::PrimaryAnswer;
use super::status_error::StatusError;
use super::verdict::Verdict;
use crate::connection::ConnInfo;
use crate::mirror::lock::{MirrorLock, running_postmaster};
use crate::mirror::resume::{Depth, acknowledged, resume};
use crate::mirror::state::MirrorState;
use crate::run::APPLICATION_NAME;
use crate::run::last_status::LastStatus;
use crate::run::status_socket;

/// Between two looks, when the first may have met the mirror in an odd moment.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// What to look at.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    /// The mirror directory.
    pub mirror: PathBuf,
    /// The primary, or why it cannot be asked.
    pub primary: Result<ConnInfo, String>,
    /// How long it may take to answer.
    pub primary_timeout: Duration,
    /// How many bytes the mirror may be behind; a WAL segment when not given.
    pub max_lag: Option<u64>,
}

/// Finds out how the mirror stands, changing nothing. When the first look gives reason for doubt that a second one may
/// remove, it looks again.
///
/// # Errors
/// [`StatusError`] when the directory is no mirror or its files cannot be read.
pub async fn gather(config: &StatusConfig) -> Result<StatusFacts, StatusError> {
    let facts = look(config).await?;
    if !Verdict::of(&facts, config.max_lag).may_be_chance {
        return Ok(facts);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    look(config).await
}

async fn look(config: &StatusConfig) -> Result<StatusFacts, StatusError> {
    let state = MirrorState::load(&config.mirror)?;
    let mut receiver = ask_receiver(&config.mirror).await?;
    let primary = if state.activation.is_some() {
        PrimaryAnswer::None {
            reason: "not asked: the mirror is activated".to_owned(),
            silent: false,
        }
    } else {
        ask(config, &state, &receiver).await
    };
    let mut tail = None;
    if let Receiver::Running(_) = receiver {
        // What the receiver has is compared with an end of WAL that the primary had before.
        receiver = ask_receiver(&config.mirror).await?;
    } else if let Receiver::NotRunning {
        locked_by: None, ..
    } = receiver
        && state.activation.is_none()
    {
        tail = Some(read_tail(&config.mirror, &state).await);
        // One that was started meanwhile writes where was just read.
        receiver = ask_receiver(&config.mirror).await?;
        tail = tail.filter(|_| {
            matches!(
                receiver,
                Receiver::NotRunning {
                    locked_by: None,
                    ..
                }
            )
        });
    }
    let state = MirrorState::load(&config.mirror)?;
    Ok(StatusFacts {
        mirror: config.mirror.clone(),
        asked_at_us: PgTimestamp::from(SystemTime::now()).unix_us(),
        acknowledged: acknowledged(&config.mirror, &state)?,
        postmaster: running_postmaster(&config.mirror)?,
        state,
        receiver,
        tail,
        primary,
    })
}

async fn ask_receiver(mirror: &Path) -> Result<Receiver, StatusError> {
    let directory = mirror.to_owned();
    // Only a panic or the end of the runtime keeps it from answering.
    let asked = tokio::task::spawn_blocking(move || status_socket::ask(&directory))
        .await
        .map_err(|_| StatusError::RuntimeEnded)?;
    let pid = MirrorLock::holder(mirror);
    let reason = match asked {
        Ok(Some(live)) => return Ok(Receiver::Running(live)),
        Ok(None) => {
            return Ok(Receiver::NotRunning {
                last: LastStatus::read(mirror)?,
                locked_by: pid,
            });
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            "the receiver runs and does not answer: is it stopped?".to_owned()
        }
        Err(error) => format!("cannot ask the receiver: {error}"),
    };
    Ok(Receiver::Unknown {
        reason,
        pid,
        last: LastStatus::read(mirror)?,
    })
}

async fn ask(config: &StatusConfig, state: &MirrorState, receiver: &Receiver) -> PrimaryAnswer {
    let conninfo = match &config.primary {
        Ok(conninfo) => conninfo,
        Err(reason) => {
            return PrimaryAnswer::None {
                reason: reason.clone(),
                silent: false,
            };
        }
    };
    let last = receiver.last();
    let name = last
        .map(|live| live.application_name.clone())
        .filter(|name| !name.is_empty())
        .or_else(|| conninfo.application_name().map(str::to_owned));
    let question = Question {
        system: state.facts.system_identifier,
        application_name: name.unwrap_or_else(|| APPLICATION_NAME.to_owned()),
        sender_pid: last.and_then(|live| live.sender_pid),
        receiver_runs: receiver.running().is_some(),
        slot: last
            .and_then(|live| live.slot.clone())
            .or_else(|| state.facts.slot.clone()),
    };
    ask_primary(conninfo, &question, config.primary_timeout).await
}

async fn read_tail(mirror: &Path, state: &MirrorState) -> Tail {
    let (mirror, state) = (mirror.to_owned(), state.clone());
    let read =
        tokio::task::spawn_blocking(move || resume(&mirror, &state, Depth::Tail, &mut |_| true));
    match read.await {
        Ok(Ok(resumed)) => Tail::Whole {
            end: resumed.end,
            unacknowledged_damage: resumed
                .unacknowledged_damage
                .map(|damage| damage.to_string()),
        },
        Ok(Err(error)) => Tail::Broken {
            reason: error.to_string(),
        },
        Err(error) => Tail::Broken {
            reason: error.to_string(),
        },
    }
}
