//! `walsender serve`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use tokio::signal::unix::{SignalKind, signal};
use walsender::primary::DEFAULT_SLOT;
use walsender::slot::PhysicalSlots;
use walsender::source::WalSource;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};

use super::serve_primary;

/// How long clients may take to leave at the end.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves WAL to standbys, pg_basebackup, pg_receivewal and walreceiver
///
/// The source is a running PostgreSQL on this machine, or a recording: a base backup and the WAL that followed it. Clients of
/// this machine are trusted, others cannot connect.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["data_dir", "recording"])))]
pub(super) struct ServeArgs {
    /// Data directory of a running PostgreSQL: its WAL is served, and base backups of it
    #[arg(long, value_name = "DIR", requires = "primary")]
    pub(super) data_dir: Option<PathBuf>,
    /// How to connect to that server as a superuser, such as 'host=/run/postgresql user=postgres'; a password may also
    /// come from PGPASSWORD or ~/.pgpass
    #[arg(long, value_name = "CONNINFO", requires = "data_dir")]
    pub(super) primary: Option<String>,
    /// The replication slot on that server which keeps WAL there, made where it is missing
    #[arg(long, value_name = "NAME", requires = "data_dir", default_value = DEFAULT_SLOT)]
    pub(super) primary_slot: String,
    /// A recording: a tar archive compressed with zstd
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Where to listen: a loopback address such as 127.0.0.1:5433, or the absolute path of a unix socket, whose
    /// name must be .s.PGSQL.PORT for PostgreSQL's clients
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: ListenAddress,
    /// Directory of the replication slots, made where it is missing; without it slots are in memory, and end with
    /// the process
    #[arg(long, value_name = "DIR")]
    pub(super) slots: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    match &args.recording {
        Some(recording) => serve_recording(recording.clone(), args.listen, args.slots).await,
        None => serve_primary::run(args).await,
    }
}

async fn serve_recording(
    recording: PathBuf,
    listen: ListenAddress,
    slots: Option<PathBuf>,
) -> anyhow::Result<()> {
    let (server, slots) = tokio::task::spawn_blocking(move || {
        let server = RecordedServer::at_end(Recording::open(&recording)?);
        let slots = open_slots(slots, &server)?;
        anyhow::Ok((Arc::new(server), slots))
    })
    .await
    .context("cannot load the recording")??;
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let end = server.recording().wal_end();
    let sender = Sender::start_with_slots(SenderConfig::new(listen), server, slots).await?;
    println!(
        "listening, WAL ends at {} on timeline {}; connect with: {} user=postgres",
        end.lsn,
        end.timeline,
        sender.conninfo()
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    sender.shut_down(SHUTDOWN_GRACE).await;
    Ok(())
}

/// The slots of the directory, or none yet, in memory.
pub(super) fn open_slots(
    directory: Option<PathBuf>,
    source: &dyn WalSource,
) -> anyhow::Result<PhysicalSlots> {
    let max_slots = source.identity().max_replication_slots();
    let Some(directory) = directory else {
        return Ok(PhysicalSlots::in_memory(max_slots));
    };
    let slots = PhysicalSlots::open(&directory, max_slots)?;
    for slot in slots.list() {
        let restart_lsn = slot.restart_lsn.map(tracing::field::display);
        tracing::info!(slot = slot.name, restart_lsn, "replication slot read");
    }
    Ok(slots)
}
