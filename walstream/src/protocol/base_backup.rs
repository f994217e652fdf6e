//! The data of a base backup: messages of the single stream that servers send since 15, and [`BackupStream`], which
//! makes one sequence of events of it and of the separate streams that servers sent before.
//!
//! ```text
//! since 15   one COPY; each CopyData begins with its kind:
//!              n  archive name, tablespace location, both zero-terminated     a new archive begins
//!              m                                                              the manifest begins
//!              d  bytes to the end                                            data of what began last
//!              p  bytes done u64                                              progress
//! before     one COPY of raw bytes for each row of the tablespace list, in its order, then one for the manifest
//! ```
//!
//! Any bytes may be parsed. Archive names are checked so that they can be used as file names; tablespace locations
//! are the server's word and are only for mapping.

use bytes::{BufMut, BytesMut};

use super::ProtocolError;
use super::identify::BackupTablespace;
use crate::read::Reader;

/// The payload of one CopyData frame of a base backup from a server of version 15 or later.
///
/// # Source
/// `src/backend/backup/basebackup_copy.c`; protocol chapter "Streaming Replication Protocol", `BASE_BACKUP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupMessage<'a> {
    /// A new archive begins; the one before has ended.
    NewArchive {
        /// File name such as `base.tar` or `16400.tar.gz`: not empty, no leading dot, no separator.
        name: &'a str,
        /// The tablespace's location on the server; `None` for the data directory.
        location: Option<&'a [u8]>,
    },
    /// The manifest begins; the last archive has ended.
    Manifest,
    /// Data of the archive or manifest that began last.
    Data(&'a [u8]),
    /// Bytes that the server has read for the backup so far, before compression.
    Progress {
        /// The count, in bytes.
        bytes_done: u64,
    },
}

impl<'a> BackupMessage<'a> {
    /// Reads the payload of one CopyData frame.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, has bytes too many, is of unknown kind, or names an archive in a way
    /// that is no plain file name.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let tag = reader
            .u8()
            .map_err(ProtocolError::cut_short("base backup"))?;
        let message = match tag {
            b'd' => return Ok(Self::Data(reader.rest())),
            b'n' => {
                let short = ProtocolError::cut_short("new archive");
                let name = archive_name(reader.c_str().map_err(&short)?)?;
                let location = reader.c_str().map_err(&short)?;
                Self::NewArchive {
                    name,
                    location: Some(location).filter(|location| !location.is_empty()),
                }
            }
            b'm' => Self::Manifest,
            b'p' => Self::Progress {
                bytes_done: reader
                    .u64_be()
                    .map_err(ProtocolError::cut_short("progress"))?,
            },
            tag => {
                return Err(ProtocolError::UnknownKind {
                    context: "a base backup",
                    tag,
                });
            }
        };
        match reader.remaining() {
            0 => Ok(message),
            count => Err(ProtocolError::TrailingBytes {
                message: "base backup",
                count,
            }),
        }
    }

    /// Appends the payload of one CopyData frame. Names and locations must hold no zero byte.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::NewArchive { name, location } => {
                out.put_u8(b'n');
                out.put_slice(name.as_bytes());
                out.put_u8(0);
                out.put_slice(location.unwrap_or_default());
                out.put_u8(0);
            }
            Self::Manifest => out.put_u8(b'm'),
            Self::Data(data) => {
                out.put_u8(b'd');
                out.put_slice(data);
            }
            Self::Progress { bytes_done } => {
                out.put_u8(b'p');
                out.put_u64(*bytes_done);
            }
        }
    }
}

fn archive_name(bytes: &[u8]) -> Result<&str, ProtocolError> {
    let bad = || ProtocolError::bad_field("new archive", "name", bytes, "a plain file name");
    let name = std::str::from_utf8(bytes).map_err(|_| bad())?;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Err(bad());
    }
    Ok(name)
}

/// How a server sends a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupGeneration {
    /// Before 15: a COPY for each archive and one for the manifest. Archives lack the two zero blocks at the end
    /// of a tar file.
    CopyPerArchive,
    /// Since 15: one COPY for everything, of [`BackupMessage`]s.
    SingleCopy,
}

