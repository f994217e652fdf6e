//! `walsender serve`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use walsender::primary::DEFAULT_SLOT;
use walsender::slot::PhysicalSlots;
use walsender::source::WalSource;
use walsender::source::archive::ArchiveLocation;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::source::served_archive::{ServeOptions, ServedArchive};
use walsender::{ListenAddress, Sender, SenderConfig, SyncNamesFile, SyncRuleChoice};
use walstream::sync::{GreenplumRule, StandbyNames};

use super::access_args::AccessArgs;
use super::limit_args::LimitArgs;
use super::observe::ObserveArgs;
use super::serve_primary;
use super::wal_keep_size::WalKeepSize;

const EXAMPLE: &str = "\
Beside a running PostgreSQL:
  walsender serve --data-dir /var/lib/postgresql/15/main --primary 'host=/run/postgresql user=postgres' \\
      --listen 127.0.0.1:5433 --slots /var/lib/walsender

With a user of its own on that server, in the database that --primary names or else postgres:
  CREATE ROLE walsender LOGIN REPLICATION;
  GRANT pg_read_all_settings TO walsender;
  GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO walsender;
  (before PostgreSQL 15: pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean))

Let a standby of another machine in:
  (umask 077; walsender verifier standby > users)
  walsender serve --archive DIR --listen 0.0.0.0:5433 --auth-file users \\
      --tls-cert server.crt --tls-key server.key";

/// Serves WAL to PostgreSQL standbys, pg_basebackup, pg_receivewal and walreceiver
///
/// Clients of this machine are trusted unless rules say otherwise; to let others in, give users and their passwords, or
/// rules. SIGTERM or SIGINT ends it: standbys get all WAL that there is, and are waited for until they have confirmed it;
/// a second signal ends it at once. SIGHUP reads rules, users, certificates and
/// the file of synchronous standbys again. "walsender status" shows its standbys.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLE)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// How to connect to that server with SQL, such as 'host=/run/postgresql user=walsender'; a password may also come from
    /// PGPASSWORD or ~/.pgpass. The user need not be a superuser: LOGIN and REPLICATION are enough to serve WAL. For base
    /// backups it also needs EXECUTE on pg_backup_start(text, boolean) and pg_backup_stop(boolean), in the database of this
    /// connection. A member of pg_read_all_settings also lets the server's data directory be compared with --data-dir, and
    /// clients ask for settings that others may not see
    #[arg(long, value_name = "CONNINFO", requires = "data_dir")]
    pub(super) primary: Option<String>,
    /// The replication slot on that server which keeps WAL there, made where it is missing. It keeps no old rows:
    /// hot_standby_feedback of standbys is shown by `walsender slot list` and does not reach that server; give standbys
    /// max_standby_streaming_delay instead
    #[arg(long, value_name = "NAME", requires = "data_dir", default_value = DEFAULT_SLOT)]
    pub(super) primary_slot: String,
    /// Most WAL that a slot of ours may keep on that server, such as 10GB; without a unit in MB, -1 for any amount. A slot
    /// that keeps more is given up when the server does a checkpoint, and its standby has to be made anew, as with the
    /// setting of this name in PostgreSQL; that setting of the server itself should be larger, as it would give up the one
    /// slot there that keeps WAL for all of ours. An archive is never removed from here, so it needs no limit
    #[arg(
        long,
        value_name = "SIZE",
        requires = "data_dir",
        default_value = "-1",
        allow_hyphen_values = true
    )]
    pub(super) max_slot_wal_keep_size: WalKeepSize,
    /// Where to listen: an address such as 127.0.0.1:5433, or the absolute path of a unix socket, whose name must be
    /// .s.PGSQL.PORT for PostgreSQL's clients. Addresses that other machines reach need --auth-file or --hba
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: ListenAddress,
    /// Directory of the replication slots, made where it is missing; without it slots are in memory, and end with
    /// the process
    #[arg(long, value_name = "DIR")]
    pub(super) slots: Option<PathBuf>,
    /// Which standbys are synchronous, as the setting of this name in PostgreSQL: FIRST 1 (a, b), ANY 2 (a, b, c), *
    #[arg(long, value_name = "NAMES", default_value = "", value_parser = StandbyNames::parse)]
    pub(super) synchronous_standby_names: SynchronousNames,
    /// File that holds the value of that setting instead, in which SIGHUP finds it changed: commits that need not wait by
    /// the new one go on at once. Lines that begin with # are comments; one that cannot be parsed changes nothing
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "synchronous_standby_names"
    )]
    pub(super) synchronous_standby_names_file: Option<PathBuf>,
    /// By which rule standbys are synchronous: "names", those of --synchronous-standby-names; "greenplum", as a coordinator of
    /// Greenplum 7 or Cloudberry chooses, which ignores names: a standby with the application_name gp_walreceiver that
    /// streams, or that catches up and has come near, and none while there is no such standby, so that a dead one is never
    /// waited for; "greenplum6", the same with any application_name
    #[arg(long, value_name = "RULE", default_value_t)]
    pub(super) sync_rule: SyncRuleChoice,
    /// How near a standby that catches up has to be for the Greenplum rule, in WAL segments, as the setting of this name
    /// there
    #[arg(long, value_name = "SEGMENTS", default_value_t = GreenplumRule::DEFAULT_CATCHUP_WITHIN_RANGE)]
    pub(super) repl_catchup_within_range: u32,
    /// Seconds that standbys have to confirm the last WAL when the sender is to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) shutdown_timeout: u64,
    // Last, as their headings hold for what comes after them.
    #[command(flatten)]
    pub(super) observe: ObserveArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) access: AccessArgs,
}

