//! `CREATE_REPLICATION_SLOT`, `READ_REPLICATION_SLOT` and `DROP_REPLICATION_SLOT`, for physical slots.

use walstream::Lsn;
use walstream::protocol::command::{CreateReplicationSlot, SlotKind};
use walstream::protocol::identify::{CreatedSlot, SlotPosition};

use crate::connection::Session;
use crate::connection::answer::Answer;
use crate::refusal::Refusal;

/// # Source
/// `CreateReplicationSlot` in `src/backend/replication/walsender.c`.
pub(super) fn create(
    answer: &mut Answer,
    session: &Session,
    create: &CreateReplicationSlot,
) -> Result<(), Refusal> {
    let SlotKind::Physical { reserve_wal } = create.kind else {
        return Err(super::unsupported("a logical replication slot"));
    };
    session.shared.slots.create(
        &create.slot,
        create.temporary.then_some(session.key.pid),
        reserve_wal.then(|| session.shared.source.restart_lsn()),
    )?;
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
pub(super) fn read(answer: &mut Answer, session: &Session, slot: &str) {
    let timeline = session.shared.source.flushed().borrow().timeline;
    let position = session
        .shared
        .slots
        .read(slot)
        .map(|restart_lsn| SlotPosition {
            restart_lsn,
            restart_timeline: restart_lsn.map(|_| timeline),
        });
    answer.single_row(
        &SlotPosition::COLUMNS,
        &SlotPosition::values(position.as_ref()),
    );
    answer.command_complete("READ_REPLICATION_SLOT");
}

/// # Source
/// `DropReplicationSlot` in `src/backend/replication/walsender.c`.
pub(super) fn drop_slot(answer: &mut Answer, session: &Session, slot: &str) -> Result<(), Refusal> {
    session.shared.slots.drop_slot(slot, session.key.pid)?;
    answer.command_complete("DROP_REPLICATION_SLOT");
    Ok(())
}