impl BackupGeneration {
    /// The generation of a server of this version (`server_version_num`, as 150018).
    #[must_use]
    pub const fn for_version(server_version_num: u32) -> Self {
        if server_version_num >= 150_000 {
            Self::SingleCopy
        } else {
            Self::CopyPerArchive
        }
    }
}

/// A step of a base backup, the same for both generations of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupEvent<'a> {
    /// An archive begins, and what came before has ended.
    Archive {
        /// Its place in the tablespace list that the stream was made with.
        tablespace_index: usize,
        /// File name: `base` or an OID, with `.tar` and perhaps the ending of a compression.
        name: String,
    },
    /// The manifest begins, and the last archive has ended.
    Manifest,
    /// Bytes of the archive or manifest that began last.
    Data(&'a [u8]),
    /// Bytes that the server has read for the backup so far, before compression; servers before 15 never say.
    Progress {
        /// The count, in bytes.
        bytes_done: u64,
    },
    /// Everything has come. The row with the backup's end LSN follows, outside the stream.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// No COPY is running.
    Outside,
    /// A COPY is running and nothing has begun in it (single stream only).
    Nothing,
    Archive,
    Manifest,
    Finished,
}

/// The receiving side of a base backup, from the tablespace list to the last CopyDone.
///
/// Feed it each CopyOutResponse, CopyData payload and CopyDone in the order of their coming. Each call gives the
/// event that follows from it, if any; after [`BackupEvent::End`] nothing more may come.
#[derive(Clone, Debug)]
pub struct BackupStream {
    generation: BackupGeneration,
    /// Archive names without ending, in the list's order, and whether each has begun.
    archives: Vec<(String, bool)>,
    expects_manifest: bool,
    part: Part,
}

impl BackupStream {
    /// A stream of a backup with these tablespaces; `expects_manifest` when one was asked for.
    #[must_use]
    pub fn new(
        generation: BackupGeneration,
        tablespaces: &[BackupTablespace],
        expects_manifest: bool,
    ) -> Self {
        Self {
            generation,
            archives: tablespaces
                .iter()
                .map(|row| (row.archive_stem(), false))
                .collect(),
            expects_manifest,
            part: Part::Outside,
        }
    }

