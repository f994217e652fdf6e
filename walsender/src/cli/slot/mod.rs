//! `walsender slot`: the replication slots of a directory, without a sender.

mod create;
mod drop;
mod list;

use clap::{Args, Subcommand};

/// Lists, makes and drops the replication slots in a sender's directory
///
/// While a sender runs on the directory, only `list` works; use the replication protocol for the rest:
///
///   psql 'host=... user=... replication=1' -c 'CREATE_REPLICATION_SLOT name PHYSICAL RESERVE_WAL'
///
///   psql 'host=... user=... replication=1' -c 'DROP_REPLICATION_SLOT name'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SlotArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::ListArgs),
    Create(create::CreateArgs),
    Drop(drop::DropArgs),
}

pub(super) fn run(args: SlotArgs) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(&args),
        Command::Create(args) => create::run(&args),
        Command::Drop(args) => drop::run(&args),
    }
}
