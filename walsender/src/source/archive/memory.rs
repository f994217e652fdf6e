//! [`Memory`]: a place in memory, for tests and fuzzing.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::error::ArchiveError;
use super::place::{ListedFile, Place, ReadAt};

/// Files in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) files: BTreeMap<String, Bytes>,
}

impl Place for Memory {
    fn list(&self) -> Result<Vec<ListedFile>, ArchiveError> {
        let files = self.files.iter();
        Ok(files
            .map(|(name, content)| ListedFile {
                name: name.clone(),
                size: content.len() as u64,
            })
            .collect())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn ReadAt>>, ArchiveError> {
        let content = self.files.get(name).cloned();
        Ok(content.map(|content| Box::new(content) as Box<dyn ReadAt>))
    }

    fn display(&self, name: &str) -> String {
        format!("memory:{name}")
    }

    fn display_place(&self) -> String {
        "memory".to_owned()
    }
}

impl ReadAt for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}
