//! Finished files that an earlier run left in the directory: it was killed, or its place took no files.

use std::io;

use walsender::source::archive::ArchiveFileName;
use walstream::read::Reader;
use walstream::wal::page::LongPageHeader;
use walstream::wal::segment_name::WalFileName;
use walstream::{Lsn, SystemIdentifier};

use super::queue::WaitingFile;
use super::upload_error::UploadsError;
use crate::receive::archive_sink::{Archive, decoder};
use crate::receive::receive_error::ReceiveError;
use crate::receive::start_position::{CompleteSegment, LocalSegments};
use crate::wal_sink::Storage;

/// Finished files in the directory, in the order in which they are to be put elsewhere: history files, then segments, each
/// by timeline. `local` is what the directory holds, `system` the server that it is an archive of.
///
/// # Errors
/// [`ReceiveError`] when a file cannot be read, or is not this system's WAL.
pub fn left_files<S: Storage>(
    archive: &Archive<S>,
    local: &LocalSegments,
    system: SystemIdentifier,
) -> Result<Vec<WaitingFile>, ReceiveError> {
    let names = archive.storage.list(&archive.path);
    let names = names.map_err(|source| ReceiveError::Directory {
        operation: "open directory",
        file: archive.path.clone(),
        source,
    })?;
    let mut histories: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let name = name.to_str()?;
            match ArchiveFileName::parse(name, archive.segment_size)?.kind {
                WalFileName::History(timeline) => Some((timeline, name)),
                _ => None,
            }
        })
        .collect();
    histories.sort_unstable();
    let mut segments: Vec<_> = local.complete.iter().collect();
    segments.sort_by_key(|file| (file.segment, &file.file_name));
    for file in &segments {
        check(archive, file, system)?;
    }
    let history_names = histories.into_iter().map(|(_, name)| name);
    let segment_names = segments.iter().map(|file| file.file_name.as_str());
    Ok(history_names
        .chain(segment_names)
        .map(|name| WaitingFile::new(archive.path.join(name), archive.segment_size))
        .collect())
}

/// Checks that a complete segment begins with its own first page, of this system.
fn check<S: Storage>(
    archive: &Archive<S>,
    file: &CompleteSegment,
    system: SystemIdentifier,
) -> Result<(), ReceiveError> {
    let path = archive.path.join(&file.file_name);
    let mut head = [0; LongPageHeader::LEN];
    let header = decoder(&archive.storage, &path, file.compression)
        .and_then(|mut content| content.read_exact(&mut head))
        .and_then(|()| LongPageHeader::parse(&mut Reader::new(&head)).map_err(io::Error::other));
    let header = match header {
        Ok(header) => header,
        Err(source) => {
            return Err(ReceiveError::Directory {
                operation: "read file",
                file: path,
                source,
            });
        }
    };
    let expected = file.segment.start_lsn(archive.segment_size);
    let expected = expected.unwrap_or(Lsn::MAX);
    if header.page.address != expected {
        return Err(UploadsError::Misplaced {
            file: path,
            found: header.page.address,
            expected,
        }
        .into());
    }
    if header.system_identifier != system {
        return Err(ReceiveError::OtherSystem {
            what: path.display().to_string(),
            expected: header.system_identifier,
            found: system,
        });
    }
    Ok(())
}
