//! `TIMELINE_HISTORY`.

use walstream::TimelineId;
use walstream::protocol::identify::TimelineHistoryFile;
use walstream::wal::segment_name::WalFileName;

use crate::connection::Session;
use crate::connection::answer::Answer;
use crate::refusal::Refusal;

/// # Source
/// `SendTimeLineHistory` in `src/backend/replication/walsender.c`.
pub(super) fn run(
    answer: &mut Answer,
    session: &Session,
    timeline: TimelineId,
) -> Result<(), Refusal> {
    let source = &session.shared.source;
    let identity = source.identity();
    let name = WalFileName::History(timeline).file_name(identity.segment_size);
    let Some(content) = source.timeline_history(timeline)? else {
        return Err(Refusal::error(
            "58P01",
            format!("could not open file \"pg_wal/{name}\": No such file or directory"),
        ));
    };
    let file = TimelineHistoryFile {
        name,
        content: content.to_vec(),
    };
    answer.single_row(
        &TimelineHistoryFile::columns(identity.server_version_num),
        &file.values(),
    );
    answer.command_complete("TIMELINE_HISTORY");
    Ok(())
}
