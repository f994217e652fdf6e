//! A backup of a data directory that a server is using: the thread that reads it makes events, which go to the client.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use walstream::protocol::base_backup::{BackupGeneration, BackupMessage};
use walstream::protocol::command::{BackupCheckpoint, BackupTarget, BaseBackup};
use walstream::protocol::identify::{BackupPosition, BackupTablespace};
use walstream::protocol::message::ErrorFields;

use super::pace::Pace;
use super::{CHUNK, PROGRESS_INTERVAL, position, put};
use crate::backup::{
    BackupError, BackupEvent, BackupJob, BackupSession, BackupStart, BackupStop, CompressionSpec,
    LiveServer, ServerNotice, Tablespace, produce,
};
use crate::command::unsupported;
use crate::connection::answer::Part;
use crate::connection::{Client, Interruption, Session, closed};
use crate::counters::RunningBackup;
use crate::refusal::Refusal;
use crate::source::WalPosition;

/// Label of a backup that is given none.
const DEFAULT_LABEL: &str = "base backup";

/// Content of one message where no rate is asked for: fewer and larger ones cost less.
const LARGE_CHUNK: usize = 128 << 10;

/// Pieces that wait for the client.
const PIECES_AHEAD: usize = 4;

/// A backup on its way.
struct Sending {
    generation: BackupGeneration,
    start: WalPosition,
    tablespaces: Vec<Tablespace>,
    /// In backup mode until all files were read.
    session: Option<Box<dyn BackupSession>>,
    waits_for_archive: bool,
    notices: mpsc::UnboundedReceiver<ServerNotice>,
    end: Option<WalPosition>,
    /// Whether a COPY runs.
    is_copying: bool,
    /// Whether archives and manifest go to the client at all.
    is_sent: bool,
    running: RunningBackup,
    pace: Pace,
    bytes_sent: u64,
    reported_at: Instant,
}

pub(super) async fn run(
    client: &mut Client,
    session: &Session,
    command: &BaseBackup,
    server: Arc<dyn LiveServer>,
    running: RunningBackup,
) -> Result<(), Interruption> {
    if command.incremental {
        return Err(unsupported("an incremental backup").into());
    }
    let is_sent = goes_to_client(command.target.as_ref())?;
    let compression = match &command.compression {
        Some(compression) => CompressionSpec::parse(compression).map_err(Refusal::from)?,
        None => CompressionSpec::NONE,
    };
    let generation =
        BackupGeneration::for_version(session.shared.source.identity().server_version_num);
    let label = command
        .label
        .clone()
        .unwrap_or_else(|| DEFAULT_LABEL.to_owned());
    let is_fast = command.checkpoint == BackupCheckpoint::Fast;
    let begun = server.start(label, is_fast).await.map_err(Refusal::from)?;
    let BackupStart {
        start,
        label,
        tablespaces,
        session: backup_mode,
        notices,
    } = begun;
    let job = BackupJob {
        label: label.format(server.facts().segment_size),
        command: command.clone(),
        compression,
        start,
        tablespaces: tablespaces.clone(),
        piece_size: if command.max_rate_kib.is_some() {
            CHUNK
        } else {
            LARGE_CHUNK
        },
        is_before_15: generation == BackupGeneration::CopyPerArchive,
        server,
    };
    let mut sending = Sending {
        generation,
        start,
        tablespaces,
        session: Some(backup_mode),
        waits_for_archive: command.wait,
        notices,
        end: None,
        is_copying: false,
        is_sent,
        running,
        pace: Pace::new(command.max_rate_kib),
        bytes_sent: 0,
        reported_at: Instant::now(),
    };
    let (events, mut received) = mpsc::channel(PIECES_AHEAD);
    let producing = tokio::task::spawn_blocking(move || produce(&job, events));
    while let Some(event) = received.recv().await {
        sending.handle(client, event).await?;
        client.flush().await?;
    }
    let produced = match producing.await {
        Ok(produced) => produced,
        Err(error) => return Err(Refusal::error("XX000", error.to_string()).into()),
    };
    match (produced, sending.end) {
        (Ok(()), Some(end)) => {
            sending.finish(client, end);
            client.answer.command_complete("BASE_BACKUP");
            Ok(())
        }
        (Err(error @ BackupError::Checksums), Some(end)) => {
            // Everything was sent; the client is not to trust it.
            sending.finish(client, end);
            Err(Refusal::from(error).into())
        }
        (Err(BackupError::ClientGone) | Ok(()), _) => Err(closed()),
        (Err(error), _) => Err(Refusal::from(error).into()),
    }
}

/// Whether the data goes to the client, or nowhere.
///
/// # Source
/// `BaseBackupGetTargetHandle` in `src/backend/backup/basebackup_target.c`.
fn goes_to_client(target: Option<&BackupTarget>) -> Result<bool, Refusal> {
    let Some(target) = target else {
        return Ok(true);
    };
    match (target.name.as_str(), &target.detail) {
        ("client", None) => Ok(true),
        ("blackhole", None) => Ok(false),
        ("client" | "blackhole", Some(_)) => Err(Refusal::error(
            "42601",
            format!("target \"{}\" does not accept a target detail", target.name),
        )),
        ("server", _) => Err(unsupported("a base backup that stays on the server")
            .with_hint("Let pg_basebackup write to the directory itself.")),
        (name, _) => Err(Refusal::unsupported(format!(
            "unrecognized target: \"{name}\""
        ))),
    }
}

