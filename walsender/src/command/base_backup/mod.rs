//! `BASE_BACKUP`: of a running server's data directory (`live`), or a backup that the source holds (`stored`).

mod live;
mod pace;
mod stored;

use std::time::Duration;

use bytes::BytesMut;
use walstream::protocol::base_backup::BackupMessage;
use walstream::protocol::command::BaseBackup;
use walstream::protocol::identify::BackupPosition;
use walstream::sync::WalSenderState;

use crate::connection::{Client, Interruption, Session};
use crate::source::WalPosition;

/// Content of one CopyData message (`SINK_BUFFER_LENGTH`).
const CHUNK: usize = 32 << 10;
/// How often the client hears how far the backup is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// # Source
/// `SendBaseBackup` in `src/backend/backup/basebackup.c`, `src/backend/backup/basebackup_copy.c`.
pub(super) async fn run(
    client: &mut Client,
    session: &Session,
    command: &BaseBackup,
) -> Result<(), Interruption> {
    session.standby.set_state(WalSenderState::Backup);
    let running = session.shared.counters.begin_backup();
    match session.shared.source.live_backups() {
        Some(server) => live::run(client, session, command, server, running).await,
        None => stored::run(client, session, command, &running).await,
    }
}

fn put(client: &mut Client, message: &BackupMessage<'_>) {
    let mut payload = BytesMut::new();
    message.encode(&mut payload);
    client.answer.copy_data(&payload);
}

fn position(position: WalPosition) -> BackupPosition {
    BackupPosition {
        lsn: position.lsn,
        timeline: position.timeline,
    }
}
