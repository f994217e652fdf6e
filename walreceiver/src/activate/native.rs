//! Recovery ended here: what is not replayed yet is replayed, and a new timeline is begun.
//!
//! The state file says from the start that the mirror is activated, so that no receiver takes it up again; when replay fails, it says
//! so no more. An activation that was killed in between is gone on with by the next one, without a question, as it was answered.

use std::path::Path;
use std::time::Duration;

use walsender::source::archive::ArchiveLocation;
use walstream::storage::control::ControlFile;
use walstream::{Lsn, TimelineId};

use super::options::RecoveryBy;
use super::report::NativeReport;
use super::settings::prepare_start;
use super::{ActivateConfig, ActivateError};
use crate::mirror::durable::FileError;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::lock::MirrorLock;
use crate::mirror::owner::require_owner;
use crate::mirror::state::{Activation, MirrorState};
use crate::replay::{
    Bar, Promotion, ReplayError, ReplayJob, ReplayLimits, ReplayObserver, Silent, Target,
    TargetAction, finish_promotion, replay,
};
use crate::wal_reader::Cancel;
use crate::wal_sink::DiskStorage;

/// Memory for pages.
const CACHE_BYTES: usize = 256 << 20;
/// Shortest time between restartpoints, and changed pages that make one earlier.
const RESTARTPOINTS: (Duration, u64) = (Duration::from_secs(300), 64 << 20);

/// Replays up to `end`, begins a timeline there and puts the directory in order for PostgreSQL to start on.
///
/// # Errors
/// [`ActivateError::Replay`] when WAL cannot be replayed; the mirror stays one then.
pub(super) async fn activate(
    config: &ActivateConfig,
    state: &mut MirrorState,
    activation: Activation,
    end: TimelinePosition,
) -> Result<NativeReport, ActivateError> {
    state.activation = Some(activation);
    state.save(&config.mirror)?;
    let job = ReplayJob {
        directory: config.mirror.clone(),
        wal: Some(ArchiveLocation::Directory(config.mirror.join("pg_wal"))),
        timeline: Some(end.timeline),
        target: Target::default(),
        until: Some(end.lsn),
        action: TargetAction::Promote,
        limits: ReplayLimits {
            cache_bytes: CACHE_BYTES,
            restartpoint_interval: RESTARTPOINTS.0,
            max_dirty_bytes: RESTARTPOINTS.1,
        },
        check_consistency: false,
    };
    let quiet = config.quiet;
    let work = tokio::task::spawn_blocking(move || {
        let mut bar = Bar::default();
        let observer: &mut dyn ReplayObserver = if quiet { &mut Silent } else { &mut bar };
        let report = replay(DiskStorage, &job, &Cancel::new(false), observer);
        observer.ended();
        report
    });
    let replayed = work
        .await
        .map_err(|error| ReplayError::Run(error.to_string()))
        .and_then(|report| report);
    let promotion = match replayed.map(|report| report.promotion) {
        Ok(Some(promotion)) => promotion,
        Ok(None) => return Err(ReplayError::Run("no timeline was begun".to_owned()).into()),
        Err(error) => {
            // Whether it was promoted just before the failure, the next activation finds out.
            if promotion_of(&config.mirror)?.is_none() {
                state.activation = None;
                state.save(&config.mirror)?;
            }
            return Err(error.into());
        }
    };
    finish(config, end, promotion)
}

/// Goes on with an activation that was interrupted, if one was.
///
/// # Errors
/// As [`activate`].
pub(super) async fn resume(config: &ActivateConfig) -> Result<Option<NativeReport>, ActivateError> {
    let mut state = MirrorState::load(&config.mirror)?;
    let Some(activation) = state.activation.clone() else {
        return Ok(None);
    };
    let Ok(lsn) = activation.end_lsn.parse::<Lsn>() else {
        return Ok(None);
    };
    let end = TimelinePosition {
        timeline: TimelineId(activation.timeline),
        lsn,
    };
    if config.recovery != RecoveryBy::Native || config.mirror.join("recovery.signal").exists() {
        return Ok(None);
    }
    let control = read_control(&config.mirror)?;
    let was_started = control.checkpoint.timeline > end.timeline;
    if was_started && Promotion::of(&control).is_none() {
        return Ok(None);
    }
    require_owner(&config.mirror)?;
    let _lock = MirrorLock::acquire(&config.mirror)?;
    if let Some(promotion) = Promotion::of(&control) {
        finish(config, end, promotion)?;
        // Only what was left of it was to be done, if anything.
        return Ok(None);
    }
    tracing::info!(
        "going on with the activation that was begun at {}",
        activation.at
    );
    Ok(Some(activate(config, &mut state, activation, end).await?))
}

fn finish(
    config: &ActivateConfig,
    end: TimelinePosition,
    promotion: Promotion,
) -> Result<NativeReport, ActivateError> {
    let settings = prepare_start(&config.mirror, config.keep_synchronous_standby_names)?;
    finish_promotion(&DiskStorage, &config.mirror)?;
    Ok(NativeReport {
        end,
        promotion,
        cleared_synchronous_standby_names: settings.cleared_synchronous_standby_names,
    })
}

fn promotion_of(mirror: &Path) -> Result<Option<Promotion>, ActivateError> {
    Ok(Promotion::of(&read_control(mirror)?))
}

fn read_control(mirror: &Path) -> Result<ControlFile, ActivateError> {
    let path = mirror.join("global").join("pg_control");
    let content = std::fs::read(&path).map_err(FileError::of("read", &path))?;
    let control = ControlFile::parse(&content);
    Ok(control.map_err(|source| ReplayError::Control { path, source })?)
}
