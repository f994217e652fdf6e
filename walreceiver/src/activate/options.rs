//! Options of `walreceiver activate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::run::options::seconds;

/// Who replays the mirror's WAL and ends recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecoveryBy {
    /// This program: PostgreSQL starts with nothing to recover.
    #[default]
    Native,
    /// PostgreSQL, when it is started.
    Postgres,
}

/// Make a mirror the new coordinator.
///
/// Checks that the old primary does not answer, stops the receiver if one runs, proves all WAL of the mirror whole and
/// says how far it reaches, asks, replays what is not replayed yet, and ends recovery on a new timeline: the next
/// `pg_ctl start` has nothing to recover and accepts writes. Nothing is started here.
///
/// The old primary must never come back as it was: two primaries would each have transactions that the other lacks.
#[derive(Debug, Args)]
#[command(name = "activate")]
pub struct ActivateArgs {
    /// The mirror directory.
    #[arg(short = 'D', long, value_name = "DIR")]
    pub pgdata: PathBuf,

    /// The primary that is to be replaced. Default: the one that `init` was given.
    #[arg(long, value_name = "CONNINFO")]
    pub primary: Option<String>,

    /// Who replays the mirror's WAL and ends recovery: this command, or PostgreSQL when it is started.
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    pub recovery: RecoveryBy,

    /// Do not ask.
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Activate although the primary still answers. Stop it first if you can: what is committed there after this is not
    /// in the mirror.
    #[arg(short = 'f', long)]
    pub force: bool,

    /// Activate although WAL behind all that is known to have been acknowledged is damaged, as a loss of power may leave it.
    /// The WAL from there on is given up.
    #[arg(long)]
    pub discard_damaged_wal: bool,

    /// Leave synchronous_standby_names as it was copied from the old primary. By default it is emptied, since the standbys
    /// that it names do not follow the new primary yet and the first commit would wait for them.
    #[arg(long)]
    pub keep_synchronous_standby_names: bool,

    /// How long the primary may take to answer before it counts as lost, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub primary_timeout: Duration,

    /// Print the facts as a JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}
