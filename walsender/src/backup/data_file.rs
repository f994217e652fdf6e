//! A file of the data directory, as long as it was when it was found, with the checksums of its pages verified.
//!
//! # Source
//! `sendFile` in `src/backend/backup/basebackup.c`.

use std::fs::File;

use super::error::BackupError;
use super::exclusions::has_page_checksums;
use super::page_checksum::check;
use super::producer::{Producer, read_up_to};
use super::tar_header::Kind;
use super::walk::FoundFile;

/// Damaged pages of one file that are named.
const NAMED_PAGES: u32 = 5;

/// The pages of a file that is verified.
struct Pages<'a> {
    file: &'a File,
    shown: &'a str,
    page_size: usize,
    /// Number of the file's first page within the relation.
    first_block: u32,
    /// Pages of the file that were looked at.
    block: u32,
    damaged: u32,
}

impl Producer {
    /// Sends a file.
    pub(super) fn data_file(
        &mut self,
        found: &FoundFile<'_>,
        file: &File,
    ) -> Result<(), BackupError> {
        let size = found.attributes.size;
        let mut pages = self.pages(found, file)?;
        self.header(found.name, Kind::File, &found.attributes)?;
        let mut checksum = self.manifest.checksum();
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        let mut is_verified = pages.is_some();
        while done < size {
            let wanted = usize::try_from(size - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let count = read_up_to(file, part, done);
            let mut count = count.map_err(BackupError::file("read file", found.shown.as_ref()))?;
            let mut part = part.get_mut(..count).unwrap_or_default();
            if let Some(pages) = pages.as_mut().filter(|_| is_verified) {
                if count % pages.page_size == 0 {
                    count = pages.verify(part, done, self)?;
                    part = part.get_mut(..count).unwrap_or_default();
                } else {
                    is_verified = false;
                    self.warn(format!(
                        "could not verify checksum in file \"{}\", block {}: read buffer size {count} and page size {} differ",
                        found.shown, pages.block, pages.page_size
                    ))?;
                }
            }
            if count == 0 {
                break;
            }
            self.write(part)?;
            checksum.update(part);
            done += count as u64;
        }
        // What was cut off meanwhile, replay knows.
        if done < size {
            buffer.fill(0);
        }
        while done < size {
            let wanted = usize::try_from(size - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let zeros = buffer.get(..wanted).unwrap_or_default();
            self.write(zeros)?;
            checksum.update(zeros);
            done += zeros.len() as u64;
        }
        self.buffer = buffer;
        self.pad(size)?;
        if let Some(pages) = pages {
            if pages.damaged > 1 {
                self.warn(format!(
                    "file \"{}\" has a total of {} checksum verification failures",
                    found.shown, pages.damaged
                ))?;
            }
            self.damaged_pages += u64::from(pages.damaged);
        }
        let path = match self.tablespace {
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), found.name].concat(),
            None => found.name.to_vec(),
        };
        self.manifest
            .add_file(&path, size, found.attributes.mtime_unix_s, checksum)
    }

    /// What is to be verified of a file; `None` when it has no pages with checksums.
    ///
    /// # Source
    /// `is_checksummed_file` in `src/backend/backup/basebackup.c`.
    fn pages<'a>(
        &self,
        found: &'a FoundFile<'_>,
        file: &'a File,
    ) -> Result<Option<Pages<'a>>, BackupError> {
        let name = found
            .name
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        let holds_relations = self.tablespace.is_some()
            || found.name.starts_with(b"global/")
            || found.name.starts_with(b"base/");
        if !self.verifies_pages || !holds_relations || !has_page_checksums(name) {
            return Ok(None);
        }
        let name = String::from_utf8_lossy(name);
        let segment = match name.split_once('.') {
            None => 0,
            Some((_, digits)) => match digits.parse() {
                Ok(number @ 1..) => number,
                _ => {
                    return Err(BackupError::SegmentNumber {
                        number: 0,
                        name: name.into_owned(),
                    });
                }
            },
        };
        Ok(Some(Pages {
            file,
            shown: found.shown,
            page_size: self.facts.block_size,
            first_block: self.facts.blocks_per_relation_segment.wrapping_mul(segment),
            block: 0,
            damaged: 0,
        }))
    }
}

impl Pages<'_> {
    /// Verifies pages that lie at `offset` in the file. Gives how many bytes of them there are: fewer when the file was cut
    /// off meanwhile.
    fn verify(
        &mut self,
        bytes: &mut [u8],
        offset: u64,
        producer: &Producer,
    ) -> Result<usize, BackupError> {
        let start_lsn = producer.start.lsn;
        for (index, page) in bytes.chunks_exact_mut(self.page_size).enumerate() {
            let block = self.first_block.wrapping_add(self.block);
            if check(page, block, start_lsn).is_some() {
                // The server may just have been writing it: then it has a newer LSN now.
                let place = index * self.page_size;
                let again = read_up_to(self.file, page, offset + place as u64);
                match again.map_err(BackupError::file("read file", self.shown.as_ref()))? {
                    0 => return Ok(place),
                    count if count < self.page_size => {
                        let reason = format!("read {count} of {}", self.page_size);
                        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, reason);
                        return Err(BackupError::file("read file", self.shown.as_ref())(error));
                    }
                    _ => {}
                }
            }
            if let Some(mismatch) = check(page, block, start_lsn) {
                self.damaged += 1;
                if self.damaged <= NAMED_PAGES {
                    producer.warn(format!(
                        "checksum verification failed in file \"{}\", block {}: calculated {:X} but expected {:X}",
                        self.shown, self.block, mismatch.computed, mismatch.stored
                    ))?;
                }
                if self.damaged == NAMED_PAGES {
                    producer.warn(format!(
                        "further checksum verification failures in file \"{}\" will not be reported",
                        self.shown
                    ))?;
                }
            }
            self.block += 1;
        }
        Ok(bytes.len())
    }
}
