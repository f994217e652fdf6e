//! Every command that `walstream` formats is read by a real server, and every row and message that comes back is read
//! by `walstream`: over a connection made of nothing but its own messages.

#![allow(
    clippy::indexing_slicing,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use walstream::protocol::base_backup::{BackupEvent, BackupGeneration, BackupStream};
use walstream::protocol::command::{
    AlterReplicationSlot, BackupCheckpoint, BackupCompression, BackupTarget, BaseBackup, Command,
    CompressionAlgorithm, CreateReplicationSlot, Grammar, ManifestChecksums, ManifestOption,
    SlotKind,
};
use walstream::protocol::copy::PrimaryMessage;
use walstream::protocol::identify::{
    BackupPosition, BackupTablespace, CreatedSlot, IdentifySystem, ResultColumn, SlotPosition,
    TimelineHistoryFile,
};
use walstream::protocol::message::{
    BackendMessage, ErrorFields, FrameHeader, FrontendMessage, ProtocolVersion, StartupMessage,
    StartupRequest, max_backend_length,
};
use walstream::{Lsn, SegmentSize, TimelineId};
use walstream_tests::ClusterOptions;

/// A result set: names and type OIDs of its columns, and its rows.
#[derive(Default)]
struct ResultSet {
    columns: Vec<(String, u32)>,
    rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl ResultSet {
    fn row(&self) -> Vec<Option<&[u8]>> {
        self.rows
            .first()
            .map(|row| row.iter().map(Option::as_deref).collect())
            .unwrap_or_default()
    }

    fn expect_columns(&self, expected: &[ResultColumn<'_>]) -> Result<()> {
        let expected: Vec<_> = expected
            .iter()
            .map(|column| (column.name.to_owned(), column.type_oid))
            .collect();
        ensure!(
            self.columns == expected,
            "columns are {:?}, not {expected:?}",
            self.columns
        );
        Ok(())
    }
}

struct Client {
    stream: UnixStream,
    input: BytesMut,
    version: u32,
}

impl Client {
    fn connect(socket: &Path, user: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self {
            stream,
            input: BytesMut::new(),
            version: 0,
        };
        let mut out = BytesMut::new();
        let parameters = vec![("user", user), ("replication", "true")];
        StartupRequest::Startup(StartupMessage {
            version: ProtocolVersion::V3_0,
            parameters,
        })
        .encode(&mut out);
        client.stream.write_all(&out)?;
        let mut version = 0;
        loop {
            let is_ready = client.next(|message| match message {
                BackendMessage::ParameterStatus {
                    name: "server_version",
                    value,
                } => {
                    let number = value.split([' ', '.']).next().unwrap_or_default();
                    version = number.parse::<u32>()? * 10_000;
                    Ok(false)
                }
                BackendMessage::ErrorResponse(error) => bail!("{error}"),
                message => Ok(matches!(message, BackendMessage::ReadyForQuery(_))),
            })?;
            if is_ready {
                client.version = version;
                return Ok(client);
            }
        }
    }

    fn send(&mut self, message: FrontendMessage<'_>) -> Result<()> {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        Ok(self.stream.write_all(&out)?)
    }

    fn next<T>(&mut self, handle: impl FnOnce(BackendMessage<'_>) -> Result<T>) -> Result<T> {
        let header = loop {
            match FrameHeader::parse(&self.input, max_backend_length)? {
                Some(header) if self.input.len() >= header.total_len() => break header,
                _ => {
                    let mut chunk = [0; 1 << 16];
                    let count = self.stream.read(&mut chunk)?;
                    ensure!(count > 0, "the server has closed the connection");
                    self.input.extend_from_slice(&chunk[..count]);
                }
            }
        };
        let frame = self.input.split_to(header.total_len());
        handle(BackendMessage::parse(
            header.tag,
            &frame[FrameHeader::LEN..],
        )?)
    }

    fn start(&mut self, command: &Command) -> Result<()> {
        let text = command.format(Grammar::for_version(self.version));
        self.send(FrontendMessage::Query { text: &text })
    }

    /// Runs a command that answers with rows, or an error, and no copy but one into the server, which is ended.
    fn run(&mut self, command: &Command) -> Result<Result<ResultSet, ErrorFields>> {
        self.start(command)?;
        let mut result = ResultSet::default();
        let mut failure = None;
        loop {
            let mut wants_copy = false;
            let is_ready = self.next(|message| {
                match message {
                    BackendMessage::RowDescription(row) => {
                        let fields = row.fields.iter();
                        result.columns = fields
                            .map(|field| {
                                (
                                    String::from_utf8_lossy(field.name).into_owned(),
                                    field.type_oid,
                                )
                            })
                            .collect();
                    }
                    BackendMessage::DataRow(row) => {
                        result.rows.push(
                            row.columns
                                .iter()
                                .map(|column| column.map(<[u8]>::to_vec))
                                .collect(),
                        );
                    }
                    BackendMessage::ErrorResponse(error) => failure = Some(error),
                    BackendMessage::CopyInResponse(_) => wants_copy = true,
                    BackendMessage::ReadyForQuery(_) => return Ok(true),
                    _ => {}
                }
                Ok(false)
            })?;
            if wants_copy {
                self.send(FrontendMessage::CopyFail { reason: b"enough" })?;
            }
            if is_ready {
                return Ok(failure.map_or(Ok(result), Err));
            }
        }
    }

    fn rows(&mut self, command: &Command) -> Result<ResultSet> {
        let version = self.version;
        self.run(command)?.map_err(|error| {
            anyhow::anyhow!("{}: {error}", command.format(Grammar::for_version(version)))
        })
    }

    /// Takes a base backup to its end; gives the archives' bytes in the list's order, and the manifest.
    fn backup(&mut self, backup: &BaseBackup) -> Result<(Vec<Vec<u8>>, Vec<u8>)> {
        let is_to_client = backup.target.is_none();
        let has_manifest = backup.manifest != ManifestOption::No;
        self.start(&Command::BaseBackup(backup.clone()))?;
        let mut row = BackupPosition {
            lsn: Lsn(0),
            timeline: TimelineId(1),
        };
        let mut positions = Vec::new();
        let mut tablespaces = Vec::new();
        let mut stream: Option<BackupStream> = None;
        let mut archives: Vec<Vec<u8>> = Vec::new();
        let (mut manifest, mut in_manifest, mut columns) = (Vec::new(), false, 0);
        let generation = BackupGeneration::for_version(self.version);
        loop {
            let is_ready = self.next(|message| {
                let event = match message {
                    BackendMessage::RowDescription(row) => {
                        columns = row.fields.len();
                        None
                    }
                    BackendMessage::DataRow(data) if columns == 2 => {
                        row = BackupPosition::parse(&data.columns)?;
                        positions.push(row);
                        None
                    }
                    BackendMessage::DataRow(data) => {
                        tablespaces.push(BackupTablespace::parse(&data.columns)?);
                        None
                    }
                    BackendMessage::CopyOutResponse(_) => {
                        let stream = stream.get_or_insert_with(|| {
                            BackupStream::new(generation, &tablespaces, has_manifest)
                        });
                        stream.handle_copy_out()?
                    }
                    BackendMessage::CopyData(data) => {
                        let stream = stream.as_mut().context("CopyData before CopyOutResponse")?;
                        match stream.handle_copy_data(data)? {
                            BackupEvent::Data(data) if in_manifest => {
                                manifest.extend_from_slice(data);
                            }
                            BackupEvent::Data(data) => {
                                archives.last_mut().context("no archive")?.extend(data);
                            }
                            BackupEvent::Archive { .. } => archives.push(Vec::new()),
                            BackupEvent::Manifest => in_manifest = true,
                            BackupEvent::Progress { .. } | BackupEvent::End => {}
                        }
                        None
                    }
                    BackendMessage::CopyDone => stream
                        .as_mut()
                        .context("CopyDone before CopyOutResponse")?
                        .handle_copy_done()?,
                    BackendMessage::ErrorResponse(error) => bail!("{backup:?}: {error}"),
                    BackendMessage::ReadyForQuery(_) => return Ok(true),
                    _ => None,
                };
                match event {
                    Some(BackupEvent::Archive { .. }) => archives.push(Vec::new()),
                    Some(BackupEvent::Manifest) => in_manifest = true,
                    _ => {}
                }
                Ok(false)
            })?;
            if is_ready {
                break;
            }
        }
        ensure!(
            stream.is_some_and(|stream| stream.is_finished()),
            "the backup did not end"
        );
        ensure!(
            positions.len() == 2 && positions[0].lsn <= positions[1].lsn,
            "{positions:?}"
        );
        ensure!(tablespaces.len() == 1 && tablespaces[0].size_kib.is_some() == backup.progress);
        if is_to_client {
            ensure!(
                archives.iter().all(|archive| !archive.is_empty()),
                "an empty archive"
            );
        }
        Ok((archives, manifest))
    }
}

fn commands_are_understood(socket: &Path, user: &str, data_dir: &Path) -> Result<()> {
    let mut client = Client::connect(socket, user)?;
    let version = client.version;

    let result = client.rows(&Command::IdentifySystem)?;
    result.expect_columns(&IdentifySystem::columns(version))?;
    let system = IdentifySystem::parse(&result.row())?;
    ensure!(system.timeline == TimelineId(1) && system.database.is_none());

    let result = client.rows(&Command::Show {
        name: "wal_segment_size".to_owned(),
    })?;
    ensure!(result.rows == [[Some(b"16MB".to_vec())]]);

    let history = TimelineHistoryFile {
        name: "00000007.history".to_owned(),
        content: b"1\t0/1\tit's a back\\slash \xE9\n".to_vec(),
    };
    fs::write(
        data_dir.join("pg_wal").join(&history.name),
        &history.content,
    )?;
    let result = client.rows(&Command::TimelineHistory {
        timeline: TimelineId(7),
    })?;
    result.expect_columns(&TimelineHistoryFile::columns(version))?;
    ensure!(TimelineHistoryFile::parse(&result.row())? == history);
    let error = client
        .run(&Command::TimelineHistory {
            timeline: TimelineId(u32::MAX),
        })?
        .err();
    ensure!(
        error.is_some_and(|error| error.sqlstate() == "58P01"),
        "a history that is not there"
    );

    for (slot, temporary, reserve_wal) in
        [("a_1", false, false), ("b", false, true), ("c", true, true)]
    {
        let slot = slot.to_owned();
        let kind = SlotKind::Physical { reserve_wal };
        let create = CreateReplicationSlot {
            slot: slot.clone(),
            temporary,
            kind,
        };
        let result = client.rows(&Command::CreateReplicationSlot(create))?;
        result.expect_columns(&CreatedSlot::COLUMNS)?;
        ensure!(CreatedSlot::parse(&result.row())?.slot == slot);
        if version >= 150_000 {
            let result = client.rows(&Command::ReadReplicationSlot { slot: slot.clone() })?;
            result.expect_columns(&SlotPosition::COLUMNS)?;
            let position = SlotPosition::parse(&result.row())?.context("the slot is not there")?;
            ensure!(
                position.restart_lsn.is_some() == reserve_wal,
                "{position:?}"
            );
        }
        // An error drops the session's temporary slots.
        if version >= 170_000 && !temporary {
            let alter = AlterReplicationSlot {
                slot: slot.clone(),
                failover: Some(true),
                two_phase: None,
            };
            let error = client
                .run(&Command::AlterReplicationSlot(alter))?
                .err()
                .context("altered")?;
            ensure!(
                error.sqlstate() == "0A000",
                "physical slots have no failover: {error}"
            );
        }
        if slot != "b" {
            client.rows(&Command::DropReplicationSlot {
                slot,
                wait: temporary,
            })?;
        }
    }
    if version >= 150_000 {
        let result = client.rows(&Command::ReadReplicationSlot {
            slot: "nobody".to_owned(),
        })?;
        ensure!(SlotPosition::parse(&result.row())?.is_none());
    }
    if version >= 170_000 {
        let error = client
            .run(&Command::UploadManifest)?
            .err()
            .context("uploaded")?;
        ensure!(error.message().contains("enough"), "{error}");
    }
    let logical = CreateReplicationSlot {
        slot: "l".to_owned(),
        temporary: true,
        kind: SlotKind::Logical {
            plugin: "p".to_owned(),
            snapshot: None,
            two_phase: version >= 150_000,
            failover: false,
        },
    };
    let error = client
        .run(&Command::CreateReplicationSlot(logical))?
        .err()
        .context("created")?;
    ensure!(error.sqlstate() != "42601", "{error}");

    stream_is_read(&mut client, &system)?;
    client.rows(&Command::DropReplicationSlot {
        slot: "b".to_owned(),
        wait: false,
    })?;
    backups_are_read(&mut client)
}

fn stream_is_read(client: &mut Client, system: &IdentifySystem) -> Result<()> {
    let start_lsn = system.flush_lsn.segment_start(SegmentSize::DEFAULT);
    client.start(&Command::StartReplication {
        slot: Some("b".to_owned()),
        start_lsn,
        timeline: Some(system.timeline),
    })?;
    let mut received = start_lsn;
    while received < system.flush_lsn {
        received = client.next(|message| match message {
            BackendMessage::CopyData(data) => match PrimaryMessage::parse(data)? {
                PrimaryMessage::XLogData(wal) => {
                    ensure!(wal.start_lsn == received && wal.server_wal_end >= wal.end_lsn());
                    Ok(wal.end_lsn())
                }
                PrimaryMessage::Keepalive(_) => Ok(received),
            },
            BackendMessage::CopyBothResponse(_) => Ok(received),
            other => bail!("{other:?}"),
        })?;
    }
    client.send(FrontendMessage::CopyDone)?;
    while !client.next(|message| Ok(matches!(message, BackendMessage::ReadyForQuery(_))))? {}
    Ok(())
}

fn backups_are_read(client: &mut Client) -> Result<()> {
    let version = client.version;
    let plain = BaseBackup {
        checkpoint: BackupCheckpoint::Fast,
        wait: false,
        ..BaseBackup::default()
    };
    let (archives, manifest) = client.backup(&plain)?;
    ensure!(archives.len() == 1 && manifest.is_empty());
    let full = BaseBackup {
        label: Some("it's \"a\" label".to_owned()),
        progress: true,
        wal: true,
        max_rate_kib: Some(1_048_576),
        tablespace_map: true,
        verify_checksums: false,
        ..plain.clone()
    };
    client.backup(&full)?;
    if version < 130_000 {
        return Ok(());
    }
    for (option, checksums) in [
        (ManifestOption::Yes, None),
        (ManifestOption::Yes, Some(ManifestChecksums::None)),
        (ManifestOption::ForceEncode, Some(ManifestChecksums::Sha512)),
    ] {
        let backup = BaseBackup {
            manifest: option,
            manifest_checksums: checksums,
            ..full.clone()
        };
        let (_, manifest) = client.backup(&backup)?;
        ensure!(manifest.starts_with(b"{ \"PostgreSQL-Backup-Manifest-Version\""));
    }
    if version >= 150_000 {
        let target = BackupTarget {
            name: "blackhole".to_owned(),
            detail: None,
        };
        client.backup(&BaseBackup {
            target: Some(target),
            wal: false,
            ..full.clone()
        })?;
        let detail = Some("level=1".to_owned());
        let compression = Some(BackupCompression {
            algorithm: CompressionAlgorithm::Gzip,
            detail,
        });
        let (archives, _) = client.backup(&BaseBackup {
            compression,
            ..full
        })?;
        ensure!(archives[0].starts_with(b"\x1F\x8B"), "not gzip");
    }
    Ok(())
}

#[test]
fn every_command_is_understood_and_every_answer_is_read() -> Result<()> {
    let cluster = ClusterOptions::default()
        .set("wal_level", "logical")
        .start()?;
    let socket = cluster
        .scratch()
        .join(format!(".s.PGSQL.{}", cluster.port()));
    commands_are_understood(&socket, "postgres", cluster.data_dir())
}
