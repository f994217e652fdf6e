//! `walreceiver activate`: a mirror becomes a primary.
//!
//! First everything that can speak against it is looked at, and nothing is changed: does the old primary answer, is all
//! WAL whole, does it reach what was acknowledged. Then the person is asked. Only then a receiver that still runs is
//! stopped, the WAL is proven again if it had grown, and recovery is ended: here (`native`), or by PostgreSQL, for which the
//! directory is prepared. Each step of that can be killed and done again.

mod activate_error;
mod native;
pub mod options;
mod primary_check;
pub mod report;
pub mod settings;
mod stop_receiver;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use walstream::Lsn;

pub use activate_error::ActivateError;
pub use primary_check::{PrimaryState, check_primary};
pub use report::ActivateReport;

use crate::cli::time_text::rfc3339;
use crate::connection::{ConnInfo, Environment};
use crate::exit::Exit;
use crate::mirror::lock::MirrorLock;
use crate::mirror::owner::require_owner;
use crate::mirror::resume::{Depth, Resume, ResumeError, resume};
use crate::mirror::state::{Activation, MirrorState};
use options::{ActivateArgs, RecoveryBy};

/// Application name of the check whether the primary answers.
const APPLICATION_NAME: &str = "walreceiver_activate";

/// What to activate and how.
#[derive(Clone, Debug)]
pub struct ActivateConfig {
    /// The mirror directory.
    pub mirror: PathBuf,
    /// The primary that is replaced.
    pub primary: ConnInfo,
    /// How long it may take to answer.
    pub primary_timeout: Duration,
    /// Activate although it answers.
    pub force: bool,
    /// Activate although WAL behind all that is known to have been acknowledged is damaged.
    pub discard_damaged_wal: bool,
    /// Leave `synchronous_standby_names` alone.
    pub keep_synchronous_standby_names: bool,
    /// Who ends recovery.
    pub recovery: RecoveryBy,
    /// Show no progress of replay.
    pub quiet: bool,
}

/// What was found out before anything is changed: what the person is asked about.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What became of the old primary.
    pub primary: PrimaryState,
    /// The receiver that holds the mirror now, if one does.
    pub receiver_pid: Option<u32>,
    /// The mirror.
    pub state: MirrorState,
    /// How far its WAL is whole.
    pub report: ActivateReport,
}

/// Looks at everything and changes nothing. `watch` is told how far reading has got, and may end it.
///
/// # Errors
/// [`ActivateError`] when something speaks against activation, unless it was forced.
pub async fn examine(
    config: &ActivateConfig,
    watch: impl FnMut(Lsn) -> bool + Send + 'static,
) -> Result<Findings, ActivateError> {
    require_owner(&config.mirror)?;
    let state = MirrorState::load(&config.mirror)?;
    if let Some(activation) = &state.activation {
        return Err(ActivateError::Already {
            mirror: config.mirror.clone(),
            at: activation.at.clone(),
        });
    }
    let system = state.facts.system_identifier;
    let primary = check_primary(&config.primary, system, config.primary_timeout).await;
    if !config.force {
        refuse_living(&primary)?;
    }
    let resume = prove(config, &state, watch).await?;
    if resume.end.lsn < resume.consistent_lsn {
        return Err(ActivateError::NotConsistent {
            end: resume.end.lsn,
            consistent: resume.consistent_lsn,
        });
    }
    let last_seen = crate::run::last_status::LastStatus::read(&config.mirror)?;
    let report = ActivateReport::new(&resume, last_seen.as_ref());
    Ok(Findings {
        primary,
        receiver_pid: MirrorLock::holder(&config.mirror),
        state,
        report,
    })
}

/// Ends recovery, or prepares the directory for PostgreSQL to do it: after this, PostgreSQL starts on it as a primary.
///
/// # Errors
/// [`ActivateError`] when the receiver does not end, its last WAL is not whole, or a file cannot be written. It may be
/// done again.
pub async fn prepare(
    config: &ActivateConfig,
    findings: Findings,
) -> Result<ActivateReport, ActivateError> {
    if let Some(pid) = findings.receiver_pid {
        stop_receiver::stop_receiver(&config.mirror, pid).await?;
    }
    let _lock = MirrorLock::acquire(&config.mirror)?;
    let mut state = MirrorState::load(&config.mirror)?;
    let mut report = findings.report;
    if findings.receiver_pid.is_some() {
        // It may have received more since it was looked at.
        let resume = prove(config, &state, |_| true).await?;
        report.extend(&resume);
    }
    let activation = Activation {
        end_lsn: report.end.lsn.to_string(),
        timeline: report.end.timeline.0,
        at: rfc3339(SystemTime::now()),
    };
    if config.recovery == RecoveryBy::Native {
        let ended = native::activate(config, &mut state, activation, report.end).await?;
        report.promotion = Some(ended.promotion);
        report.cleared_synchronous_standby_names = ended.cleared_synchronous_standby_names;
        return Ok(report);
    }
    let timeline = report.end.timeline;
    let keep = config.keep_synchronous_standby_names;
    let settings = settings::prepare_recovery(&config.mirror, timeline, keep)?;
    report.cleared_synchronous_standby_names = settings.cleared_synchronous_standby_names;
    state.activation = Some(activation);
    state.save(&config.mirror)?;
    Ok(report)
}

