//! The segments that are open: only so many at a time.

use std::io;
use std::path::Path;

use super::super::layout::segment_path;
use super::super::storage::DataStorage;
use super::{ForkId, RelationFiles, Segment, to_usize};
use crate::mirror::durable::FileError;

impl<S: DataStorage> RelationFiles<S> {
    pub(super) fn opened(&self, id: ForkId, segment: u32) -> Option<(&S::File, &Path)> {
        let fork = self.get(id)?;
        let file = fork.segments.get(to_usize(segment))?.file.as_ref()?;
        Some((file, &fork.path))
    }

    /// Opens a segment, which is made if it does not exist.
    pub(super) fn open_segment(&mut self, id: ForkId, segment: u32) -> Result<(), FileError> {
        let index = to_usize(segment);
        let fork = self.get_mut(id)?;
        if let Some(known) = fork.segments.get_mut(index)
            && known.file.is_some()
        {
            known.used = true;
            return Ok(());
        }
        let path = segment_path(&fork.path, segment);
        let file = match self.storage.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.directory_changed(&path);
                self.storage
                    .create(&path)
                    .map_err(FileError::of("create", &path))?
            }
            opened => opened.map_err(FileError::of("open", &path))?,
        };
        self.make_room();
        let fork = self.get_mut(id)?;
        if fork.segments.len() <= index {
            fork.segments.resize_with(index + 1, Segment::default);
        }
        if let Some(known) = fork.segments.get_mut(index) {
            known.file = Some(file);
            known.used = true;
        }
        self.open.push((id, segment));
        Ok(())
    }

    /// Closes files that were not used lately, until one more may be open.
    pub(super) fn make_room(&mut self) {
        while self.open.len() >= self.open_limit {
            if self.hand >= self.open.len() {
                self.hand = 0;
            }
            let Some((id, segment)) = self.open.get(self.hand).copied() else {
                return;
            };
            let known = self
                .slot(id)
                .and_then(Option::as_mut)
                .and_then(|fork| fork.segments.get_mut(to_usize(segment)));
            match known {
                Some(known) if known.used => {
                    known.used = false;
                    self.hand += 1;
                }
                known => {
                    if let Some(known) = known {
                        known.file = None;
                    }
                    self.open.swap_remove(self.hand);
                }
            }
        }
    }
}
