//! [`Work`]: the part of an init that changes things, and how to take the changes back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::sync::watch;
use walstream::protocol::identify::BackupPosition;

use super::backup::{self, BackupHeader, ReceivedBackup};
use super::cleanup::Created;
use super::disk_work::DiskWork;
use super::error::InitError;
use super::options::Checkpoint;
use super::progress::{InitObserver, InitStep};
use super::report::InitReport;
use super::server::{Server, ServerFacts};
use super::slot::{self, SlotOrigin};
use super::sync::sync_trees;
use super::tablespaces::{self, Tablespace};
use super::target::examine;
use super::unpack::Destination;
use super::{InitOptions, Prepared, verify, wal};
use crate::connection::ConnInfo;
use crate::mirror::durable::{FileError, replace_file, sync_directory};
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::state::{MirrorFacts, MirrorState};
use crate::run::stream::Stop;

/// What an init has made so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    created: Created,
    /// The slot, when we made it.
    slot: Option<String>,
    disk_work: DiskWork,
}

/// Directory claimed, slot there.
#[derive(Debug)]
pub(super) struct Begun {
    prepared: Prepared,
    slot_origin: Option<SlotOrigin>,
    started_at: Instant,
}

impl Work {
    /// Claims the directory and makes the slot. Short, and not to be dropped half-way: a slot that was made is known
    /// only when the server's answer was read.
    pub(super) async fn begin(
        &mut self,
        mut prepared: Prepared,
        observer: &dyn InitObserver,
    ) -> Result<Begun, InitError> {
        let started_at = Instant::now();
        let Prepared {
            options,
            server,
            vacant,
            ..
        } = &mut prepared;
        self.created
            .claim(&options.target, *vacant, server.facts.directory_mode)?;
        let mut slot_origin = None;
        if let Some(name) = &options.slot {
            observer.step(&InitStep::CreateSlot { name: name.clone() });
            let origin = slot::create(&mut server.connection, name).await?;
            match origin {
                SlotOrigin::Created => self.slot = Some(name.clone()),
                SlotOrigin::Existed => {
                    observer.notice(&format!(
                        "Using replication slot \"{name}\", which exists already"
                    ));
                }
            }
            slot_origin = Some(origin);
        }
        Ok(Begun {
            prepared,
            slot_origin,
            started_at,
        })
    }

