//! [`Origins`]: how far changes of replication origins were applied, as the server keeps it in `pg_logical/replorigin_checkpoint`.
//!
//! The file has a magic number, 16 bytes for each origin (number, padding, LSN), and a CRC-32C.
//!
//! # Source
//! `CheckPointReplicationOrigin`, `StartupReplicationOrigin`, `replorigin_advance` in `src/backend/replication/logical/origin.c`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walstream::Lsn;
use walstream::read::Reader;

use super::replay_error::ReplayError;
use super::small_file::{read_file, replace_file};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// `REPLICATION_STATE_MAGIC`.
const MAGIC: u32 = 0x1257_DADE;

#[derive(Debug)]
pub(super) struct Origins {
    path: PathBuf,
    remote: BTreeMap<u16, Lsn>,
}

impl Origins {
    pub(super) fn read<S: DataStorage>(storage: &S, root: &Path) -> Result<Self, ReplayError> {
        let path = root.join("pg_logical").join("replorigin_checkpoint");
        let remote = match read_file(storage, &path)? {
            None => BTreeMap::new(),
            Some(content) => parse(&content).ok_or_else(|| ReplayError::DamagedFile {
                path: path.clone(),
                what: "its checksum or length is wrong".to_owned(),
            })?,
        };
        Ok(Self { path, remote })
    }

    pub(super) fn advance(&mut self, origin: u16, remote_lsn: Lsn, backward: bool) {
        // Number 0 is none, the last one is for what is not to be replicated (`DoNotReplicateId`).
        if origin == 0 || origin == u16::MAX {
            return;
        }
        let known = self.remote.entry(origin).or_insert(Lsn::INVALID);
        if backward || *known < remote_lsn {
            *known = remote_lsn;
        }
    }

    pub(super) fn drop_origin(&mut self, origin: u16) {
        self.remote.remove(&origin);
    }

    pub(super) fn write<S: DataStorage>(&self, storage: &S) -> Result<(), FileError> {
        replace_file(storage, &self.path, &encode(&self.remote))
    }
}

fn parse(content: &[u8]) -> Option<BTreeMap<u16, Lsn>> {
    let checked = content.len().checked_sub(4)?;
    let mut reader = Reader::new(content);
    let computed = crc32c::crc32c(content.get(..checked)?);
    if reader.u32_le().ok()? != MAGIC {
        return None;
    }
    let mut origins = BTreeMap::new();
    while reader.remaining() > 4 {
        let origin = reader.u16_le().ok()?;
        reader.take(6).ok()?;
        origins.insert(origin, Lsn(reader.u64_le().ok()?));
    }
    (reader.u32_le().ok()? == computed).then_some(origins)
}

fn encode(origins: &BTreeMap<u16, Lsn>) -> Vec<u8> {
    let mut content = MAGIC.to_le_bytes().to_vec();
    for (origin, lsn) in origins {
        content.extend_from_slice(&origin.to_le_bytes());
        content.extend_from_slice(&[0; 6]);
        content.extend_from_slice(&lsn.0.to_le_bytes());
    }
    let crc = crc32c::crc32c(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_damage_is_found() {
        let origins = BTreeMap::from([(1, Lsn(0x1234)), (7, Lsn(u64::MAX))]);
        let content = encode(&origins);
        assert_eq!(content.len(), 4 + 2 * 16 + 4);
        assert_eq!(parse(&content), Some(origins));
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&content[..at]), None, "cut at {at}");
        }
    }
}
