//! A ledger: a small service whose state is a log of its own, which standbys follow.
//!
//! Each line of standard input is an entry. It is appended to the log, and acknowledged when the standbys that are required
//! have flushed it:
//!
//! ```text
//! $ cargo run --example ledger -- --directory /tmp/ledger --listen 127.0.0.1:5440 --standbys 'FIRST 1 (vault)'
//! $ pg_receivewal -D /tmp/vault --synchronous -d 'host=127.0.0.1 port=5440 application_name=vault'
//! $ pg_waldump -p /tmp/ledger/pg_wal 000000010000000000000001
//! ```
//!
//! An entry that was answered with `ok` is in the log and on the standby, whatever is killed then.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use walsender::slot::PhysicalSlots;
use walsender::writer::{LogControl, LogicalMessage, WaitError, WalWriter, WriterOptions};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::PgMajor;
use walstream::sync::{StandbyNames, SyncRule, WaitMode};

/// Entries that may wait at a time.
const MAX_WAITING: usize = 256;

#[derive(Parser)]
struct Arguments {
    /// Where the log is kept
    #[arg(long)]
    directory: PathBuf,
    /// Where standbys connect
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: ListenAddress,
    /// Which standbys must have an entry, as in synchronous_standby_names
    #[arg(long, default_value = "")]
    standbys: String,
    /// What they must have done with it: local, remote_write, on or remote_apply
    #[arg(long, default_value = "on")]
    wait: WaitMode,
    /// After how many seconds an entry is answered with "late"
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

/// What the entries share.
struct Ledger {
    log: WalWriter,
    sender: Sender,
    wait: WaitMode,
    patience: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let names = StandbyNames::parse(&arguments.standbys).context("--standbys")?;
    std::fs::create_dir_all(&arguments.directory)?;
    let slots = PhysicalSlots::open(&arguments.directory.join("slots"), 10)?;
    let options = WriterOptions {
        slots: Some(slots.clone()),
        ..WriterOptions::default()
    };
    let log = WalWriter::open_or_create(
        &arguments.directory,
        &LogControl::new(PgMajor::V15),
        options,
    )?;
    // The log is the service's only state: it begins by reading it.
    let mut entries = 0;
    log.replay(log.oldest_lsn(), |record| {
        if record.header.rmgr == LogicalMessage::RMGR {
            entries += 1;
        }
    })?;
    let config = SenderConfig {
        sync_rule: SyncRule::from(names),
        ..SenderConfig::new(arguments.listen)
    };
    let sender = Sender::start_with_slots(config, Arc::new(log.clone()), slots).await?;
    println!("{entries} entries, serving at {}", sender.conninfo());
    let ledger = Arc::new(Ledger {
        log,
        sender,
        wait: arguments.wait,
        patience: Duration::from_secs(arguments.patience),
    });
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    let mut lines = lines_of_stdin();
    while let Some(line) = lines.recv().await {
        let permit = Arc::clone(&waiting).acquire_owned().await?;
        let ledger = Arc::clone(&ledger);
        // Entries wait side by side, so they share flushes.
        tokio::spawn(async move {
            println!("{}", ledger.enter(&line).await);
            drop(ledger);
            drop(permit);
        });
    }
    // All entries are answered.
    let _ = waiting.acquire_many(u32::try_from(MAX_WAITING)?).await?;
    let Some(ledger) = Arc::into_inner(ledger) else {
        return Ok(());
    };
    ledger.sender.shut_down(Duration::from_secs(10)).await;
    ledger.log.close().await?;
    Ok(())
}

impl Ledger {
    /// Enters a line, and gives the answer.
    async fn enter(&self, line: &str) -> String {
        let deadline = Instant::now() + self.patience;
        let message = LogicalMessage::new("ledger", line.as_bytes());
        let lsn = match self.log.append_message(&message).await {
            Ok(record) => record.end_lsn,
            Err(error) => return format!("failed: {error}: {line}"),
        };
        match self
            .log
            .wait(&self.sender, lsn, self.wait, Some(deadline))
            .await
        {
            Ok(()) => format!("ok {lsn} {line}"),
            // It is in the log and may reach the standbys later. It cannot be taken back.
            Err(WaitError::Deadline { .. }) => format!("late {lsn} {line}"),
            Err(error) => format!("failed: {error}: {line}"),
        }
    }
}

/// The lines of standard input, read by a thread of its own.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
