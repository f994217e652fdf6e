//! `walreceiver run`: the daemon that streams.

pub(crate) mod abort_on_drop;
pub mod acknowledged;
pub mod backoff;
pub mod checked_wal;
pub mod daemon;
pub mod keeper;
pub mod last_status;
pub mod live;
pub mod metrics;
mod observer;
mod old_wal;
pub mod options;
pub mod replay_args;
mod replay_metrics;
pub mod replaying;
mod reported;
pub mod run_error;
pub mod session;
pub mod status_socket;
mod stopping_server;
pub mod stream;
pub mod stream_error;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use walstream::PgTimestamp;
use walstream::protocol::receiver::{ReceiverConfig, ReportAtOnce};

use crate::connection::{ConnInfo, Environment};
use crate::exit::Exit;
use crate::mirror::state::MirrorState;
use daemon::{RunConfig, RunReport};
use live::LiveStatus;
use options::RunArgs;
use run_error::RunError;
use stream::Stop;

/// Name under which the primary knows a mirror, unless the connection string has another: the one that the Greenplum family
/// knows its standby by.
pub const APPLICATION_NAME: &str = "gp_walreceiver";

/// How long a host may take to answer when the connection string does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run_command(args: RunArgs) -> Exit {
    match command(&args).await {
        Ok(report) => {
            tracing::info!(
                timeline = report.end.timeline.0,
                lsn = %report.end.lsn,
                records = report.records,
                bytes = report.bytes,
                "stopped; everything received is flushed"
            );
            Exit::Success
        }
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

async fn command(args: &RunArgs) -> Result<RunReport, RunError> {
    let state = MirrorState::load(&args.pgdata)?;
    let primary = args.primary.as_deref().unwrap_or(&state.facts.primary);
    let conninfo = ConnInfo::resolve(primary, &Environment::from_process())?
        .with_application_name_default(APPLICATION_NAME)
        .with_connect_timeout_default(CONNECT_TIMEOUT);
    let config = RunConfig {
        mirror: args.pgdata.clone(),
        slot: args.slot.clone(),
        receiver: ReceiverConfig {
            status_interval: args.status_interval,
            receiver_timeout: Some(args.receiver_timeout).filter(|timeout| !timeout.is_zero()),
            report_at_once: ReportAtOnce::WriteAndFlush,
            ..ReceiverConfig::default()
        },
        no_loop: args.no_loop,
        max_wait: args.max_wait,
        hub: args.hub.config(&args.pgdata),
        replay: args.replay.config(&args.hub.slots_directory(&args.pgdata)),
        conninfo,
    };
    let (live, _) = watch::channel(LiveStatus {
        pid: std::process::id(),
        started_at_us: PgTimestamp::from(SystemTime::now()).unix_us(),
        primary: config.conninfo.redacted(),
        application_name: config
            .conninfo
            .application_name()
            .unwrap_or_default()
            .to_owned(),
        ..LiveStatus::default()
    });
    let hub = Arc::default();
    if let Some(address) = args.metrics {
        metrics::install_exporter(address, live.subscribe(), Arc::clone(&hub)).await?;
    }
    daemon::run(&config, &live, hub, stop_on_signals()?).await
}

/// Becomes [`Stop::Now`] on SIGTERM or SIGINT.
fn stop_on_signals() -> Result<watch::Receiver<Stop>, RunError> {
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = signals.map_err(RunError::Signals)?;
    let (sender, receiver) = watch::channel(Stop::Never);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        sender.send_replace(Stop::Now);
        // The sender must live as long as anybody may ask.
        sender.closed().await;
    });
    Ok(receiver)
}
