//! `walsender slot drop`.

use std::path::PathBuf;

use clap::Args;
use walsender::slot::{PhysicalSlots, read_slots};

/// Drops replication slots, durably
///
/// The WAL that a slot kept may be removed then, and a standby that still needs it has to be made anew.
#[derive(Debug, Args)]
pub(super) struct DropArgs {
    /// Names of the slots
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Directory of the slots
    #[arg(long, value_name = "DIR")]
    slots: PathBuf,
}

pub(super) fn run(args: &DropArgs) -> anyhow::Result<()> {
    // A directory that is missing is a mistake, and is not made here.
    read_slots(&args.slots)?;
    let slots = PhysicalSlots::open(&args.slots, usize::MAX)?;
    for name in &args.names {
        slots.drop_slot(name, std::process::id())?;
    }
    Ok(())
}
