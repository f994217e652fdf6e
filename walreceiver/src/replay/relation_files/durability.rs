//! Files get the lengths of their forks, and are made durable.

use std::io;

use walstream::types::BlockNumber;

use super::super::layout::segment_path;
use super::super::storage::DataStorage;
use super::{ForkId, RelationFiles, no_fork, to_usize};
use crate::mirror::durable::FileError;

impl<S: DataStorage> RelationFiles<S> {
    /// Gives files the lengths of their forks, without a sync.
    pub(in super::super) fn settle(&mut self) -> Result<(), FileError> {
        for index in 0..self.forks.len() {
            let id = ForkId(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(fork) = self.get(id).filter(|fork| fork.disk_blocks < fork.blocks) else {
                continue;
            };
            let blocks = fork.blocks;
            let segment_blocks = self.layout.segment_blocks;
            let last = (blocks - 1) / segment_blocks;
            self.fill_segments_before(id, last)?;
            let start = last.saturating_mul(segment_blocks);
            self.set_segment_blocks(id, last, blocks - start)?;
            self.get_mut(id)?.disk_blocks = blocks;
        }
        Ok(())
    }

    /// Makes all files durable that were written, and the names that were made and removed. Gives the number of files.
    pub(in super::super) fn sync(&mut self) -> Result<u64, FileError> {
        self.settle()?;
        let mut files = 0;
        for index in 0..self.forks.len() {
            let id = ForkId(u32::try_from(index).unwrap_or(u32::MAX));
            let segments = self.get(id).map_or(0, |fork| fork.segments.len());
            for segment in 0..u32::try_from(segments).unwrap_or(u32::MAX) {
                let is_unsynced = self
                    .get(id)
                    .and_then(|fork| fork.segments.get(to_usize(segment)))
                    .is_some_and(|segment| segment.unsynced);
                if !is_unsynced {
                    continue;
                }
                self.open_segment(id, segment)?;
                let Some((file, path)) = self.opened(id, segment) else {
                    return Err(no_fork());
                };
                self.storage
                    .sync_data(file)
                    .map_err(FileError::of("sync", &segment_path(path, segment)))?;
                files += 1;
                if let Some(segment) = self.get_mut(id)?.segments.get_mut(to_usize(segment)) {
                    segment.unsynced = false;
                }
            }
        }
        for directory in std::mem::take(&mut self.unsynced_directories) {
            match self.storage.sync_directory(&directory) {
                // A database that was dropped.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(FileError::of("sync", &directory))?,
            }
        }
        Ok(files)
    }

    pub(super) fn fill_segments_before(
        &mut self,
        id: ForkId,
        segment: u32,
    ) -> Result<(), FileError> {
        let segment_blocks = self.layout.segment_blocks;
        let disk_blocks = self.get_mut(id)?.disk_blocks;
        for before in disk_blocks / segment_blocks..segment {
            self.set_segment_blocks(id, before, segment_blocks)?;
            self.get_mut(id)?.disk_blocks = (before + 1).saturating_mul(segment_blocks);
        }
        Ok(())
    }

    pub(super) fn set_segment_blocks(
        &mut self,
        id: ForkId,
        segment: u32,
        blocks: BlockNumber,
    ) -> Result<(), FileError> {
        self.open_segment(id, segment)?;
        let size = u64::from(blocks) * u64::try_from(self.layout.block_size).unwrap_or(u64::MAX);
        let Some((file, path)) = self.opened(id, segment) else {
            return Err(no_fork());
        };
        self.storage
            .set_size(file, size)
            .map_err(FileError::of("resize", &segment_path(path, segment)))?;
        if let Some(segment) = self.get_mut(id)?.segments.get_mut(to_usize(segment)) {
            segment.unsynced = true;
        }
        Ok(())
    }
}
