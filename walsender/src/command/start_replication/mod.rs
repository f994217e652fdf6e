//! `START_REPLICATION` of physical WAL.

mod reply_check;
mod stream;

use walstream::protocol::identify::NextTimeline;
use walstream::sync::WalSenderState;
use walstream::{Lsn, TimelineId};

use crate::connection::{Client, Interruption, Session};
use crate::refusal::Refusal;
use crate::slot::{AcquiredSlot, SlotError};
use crate::source::WalSource;
use stream::{Stream, StreamStart};

/// First version that does not let a slot be used whose WAL was given up.
const REFUSES_INVALIDATED_SINCE: u32 = 180_000;

/// # Source
/// `StartReplication` in `src/backend/replication/walsender.c`.
pub(super) async fn run(
    client: &mut Client,
    session: &Session,
    slot: Option<&str>,
    start_lsn: Lsn,
    timeline: Option<TimelineId>,
) -> Result<(), Interruption> {
    let shared = &session.shared;
    let slot = slot.map(|name| acquire(session, name)).transpose()?;
    let flushed = shared.source.flushed();
    let newest = *flushed.borrow();
    let timeline = timeline.unwrap_or(newest.timeline);
    let mut next = next_timeline(&*shared.source, timeline, newest.timeline)?;
    if let Some(next) = next
        && next.start_lsn < start_lsn
    {
        return Err(not_in_history(start_lsn, timeline, next.start_lsn).into());
    }
    // From the switch point itself on there is nothing to stream: the answer is the next timeline, without a COPY.
    if next.is_none_or(|next| start_lsn < next.start_lsn) {
        session.standby.set_state(WalSenderState::Catchup);
        client.answer.copy_both_response();
        client.flush().await?;
        if newest.lsn < start_lsn {
            let flush_lsn = newest.lsn;
            return Err(Refusal::error(
                "XX000",
                format!(
                    "requested starting point {start_lsn} is ahead of the WAL flush position of this server {flush_lsn}"
                ),
            )
            .into());
        }
        let start = StreamStart {
            slot,
            timeline,
            next,
            start_lsn,
        };
        next = Stream::new(session, start, flushed).run(client).await?;
    }
    if let Some(next) = next {
        client
            .answer
            .single_row(&NextTimeline::COLUMNS, &next.values());
    }
    client.answer.command_complete("START_STREAMING");
    // Clients rely on the second one.
    client.answer.command_complete("START_REPLICATION");
    Ok(())
}

/// Takes the slot for the stream.
///
/// Before version 18 a slot whose WAL was given up may be used: where the WAL at the start position is gone, as it is
/// then, the client gets the error about that; where it is there, the slot keeps WAL again.
///
/// # Source
/// `ReplicationSlotAcquire` in `src/backend/replication/slot.c`, since version 18 with `error_if_invalid`.
fn acquire(session: &Session, name: &str) -> Result<AcquiredSlot, Refusal> {
    let slot = session.shared.slots.acquire(name, session.key.pid)?;
    let version = session.shared.source.identity().server_version_num;
    if slot.is_invalidated() && version >= REFUSES_INVALIDATED_SINCE {
        return Err(SlotError::Invalidated(name.to_owned()).into());
    }
    Ok(slot)
}

/// Where the history of the newest timeline leaves `timeline`; `None` when it is the newest.
fn next_timeline(
    source: &dyn WalSource,
    timeline: TimelineId,
    newest: TimelineId,
) -> Result<Option<NextTimeline>, Refusal> {
    if timeline == newest {
        return Ok(None);
    }
    let history = super::history(source, newest)?;
    match (
        history.switch_point(timeline),
        history.next_timeline(timeline),
    ) {
        (Some(start_lsn), Some(timeline)) => Ok(Some(NextTimeline {
            timeline,
            start_lsn,
        })),
        _ => Err(Refusal::error(
            "XX000",
            format!("requested timeline {timeline} is not in this server's history"),
        )),
    }
}

fn not_in_history(start_lsn: Lsn, timeline: TimelineId, switch_lsn: Lsn) -> Refusal {
    Refusal::error(
        "XX000",
        format!("requested starting point {start_lsn} on timeline {timeline} is not in this server's history"),
    )
    .with_detail(format!(
        "This server's history forked from timeline {timeline} at {switch_lsn}."
    ))
}
