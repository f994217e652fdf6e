//! [`produce`]: a whole backup, in order, on one thread.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use walstream::protocol::command::BaseBackup;
use walstream::storage::tablespace_map::{TablespaceMapEntry, format_tablespace_map};

use super::archive_encoder::{ArchiveEncoder, Pieces};
use super::compression::CompressionSpec;
use super::error::BackupError;
use super::manifest::ManifestWriter;
use super::server::{BackupFacts, BackupStop, LiveServer};
use super::tablespaces::Tablespace;
use super::tar_header::{Attributes, BLOCK, Kind, header, padding};
use super::walk::{ArchiveSize, FoundFile, Members, Tree, file_mode};
use crate::source::WalPosition;

/// Zero blocks at the end of a tar archive.
const ARCHIVE_END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Bytes of a manifest in a piece.
const MANIFEST_PIECE: usize = 32 << 10;

/// What the thread hands to the client's task.
#[derive(Debug)]
pub(crate) enum BackupEvent {
    /// Estimated sizes of the archives in bytes, in their order; `None` unless progress was asked for. Comes first.
    Sizes(Option<Vec<u64>>),
    /// An archive begins.
    Archive {
        name: String,
        /// Where the tablespace is; `None` for the data directory.
        location: Option<Vec<u8>>,
    },
    /// A piece of it.
    Data { bytes: Bytes, bytes_done: u64 },
    /// It has ended.
    ArchiveEnd { bytes_done: u64 },
    /// All files were read: backup mode is to be ended, and the answer to go there.
    Stop(oneshot::Sender<BackupStop>),
    /// The manifest begins.
    Manifest,
    /// A piece of it.
    ManifestData(Bytes),
    /// Something that the client is to be told.
    Warning(String),
}

/// A backup to be made.
pub(crate) struct BackupJob {
    pub(crate) server: Arc<dyn LiveServer>,
    pub(crate) command: BaseBackup,
    pub(crate) compression: CompressionSpec,
    pub(crate) start: WalPosition,
    /// Content of `backup_label`.
    pub(crate) label: String,
    pub(crate) tablespaces: Vec<Tablespace>,
    /// Most bytes in a piece.
    pub(crate) piece_size: usize,
    /// Whether it goes out as servers before 15 send it: archives lack the two zero blocks at their end, and a piece is a
    /// header, or within a member's content, or its padding, as their clients take it.
    pub(crate) is_before_15: bool,
}

/// The parts of a backup in the making.
pub(super) struct Producer {
    pub(super) events: mpsc::Sender<BackupEvent>,
    pub(super) root: PathBuf,
    pub(super) facts: BackupFacts,
    pub(super) start: WalPosition,
    pub(super) manifest: ManifestWriter,
    pub(super) verifies_pages: bool,
    /// Pages with a wrong checksum.
    pub(super) damaged_pages: u64,
    pub(super) buffer: Vec<u8>,
    /// The tablespace whose archive is written.
    pub(super) tablespace: Option<u32>,
    compression: CompressionSpec,
    piece_size: usize,
    is_before_15: bool,
    bytes_done: Rc<Cell<u64>>,
    encoder: Option<ArchiveEncoder>,
    own_files: Attributes,
}

