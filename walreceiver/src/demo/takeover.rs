//! The steps that are the same with every coordinator: `init`, what a running mirror shows, `status`, `activate`.

use std::path::Path;
use std::time::Duration;

use walstream::Lsn;

use super::DemoError;
use super::mirroring::Mirroring;
use super::narrator::Narrator;
use super::report::{Check, Coordinator, DemoReport};
use super::wal_facts::WalFacts;
use crate::activate::options::RecoveryBy;
use crate::activate::{self, ActivateConfig, ActivateReport};
use crate::connection::{ConnInfo, Environment};
use crate::init::options::Checkpoint;
use crate::init::tablespaces::TablespaceMap;
use crate::init::{self, InitOptions, InitReport};
use crate::mirror::state::{MirrorFacts, MirrorState};
use crate::run::APPLICATION_NAME;
use crate::run::live::LiveStatus;
use crate::status::{self, StatusConfig, Verdict};
use walstream::protocol::command::ManifestChecksums;

/// How long the lost coordinator may take to answer.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(2);

/// A mirror that has taken over.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) facts: MirrorFacts,
    pub(super) activation: ActivateReport,
    wal: WalFacts,
    is_activated: bool,
}

/// `walreceiver init`.
pub(super) async fn init(
    mirror: &Path,
    conninfo: &str,
    narrator: &Narrator,
) -> Result<InitReport, DemoError> {
    narrator.say(format_args!(
        "$ walreceiver init -D {} --primary '{conninfo}'",
        mirror.display()
    ));
    let conninfo = ConnInfo::resolve(conninfo, &Environment::default())?
        .with_application_name_default(APPLICATION_NAME);
    let options = InitOptions {
        target: mirror.to_owned(),
        conninfo,
        slot: Some(APPLICATION_NAME.to_owned()),
        tablespace_map: TablespaceMap::default(),
        checkpoint: Checkpoint::Fast,
        max_rate: None,
        label: "walreceiver demo".to_owned(),
        checksums: ManifestChecksums::Crc32c,
        from_standby: false,
    };
    let report = init::init(options, &narrator.init_observer(), std::future::pending()).await?;
    // The rest says what to do next, which is what the demonstration does.
    narrator.say(
        report
            .to_string()
            .lines()
            .take(2)
            .collect::<Vec<_>>()
            .join("\n"),
    );
    Ok(report)
}

/// Where a running mirror stands, in a line.
pub(super) fn progress_line(status: &LiveStatus) -> String {
    let lsn = |lsn: Option<Lsn>| lsn.unwrap_or_default();
    format!(
        "{}: write {}, flush {}, {} records checked",
        status.state.name(),
        lsn(status.write_lsn),
        lsn(status.flush_lsn),
        status.records
    )
}

/// `walreceiver status`, then `walreceiver activate`.
pub(super) async fn take_over(
    mirror: &Path,
    mirroring: Mirroring,
    narrator: &Narrator,
) -> Result<Takeover, DemoError> {
    narrator.step("walreceiver status: what the mirror has, now that its coordinator is lost");
    narrator.say(format_args!("$ walreceiver status -D {}", mirror.display()));
    let state = MirrorState::load(mirror)?;
    let primary = ConnInfo::resolve(&state.facts.primary, &Environment::default())?;
    let config = StatusConfig {
        mirror: mirror.to_owned(),
        primary: Ok(primary.clone()),
        primary_timeout: PRIMARY_TIMEOUT,
        max_lag: None,
    };
    let status = status::gather(&config).await?;
    let verdict = Verdict::of(&status, None);
    narrator.say(status::report::report(&status, &verdict).trim_end());

    narrator.step("walreceiver activate: the mirror is proven whole and takes over");
    narrator.say(format_args!(
        "$ walreceiver activate -D {} -y",
        mirror.display()
    ));
    // The command stops a receiver that runs by its signal, which here would be a signal to ourselves.
    mirroring.stop().await?;
    let state = MirrorState::load(mirror)?;
    let config = ActivateConfig {
        mirror: mirror.to_owned(),
        primary,
        primary_timeout: PRIMARY_TIMEOUT,
        force: false,
        discard_damaged_wal: false,
        keep_synchronous_standby_names: false,
        recovery: RecoveryBy::Native,
        quiet: true,
    };
    let gauge = narrator.gauge(Some(
        state.flushed.lsn.saturating_sub(state.facts.start.lsn),
    ));
    let start = state.facts.start.lsn;
    let findings = {
        let gauge = gauge.clone();
        activate::examine(&config, move |lsn| {
            gauge.set(lsn.saturating_sub(start), "");
            true
        })
        .await?
    };
    gauge.finish();
    // Before the last segment gets another name.
    let (directory, facts, end) = (
        mirror.to_owned(),
        state.facts.clone(),
        findings.report.end.lsn,
    );
    let wal = tokio::task::spawn_blocking(move || WalFacts::read(&directory, &facts, end));
    let wal = wal.await.map_err(|_| DemoError::RuntimeEnded)??;
    let activation = activate::prepare(&config, findings).await?;
    narrator.say(format_args!(
        "{} records and {} commits, whole up to {} on timeline {}",
        activation.records, activation.commits, activation.end.lsn, activation.end.timeline
    ));
    Ok(Takeover {
        facts: state.facts,
        wal,
        is_activated: MirrorState::load(mirror)?.activation.is_some(),
        activation,
    })
}

/// How the mirror is started where PostgreSQL is installed.
pub(super) fn start_command(mirror: &Path) -> String {
    format!(
        "Where PostgreSQL is installed, this starts it: pg_ctl start -D {}",
        mirror.display()
    )
}

impl Takeover {
    /// What was kept, without checks yet.
    pub(super) fn report(
        &self,
        coordinator: Coordinator,
        server_version: String,
        acknowledged_lsn: Lsn,
    ) -> DemoReport {
        DemoReport {
            coordinator,
            server_version,
            system_identifier: self.facts.system_identifier,
            timeline: self.activation.end.timeline.0,
            acknowledged_lsn,
            end_lsn: self.activation.end.lsn,
            records: self.activation.records,
            wal_bytes: self.activation.bytes,
            commits: self.activation.commits,
            databases: self.wal.databases,
            relations: self.wal.relations,
            acknowledged_commits: 0,
            found_commits: 0,
            live: None,
            kept: None,
            checks: Vec::new(),
            elapsed_ms: 0,
            passed: false,
        }
    }

    /// Whether the directory is a primary's now.
    pub(super) fn activated_check(&self) -> Check {
        Check {
            name: "the mirror is activated and receives no more",
            passed: self.is_activated,
            found: format!("activated at {}", self.activation.end.lsn),
        }
    }
}
