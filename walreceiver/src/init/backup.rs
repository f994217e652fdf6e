//! `BASE_BACKUP` over a replication connection: the header, the archives and the manifest, the end.
//!
//! Archives are unpacked on a thread while they arrive. Both generations of servers give the same sequence here
//! ([`BackupStream`]).

use bytes::Bytes;
use tokio::task::JoinHandle;
use walstream::protocol::ProtocolError;
use walstream::protocol::base_backup::{BackupEvent, BackupGeneration, BackupStream};
use walstream::protocol::command::{
    BackupCheckpoint, BaseBackup, Command, Grammar, ManifestChecksums, ManifestOption,
};
use walstream::protocol::identify::{BackupPosition, BackupTablespace};

use super::InitOptions;
use super::archive_channel::{ArchiveSender, archive_channel};
use super::disk_work::DiskWork;
use super::error::InitError;
use super::manifest::{self, ManifestError};
use super::options::Checkpoint;
use super::progress::InitObserver;
use super::unpack::{Destination, UnpackError, Unpacked, unpack};
use crate::connection::{BackendMessage, Connection, ConnectionError};

/// What a backup begins with.
#[derive(Clone, Debug)]
pub struct BackupHeader {
    /// Where replay of the backup starts.
    pub start: BackupPosition,
    /// The archives that follow: tablespaces and the data directory.
    pub tablespaces: Vec<BackupTablespace>,
    /// Whether a manifest follows them.
    pub has_manifest: bool,
}

impl BackupHeader {
    /// Bytes of all archives as the server estimates them.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        let kib = self
            .tablespaces
            .iter()
            .map(|row| row.size_kib)
            .sum::<Option<u64>>()?;
        kib.checked_mul(1024)
    }
}

/// What a backup was.
#[derive(Debug)]
pub struct ReceivedBackup {
    /// Where the backup ends: without WAL up to here it is not consistent.
    pub end: BackupPosition,
    /// Everything that was unpacked.
    pub unpacked: Unpacked,
    /// The manifest's text.
    pub manifest: Option<Vec<u8>>,
    /// Bytes of the archives.
    pub bytes: u64,
}

/// Starts the backup, and waits for the checkpoint that it begins with.
///
/// # Errors
/// [`InitError::Server`] when the server refuses, [`InitError::Protocol`] when its answer makes no sense.
pub async fn start(
    connection: &mut Connection,
    options: &InitOptions,
) -> Result<BackupHeader, InitError> {
    let grammar = Grammar::for_version(connection.server_version());
    let has_manifest = grammar.has_manifests();
    let command = Command::BaseBackup(BaseBackup {
        label: Some(options.label.clone()),
        progress: true,
        checkpoint: match options.checkpoint {
            Checkpoint::Fast => BackupCheckpoint::Fast,
            Checkpoint::Spread => BackupCheckpoint::Spread,
        },
        // The WAL is streamed beside it, so there is nothing to wait for at the end.
        wait: false,
        max_rate_kib: options.max_rate.map(|rate| rate.0),
        manifest: if has_manifest {
            ManifestOption::Yes
        } else {
            ManifestOption::No
        },
        manifest_checksums: has_manifest.then_some(options.checksums),
        ..BaseBackup::default()
    });
    let failed = "could not start the base backup";
    connection
        .send_query(&command.format(grammar))
        .await
        .map_err(InitError::server(failed))?;
    let rows = read_rows(connection)
        .await
        .map_err(InitError::server(failed))?;
    let start = BackupPosition::parse(&borrow(rows.first()))?;
    let rows = read_rows(connection)
        .await
        .map_err(InitError::server(failed))?;
    let tablespaces = rows
        .iter()
        .map(|row| BackupTablespace::parse(&borrow(Some(row))))
        .collect::<Result<_, _>>()?;
    Ok(BackupHeader {
        start,
        tablespaces,
        has_manifest,
    })
}

/// Receives and unpacks everything. `destinations` are in the header's order.
///
/// Dropped half-way, it leaves files behind and perhaps a thread that still writes: see [`DiskWork::finished`].
///
/// # Errors
/// Those of the connection, of the protocol, and of unpacking.
pub async fn receive(
    connection: &mut Connection,
    header: &BackupHeader,
    destinations: &[Destination],
    algorithm: ManifestChecksums,
    disk_work: &DiskWork,
    observer: &dyn InitObserver,
) -> Result<ReceivedBackup, InitError> {
    let failed = "could not receive the base backup";
    let generation = BackupGeneration::for_version(connection.server_version());
    let mut stream = BackupStream::new(generation, &header.tablespaces, header.has_manifest);
    let mut backup = Receiving {
        destinations,
        algorithm,
        disk_work,
        observer,
        archive: None,
        unpacked: Unpacked::default(),
        manifest: None,
        bytes: 0,
    };
    while !stream.is_finished() {
        match connection
            .next_message()
            .await
            .map_err(InitError::server(failed))?
        {
            BackendMessage::CopyOutResponse => {
                if let Some(event) = stream.handle_copy_out()? {
                    backup.handle(event, &Bytes::new()).await?;
                }
            }
            BackendMessage::CopyData(payload) => {
                let event = stream.handle_copy_data(&payload)?;
                backup.handle(event, &payload).await?;
            }
            BackendMessage::CopyDone => {
                if let Some(event) = stream.handle_copy_done()? {
                    backup.handle(event, &Bytes::new()).await?;
                }
            }
            other => return Err(unexpected(failed, &other, "data of the base backup")),
        }
    }
    backup.end_archive().await?;
    let rows = read_rows(connection)
        .await
        .map_err(InitError::server(failed))?;
    let end = BackupPosition::parse(&borrow(rows.first()))?;
    read_end(connection)
        .await
        .map_err(InitError::server(failed))?;
    Ok(ReceivedBackup {
        end,
        unpacked: backup.unpacked,
        manifest: backup.manifest,
        bytes: backup.bytes,
    })
}