    /// Copies, verifies, syncs, and writes the state file. May be dropped at any time, then [`Self::roll_back`].
    pub(super) async fn finish(
        &mut self,
        begun: Begun,
        observer: &dyn InitObserver,
    ) -> Result<InitReport, InitError> {
        let Begun {
            prepared,
            slot_origin,
            started_at,
        } = begun;
        let Prepared {
            options,
            conninfo,
            server,
            ..
        } = prepared;
        let Server {
            mut connection,
            facts,
        } = server;
        observer.step(&InitStep::Checkpoint {
            fast: options.checkpoint == Checkpoint::Fast,
        });
        let header = backup::start(&mut connection, &options).await?;
        let start = header.start;
        let tablespaces = self.place(&options, &facts, &header, observer)?;
        let pg_wal = options.target.join("pg_wal");
        make_directory(&pg_wal, facts.directory_mode)?;

        let mut wal_connection = Server::connect_again(&conninfo, &facts).await?;
        observer.step(&InitStep::StreamWal {
            start_lsn: start.lsn.segment_start(facts.dialect.segment_size),
            timeline: start.timeline,
        });
        let (stop, stopped) = watch::channel(Stop::Never);
        let wal = wal::receive(
            &mut wal_connection,
            &facts,
            start,
            options.slot.clone(),
            &pg_wal,
            stopped,
            &self.disk_work,
        );
        let files = async {
            let outside = tablespaces
                .iter()
                .filter(|tablespace| !tablespace.in_place)
                .count();
            observer.step(&InitStep::CopyFiles {
                total_bytes: header.total_bytes(),
                tablespaces: outside,
            });
            let destinations = destinations(&options, &header, &tablespaces);
            let checksums = options.checksums;
            let received = backup::receive(
                &mut connection,
                &header,
                &destinations,
                checksums,
                &self.disk_work,
                observer,
            )
            .await?;
            observer.step(&InitStep::ReceiveWal {
                end_lsn: received.end.lsn,
            });
            stop.send_replace(Stop::At(received.end.lsn));
            Ok(received)
        };
        let (flushed, received) = tokio::try_join!(wal, files)?;
        connection.terminate().await;
        wal_connection.terminate().await;
        tell_late_links(&received, observer);

        let is_verified = received.manifest.is_some();
        observer.step(if is_verified {
            &InitStep::Verify
        } else {
            &InitStep::NothingToVerify
        });
        let received = self.verify(received, &options, &facts, start).await?;
        observer.step(&InitStep::Sync);
        self.sync(&options.target, &tablespaces).await?;
        let placed: BTreeMap<u32, PathBuf> = tablespaces
            .into_iter()
            .filter(|tablespace| !tablespace.in_place)
            .map(|tablespace| (tablespace.oid, tablespace.directory))
            .collect();
        let mirror_facts = MirrorFacts {
            system_identifier: facts.system_identifier,
            server_version_num: facts.version_num,
            dialect: facts.dialect,
            start: TimelinePosition {
                timeline: start.timeline,
                lsn: start.lsn,
            },
            consistent_lsn: received.end.lsn,
            slot: options.slot.clone(),
            primary: options.conninfo.without_secrets(),
            tablespaces: placed.clone(),
        };
        MirrorState::create(&options.target, mirror_facts, flushed)?;
        Ok(InitReport {
            directory: options.target,
            peer: facts.peer,
            system_identifier: facts.system_identifier,
            server_version_num: facts.version_num,
            timeline: start.timeline,
            start_lsn: start.lsn,
            end_lsn: received.end.lsn,
            flush_lsn: flushed.lsn,
            slot: options.slot,
            slot_origin,
            tablespaces: placed,
            files: received.unpacked.files.len(),
            bytes: received.bytes,
            verified: is_verified.then_some(options.checksums),
            dropped: received.unpacked.dropped,
            elapsed: started_at.elapsed(),
        })
    }

    /// Places the tablespaces and makes their directories.
    fn place(
        &mut self,
        options: &InitOptions,
        facts: &ServerFacts,
        header: &BackupHeader,
        observer: &dyn InitObserver,
    ) -> Result<Vec<Tablespace>, InitError> {
        let listed = header
            .tablespaces
            .iter()
            .filter_map(|row| Some((row.oid?, row.location.clone()?)));
        let placed = tablespaces::place(&options.target, &options.tablespace_map, listed)?;
        for mapping in options.tablespace_map.unused(&placed) {
            observer.warning(&format!(
                "no tablespace is in \"{}\": that mapping is not used",
                mapping.old.display()
            ));
        }
        for tablespace in &placed {
            if tablespace.in_place {
                let parent = options.target.join("pg_tblspc");
                make_directory(&parent, facts.directory_mode)?;
                make_directory(&tablespace.directory, facts.directory_mode)?;
            } else {
                let vacant = examine(&tablespace.directory, facts.system_identifier)?;
                self.created
                    .occupy(&tablespace.directory, vacant, facts.directory_mode)?;
            }
        }
        warn_of_little_space(&options.target, header.total_bytes(), observer);
        Ok(placed)
    }

    /// Compares what was received with what the server says that it sent, on a thread.
    async fn verify(
        &self,
        received: ReceivedBackup,
        options: &InitOptions,
        facts: &ServerFacts,
        start: BackupPosition,
    ) -> Result<ReceivedBackup, InitError> {
        let target = options.target.clone();
        let facts = facts.clone();
        let standby_allowed = options.from_standby;
        let token = self.disk_work.begin().await;
        let verified = tokio::task::spawn_blocking(move || {
            let _token = token;
            if let Some(text) = &received.manifest {
                verify::against_manifest(
                    &target,
                    text,
                    &received.unpacked.files,
                    &facts,
                    start,
                    received.end,
                )?;
                keep_manifest(&target, text, facts.directory_mode)?;
            }
            verify::against_server(&target, &facts, start, standby_allowed)?;
            Ok(received)
        });
        verified.await?
    }

