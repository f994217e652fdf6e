//! [`SlruReplay`]: the SLRUs, relation maps and prepared transactions of a cluster as its WAL alone tells them, to be compared with
//! the server's own files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::redo::{self, DatabaseDirectory, Effect, RedoContext, RedoRecord};
use walstream::storage::page::PageFault;
use walstream::storage::relation_map::RelationMap;
use walstream::storage::slru::{
    FIRST_MULTIXACT, Slru, SlruSegment, set_commit_timestamp, set_member, set_multixact_offset,
    set_transaction_status,
};
use walstream::storage::two_phase::{StateFileName, state_file};
use walstream::wal::WalDecoder;
use walstream::{Dialect, Lsn};

/// What was replayed.
#[derive(Debug)]
pub struct SlruReplay {
    context: RedoContext,
    pages: BTreeMap<(u8, u64), Vec<u8>>,
    maps: BTreeMap<(u32, u32), RelationMap>,
    prepared: BTreeMap<u32, Vec<u8>>,
    tracks_commits: bool,
    faults: Vec<String>,
}

impl SlruReplay {
    /// A cluster of this format before its first record.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            context: RedoContext {
                dialect,
                logs_hints: true,
            },
            pages: BTreeMap::new(),
            maps: BTreeMap::new(),
            prepared: BTreeMap::new(),
            tracks_commits: false,
            faults: Vec::new(),
        }
    }

    /// Replays all records of WAL that begins with a segment.
    ///
    /// # Errors
    /// When the WAL cannot be read, or an effect cannot be carried out.
    pub fn replay(&mut self, start: Lsn, wal: &[u8]) -> Result<()> {
        let context = self.context;
        let mut decoder = WalDecoder::new(context.dialect, start);
        let mut feed = decoder.feed(wal);
        while let Ok(Some(record)) = feed.next_record() {
            let record = RedoRecord::parse(&record)?;
            redo::effects(&context, &record, &mut |effect| {
                if let Err(fault) = self.apply(effect) {
                    self.faults.push(format!("{}: {fault}", record.start_lsn));
                }
            })?;
        }
        ensure!(self.faults.is_empty(), "{:?}", self.faults);
        Ok(())
    }

    fn page(&mut self, slru: Slru, index: u32) -> &mut Vec<u8> {
        let size = self.context.dialect.block_size;
        let name = (number(slru), slru.page_of(index, size));
        let len = size.bytes_u32() as usize;
        self.pages.entry(name).or_insert_with(|| vec![0; len])
    }

    fn apply(&mut self, effect: Effect<'_>) -> Result<(), PageFault> {
        let size = self.context.dialect.block_size;
        match effect {
            Effect::TransactionStatus {
                xid,
                subxids,
                status,
                ..
            } => {
                for xid in subxids.iter().chain([xid]) {
                    set_transaction_status(self.page(Slru::Xact, xid), xid, status)?;
                }
            }
            Effect::CommitTimestamp {
                xid,
                subxids,
                time,
                origin,
            } if self.tracks_commits => {
                for xid in subxids.iter().chain([xid]) {
                    set_commit_timestamp(self.page(Slru::CommitTs, xid), xid, time, origin)?;
                }
            }
            Effect::NewMultiXact {
                multi,
                offset,
                members,
            } => {
                let offsets = self.page(Slru::MultiXactOffsets, multi);
                set_multixact_offset(offsets, multi, offset)?;
                if self.context.dialect.records_next_multixact_offset() {
                    let next = multi.wrapping_add(1).max(FIRST_MULTIXACT);
                    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
                    let end = offset.wrapping_add(count).max(1);
                    set_multixact_offset(self.page(Slru::MultiXactOffsets, next), next, end)?;
                }
                for (index, member) in (0..).zip(members.iter()) {
                    let at = offset.wrapping_add(index);
                    set_member(self.page(Slru::MultiXactMembers, at), at, member)?;
                }
            }
            Effect::ZeroSlruPage { slru, page } => {
                let len = size.bytes_u32() as usize;
                let name = (number(slru), page);
                // What the end of the multixact before made is not made again.
                if slru != Slru::MultiXactOffsets || !self.pages.contains_key(&name) {
                    self.pages.insert(name, vec![0; len]);
                }
            }
            Effect::TruncateSlru {
                slru, cutoff_page, ..
            } => self.pages.retain(|(other, page), _| {
                *other != number(slru)
                    || !SlruSegment::of_page(*page).is_before(cutoff_page, slru, size)
            }),
            Effect::Settings(settings) => self.tracks_commits = settings.track_commit_timestamp,
            Effect::RelationMap { directory, map } => {
                let DatabaseDirectory {
                    tablespace,
                    database,
                } = directory;
                match RelationMap::parse_record(map, self.context.dialect.major) {
                    Ok(map) => drop(self.maps.insert((tablespace, database), map)),
                    Err(error) => self.faults.push(error.to_string()),
                }
            }
            Effect::DropDatabase { database, .. } => {
                self.maps.retain(|(_, other), _| *other != database);
            }
            Effect::Prepare { xid, state } => {
                self.prepared.insert(xid, state_file(state));
            }
            Effect::EndPrepared { xid } => {
                self.prepared.remove(&xid);
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares with the files of a stopped server. Gives how many SLRU pages, relation maps and state files were equal.
    ///
    /// # Errors
    /// With the first difference.
    pub fn compare(&self, data_dir: &Path) -> Result<(usize, usize, usize)> {
        let mut pages = 0;
        for slru in Slru::ALL.into_iter().filter(|slru| *slru != Slru::Subtrans) {
            pages += self.compare_slru(slru, &data_dir.join(slru.directory()))?;
        }
        let major = self.context.dialect.major;
        for ((tablespace, database), map) in &self.maps {
            let directory = DatabaseDirectory {
                tablespace: *tablespace,
                database: *database,
            };
            let path = data_dir.join(directory.path(major).to_string());
            let file = fs::read(path.join("pg_filenode.map"))?;
            ensure!(map.encode(major) == file, "relation map in {path:?}");
        }
        for (xid, file) in &self.prepared {
            let name = StateFileName {
                full_xid: (*xid).into(),
                major,
            };
            let path = data_dir.join("pg_twophase").join(name.to_string());
            ensure!(
                fs::read(&path).with_context(|| path.display().to_string())? == *file,
                "{path:?} differs"
            );
        }
        let count = fs::read_dir(data_dir.join("pg_twophase"))?.count();
        ensure!(count == self.prepared.len(), "{count} state files");
        Ok((pages, self.maps.len(), self.prepared.len()))
    }

    fn compare_slru(&self, slru: Slru, directory: &Path) -> Result<usize> {
        let len = self.context.dialect.block_size.bytes_u32() as usize;
        let mut equal = 0;
        let mut on_disk = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let segment = SlruSegment::parse(&name).with_context(|| format!("file {name}"))?;
            ensure!(segment.to_string() == name, "{name} is {segment}");
            let file = fs::read(directory.join(&name))?;
            for (page, bytes) in (segment.first_page()..).zip(file.chunks(len)) {
                on_disk.insert(page, bytes.to_vec());
            }
        }
        for (page, theirs) in &on_disk {
            let zeros = vec![0; len];
            let ours = self.pages.get(&(number(slru), *page)).unwrap_or(&zeros);
            if let Some(at) = ours
                .iter()
                .zip(theirs)
                .position(|(our, their)| our != their)
            {
                anyhow::bail!(
                    "{slru:?} page {page} differs at byte {at}: ours {:?}, the server's {:?}",
                    ours.get(at..at + 8),
                    theirs.get(at..at + 8)
                );
            }
            equal += 1;
        }
        let mut pages = self
            .pages
            .keys()
            .filter(|(other, _)| *other == number(slru));
        ensure!(
            pages.all(|(_, page)| on_disk.contains_key(page)),
            "{slru:?} has pages that the server has not"
        );
        Ok(equal)
    }
}

const fn number(slru: Slru) -> u8 {
    match slru {
        Slru::Xact => 0,
        Slru::MultiXactOffsets => 1,
        Slru::MultiXactMembers => 2,
        Slru::CommitTs => 3,
        Slru::Subtrans => 4,
    }
}
