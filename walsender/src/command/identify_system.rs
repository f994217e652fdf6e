//! `IDENTIFY_SYSTEM`.

use walstream::protocol::identify::IdentifySystem;

use crate::connection::Session;
use crate::connection::answer::Answer;

/// # Source
/// `IdentifySystem` in `src/backend/replication/walsender.c`.
pub(super) fn run(answer: &mut Answer, session: &Session) {
    let identity = session.shared.source.identity();
    let flushed = *session.shared.source.flushed().borrow();
    let system = IdentifySystem {
        system_identifier: identity.system_identifier,
        timeline: flushed.timeline,
        flush_lsn: flushed.lsn,
        database: session.database.clone().map(String::into_bytes),
    };
    let version = identity.server_version_num;
    answer.single_row(&IdentifySystem::columns(version), &system.values(version));
    answer.command_complete("IDENTIFY_SYSTEM");
}
