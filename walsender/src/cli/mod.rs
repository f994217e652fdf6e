//! The command line: a file for each subcommand.

mod access_args;
mod exit;
mod limit_args;
mod observe;
mod serve;
mod serve_primary;
mod silent_prompt;
mod slot;
mod status;
mod verifier;
mod wal_keep_size;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Serves PostgreSQL WAL over the physical streaming replication protocol
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0 done   1 failed   2 wrong usage   3 the primary, or the sender that is asked, cannot be reached
  5 there is no such slot   6 the primary is another system, or went back   7 damaged file
  8 local storage failed   9 slot directory, or slot on the primary, in use by another process
  130 interrupted by a signal (128 and its number)";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Status(status::StatusArgs),
    Slot(slot::SlotArgs),
    Verifier(verifier::VerifierArgs),
}

/// Does what the process's arguments say.
pub(crate) async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Status(args) => status::run(&args),
        Command::Slot(args) => slot::run(args),
        Command::Verifier(args) => verifier::run(&args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walsender: error: {error:#}");
            exit::code(&error)
        }
    }
}