/// `None` for none, which is how the empty text is read.
pub(super) type SynchronousNames = Option<StandbyNames>;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SourceArgs {
    /// Data directory of a running PostgreSQL: its WAL is served, and base backups of it
    #[arg(long, value_name = "DIR", requires = "primary")]
    data_dir: Option<PathBuf>,
    /// WAL segments as `walreceiver receive`, pg_receivewal or archive_command leave them, plain or compressed, of any
    /// number of timelines: a directory, or s3://BUCKET/PREFIX and the like. What is added is served, too. It must hold a
    /// segment when the sender starts, which says whose WAL it is: an empty one is refused
    #[arg(long, value_name = "DIR|URL")]
    archive: Option<ArchiveLocation>,
    /// A recorded server, with its base backup: a tar archive compressed with zstd
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    if let Some(data_dir) = args.source.data_dir.clone() {
        return serve_primary::run(data_dir, args).await;
    }
    let config = args.sender_config()?;
    let (source, slots, slots_directory) = (args.source, args.slots.clone(), args.slots);
    let (source, slots) = tokio::task::spawn_blocking(move || {
        let source = source.open()?;
        let slots = open_slots(slots, &*source)?;
        anyhow::Ok((source, slots))
    })
    .await
    .context("cannot open the source")??;
    let mut signals = Signals::new()?;
    let observers = args.observe.bind(slots_directory.as_deref()).await?;
    let end = *source.flushed().borrow();
    let sender = Sender::start_with_slots(config, source, slots).await?;
    let observing = observers.answer_for(&sender.view());
    println!(
        "listening, WAL ends at {} on timeline {}; connect with: {} user=postgres",
        end.lsn,
        end.timeline,
        sender.conninfo()
    );
    serve_until_end(&sender, &mut signals).await;
    shut_down(sender, args.shutdown_timeout, &mut signals).await;
    observing.end().await;
    Ok(())
}

/// Waits for the signal to end, and reloads when asked to.
pub(super) async fn serve_until_end(sender: &Sender, signals: &mut Signals) {
    while signals.next().await == Asked::ToReload {
        // What is new, and what cannot be used, is logged.
        tokio::task::block_in_place(|| sender.reload());
    }
}

/// Ends the sender; at once with the next signal to end.
pub(super) async fn shut_down(sender: Sender, timeout_s: u64, signals: &mut Signals) {
    tracing::info!("shutting down: standbys get what they lack");
    tokio::select! {
        () = sender.shut_down(Duration::from_secs(timeout_s)) => {}
        () = signals.end() => tracing::warn!("ending at once"),
    }
}

impl ServeArgs {
    /// What does not depend on the source.
    pub(super) fn sender_config(&self) -> anyhow::Result<SenderConfig> {
        let mut config = SenderConfig::new(self.listen.clone());
        self.limits.apply(&mut config);
        let names_file = self.synchronous_standby_names_file.clone();
        let names_file = names_file.map(|path| SyncNamesFile {
            path,
            needs_names: false,
        });
        (config.sync_rule, config.sync_names_file) = self.sync_rule.rule(
            self.synchronous_standby_names.clone(),
            names_file,
            self.repl_catchup_within_range,
        );
        config.access = self.access.files()?;
        Ok(config)
    }
}

impl SourceArgs {
    fn open(self) -> anyhow::Result<Arc<dyn WalSource>> {
        match (self.archive, self.recording) {
            (Some(archive), _) => {
                let options = ServeOptions::default();
                Ok(Arc::new(ServedArchive::open(&archive, options)?))
            }
            (None, Some(recording)) => Ok(Arc::new(RecordedServer::at_end(Recording::open(
                &recording,
            )?))),
            (None, None) => anyhow::bail!("a source is missing"),
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ToReload,
    ToEnd,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ToEnd,
            _ = self.terminate.recv() => Asked::ToEnd,
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }

    pub(super) async fn end(&mut self) {
        while self.next().await != Asked::ToEnd {}
    }
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
