//! Pages of a fork, read, written and cut off.

use std::io::{self, IoSlice};

use walstream::types::BlockNumber;

use super::super::layout::segment_path;
use super::super::storage::DataStorage;
use super::{ForkId, RelationFiles, no_fork, to_usize};
use crate::mirror::durable::FileError;

impl<S: DataStorage> RelationFiles<S> {
    /// Reads a block; zeros where the files do not hold it.
    pub(in super::super) fn read(
        &mut self,
        id: ForkId,
        block: BlockNumber,
        page: &mut [u8],
    ) -> Result<(), FileError> {
        let fork = self.get_mut(id)?;
        if block >= fork.disk_blocks {
            page.fill(0);
            return Ok(());
        }
        let (segment, offset) = self.place(block);
        self.open_segment(id, segment)?;
        let Some((file, path)) = self.opened(id, segment) else {
            return Err(no_fork());
        };
        let mut done = 0;
        while let Some(rest) = page.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + u64::try_from(done).unwrap_or(u64::MAX);
            match self.storage.read_at(file, rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileError::of("read", &segment_path(path, segment))(error));
                }
            }
        }
        Ok(())
    }

    /// Writes pages that follow each other and lie in one segment.
    pub(in super::super) fn write(
        &mut self,
        id: ForkId,
        block: BlockNumber,
        pages: &mut [IoSlice<'_>],
    ) -> Result<(), FileError> {
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let (segment, mut offset) = self.place(block);
        self.fill_segments_before(id, segment)?;
        self.open_segment(id, segment)?;
        let storage = self.storage.clone();
        let fork = self.get_mut(id)?;
        let path = &fork.path;
        let Some((file, unsynced)) = fork
            .segments
            .get_mut(to_usize(segment))
            .and_then(|segment| Some((segment.file.as_ref()?, &mut segment.unsynced)))
        else {
            return Err(no_fork());
        };
        *unsynced = true;
        let mut left = pages;
        while !left.is_empty() {
            match storage.write_at(file, left, offset) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Err(FileError::of("write", &segment_path(path, segment))(error));
                }
                Ok(written) => {
                    offset += u64::try_from(written).unwrap_or(u64::MAX);
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileError::of("write", &segment_path(path, segment))(error));
                }
            }
        }
        fork.disk_blocks = fork.disk_blocks.max(block.saturating_add(count));
        Ok(())
    }

    /// Cuts a fork to so many blocks. Segments that it no longer needs stay, empty, as the server leaves them.
    pub(in super::super) fn truncate(
        &mut self,
        id: ForkId,
        blocks: BlockNumber,
    ) -> Result<(), FileError> {
        let fork = self.get_mut(id)?;
        let on_disk = fork.disk_blocks;
        fork.blocks = fork.blocks.min(blocks);
        fork.disk_blocks = fork.disk_blocks.min(blocks);
        if on_disk <= blocks {
            return Ok(());
        }
        let segment_blocks = self.layout.segment_blocks;
        let last = (on_disk - 1) / segment_blocks;
        // From the end, so that a crash in between leaves a shorter fork and no gap.
        for segment in (blocks / segment_blocks..=last).rev() {
            let start = segment.saturating_mul(segment_blocks);
            self.set_segment_blocks(id, segment, blocks.saturating_sub(start))?;
        }
        Ok(())
    }
}