/// Makes the backup. Blocks for as long as the client takes it.
///
/// # Errors
/// [`BackupError`]; [`BackupError::Checksums`] only when everything has been handed on.
///
/// # Source
/// `perform_base_backup` in `src/backend/backup/basebackup.c`.
pub(crate) fn produce(
    job: &BackupJob,
    events: mpsc::Sender<BackupEvent>,
) -> Result<(), BackupError> {
    let mut producer = Producer::new(job, events)?;
    let facts = producer.facts.clone();
    let version_directory = format!(
        "PG_{}_{}",
        facts.server_version_num / 10_000,
        facts.catalog_version
    );
    let version_directory = version_directory.as_bytes();
    let root = producer.root.clone();
    let inside: Vec<_> = job
        .tablespaces
        .iter()
        .filter_map(|tablespace| tablespace.inside.clone())
        .collect();
    let base = |with_links| {
        Tree::base(
            &root,
            &inside,
            with_links,
            version_directory,
            facts.server_version_num,
        )
    };

    let sizes = job.command.progress.then(|| {
        let trees = job
            .tablespaces
            .iter()
            .map(|tablespace| Ok(Tree::tablespace(&tablespace.path, version_directory)));
        let sizes = trees.chain([base(true)]).map(|tree| {
            let mut size = ArchiveSize::default();
            tree?.walk(&mut size)?;
            Ok(size.0)
        });
        sizes.collect::<Result<Vec<_>, BackupError>>()
    });
    producer.send(BackupEvent::Sizes(sizes.transpose()?))?;

    for tablespace in &job.tablespaces {
        producer.begin_archive(
            &tablespace.oid.to_string(),
            Some(tablespace.path.as_os_str().as_bytes().to_vec()),
        )?;
        producer.tablespace = Some(tablespace.oid);
        Tree::tablespace(&tablespace.path, version_directory).walk(&mut producer)?;
        producer.tablespace = None;
        producer.end_archive()?;
    }
    producer.begin_archive("base", None)?;
    producer.content(b"backup_label", job.label.as_bytes())?;
    if job.command.tablespace_map {
        producer.content(b"tablespace_map", &tablespace_map(&job.tablespaces))?;
    }
    base(!job.command.tablespace_map)?.walk(&mut producer)?;
    producer.control_file(&*job.server)?;
    if !job.command.wal {
        producer.end_archive()?;
    }
    let (answer, stopped) = oneshot::channel();
    producer.send(BackupEvent::Stop(answer))?;
    let stop = stopped
        .blocking_recv()
        .map_err(|_| BackupError::ClientGone)?;
    if job.command.wal {
        producer.wal_segments(stop.end)?;
        producer.end_archive()?;
    }
    producer
        .manifest
        .add_wal(job.start, stop.end, &stop.history)?;
    drop(stop);
    producer.finish()
}

fn tablespace_map(tablespaces: &[Tablespace]) -> Vec<u8> {
    let entries: Vec<_> = tablespaces
        .iter()
        .map(|tablespace| TablespaceMapEntry {
            oid: tablespace.oid,
            path: tablespace.path.as_os_str().as_bytes().to_vec(),
        })
        .collect();
    format_tablespace_map(&entries)
}

impl Producer {
    fn new(job: &BackupJob, events: mpsc::Sender<BackupEvent>) -> Result<Self, BackupError> {
        let (root, facts) = (job.server.data_directory().to_owned(), job.server.facts());
        let metadata =
            fs::metadata(&root).map_err(BackupError::file("stat file or directory", &root))?;
        let command = &job.command;
        Ok(Self {
            manifest: ManifestWriter::new(
                command.manifest,
                command.manifest_checksums,
                facts.server_version_num,
                facts.system_identifier,
            )?,
            verifies_pages: command.verify_checksums && facts.has_data_checksums,
            damaged_pages: 0,
            // Whole pages, of any size.
            buffer: vec![0; 128 << 10],
            tablespace: None,
            compression: job.compression,
            piece_size: job.piece_size,
            is_before_15: job.is_before_15,
            bytes_done: Rc::default(),
            encoder: None,
            own_files: Attributes {
                mode: file_mode(&metadata),
                uid: metadata.uid(),
                gid: metadata.gid(),
                size: 0,
                mtime_unix_s: 0,
            },
            start: job.start,
            events,
            root,
            facts,
        })
    }

    pub(super) fn send(&self, event: BackupEvent) -> Result<(), BackupError> {
        self.events
            .blocking_send(event)
            .map_err(|_| BackupError::ClientGone)
    }

    pub(super) fn warn(&self, text: String) -> Result<(), BackupError> {
        tracing::warn!("base backup: {text}");
        self.send(BackupEvent::Warning(text))
    }

    fn begin_archive(&mut self, stem: &str, location: Option<Vec<u8>>) -> Result<(), BackupError> {
        let name = format!("{stem}.tar{}", self.compression.suffix());
        self.send(BackupEvent::Archive { name, location })?;
        let pieces = Pieces::new(
            self.events.clone(),
            self.piece_size,
            Rc::clone(&self.bytes_done),
        );
        self.encoder = Some(ArchiveEncoder::new(&self.compression, pieces)?);
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.bytes_done
            .set(self.bytes_done.get() + bytes.len() as u64);
        match &mut self.encoder {
            Some(encoder) => encoder.write(bytes),
            None => Ok(()),
        }
    }

