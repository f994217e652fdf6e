//! The `walsender` program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};

/// How long clients may take to leave at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves PostgreSQL WAL over the physical streaming replication protocol
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a recorded PostgreSQL server to pg_basebackup, pg_receivewal and walreceiver
    ///
    /// The recording is a base backup and the WAL that followed it. Clients of this machine are trusted, others cannot
    /// connect.
    Serve {
        /// The recording: a tar archive compressed with zstd
        #[arg(long, value_name = "FILE")]
        recording: PathBuf,
        /// Where to listen: a loopback address such as 127.0.0.1:5433, or the absolute path of a unix socket, whose
        /// name must be .s.PGSQL.PORT for PostgreSQL's clients
        #[arg(long, value_name = "ADDR")]
        listen: ListenAddress,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Serve { recording, listen } => serve(recording, listen).await,
    }
}

async fn serve(path: PathBuf, listen: ListenAddress) -> anyhow::Result<()> {
    let recording = tokio::task::spawn_blocking(move || Recording::open(&path))
        .await
        .context("cannot load the recording")??;
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let end = recording.wal_end();
    let server = Arc::new(RecordedServer::at_end(recording));
    let sender = Sender::start(SenderConfig::new(listen), server).await?;
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