fn tell(client: &mut Client, notice: &ServerNotice) {
    let fields = ErrorFields::new(&notice.severity, &notice.sqlstate, &notice.message);
    client.answer.notice(match &notice.hint {
        Some(hint) => fields.with(b'H', hint),
        None => fields,
    });
}

impl Sending {
    async fn handle(
        &mut self,
        client: &mut Client,
        event: BackupEvent,
    ) -> Result<(), Interruption> {
        let is_single = self.generation == BackupGeneration::SingleCopy;
        match event {
            BackupEvent::Sizes(sizes) => self.begin(client, sizes.as_deref()),
            BackupEvent::Archive { name, location } if is_single => {
                let location = location.as_deref();
                put(
                    client,
                    &BackupMessage::NewArchive {
                        name: &name,
                        location,
                    },
                );
            }
            BackupEvent::Manifest if is_single => put(client, &BackupMessage::Manifest),
            BackupEvent::Archive { .. } | BackupEvent::Manifest => self.begin_copy(client),
            BackupEvent::Data { bytes, bytes_done } => {
                self.piece(client, bytes).await;
                if is_single && self.reported_at.elapsed() >= PROGRESS_INTERVAL {
                    self.report(client, bytes_done);
                }
            }
            BackupEvent::ManifestData(bytes) => self.piece(client, bytes).await,
            BackupEvent::ArchiveEnd { bytes_done } if is_single => self.report(client, bytes_done),
            BackupEvent::ArchiveEnd { .. } => self.end_copy(client),
            BackupEvent::Stop(answer) => {
                let Some(session) = self.session.take() else {
                    return Err(closed());
                };
                let stop = self.stop(client, session).await?;
                self.end = Some(stop.end);
                // Should the thread have ended, its error is told.
                let _ = answer.send(stop);
            }
            BackupEvent::Warning(text) => client.answer.warning(&text),
        }
        Ok(())
    }

    /// Ends backup mode; what the server tells meanwhile, such as what it waits for, the client hears at once.
    async fn stop(
        &mut self,
        client: &mut Client,
        session: Box<dyn BackupSession>,
    ) -> Result<BackupStop, Interruption> {
        let mut stopping = session.stop(self.waits_for_archive);
        loop {
            tokio::select! {
                biased;
                Some(notice) = self.notices.recv() => {
                    tell(client, &notice);
                    client.flush().await?;
                }
                stopped = &mut stopping => {
                    while let Some(notice) = self.notices.recv().await {
                        tell(client, &notice);
                    }
                    return Ok(stopped.map_err(Refusal::from)?);
                }
            }
        }
    }

    fn begin_copy(&mut self, client: &mut Client) {
        client.answer.copy_out_response();
        self.is_copying = true;
    }

    fn end_copy(&mut self, client: &mut Client) {
        if self.is_copying {
            client.answer.copy_done();
        }
        self.is_copying = false;
    }

    fn begin(&mut self, client: &mut Client, sizes: Option<&[u64]>) {
        let answer = &mut client.answer;
        answer.single_row(&BackupPosition::COLUMNS, &position(self.start).values());
        answer.command_complete("SELECT");
        answer.row_description(&BackupTablespace::COLUMNS);
        let all = self.tablespaces.iter().map(Some).chain([None]);
        for (index, tablespace) in all.enumerate() {
            use std::os::unix::ffi::OsStrExt;
            let size = sizes.and_then(|sizes| sizes.get(index));
            let row = BackupTablespace {
                oid: tablespace.map(|tablespace| tablespace.oid),
                location: tablespace
                    .map(|tablespace| tablespace.path.as_os_str().as_bytes().to_vec()),
                size_kib: size.map(|size| size / 1024),
            };
            answer.data_row(&row.values());
        }
        answer.command_complete("SELECT");
        if self.generation == BackupGeneration::SingleCopy {
            self.begin_copy(client);
        }
    }

    async fn piece(&mut self, client: &mut Client, bytes: Bytes) {
        self.pace.wait(self.bytes_sent).await;
        self.bytes_sent += bytes.len() as u64;
        if !self.is_sent {
            return;
        }
        self.running.count(bytes.len());
        match self.generation {
            // The piece's kind, then the piece as it is.
            BackupGeneration::SingleCopy => {
                let kind = |out: &mut BytesMut| BackupMessage::Data(b"").encode(out);
                client
                    .answer
                    .copy_data_with_body(1, kind, Part::Memory(bytes));
            }
            BackupGeneration::CopyPerArchive => {
                client
                    .answer
                    .copy_data_with_body(0, |_| {}, Part::Memory(bytes));
            }
        }
    }

    fn report(&mut self, client: &mut Client, bytes_done: u64) {
        self.reported_at = Instant::now();
        put(client, &BackupMessage::Progress { bytes_done });
    }

    fn finish(&mut self, client: &mut Client, end: WalPosition) {
        // Before 15 it is the manifest's own, and there may be none.
        self.end_copy(client);
        let answer = &mut client.answer;
        answer.single_row(&BackupPosition::COLUMNS, &position(end).values());
        answer.command_complete("SELECT");
    }
}
