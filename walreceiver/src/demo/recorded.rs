//! The demonstration with the recorded coordinator: nothing needs to be installed.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokio::task::{JoinHandle, spawn_blocking};
use walsender::source::recording::{FactsError, RecordedServer, Recording, RecordingError};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::Lsn;

use super::mirroring::{Mirroring, follow_command};
use super::narrator::Narrator;
use super::report::{Check, Coordinator, DemoReport};
use super::takeover::{self, Takeover};
use super::workplace::{Workplace, io_error};
use super::{DemoArgs, DemoError};
use crate::connection::{ConnInfo, Environment};
use crate::init::InitReport;
use crate::mirror::resume::ResumeError;
use crate::mirror::wal_files::WalFiles;
use crate::run::APPLICATION_NAME;

/// A PostgreSQL coordinator: its base backup and the WAL of what it did then.
const COORDINATOR: &[u8] = include_bytes!("coordinator.tar.zst");

/// How long the coordinator works before it is lost, in milliseconds.
const WORK_MS: u64 = 6_000;

/// Serves the recorded coordinator, mirrors it, loses it, activates the mirror.
pub(super) async fn show(args: &DemoArgs, narrator: &Narrator) -> Result<DemoReport, DemoError> {
    let workplace = Workplace::new(args.keep.as_deref())?;
    let mirror = workplace.mirror();
    let recording = spawn_blocking(|| Recording::read(COORDINATOR));
    let recording = recording.await.map_err(|_| DemoError::RuntimeEnded)??;
    let version = server_version(&recording);

    narrator.step("A coordinator runs");
    let backup_end = recording.backup().end.lsn;
    let wal_end = recording.wal_end().lsn;
    let server = Arc::new(RecordedServer::at_backup_end(recording));
    let config = SenderConfig::new(ListenAddress::free_port());
    let sender = Sender::start(config, Arc::<RecordedServer>::clone(&server)).await?;
    let conninfo = format!("{} user=postgres", sender.conninfo());
    narrator.say(format_args!(
        "PostgreSQL {version}, recorded, served at {}; system identifier {}",
        sender.address(),
        server.recording().identity().system_identifier
    ));

    narrator.step("walreceiver init: a mirror is made from it while it serves");
    let init = takeover::init(&mirror, &conninfo, narrator).await?;

    narrator
        .step("walreceiver run: its WAL is received, checked, written, synced and acknowledged");
    narrator.say(follow_command(&mirror));
    let conninfo = ConnInfo::resolve(&conninfo, &Environment::default())?
        .with_application_name_default(APPLICATION_NAME);
    let mut mirroring = Mirroring::start(&mirror, &conninfo);
    mirroring
        .wait_until("the mirror did not connect", |status| {
            status.sender_pid.is_some()
        })
        .await?;
    let total = wal_end.saturating_sub(backup_end);
    // Lost at three quarters of what was recorded, in the middle of whatever it does there.
    let lost_at = backup_end + total / 4 * 3;
    let acknowledged = follow(&server, &sender, &mirroring, lost_at, narrator).await;

    narrator.step("The coordinator is cut off in mid-stream");
    sender.cut_off();
    narrator.say(format_args!(
        "its WAL went up to {}; up to {acknowledged} it knows to be durable in the mirror",
        server.flushed_lsn()
    ));
    mirroring
        .wait_until("the loss was not noticed", |status| {
            status.sender_pid.is_none()
        })
        .await?;

    let takeover = takeover::take_over(&mirror, mirroring, narrator).await?;
    narrator.say(takeover::start_command(&mirror));
    let identical = compare(&mirror, &server, &takeover, acknowledged).await?;
    let mut report = takeover.report(Coordinator::Recorded, version, acknowledged);
    let commits = commit_lsns(server.recording())?;
    let count = |lsn: Lsn| commits.iter().filter(|commit| **commit <= lsn).count() as u64;
    report.acknowledged_commits = count(acknowledged);
    report.found_commits = count(acknowledged.min(report.end_lsn));
    report.checks = checks(&init, &takeover, &report, identical);
    report.kept = workplace.kept();
    Ok(report)
}

/// Lets the coordinator work until it has flushed up to `lost_at`, and shows how the mirror follows. Gives the LSN that was
/// last acknowledged to the coordinator.
async fn follow(
    server: &Arc<RecordedServer>,
    sender: &Sender,
    mirroring: &Mirroring,
    lost_at: Lsn,
    narrator: &Narrator,
) -> Lsn {
    let start = server.flushed_lsn();
    let total = lost_at.saturating_sub(start);
    let rate = (total * 1000 / WORK_MS).max(1);
    let played = Arc::clone(server);
    // It goes on for as long as it lives; this is only how long we look.
    let play = AbortOnDrop(tokio::spawn(
        async move { played.play(rate, Lsn::MAX).await },
    ));
    let gauge = narrator.gauge(Some(total));
    let mut acknowledged = Lsn::INVALID;
    let mut ticks = tokio::time::interval(super::TICK);
    while server.flushed_lsn() < lost_at {
        ticks.tick().await;
        acknowledged = flushed_by_mirror(sender).unwrap_or(acknowledged);
        let status = mirroring.status();
        gauge.set(
            acknowledged.saturating_sub(start),
            takeover::progress_line(&status),
        );
    }
    gauge.finish();
    drop(play);
    let status = mirroring.status();
    narrator.say(takeover::progress_line(&status));
    flushed_by_mirror(sender).unwrap_or(acknowledged)
}

