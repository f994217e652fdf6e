//! `CREATE_REPLICATION_SLOT`, `READ_REPLICATION_SLOT` and `DROP_REPLICATION_SLOT`, for physical slots.

use std::sync::Arc;

use walstream::protocol::command::{CreateReplicationSlot, SlotKind};
use walstream::protocol::identify::{CreatedSlot, SlotPosition};
use walstream::{Lsn, TimelineId};

use crate::connection::Session;
use crate::connection::answer::Answer;
use crate::refusal::Refusal;
use crate::slot::{PhysicalSlots, SlotError};
use crate::source::WalSource;

/// # Source
/// `CreateReplicationSlot` in `src/backend/replication/walsender.c`.
pub(super) async fn create(
    answer: &mut Answer,
    session: &Session,
    create: &CreateReplicationSlot,
) -> Result<(), Refusal> {
    let SlotKind::Physical { reserve_wal } = create.kind else {
        return Err(super::unsupported("a logical replication slot"));
    };
    let source = Arc::clone(&session.shared.source);
    let restart_lsn = move || reserve_wal.then(|| source.restart_lsn());
    let (slots, pid) = (&session.shared.slots, session.key.pid);
    if create.temporary {
        // At once, as the connection must not end in between.
        slots.create_temporary_from(&create.slot, pid, restart_lsn)?;
    } else {
        let slot = create.slot.clone();
        write_files(session, move |slots| {
            slots.create_from(&slot, pid, restart_lsn)
        })
        .await?;
    }
    let created = CreatedSlot {
        slot: create.slot.clone(),
        consistent_point: Lsn::INVALID,
        snapshot: None,
        plugin: None,
    };
    answer.single_row(&CreatedSlot::COLUMNS, &created.values());
    answer.command_complete("CREATE_REPLICATION_SLOT");
    Ok(())
}

/// # Source
/// `ReadReplicationSlot` in `src/backend/replication/walsender.c`.
pub(super) fn read(answer: &mut Answer, session: &Session, slot: &str) -> Result<(), Refusal> {
    let position = session.shared.slots.read(slot).map(|slot| slot.restart_lsn);
    let position = match position {
        None => None,
        Some(restart_lsn) => Some(SlotPosition {
            restart_lsn,
            restart_timeline: restart_lsn
                .map(|lsn| timeline_at(&*session.shared.source, lsn))
                .transpose()?,
        }),
    };
    answer.single_row(
        &SlotPosition::COLUMNS,
        &SlotPosition::values(position.as_ref()),
    );
    answer.command_complete("READ_REPLICATION_SLOT");
    Ok(())
}

/// # Source
/// `DropReplicationSlot` in `src/backend/replication/walsender.c`.
pub(super) async fn drop_slot(
    answer: &mut Answer,
    session: &Session,
    slot: String,
) -> Result<(), Refusal> {
    let pid = session.key.pid;
    write_files(session, move |slots| slots.drop_slot(&slot, pid)).await?;
    answer.command_complete("DROP_REPLICATION_SLOT");
    Ok(())
}

/// Runs what blocks. Should the client leave meanwhile, it is done all the same.
async fn write_files(
    session: &Session,
    write: impl FnOnce(&PhysicalSlots) -> Result<(), SlotError> + Send + 'static,
) -> Result<(), Refusal> {
    let slots = session.shared.slots.clone();
    let written = tokio::task::spawn_blocking(move || write(&slots)).await;
    match written {
        Ok(result) => Ok(result?),
        Err(error) => Err(Refusal::error("XX000", error.to_string())),
    }
}

/// The timeline in the source's history that holds the byte at `lsn`.
fn timeline_at(source: &dyn WalSource, lsn: Lsn) -> Result<TimelineId, Refusal> {
    let newest = source.flushed().borrow().timeline;
    Ok(super::history(source, newest)?.timeline_at(lsn))
}
