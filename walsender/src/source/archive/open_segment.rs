//! [`OpenSegment`]: the bytes of one segment, out of one file.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use walstream::read::Reader;
use walstream::wal::page::LongPageHeader;
use walstream::wal::segment_name::{Compression, SegmentName};
use walstream::{Lsn, PageSize, SegmentNumber, SegmentSize, TimelineId};

use super::catalog::Candidate;
use super::decompress::{Decompressor, StreamFault};
use super::error::ArchiveError;
use super::place::{Place, ReadAt};

/// Bytes skipped at a time.
const SKIP: usize = 64 << 10;

/// A segment opened for reading.
///
/// Reading gives its bytes from the first one on, decompressed, and never more than a segment. The end comes early in a
/// partial segment, in a plain file that was cut short, and where the timeline's history left the timeline. A compressed
/// file's checksums are verified: the last bytes of a complete one are given only after that. Errors are
/// [`ArchiveError`] in [`io::Error`], see [`ArchiveError::from_read`], and come again when it is read again.
///
/// A plain file is read with `pread`, so that of a file which grows or is overwritten each call gives what is there then.
pub struct OpenSegment {
    file: FileFacts,
    segment: SegmentName,
    segment_size: SegmentSize,
    header: Option<LongPageHeader>,
    content: Content,
    position: u64,
    limit: u64,
    failed: Option<ArchiveError>,
}

/// The file, for messages.
struct FileFacts {
    name: String,
    path: String,
    partial: bool,
    compression: Option<Compression>,
}

enum Content {
    Plain(Box<dyn ReadAt>),
    Compressed {
        stream: Box<Decompressor>,
        /// The first bytes, which were looked at already.
        head: Vec<u8>,
        /// Bytes that the stream has given.
        decoded: u64,
        ended: bool,
    },
    /// Its reopening failed.
    Lost,
}

impl OpenSegment {
    /// Opens the file; `None` when it is no longer there.
    pub(crate) fn open(
        place: &dyn Place,
        candidate: &Candidate,
        segment: SegmentName,
        segment_size: SegmentSize,
    ) -> Result<Option<Self>, ArchiveError> {
        let Some(mut file) = place.open(&candidate.name)? else {
            return Ok(None);
        };
        let facts = FileFacts {
            name: candidate.name.clone(),
            path: place.display(&candidate.name),
            partial: candidate.partial,
            compression: candidate.compression,
        };
        let mut head = vec![0; LongPageHeader::LEN];
        let content = match candidate.compression {
            None => {
                let size = file.size().map_err(|error| facts.unreadable(error))?;
                if size > segment_size.bytes() {
                    return Err(facts.too_long(segment_size));
                }
                let count = file
                    .fill_at(0, &mut head)
                    .map_err(|error| facts.unreadable(error))?;
                head.truncate(count);
                Content::Plain(file)
            }
            Some(compression) => {
                let (stream, ended) =
                    start(compression, facts.partial, file, segment_size, &mut head)
                        .map_err(|(offset, fault)| facts.fault(offset, fault))?;
                Content::Compressed {
                    stream: Box::new(stream),
                    head: head.clone(),
                    decoded: head.len() as u64,
                    ended,
                }
            }
        };
        // A header of no known version is left to whoever decodes the WAL.
        let header = LongPageHeader::parse(&mut Reader::new(&head))
            .ok()
            .filter(|header| header.dialect(PageSize::DEFAULT).is_ok());
        Ok(Some(Self {
            file: facts,
            segment,
            segment_size,
            header,
            content,
            position: 0,
            limit: segment_size.bytes(),
            failed: None,
        }))
    }

    /// The same, but ending before `lsn`, where the timeline was left.
    pub(crate) fn ending_at(mut self, lsn: Lsn) -> Self {
        if let Some(start) = self.segment.start_lsn(self.segment_size) {
            self.limit = self.limit.min(lsn.saturating_sub(start));
        }
        self
    }