/// What the mirror has last acknowledged to the coordinator.
fn flushed_by_mirror(sender: &Sender) -> Option<Lsn> {
    let standbys = sender.standbys();
    let mirror = standbys
        .iter()
        .find(|standby| standby.application_name == APPLICATION_NAME)?;
    mirror.flush_lsn.valid()
}

fn server_version(recording: &Recording) -> String {
    let number = recording.identity().server_version_num;
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// Compares the mirror's WAL with the coordinator's, byte by byte from the base backup's start to the mirror's end. Gives
/// where they first differ, if they do.
async fn compare(
    mirror: &Path,
    server: &Arc<RecordedServer>,
    takeover: &Takeover,
    acknowledged: Lsn,
) -> Result<Option<Lsn>, DemoError> {
    let (mirror, server) = (mirror.to_owned(), Arc::clone(server));
    let (facts, end) = (takeover.facts.clone(), takeover.activation.end);
    // What was acknowledged may end inside a record, behind the last whole one; those bytes must be here too.
    let last = end.lsn.max(acknowledged);
    let compared = spawn_blocking(move || {
        let segment_size = facts.dialect.segment_size;
        let files =
            WalFiles::open(&mirror, end.timeline, segment_size).map_err(ResumeError::from)?;
        let mut lsn = facts.start.lsn;
        while lsn < last {
            let mut path = files.path(lsn.segment_number(segment_size));
            if !path.exists() {
                // The old timeline's last one, since the activation.
                path.as_mut_os_string().push(".partial");
            }
            let segment = std::fs::read(&path).map_err(io_error("read", &path))?;
            let until = last.min(lsn.next_segment_start(segment_size).unwrap_or(Lsn::MAX));
            let theirs = server.recording().wal(end.timeline, lsn..until).ok();
            let from = usize::try_from(lsn.segment_offset(segment_size)).unwrap_or(usize::MAX);
            let ours = segment.get(from..).unwrap_or_default();
            let length = until.saturating_sub(lsn);
            let is_same = theirs
                .is_some_and(|theirs| theirs.len() as u64 == length && ours.starts_with(&theirs));
            if !is_same {
                return Ok(Some(lsn));
            }
            lsn = until;
        }
        Ok(None)
    });
    compared.await.map_err(|_| DemoError::RuntimeEnded)?
}

fn checks(
    init: &InitReport,
    takeover: &Takeover,
    report: &DemoReport,
    differs_at: Option<Lsn>,
) -> Vec<Check> {
    let (acknowledged, end) = (report.acknowledged_lsn, report.end_lsn);
    vec![
        Check {
            name: "every file of the base backup has the checksum that the coordinator's manifest names",
            passed: init.verified.is_some(),
            found: format!("{} files", init.files),
        },
        Check {
            name: "the mirror has all WAL that it acknowledged to the coordinator",
            passed: acknowledged.is_valid() && differs_at.is_none_or(|lsn| acknowledged <= lsn),
            found: format!("acknowledged {acknowledged}, whole records up to {end}"),
        },
        Check {
            name: "its WAL is the coordinator's, byte for byte",
            passed: differs_at.is_none(),
            found: match differs_at {
                None => format!("compared up to {}", end.max(acknowledged)),
                Some(lsn) => format!("differs in the segment at {lsn}"),
            },
        },
        report.commits_check(),
        takeover.activated_check(),
    ]
}

/// The coordinator's flush LSN when it acknowledged each commit of its client, after the base backup.
fn commit_lsns(recording: &Recording) -> Result<Vec<Lsn>, DemoError> {
    #[derive(Deserialize)]
    struct Facts {
        commits: Commits,
    }
    #[derive(Deserialize)]
    struct Commits {
        lsns_after_backup: Vec<String>,
    }
    let json = recording
        .member("facts.json")
        .map_or(&[][..], |facts| facts);
    let facts: Facts = serde_json::from_slice(json)
        .map_err(FactsError::from)
        .map_err(RecordingError::from)?;
    let lsns = facts
        .commits
        .lsns_after_backup
        .iter()
        .map(|lsn| lsn.parse());
    let lsns: Result<_, _> = lsns.collect();
    Ok(lsns
        .map_err(FactsError::from)
        .map_err(RecordingError::from)?)
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
