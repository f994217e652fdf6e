//! [`Prepared`]: transactions that were prepared and not ended yet.
//!
//! A state is kept in memory, and goes to a file at the first restartpoint from which its record would not be read again.
//!
//! # Source
//! `PrepareRedoAdd`, `PrepareRedoRemove`, `CheckPointTwoPhase`, `restoreTwoPhaseData` in
//! `src/backend/access/transam/twophase.c`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walstream::dialect::PgMajor;
use walstream::redo::PreparedTransaction;
use walstream::storage::two_phase::{self, StateFileName, check_state_file, state_file};
use walstream::types::TransactionId;
use walstream::{Dialect, Lsn};

use super::listing::list;
use super::replay_error::ReplayError;
use super::small_file::{TEMPORARY, read_file, remove_file, replace_file};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

#[derive(Debug)]
struct State {
    file: StateFileName,
    /// What its record holds, until that is in the file; and where the record ends.
    unwritten: Option<(Box<[u8]>, Lsn)>,
}

#[derive(Debug)]
pub(super) struct Prepared<S: DataStorage> {
    storage: S,
    directory: PathBuf,
    major: PgMajor,
    states: BTreeMap<TransactionId, State>,
    /// Files were made or removed since the last restartpoint.
    changed: bool,
}

impl<S: DataStorage> Prepared<S> {
    /// Finds the state files. Those of transactions that the checkpoint does not know yet are of a later life of the directory, and
    /// are removed.
    pub(super) fn read(
        storage: S,
        root: &Path,
        major: PgMajor,
        next_xid: TransactionId,
    ) -> Result<Self, FileError> {
        let directory = root.join(two_phase::DIRECTORY);
        let mut states = BTreeMap::new();
        for name in list(&storage, &directory)? {
            let Some(file) = StateFileName::parse(&name, major) else {
                // What a replay left that was killed as it wrote one.
                if name.ends_with(TEMPORARY) {
                    remove_file(&storage, &directory.join(name))?;
                }
                continue;
            };
            let xid = file.xid();
            if walstream::storage::slru::index_precedes(xid, next_xid) {
                let state = State {
                    file,
                    unwritten: None,
                };
                states.insert(xid, state);
            } else {
                remove_file(&storage, &directory.join(name))?;
            }
        }
        Ok(Self {
            storage,
            directory,
            major,
            states,
            changed: false,
        })
    }

    /// A transaction was prepared, by the record that ends at `end_lsn`. `next_full_xid` tells its epoch.
    pub(super) fn prepare(
        &mut self,
        xid: TransactionId,
        state: &[u8],
        end_lsn: Lsn,
        next_full_xid: u64,
    ) {
        // One whose file is there was found at the start, and this record was replayed before.
        self.states.entry(xid).or_insert_with(|| State {
            file: StateFileName {
                full_xid: full_xid(xid, next_full_xid),
                major: self.major,
            },
            unwritten: Some((state.into(), end_lsn)),
        });
    }

    /// Whether the state of this transaction is in a file.
    pub(super) fn has_file(&self, xid: TransactionId) -> bool {
        self.states
            .get(&xid)
            .is_some_and(|state| state.unwritten.is_none())
    }

    /// A prepared transaction was committed or rolled back.
    pub(super) fn end(&mut self, xid: TransactionId) -> Result<(), FileError> {
        if let Some(state) = self.states.remove(&xid)
            && state.unwritten.is_none()
        {
            remove_file(&self.storage, &self.directory.join(state.file.to_string()))?;
            self.changed = true;
        }
        Ok(())
    }

    /// Writes the states whose records lie before `redo_lsn`, durably. Gives the number of files.
    pub(super) fn write(&mut self, redo_lsn: Lsn) -> Result<u64, FileError> {
        let mut files = 0;
        for state in self.states.values_mut() {
            let Some((content, _)) = state.unwritten.take_if(|(_, end_lsn)| *end_lsn <= redo_lsn)
            else {
                continue;
            };
            let path = self.directory.join(state.file.to_string());
            // Under its name it is whole: after a crash the record may be replayed again, and would not replace it.
            replace_file(&self.storage, &path, &state_file(&content))?;
            files += 1;
        }
        Ok(files)
    }

    /// Makes durable that files went.
    pub(super) fn sync_names(&mut self) -> Result<(), FileError> {
        if std::mem::take(&mut self.changed) {
            self.storage
                .sync_directory(&self.directory)
                .map_err(FileError::of("sync", &self.directory))?;
        }
        Ok(())
    }

    /// Subtransactions of all of them, from the state files, which must have been written.
    pub(super) fn subtransactions(
        &self,
        dialect: &Dialect,
    ) -> Result<Vec<TransactionId>, ReplayError> {
        let mut subxids = Vec::new();
        for state in self.states.values() {
            let path = self.directory.join(state.file.to_string());
            let content = read_file(&self.storage, &path)?.unwrap_or_default();
            let damaged = |what: String| ReplayError::DamagedFile {
                path: path.clone(),
                what,
            };
            let content = check_state_file(&content).map_err(|error| damaged(error.to_string()))?;
            let transaction = PreparedTransaction::parse(content, dialect)
                .map_err(|error| damaged(error.to_string()))?;
            subxids.extend(transaction.subxids.iter());
        }
        Ok(subxids)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

/// A transaction with its epoch, which began before the next one.
fn full_xid(xid: TransactionId, next_full_xid: u64) -> u64 {
    let epoch = next_full_xid >> 32;
    let full = epoch << 32 | u64::from(xid);
    if full < next_full_xid || epoch == 0 {
        full
    } else {
        full - (1 << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_s_epoch_is_that_before_the_next() {
        for (xid, next, expected) in [
            (5, 10, 5),
            (5, 0x1_0000_0006, 0x1_0000_0005),
            (0xFFFF_FFF0, 0x1_0000_0006, 0xFFFF_FFF0),
        ] {
            assert_eq!(full_xid(xid, next), expected, "{xid} {next}");
        }
    }
}
