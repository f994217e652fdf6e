//! `walsender serve`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use walsender::slot::PhysicalSlots;
use walsender::source::WalSource;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};

/// How long clients may take to leave at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves a recorded PostgreSQL server to pg_basebackup, pg_receivewal and walreceiver
///
/// The recording is a base backup and the WAL that followed it. Clients of this machine are trusted, others cannot
/// connect.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The recording: a tar archive compressed with zstd
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// Where to listen: a loopback address such as 127.0.0.1:5433, or the absolute path of a unix socket, whose
    /// name must be .s.PGSQL.PORT for PostgreSQL's clients
    #[arg(long, value_name = "ADDR")]
    listen: ListenAddress,
    /// Directory of the replication slots, made where it is missing; without it slots are in memory, and end with
    /// the process
    #[arg(long, value_name = "DIR")]
    slots: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let (recording, slots) = (args.recording, args.slots);
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
    let sender = Sender::start_with_slots(SenderConfig::new(args.listen), server, slots).await?;
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
fn open_slots(directory: Option<PathBuf>, source: &dyn WalSource) -> anyhow::Result<PhysicalSlots> {
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