    /// The file's name within its archive.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The file with its place, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.file.path
    }

    /// The timeline in the file's name.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.segment.timeline
    }

    /// The segment's number.
    #[must_use]
    pub const fn number(&self) -> SegmentNumber {
        self.segment.number
    }

    /// Whether the file's name says that the segment may not be complete.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.file.partial
    }

    /// How the file is compressed.
    #[must_use]
    pub const fn compression(&self) -> Option<Compression> {
        self.file.compression
    }

    /// The header of the segment's first page; `None` when it is none of a known version, such as zeros.
    #[must_use]
    pub const fn header(&self) -> Option<&LongPageHeader> {
        self.header.as_ref()
    }

    /// The file itself, where it is a plain one of this machine.
    pub(crate) fn local_file(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => file.local_file(),
            Content::Compressed { .. } | Content::Lost => None,
        }
    }

    /// Offset of the next byte that is read, from the segment's start.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Reads on until the buffer is full or the segment ends, and gives the number of bytes.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file is damaged or cannot be read.
    pub fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest)? {
                0 => break,
                count => filled = filled.saturating_add(count),
            }
        }
        Ok(filled)
    }

    /// Goes to this offset in the segment. In a compressed file that means to decompress up to there, from the file's
    /// start when the offset lies before the position. Behind the end of the file there is nothing to read.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file is damaged or cannot be read.
    pub fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let offset = offset.min(self.limit);
        let within_head = match &self.content {
            Content::Plain(_) => true,
            Content::Compressed { head, decoded, .. } => {
                let head = head.len() as u64;
                *decoded == head && offset <= head
            }
            Content::Lost => false,
        };
        if within_head {
            self.position = offset;
            return Ok(());
        }
        if offset < self.position {
            self.restart()?;
        }
        let mut skipped = vec![0; SKIP];
        while self.position < offset {
            let wanted = usize::try_from(offset.saturating_sub(self.position)).unwrap_or(SKIP);
            let buffer = skipped.get_mut(..wanted.min(SKIP)).unwrap_or_default();
            if self.read_some(buffer)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Begins to decompress anew.
    fn restart(&mut self) -> Result<(), ArchiveError> {
        let content = std::mem::replace(&mut self.content, Content::Lost);
        let (
            Content::Compressed {
                stream, mut head, ..
            },
            Some(compression),
        ) = (content, self.file.compression)
        else {
            return Ok(());
        };
        let result = match stream.into_file() {
            None => Err((0, StreamFault::File(io::ErrorKind::Other.into()))),
            Some(file) => {
                head.resize(LongPageHeader::LEN, 0);
                start(
                    compression,
                    self.file.partial,
                    file,
                    self.segment_size,
                    &mut head,
                )
            }
        };
        match result {
            Ok((stream, ended)) => {
                self.position = 0;
                self.content = Content::Compressed {
                    stream: Box::new(stream),
                    decoded: head.len() as u64,
                    head,
                    ended,
                };
                Ok(())
            }
            Err((offset, fault)) => Err(self.fail(self.file.fault(offset, fault))),
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let rest = self.limit.saturating_sub(self.position);
        let wanted = buffer
            .len()
            .min(usize::try_from(rest).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let result = match &mut self.content {
            Content::Plain(file) => loop {
                match file.read_at(self.position, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result.map_err(|error| self.file.unreadable(error)),
                }
            },
            Content::Compressed {
                stream,
                head,
                decoded,
                ended,
            } => {
                let looked_at = usize::try_from(self.position)
                    .ok()
                    .and_then(|position| head.get(position..))
                    .unwrap_or_default();
                if looked_at.is_empty() {
                    let mut decoding = Decoding {
                        file: &self.file,
                        segment_size: self.segment_size,
                        stream,
                        decoded,
                        ended,
                    };
                    decoding.read(buffer, self.limit)
                } else {
                    let mut looked_at = looked_at;
                    Ok(looked_at.read(buffer).unwrap_or(0))
                }
            }
            Content::Lost => Ok(0),
        };
        match result {
            Ok(count) => {
                self.position = self.position.saturating_add(count as u64);
                Ok(count)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: ArchiveError) -> ArchiveError {
        self.failed = Some(error.clone());
        error
    }
}

impl Read for OpenSegment {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(buffer)?)
    }
}

impl std::fmt::Debug for OpenSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSegment")
            .field("path", &self.file.path)
            .field("segment", &self.segment)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// One step of reading from a compressed file.
struct Decoding<'a> {
    file: &'a FileFacts,
    segment_size: SegmentSize,
    stream: &'a mut Decompressor,
    decoded: &'a mut u64,
    ended: &'a mut bool,
}

impl Decoding<'_> {
    /// Bytes up to `limit`, the last of which are given only when the rest of the file has proven to be right.
    fn read(&mut self, buffer: &mut [u8], limit: u64) -> Result<usize, ArchiveError> {
        let count = self.step(buffer)?;
        if *self.decoded >= limit {
            let mut rest = [0; 4096];
            while self.step(&mut rest)? > 0 {
                if *self.decoded > self.segment_size.bytes() {
                    return Err(self.file.too_long(self.segment_size));
                }
            }
        }
        Ok(count)
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        if *self.ended {
            return Ok(0);
        }
        let count = match self.stream.read(buffer) {
            Ok(count) => count,
            // A partial file may be cut anywhere: what came before is what there is.
            Err(StreamFault::Truncated) if self.file.partial => 0,
            Err(fault) => return Err(self.file.fault(*self.decoded, fault)),
        };
        *self.ended = count == 0;
        *self.decoded = self.decoded.saturating_add(count as u64);
        Ok(count)
    }
}

impl FileFacts {
    fn unreadable(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Io {
            operation: "read",
            file: self.path.clone(),
            source: Arc::new(source),
        }
    }

    fn too_long(&self, segment_size: SegmentSize) -> ArchiveError {
        ArchiveError::TooLong {
            file: self.path.clone(),
            segment_size: segment_size.bytes(),
        }
    }

    fn fault(&self, offset: u64, fault: StreamFault) -> ArchiveError {
        let file = self.path.clone();
        match (fault, self.compression) {
            (StreamFault::File(error), _) => self.unreadable(error),
            (StreamFault::Truncated, Some(compression)) => ArchiveError::Truncated {
                file,
                compression,
                offset,
            },
            (StreamFault::Corrupt(reason), Some(compression)) => ArchiveError::Damaged {
                file,
                compression,
                offset,
                reason,
            },
            (_, None) => self.unreadable(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Begins to decompress: `head` is filled with the first bytes, and cut to as many as there are. Gives whether the
/// stream ended within them.
fn start(
    compression: Compression,
    partial: bool,
    file: Box<dyn ReadAt>,
    segment_size: SegmentSize,
    head: &mut Vec<u8>,
) -> Result<(Decompressor, bool), (u64, StreamFault)> {
    let mut stream =
        Decompressor::new(compression, file, segment_size).map_err(|fault| (0, fault))?;
    let (mut filled, mut ended) = (0, false);
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => ended = true,
            Ok(count) => filled = filled.saturating_add(count),
            Err(StreamFault::Truncated) if partial => ended = true,
            Err(fault) => return Err((filled as u64, fault)),
        }
        if ended {
            break;
        }
    }
    head.truncate(filled);
    Ok((stream, ended))
}
