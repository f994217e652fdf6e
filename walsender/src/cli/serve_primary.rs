//! `walsender serve --data-dir --primary`: beside a running PostgreSQL.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use walsender::primary::{Primary, PrimaryConfig, parse_conninfo};
use walsender::source::WalSource;
use walsender::{Sender, SenderConfig};

use super::serve::{SHUTDOWN_GRACE, ServeArgs, open_slots};

/// Serves until SIGINT or SIGTERM, or until the server must not be served any more.
pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let (data_directory, conninfo) = args
        .data_dir
        .zip(args.primary)
        .context("--data-dir and --primary are needed")?;
    let config = PrimaryConfig {
        data_directory,
        conninfo: parse_conninfo(&conninfo, |name| std::env::var(name).ok())?,
        slot: args.primary_slot,
    };
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let primary = tokio::select! {
        started = Primary::start(config) => Arc::new(started?),
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let slots = {
        let (directory, primary) = (args.slots, Arc::clone(&primary));
        tokio::task::spawn_blocking(move || open_slots(directory, &*primary)).await??
    };
    let position = *primary.flushed().borrow();
    let source = Arc::<Primary>::clone(&primary);
    let sender =
        Sender::start_with_slots(SenderConfig::new(args.listen), source, slots.clone()).await?;
    println!(
        "listening beside \"{}\", WAL is flushed to {} on timeline {}; connect with: {} user=postgres",
        primary.data_directory().display(),
        position.lsn,
        position.timeline,
        sender.conninfo()
    );
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        error = primary.ended() => Err(error.into()),
        () = primary.keep_wal_for(&sender, &slots) => Ok(()),
    };
    sender.shut_down(SHUTDOWN_GRACE).await;
    ended
}