    /// Whether everything has come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.part == Part::Finished
    }

    /// Handles a CopyOutResponse.
    ///
    /// # Errors
    /// [`ProtocolError::OutOfOrder`] when a COPY is running already or everything has come.
    pub fn handle_copy_out(&mut self) -> Result<Option<BackupEvent<'static>>, ProtocolError> {
        if self.part != Part::Outside {
            return Err(self.out_of_order("CopyOutResponse"));
        }
        if self.generation == BackupGeneration::SingleCopy {
            self.part = Part::Nothing;
            return Ok(None);
        }
        match self.archives.iter().position(|(_, begun)| !begun) {
            Some(index) => self.begin_archive(index, None).map(Some),
            None => {
                self.part = Part::Manifest;
                Ok(Some(BackupEvent::Manifest))
            }
        }
    }

    /// Handles the payload of a CopyData frame.
    ///
    /// # Errors
    /// [`ProtocolError`] when the message is malformed, comes out of order, or names an archive that is not in the
    /// tablespace list or came before.
    pub fn handle_copy_data<'a>(
        &mut self,
        payload: &'a [u8],
    ) -> Result<BackupEvent<'a>, ProtocolError> {
        let data_is_expected = matches!(self.part, Part::Archive | Part::Manifest);
        if self.generation == BackupGeneration::CopyPerArchive {
            return match data_is_expected {
                true => Ok(BackupEvent::Data(payload)),
                false => Err(self.out_of_order("CopyData")),
            };
        }
        if matches!(self.part, Part::Outside | Part::Finished) {
            return Err(self.out_of_order("CopyData"));
        }
        match BackupMessage::parse(payload)? {
            BackupMessage::Data(data) if data_is_expected => Ok(BackupEvent::Data(data)),
            BackupMessage::Data(_) => Err(self.out_of_order("base backup data")),
            BackupMessage::Progress { bytes_done } => Ok(BackupEvent::Progress { bytes_done }),
            BackupMessage::NewArchive { name, .. } if self.part != Part::Manifest => {
                let stem = name.split('.').next().unwrap_or(name);
                let index = self
                    .archives
                    .iter()
                    .position(|(known, begun)| known == stem && !begun);
                let index = index.ok_or_else(|| {
                    let expected = "a tablespace of the list, each once";
                    ProtocolError::bad_field("new archive", "name", name.as_bytes(), expected)
                })?;
                self.begin_archive(index, Some(name))
            }
            BackupMessage::Manifest
                if self.part != Part::Manifest && self.expects_manifest && self.all_begun() =>
            {
                self.part = Part::Manifest;
                Ok(BackupEvent::Manifest)
            }
            BackupMessage::NewArchive { .. } => Err(self.out_of_order("new archive")),
            BackupMessage::Manifest => Err(self.out_of_order("manifest")),
        }
    }

    /// Handles a CopyDone.
    ///
    /// # Errors
    /// [`ProtocolError::OutOfOrder`] when no COPY is running, or an archive or the manifest is missing.
    pub fn handle_copy_done(&mut self) -> Result<Option<BackupEvent<'static>>, ProtocolError> {
        let is_whole = self.all_begun() && (self.part == Part::Manifest || !self.expects_manifest);
        match (self.part, self.generation) {
            (Part::Outside | Part::Finished, _) => Err(self.out_of_order("CopyDone")),
            _ if is_whole => {
                self.part = Part::Finished;
                Ok(Some(BackupEvent::End))
            }
            (_, BackupGeneration::CopyPerArchive) => {
                self.part = Part::Outside;
                Ok(None)
            }
            (_, BackupGeneration::SingleCopy) => Err(self.out_of_order("CopyDone")),
        }
    }

    fn begin_archive(
        &mut self,
        index: usize,
        name: Option<&str>,
    ) -> Result<BackupEvent<'static>, ProtocolError> {
        let Some((stem, begun)) = self.archives.get_mut(index) else {
            return Err(self.out_of_order("new archive"));
        };
        *begun = true;
        self.part = Part::Archive;
        Ok(BackupEvent::Archive {
            tablespace_index: index,
            name: name.map_or_else(|| format!("{stem}.tar"), ToOwned::to_owned),
        })
    }

    fn all_begun(&self) -> bool {
        self.archives.iter().all(|(_, begun)| *begun)
    }

    fn out_of_order(&self, message: &'static str) -> ProtocolError {
        let state = match self.part {
            Part::Outside => "no part of the base backup was being copied",
            Part::Nothing => "no archive had begun",
            Part::Archive => "archives of the base backup were being copied",
            Part::Manifest => "the backup manifest was being copied",
            Part::Finished => "the base backup was complete",
        };
        ProtocolError::OutOfOrder { message, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: BackupMessage<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out
    }

    /// A tablespace, then the data directory, as servers list them.
    fn tablespaces() -> Vec<BackupTablespace> {
        let row = |oid: Option<u32>| BackupTablespace {
            oid,
            location: oid.map(|_| b"/space".to_vec()),
            size_kib: None,
        };
        vec![row(Some(16400)), row(None)]
    }

    fn archive(tablespace_index: usize, name: &str) -> BackupEvent<'static> {
        BackupEvent::Archive {
            tablespace_index,
            name: name.to_owned(),
        }
    }

    #[test]
    fn encode_then_parse_is_identity() {
        for message in [
            BackupMessage::NewArchive {
                name: "base.tar",
                location: None,
            },
            BackupMessage::NewArchive {
                name: "1.tar.gz",
                location: Some(b"/\xE9"),
            },
            BackupMessage::Manifest,
            BackupMessage::Data(b""),
            BackupMessage::Data(b"x\0"),
            BackupMessage::Progress {
                bytes_done: u64::MAX,
            },
        ] {
            assert_eq!(BackupMessage::parse(&bytes(message)), Ok(message));
        }
        assert_eq!(
            bytes(BackupMessage::NewArchive {
                name: "a",
                location: None
            })[..],
            *b"na\0\0"
        );
    }

    #[test]
    fn bad_messages_are_refused() {
        for payload in [
            &b""[..],
            b"x",
            b"n",
            b"nbase.tar",
            b"nbase.tar\0",
            b"nbase.tar\0/a\0b",
            b"n\0\0",
            b"n.x\0\0",
            b"na/b\0\0",
            b"na\\b\0\0",
            b"n\xFF\0\0",
            b"p1234567",
            b"p123456789",
            b"m1",
        ] {
            assert!(
                BackupMessage::parse(payload).is_err(),
                "{}",
                payload.escape_ascii()
            );
        }
    }

    #[test]
    fn a_single_copy_gives_archives_in_any_order_then_the_manifest() {
        let mut stream =
            BackupStream::new(BackupGeneration::for_version(150_018), &tablespaces(), true);
        assert!(
            stream.handle_copy_data(b"dx").is_err(),
            "before CopyOutResponse"
        );
        assert_eq!(stream.handle_copy_out(), Ok(None));
        assert!(
            stream.handle_copy_data(b"dx").is_err(),
            "before any archive"
        );
        assert_eq!(
            stream.handle_copy_data(b"nbase.tar.zst\0\0"),
            Ok(archive(1, "base.tar.zst"))
        );
        assert_eq!(stream.handle_copy_data(b"dx"), Ok(BackupEvent::Data(b"x")));
        assert!(
            stream.handle_copy_data(b"nbase.tar\0\0").is_err(),
            "a second time"
        );
        assert!(
            stream.handle_copy_data(b"n16401.tar\0/a\0").is_err(),
            "not listed"
        );
        assert!(
            stream.handle_copy_data(b"m").is_err(),
            "an archive is missing"
        );
        assert!(
            stream.handle_copy_done().is_err(),
            "an archive and the manifest are missing"
        );
        let event = stream.handle_copy_data(b"n16400.tar\0/space\0");
        assert_eq!(event, Ok(archive(0, "16400.tar")));
        assert!(
            stream.handle_copy_done().is_err(),
            "the manifest is missing"
        );
        let event = stream.handle_copy_data(b"p\0\0\0\0\0\0\0\x09");
        assert_eq!(event, Ok(BackupEvent::Progress { bytes_done: 9 }));
        assert_eq!(stream.handle_copy_data(b"m"), Ok(BackupEvent::Manifest));
        assert_eq!(
            stream.handle_copy_data(b"d{}"),
            Ok(BackupEvent::Data(b"{}"))
        );
        assert!(stream.handle_copy_data(b"m").is_err(), "a second manifest");
        assert_eq!(stream.handle_copy_done(), Ok(Some(BackupEvent::End)));
        assert!(stream.is_finished());
        assert!(stream.handle_copy_done().is_err());
        assert!(stream.handle_copy_out().is_err());
        assert!(stream.handle_copy_data(b"dx").is_err());
    }

    #[test]
    fn separate_copies_give_the_same_events() {
        let generation = BackupGeneration::for_version(149_999);
        for with_manifest in [true, false] {
            let mut stream = BackupStream::new(generation, &tablespaces(), with_manifest);
            assert!(stream.handle_copy_done().is_err());
            assert_eq!(stream.handle_copy_out(), Ok(Some(archive(0, "16400.tar"))));
            assert!(stream.handle_copy_out().is_err(), "a COPY is running");
            assert_eq!(
                stream.handle_copy_data(b"nraw"),
                Ok(BackupEvent::Data(b"nraw"))
            );
            assert_eq!(stream.handle_copy_done(), Ok(None));
            assert!(stream.handle_copy_data(b"x").is_err());
            assert_eq!(stream.handle_copy_out(), Ok(Some(archive(1, "base.tar"))));
            if with_manifest {
                assert_eq!(stream.handle_copy_done(), Ok(None));
                assert_eq!(stream.handle_copy_out(), Ok(Some(BackupEvent::Manifest)));
            }
            assert_eq!(stream.handle_copy_done(), Ok(Some(BackupEvent::End)));
            assert!(stream.is_finished());
        }
    }
}
