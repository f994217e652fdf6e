//! `walreceiver init`: a mirror directory from a running primary.
//!
//! Two steps, so that a person can be asked in between: [`prepare`] connects, and examines server and target without
//! changing anything; [`Prepared::create`] does the work. [`init`] is both.
//!
//! # Order of the work
//! 1. The directory is claimed, the slot made, so that WAL from now on stays on the primary.
//! 2. `BASE_BACKUP` begins with a checkpoint, and says where its WAL starts. From that segment on, WAL is streamed over a
//!    second connection into `pg_wal` while the archives are unpacked and checksummed. At its end the backup says
//!    up to where WAL is needed, and the stream ends there.
//! 3. Files are compared with the manifest, label and `pg_control` with what the server said. Everything is synced.
//! 4. The state file is written, last and durably: only now the directory is a mirror.
//!
//! Whatever fails, and when the caller's wish to stop comes first, all that was made is removed: files, directories,
//! the slot. A kill leaves a directory that the next init names as unfinished.

pub mod archive_channel;
pub mod backup;
pub mod cleanup;
pub mod command;
pub mod disk_work;
pub mod error;
pub mod manifest;
pub mod manifest_check;
pub mod options;
pub mod progress;
pub mod report;
pub mod server;
pub mod slot;
pub mod sync;
pub mod tablespaces;
pub mod target;
pub mod unpack;
mod verify;
mod wal;
mod work;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;

use crate::connection::{ConnInfo, Environment};

pub use command::run_command;
pub use error::InitError;
use options::{Checkpoint, InitArgs, MaxRate};
use progress::{InitObserver, InitStep};
pub use report::InitReport;
use server::{Server, ServerFacts};
use tablespaces::TablespaceMap;
use target::Vacant;
use walstream::protocol::command::ManifestChecksums;
use work::Work;

/// Name under which a mirror is known to its primary when the connection string gives none.
pub const APPLICATION_NAME: &str = "gp_walreceiver";
/// Added to the name while a mirror is being made. Its connections must not count as the mirror's: what they receive is
/// thrown away when the init fails, so no commit may wait for it.
const APPLICATION_SUFFIX: &str = "_init";

/// What to make a mirror of, and how.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The mirror directory, absolute.
    pub target: PathBuf,
    /// The primary, as the mirror will connect to it.
    pub conninfo: ConnInfo,
    /// Name of the slot; `None` for none.
    pub slot: Option<String>,
    /// Where tablespaces go.
    pub tablespace_map: TablespaceMap,
    /// How the server makes the backup's checkpoint.
    pub checkpoint: Checkpoint,
    /// Limit of the transfer rate.
    pub max_rate: Option<MaxRate>,
    /// Label of the backup.
    pub label: String,
    /// Checksums of the manifest.
    pub checksums: ManifestChecksums,
    /// Whether the server may be a standby.
    pub from_standby: bool,
}

impl InitOptions {
    /// Options from the command line and the environment.
    ///
    /// # Errors
    /// [`InitError::ConnInfo`], [`InitError::SlotName`], [`InitError::Directory`], [`InitError::Tablespace`].
    pub fn from_args(args: &InitArgs, environment: &Environment) -> Result<Self, InitError> {
        let conninfo = ConnInfo::resolve(&args.primary, environment)?
            .with_application_name_default(APPLICATION_NAME);
        let derived =
            || options::slot_name(conninfo.application_name().unwrap_or(APPLICATION_NAME));
        let slot = (!args.no_slot).then(|| args.slot.clone().unwrap_or_else(derived));
        if let Some(name) = slot.as_ref().filter(|name| !options::is_slot_name(name)) {
            return Err(InitError::SlotName(name.clone()));
        }
        Ok(Self {
            target: std::path::absolute(&args.pgdata).map_err(InitError::Directory)?,
            slot,
            conninfo,
            tablespace_map: TablespaceMap::new(args.tablespace_mapping.clone())?,
            checkpoint: args.checkpoint,
            max_rate: args.max_rate,
            label: args.label.clone(),
            checksums: args.manifest_checksums,
            from_standby: args.from_standby,
        })
    }

    /// The connection string while the mirror is being made.
    fn init_conninfo(&self) -> Result<ConnInfo, InitError> {
        let name = self.conninfo.application_name().unwrap_or(APPLICATION_NAME);
        Ok(self
            .conninfo
            .with_parameter("application_name", &format!("{name}{APPLICATION_SUFFIX}"))?)
    }
}

/// An init that is checked and has changed nothing yet.
#[derive(Debug)]
pub struct Prepared {
    options: InitOptions,
    conninfo: ConnInfo,
    server: Server,
    vacant: Vacant,
}

impl Prepared {
    /// What the server said about itself.
    #[must_use]
    pub const fn facts(&self) -> &ServerFacts {
        &self.server.facts
    }

    /// What will be done.
    #[must_use]
    pub const fn options(&self) -> &InitOptions {
        &self.options
    }

    /// Makes the mirror. When `cancel` resolves first, everything is taken back.
    ///
    /// # Errors
    /// [`InitError`]; then nothing is left of it, but for what the observer was warned about.
    pub async fn create(
        self,
        observer: &dyn InitObserver,
        cancel: impl Future<Output = ()>,
    ) -> Result<InitReport, InitError> {
        let mut work = Work::default();
        let conninfo = self.conninfo.clone();
        let target = self.options.target.clone();
        let mut cancel = pin!(cancel);
        let failure = match work.begin(self, observer).await {
            Ok(begun) => {
                let result = tokio::select! {
                    biased;
                    () = &mut cancel => Err(InitError::Interrupted),
                    result = work.finish(begun, observer) => result,
                };
                match result {
                    Ok(report) => return Ok(report),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        observer.step(&InitStep::RollBack { directory: target });
        work.roll_back(&conninfo, observer).await;
        Err(failure)
    }
}

/// Connects and examines the server and the target directory. Changes nothing.
///
/// # Errors
/// [`InitError`]; [`InitError::Interrupted`] when `cancel` resolves first.
pub async fn prepare(
    options: InitOptions,
    observer: &dyn InitObserver,
    cancel: impl Future<Output = ()>,
) -> Result<Prepared, InitError> {
    observer.step(&InitStep::Validate);
    tokio::select! {
        biased;
        () = cancel => Err(InitError::Interrupted),
        result = examine(options, observer) => result,
    }
}

async fn examine(options: InitOptions, observer: &dyn InitObserver) -> Result<Prepared, InitError> {
    let conninfo = options.init_conninfo()?;
    let server = Server::connect(&conninfo).await?;
    if server.facts.is_standby && !options.from_standby {
        return Err(InitError::Standby {
            peer: server.facts.peer,
        });
    }
    let vacant = target::examine(&options.target, server.facts.system_identifier)?;
    if rustix::process::geteuid().is_root() {
        observer.warning(
            "running as root: PostgreSQL refuses to start as root, so run walreceiver as the user who will run \
             PostgreSQL on this mirror",
        );
    }
    Ok(Prepared {
        options,
        conninfo,
        server,
        vacant,
    })
}

/// Makes a mirror: [`prepare`] and [`Prepared::create`]. The wish to stop is heard until the end; a future that never
/// resolves, such as [`std::future::pending`], is none.
///
/// # Errors
/// [`InitError`].
pub async fn init(
    options: InitOptions,
    observer: &dyn InitObserver,
    cancel: impl Future<Output = ()>,
) -> Result<InitReport, InitError> {
    let mut cancel = pin!(cancel);
    let prepared = prepare(options, observer, &mut cancel).await?;
    prepared.create(observer, cancel).await
}