    fn end_archive(&mut self) -> Result<(), BackupError> {
        if !self.is_before_15 {
            self.write(&ARCHIVE_END)?;
        }
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?;
        }
        self.send(BackupEvent::ArchiveEnd {
            bytes_done: self.bytes_done.get(),
        })
    }

    pub(super) fn header(
        &mut self,
        name: &[u8],
        kind: Kind<'_>,
        attributes: &Attributes,
    ) -> Result<(), BackupError> {
        self.write(&header(name, kind, attributes)?)?;
        self.end_piece()
    }

    /// Ends a member of this size.
    pub(super) fn pad(&mut self, size: u64) -> Result<(), BackupError> {
        self.end_piece()?;
        let zeros = ARCHIVE_END.get(..padding(size)).unwrap_or_default();
        self.write(zeros)?;
        self.end_piece()
    }

    /// What follows is to be in a message of its own, for clients of before 15.
    fn end_piece(&mut self) -> Result<(), BackupError> {
        match &mut self.encoder {
            Some(encoder) if self.is_before_15 => encoder.end_piece(),
            _ => Ok(()),
        }
    }

    /// A file that the backup adds.
    ///
    /// # Source
    /// `sendFileWithContent` in `src/backend/backup/basebackup.c`.
    pub(super) fn content(&mut self, name: &[u8], content: &[u8]) -> Result<(), BackupError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let attributes = Attributes {
            size: content.len() as u64,
            mtime_unix_s: i64::try_from(now).unwrap_or(i64::MAX),
            ..self.own_files
        };
        self.whole(name, content, &attributes)
    }

    fn whole(
        &mut self,
        name: &[u8],
        content: &[u8],
        attributes: &Attributes,
    ) -> Result<(), BackupError> {
        self.header(name, Kind::File, attributes)?;
        let mut checksum = self.manifest.checksum();
        checksum.update(content);
        self.write(content)?;
        self.pad(attributes.size)?;
        self.manifest
            .add_file(name, attributes.size, attributes.mtime_unix_s, checksum)
    }

    /// `pg_control`, which is read at one moment, whatever the server writes.
    fn control_file(&mut self, server: &dyn LiveServer) -> Result<(), BackupError> {
        let path = self.root.join("global/pg_control");
        let metadata =
            fs::symlink_metadata(&path).map_err(BackupError::file("stat file", &path))?;
        let content = server.control_file()?;
        let attributes = Attributes {
            size: content.len() as u64,
            ..Attributes::of(&metadata)
        };
        self.whole(b"global/pg_control", &content, &attributes)
    }

    fn finish(self) -> Result<(), BackupError> {
        let Self {
            events,
            manifest,
            damaged_pages,
            ..
        } = self;
        let send = |event| {
            events
                .blocking_send(event)
                .map_err(|_| BackupError::ClientGone)
        };
        if let Some(mut file) = manifest.finish()? {
            send(BackupEvent::Manifest)?;
            loop {
                let mut piece = Vec::with_capacity(MANIFEST_PIECE);
                let mut part = (&mut file).take(MANIFEST_PIECE as u64);
                if part.read_to_end(&mut piece).map_err(BackupError::Spool)? == 0 {
                    break;
                }
                send(BackupEvent::ManifestData(piece.into()))?;
            }
        }
        if damaged_pages == 0 {
            return Ok(());
        }
        if damaged_pages > 1 {
            send(BackupEvent::Warning(format!(
                "{damaged_pages} total checksum verification failures"
            )))?;
        }
        Err(BackupError::Checksums)
    }
}

impl Members for Producer {
    fn directory(&mut self, name: &[u8], attributes: &Attributes) -> Result<(), BackupError> {
        self.header(name, Kind::Directory, attributes)
    }

    fn link(
        &mut self,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), BackupError> {
        self.header(name, Kind::Link(target), attributes)
    }

    fn file(&mut self, file: &FoundFile<'_>) -> Result<(), BackupError> {
        match File::open(file.path) {
            Ok(open) => self.data_file(file, &open),
            // It went away meanwhile: replay knows that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BackupError::file("open file", file.shown.as_ref())(error)),
        }
    }

    fn special(&mut self, shown: &str) -> Result<(), BackupError> {
        self.warn(format!("skipping special file \"{shown}\""))
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
