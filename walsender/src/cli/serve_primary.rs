//! `walsender serve --data-dir --primary`: beside a running PostgreSQL.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use walsender::Sender;
use walsender::primary::{Primary, PrimaryConfig, parse_conninfo};
use walsender::source::WalSource;

use super::serve::{ServeArgs, Signals, open_slots, serve_until_end, shut_down};

/// Serves until SIGINT or SIGTERM, or until the server must not be served any more.
pub(super) async fn run(data_directory: PathBuf, args: ServeArgs) -> anyhow::Result<()> {
    let sender_config = args.sender_config()?;
    let conninfo = args.primary.context("--primary is needed")?;
    let config = PrimaryConfig {
        data_directory,
        conninfo: parse_conninfo(&conninfo, |name| std::env::var(name).ok())?,
        slot: args.primary_slot,
        max_slot_wal_keep_size: args.max_slot_wal_keep_size.0,
    };
    let mut signals = Signals::new()?;
    let primary = tokio::select! {
        started = Primary::start(config) => Arc::new(started?),
        () = signals.end() => return Ok(()),
    };
    let slots = {
        let (directory, primary) = (args.slots.clone(), Arc::clone(&primary));
        tokio::task::spawn_blocking(move || open_slots(directory, &*primary)).await??
    };
    let observers = args.observe.bind(args.slots.as_deref()).await?;
    let position = *primary.flushed().borrow();
    let source = Arc::<Primary>::clone(&primary);
    let sender = Sender::start_with_slots(sender_config, source, slots.clone()).await?;
    let observing = observers.answer_for(&sender.view());
    println!(
        "listening beside \"{}\", WAL is flushed to {} on timeline {}; connect with: {} user=postgres",
        primary.data_directory().display(),
        position.lsn,
        position.timeline,
        sender.conninfo()
    );
    let ended = tokio::select! {
        () = serve_until_end(&sender, &mut signals) => Ok(()),
        error = primary.ended() => Err(error.into()),
        () = primary.keep_wal_for(&sender, &slots) => Ok(()),
    };
    shut_down(sender, args.shutdown_timeout, &mut signals).await;
    observing.end().await;
    ended
}