fn refuse_living(primary: &PrimaryState) -> Result<(), ActivateError> {
    match primary {
        // A standby in the primary's place is no primary that could commit anything.
        PrimaryState::Silent { .. }
        | PrimaryState::Answers {
            is_standby: true, ..
        } => Ok(()),
        PrimaryState::Answers { peer, wal_end, .. } => Err(ActivateError::PrimaryAnswers {
            peer: peer.clone(),
            wal_end: *wal_end,
        }),
        PrimaryState::Refuses { reason } => Err(ActivateError::PrimaryRefuses {
            reason: reason.clone(),
        }),
        PrimaryState::OtherSystem { peer, found } => Err(ActivateError::OtherSystem {
            peer: peer.clone(),
            found: *found,
        }),
    }
}

async fn prove(
    config: &ActivateConfig,
    state: &MirrorState,
    mut watch: impl FnMut(Lsn) -> bool + Send + 'static,
) -> Result<Resume, ActivateError> {
    let (mirror, state) = (config.mirror.clone(), state.clone());
    let depth = if config.discard_damaged_wal {
        Depth::Acknowledged
    } else {
        Depth::All
    };
    let proof = tokio::task::spawn_blocking(move || resume(&mirror, &state, depth, &mut watch));
    // Only a panic or the end of the runtime keeps it from answering.
    match proof.await.map_err(|_| ActivateError::Interrupted)? {
        Err(ResumeError::Scan(source)) => Err(match source.behind_acknowledged() {
            Some(valid_end) => ActivateError::UnacknowledgedDamage { source, valid_end },
            None => ResumeError::Scan(source).into(),
        }),
        proof => Ok(proof?),
    }
}

/// Runs the command.
pub async fn run_command(args: ActivateArgs) -> Exit {
    match command(&args).await {
        Ok(()) => Exit::Success,
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

async fn command(args: &ActivateArgs) -> Result<(), ActivateError> {
    let state = MirrorState::load(&args.pgdata)?;
    let conninfo = args.primary.as_deref().unwrap_or(&state.facts.primary);
    let config = ActivateConfig {
        mirror: args.pgdata.clone(),
        primary: ConnInfo::resolve(conninfo, &Environment::from_process())?
            .with_application_name_default(APPLICATION_NAME),
        primary_timeout: args.primary_timeout,
        force: args.force,
        discard_damaged_wal: args.discard_damaged_wal,
        keep_synchronous_standby_names: args.keep_synchronous_standby_names,
        recovery: args.recovery,
        quiet: args.json,
    };
    if let Some(ended) = native::resume(&config).await? {
        println!("{}", ended.resumed(&config, args.json).trim_end());
        return Ok(());
    }
    let progress = report::ScanProgress::new(&state, args.json);
    let findings = examine(&config, progress.watch()).await?;
    progress.finish();
    if !args.json {
        eprint!("{}", report::summary(&config, &findings));
    }
    if !args.yes {
        confirm()?;
    }
    let report = prepare(&config, findings).await?;
    if args.json {
        println!("{}", report.to_json());
    } else {
        // The server may be started from anywhere.
        let mirror = std::path::absolute(&config.mirror).unwrap_or(config.mirror);
        let cleared = report.cleared_synchronous_standby_names;
        print!(
            "{}",
            report::done(&mirror, report.end, report.promotion.as_ref(), cleared)
        );
    }
    Ok(())
}

fn confirm() -> Result<(), ActivateError> {
    use crate::cli::prompt::{Answer, confirm};
    match confirm("Do you want to continue with standby coordinator activation?")? {
        Answer::Yes => Ok(()),
        Answer::No => Err(ActivateError::NotConfirmed(
            "not confirmed: nothing was changed",
        )),
        Answer::NobodyThere => Err(ActivateError::NotConfirmed(
            "standard input is no terminal, so nobody can confirm: use -y to activate without asking",
        )),
    }
}
