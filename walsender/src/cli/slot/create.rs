//! `walsender slot create`.

use std::path::PathBuf;

use clap::Args;
use walsender::slot::PhysicalSlots;
use walstream::Lsn;

/// Makes a physical replication slot, durably
///
/// Without --restart-lsn the slot keeps WAL from the moment that its standby first reports a position: what was removed
/// until then, the standby misses. CREATE_REPLICATION_SLOT name PHYSICAL RESERVE_WAL, sent to a running sender, keeps
/// WAL at once.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the slot: lower case letters, digits and underscores
    name: String,
    /// Directory of the slots, made where it is missing
    #[arg(long, value_name = "DIR")]
    slots: PathBuf,
    /// Keep WAL from this position on, such as 0/3000028
    #[arg(long, value_name = "LSN")]
    restart_lsn: Option<Lsn>,
}

pub(super) fn run(args: &CreateArgs) -> anyhow::Result<()> {
    // How many there may be is for the sender to say.
    let slots = PhysicalSlots::open(&args.slots, usize::MAX)?;
    let restart_lsn = args.restart_lsn.and_then(Lsn::valid);
    slots.create(&args.name, std::process::id(), restart_lsn)?;
    Ok(())
}
