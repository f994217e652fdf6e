//! The commands of the replication protocol, one file each.

mod base_backup;
mod identify_system;
mod replication_slot;
mod show;
mod start_replication;
mod timeline_history;

use walstream::TimelineId;
use walstream::protocol::command::Command;
use walstream::timeline::TimelineHistory;

use crate::connection::{Client, Interruption, Session};
use crate::refusal::Refusal;
use crate::source::WalSource;

/// Runs one command up to, and without, ReadyForQuery.
///
/// # Source
/// `exec_replication_command` in `src/backend/replication/walsender.c`.
pub(crate) async fn run(
    client: &mut Client,
    session: &Session,
    command: Command,
) -> Result<(), Interruption> {
    match command {
        Command::IdentifySystem => identify_system::run(&mut client.answer, session),
        Command::Show { name } => show::run(&mut client.answer, session, &name)?,
        Command::TimelineHistory { timeline } => {
            timeline_history::run(&mut client.answer, session, timeline)?;
        }
        Command::CreateReplicationSlot(create) => {
            replication_slot::create(&mut client.answer, session, &create).await?;
        }
        Command::ReadReplicationSlot { slot } => {
            replication_slot::read(&mut client.answer, session, &slot)?;
        }
        // Nobody waits here for a slot: a slot in use is in use for as long as its standby lives.
        Command::DropReplicationSlot { slot, .. } => {
            replication_slot::drop_slot(&mut client.answer, session, slot).await?;
        }
        Command::StartReplication {
            slot,
            start_lsn,
            timeline,
        } => start_replication::run(client, session, slot.as_deref(), start_lsn, timeline).await?,
        Command::BaseBackup(backup) => base_backup::run(client, session, &backup).await?,
        Command::StartLogicalReplication { .. } => {
            return Err(unsupported("logical decoding").into());
        }
        Command::AlterReplicationSlot(_) => {
            return Err(unsupported("ALTER_REPLICATION_SLOT").into());
        }
        Command::UploadManifest => return Err(unsupported("UPLOAD_MANIFEST").into()),
    }
    Ok(())
}

/// The history of the source's newest timeline.
fn history(source: &dyn WalSource, newest: TimelineId) -> Result<TimelineHistory, Refusal> {
    match source.timeline_history(newest)? {
        Some(content) => TimelineHistory::parse(newest, &content)
            .map_err(|error| Refusal::error("XX000", error.to_string())),
        None => Ok(TimelineHistory::without_ancestors(newest)),
    }
}

fn unsupported(what: &str) -> Refusal {
    Refusal::unsupported(format!("{what} is not supported by this server"))
}
