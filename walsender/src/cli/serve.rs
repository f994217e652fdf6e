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

use super::access_args::AccessArgs;

/// How long clients may take to leave at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves a recorded PostgreSQL server to pg_basebackup, pg_receivewal and walreceiver
///
/// The recording is a base backup and the WAL that followed it. Clients of this machine are trusted unless rules say
/// otherwise; to let others in, give users and their passwords, or rules:
///
///   walsender verifier standby >> users && chmod 600 users
///   walsender serve --recording FILE --listen 0.0.0.0:5433 --auth-file users --tls-cert s.crt --tls-key s.key
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The recording: a tar archive compressed with zstd
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// Where to listen: an address such as 127.0.0.1:5433, or the absolute path of a unix socket, whose name must be
    /// .s.PGSQL.PORT for PostgreSQL's clients. Addresses that other machines reach need --auth-file or --hba
    #[arg(long, value_name = "ADDR")]
    listen: ListenAddress,
    /// Directory of the replication slots, made where it is missing; without it slots are in memory, and end with
    /// the process
    #[arg(long, value_name = "DIR")]
    slots: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
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
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let end = server.recording().wal_end();
    let mut config = SenderConfig::new(args.listen);
    config.access = args.access.files()?;
    let sender = Sender::start_with_slots(config, server, slots).await?;
    println!(
        "listening, WAL ends at {} on timeline {}; connect with: {} user=postgres",
        end.lsn,
        end.timeline,
        sender.conninfo()
    );
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => {
                if tokio::task::block_in_place(|| sender.reload_access()) {
                    tracing::info!("rules, verifiers and certificates reloaded");
                }
            }
        }
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
