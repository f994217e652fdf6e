//! Options of `walreceiver demo`.

use std::path::PathBuf;

use clap::Args;

use super::postgres_programs::PostgresChoice;

/// Show a mirror's life, from the coordinator's first byte to its loss, in under a minute.
///
/// A coordinator runs, a mirror is made from it and follows it, the coordinator is lost in the middle of its work, and
/// the mirror takes over. Where PostgreSQL's programs are found, the coordinator is a PostgreSQL server made for this,
/// which commits transactions that wait for the mirror and is killed with SIGKILL; PostgreSQL is then started on the
/// mirror and asked for every commit that was acknowledged. Otherwise it is a recorded PostgreSQL server, which needs
/// nothing installed. Nothing on this machine is touched but a temporary directory, which is removed in the end.
///
/// Exits with a code other than 0 when anything that was promised is not in the mirror.
#[derive(Args, Clone, Debug)]
#[command(name = "demo")]
pub struct DemoArgs {
    /// Where PostgreSQL's programs are: a directory with postgres and initdb in it, auto to look for them, or none to
    /// use the recorded server.
    #[arg(long, value_name = "BINDIR|auto|none", default_value = "auto")]
    pub postgres: PostgresChoice,

    /// Leave the mirror in this directory, which must be empty or not exist yet, for looking around.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,

    /// Print the facts at the end as a JSON object on standard output, and nothing else.
    #[arg(long)]
    pub json: bool,
}