struct Receiving<'a> {
    destinations: &'a [Destination],
    algorithm: ManifestChecksums,
    disk_work: &'a DiskWork,
    observer: &'a dyn InitObserver,
    archive: Option<OpenArchive>,
    unpacked: Unpacked,
    manifest: Option<Vec<u8>>,
    bytes: u64,
}

struct OpenArchive {
    name: String,
    sender: ArchiveSender,
    thread: JoinHandle<Result<Unpacked, UnpackError>>,
}

impl Receiving<'_> {
    async fn handle(&mut self, event: BackupEvent<'_>, payload: &Bytes) -> Result<(), InitError> {
        match event {
            BackupEvent::Archive {
                tablespace_index,
                name,
            } => {
                self.end_archive().await?;
                self.begin_archive(tablespace_index, name).await
            }
            BackupEvent::Manifest => {
                self.end_archive().await?;
                self.manifest = Some(Vec::new());
                Ok(())
            }
            BackupEvent::Data(data) => match (&mut self.manifest, &self.archive) {
                (Some(text), _) => {
                    if text.len().saturating_add(data.len()) > manifest::MAX_LENGTH {
                        return Err(ManifestError::TooLong.into());
                    }
                    text.extend_from_slice(data);
                    Ok(())
                }
                (None, Some(archive)) => {
                    let sent = archive.sender.data(payload.slice_ref(data)).await;
                    self.bytes = self
                        .bytes
                        .saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    self.observer.progress(self.bytes);
                    match sent {
                        Ok(()) => Ok(()),
                        // The thread's own error says why it stopped.
                        Err(_) => self.end_archive().await,
                    }
                }
                (None, None) => Err(out_of_order("base backup data")),
            },
            // What was received is counted here, which is the same before compression.
            BackupEvent::Progress { .. } | BackupEvent::End => Ok(()),
        }
    }

    async fn begin_archive(&mut self, index: usize, name: String) -> Result<(), InitError> {
        let destination = self
            .destinations
            .get(index)
            .cloned()
            .ok_or_else(|| out_of_order("new archive"))?;
        if !name.ends_with(".tar") {
            let bad = ProtocolError::BadField {
                message: "new archive",
                field: "name",
                found: name,
                expected: "a tar archive that is not compressed",
            };
            return Err(bad.into());
        }
        let permit = self.disk_work.begin().await;
        let (sender, reader) = archive_channel();
        let algorithm = self.algorithm;
        let thread = tokio::task::spawn_blocking(move || {
            let result = unpack(reader, &destination, algorithm);
            drop(permit);
            result
        });
        self.archive = Some(OpenArchive {
            name,
            sender,
            thread,
        });
        Ok(())
    }

    /// Ends the archive that is open, and takes over what it became.
    async fn end_archive(&mut self) -> Result<(), InitError> {
        let Some(OpenArchive {
            name,
            sender,
            thread,
        }) = self.archive.take()
        else {
            return Ok(());
        };
        // A thread that no longer reads has failed, and says so below.
        let _ = sender.end().await;
        let unpacked = thread.await?.map_err(|source| InitError::Unpack {
            archive: name,
            source,
        })?;
        self.unpacked.files.extend(unpacked.files);
        self.unpacked.dropped.extend(unpacked.dropped);
        self.unpacked.late_links.extend(unpacked.late_links);
        Ok(())
    }
}

type RowValues = Vec<Option<Bytes>>;

/// Reads one result, from its RowDescription to its CommandComplete. A backup sends several in one command.
async fn read_rows(connection: &mut Connection) -> Result<Vec<RowValues>, ConnectionError> {
    let mut rows = Vec::new();
    let mut described = false;
    loop {
        match connection.next_message().await? {
            BackendMessage::RowDescription(_) if !described => described = true,
            BackendMessage::DataRow(row) if described => rows.push(row),
            BackendMessage::CommandComplete(_) if described => return Ok(rows),
            other => {
                let message = other.name();
                return Err(ConnectionError::Unexpected {
                    message,
                    expected: "a result of the base backup",
                });
            }
        }
    }
}

async fn read_end(connection: &mut Connection) -> Result<(), ConnectionError> {
    loop {
        match connection.next_message().await? {
            BackendMessage::CommandComplete(_) => {}
            BackendMessage::ReadyForQuery => return Ok(()),
            other => {
                let message = other.name();
                return Err(ConnectionError::Unexpected {
                    message,
                    expected: "the end of the base backup",
                });
            }
        }
    }
}

fn borrow(row: Option<&RowValues>) -> Vec<Option<&[u8]>> {
    row.into_iter().flatten().map(Option::as_deref).collect()
}

fn unexpected(doing: &'static str, message: &BackendMessage, expected: &'static str) -> InitError {
    InitError::Server {
        doing,
        source: ConnectionError::Unexpected {
            message: message.name(),
            expected,
        },
    }
}

fn out_of_order(message: &'static str) -> InitError {
    ProtocolError::OutOfOrder {
        message,
        state: "no archive was being copied",
    }
    .into()
}