    /// Makes everything durable, and takes away the mark of an unfinished init.
    async fn sync(&self, target: &Path, tablespaces: &[Tablespace]) -> Result<(), InitError> {
        let outside = tablespaces.iter().filter(|tablespace| !tablespace.in_place);
        let mut roots = vec![target.to_owned()];
        roots.extend(outside.map(|tablespace| tablespace.directory.clone()));
        let parents = self.created.parents();
        let target = target.to_owned();
        let token = self.disk_work.begin().await;
        let synced = tokio::task::spawn_blocking(move || {
            let _token = token;
            let synced = sync_trees(&roots)?;
            tracing::debug!(
                files = synced.files,
                directories = synced.directories,
                "synced"
            );
            parents
                .iter()
                .try_for_each(|parent| sync_directory(parent))?;
            Created::finish(&target)?;
            sync_directory(&target)
        });
        Ok(synced.await??)
    }

    /// Takes everything back. What cannot be taken back is told as a warning.
    pub(super) async fn roll_back(self, conninfo: &ConnInfo, observer: &dyn InitObserver) {
        self.disk_work.finished().await;
        let created = self.created;
        match tokio::task::spawn_blocking(move || created.remove()).await {
            Ok(failures) => {
                for failure in failures {
                    observer.warning(&format!("left behind: {failure}"));
                }
            }
            Err(error) => observer.warning(&format!("files may have been left behind: {error}")),
        }
        let Some(name) = self.slot else { return };
        if let Err(reason) = slot::drop_slot(conninfo, &name).await {
            observer.warning(&format!(
                "replication slot \"{name}\" could not be removed ({reason}): it makes the coordinator keep write-ahead \
                 log; when it is back, remove it there with SELECT pg_drop_replication_slot('{name}')"
            ));
        }
    }
}

/// Where each archive goes, in the header's order.
fn destinations(
    options: &InitOptions,
    header: &BackupHeader,
    tablespaces: &[Tablespace],
) -> Vec<Destination> {
    let main = || Destination::Main {
        target: options.target.clone(),
        tablespaces: tablespaces.to_vec(),
        map: options.tablespace_map.clone(),
    };
    let by_oid = |oid| {
        tablespaces
            .iter()
            .find(|tablespace| Some(tablespace.oid) == oid)
            .cloned()
    };
    header
        .tablespaces
        .iter()
        .map(|row| by_oid(row.oid).map_or_else(main, Destination::Tablespace))
        .collect()
}

/// Writes the manifest as `pg_basebackup` does, so that `pg_verifybackup` can check the files at any later time.
fn keep_manifest(target: &Path, text: &[u8], directory_mode: u32) -> Result<(), FileError> {
    let path = target.join("backup_manifest");
    replace_file(&path, text)?;
    let permissions = fs::Permissions::from_mode(directory_mode & 0o666);
    fs::set_permissions(&path, permissions).map_err(FileError::of("set the permissions of", &path))
}

fn tell_late_links(received: &ReceivedBackup, observer: &dyn InitObserver) {
    for (_, directory) in &received.unpacked.late_links {
        observer.warning(&format!(
            "a tablespace was made during the backup: its directory \"{}\" must exist when the mirror is activated",
            directory.display()
        ));
    }
}

/// The estimate may be wrong and the file system may compress, so this is no reason to refuse.
fn warn_of_little_space(target: &Path, needed: Option<u64>, observer: &dyn InitObserver) {
    let (Some(needed), Ok(space)) = (needed, rustix::fs::statvfs(target)) else {
        return;
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < needed {
        observer.warning(&format!(
            "the coordinator has about {} MiB, and \"{}\" has room for {} MiB",
            needed >> 20,
            target.display(),
            free >> 20
        ));
    }
}

/// Makes a directory within ours, unless it is there.
fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create the directory", path)(error))
        }
        _ => Ok(()),
    }
}
