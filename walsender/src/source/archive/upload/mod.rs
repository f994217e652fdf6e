//! [`Uploader`]: puts finished files into an archive.
//!
//! A file has its final name in the store only when it is whole there. In this order:
//!
//! 1. The local file is read: a complete segment must have a segment's size, its compression's checksums must be right; its
//!    size and SHA-256 are remembered.
//! 2. If the final name exists, that must be the same file, byte for byte, and all is done. Another one is an error:
//!    nothing is ever overwritten.
//! 3. The file is written under a temporary name, made of the final one and the checksum, in one request or in parts that
//!    become an object only together. No reader takes such a name for WAL. To S3 each request carries a SHA-256, which
//!    the server compares.
//! 4. It is read back and compared with the remembered size and checksum.
//! 5. The store copies it to the final name, unless that exists by now, and the copy's size is looked at.
//! 6. The temporary object is removed.
//!
//! Everything up to 5 can be repeated, and is when a failure may pass, or when what was read back is wrong. What is left by
//! a kill at any instant is a temporary object, which the next upload of the same file overwrites and removes.
//!
//! Stores that cannot copy "only if there is none" (S3 unless `AWS_COPY_IF_NOT_EXISTS` says how) are asked whether the name
//! exists right before the copy. Between the two another writer could put a file there, and then the copy's content
//! decides; so let one receiver write to one prefix.
//!
//! In the store this needs the rights to list, read, write and delete. (Without the first, S3 answers "forbidden" when it is
//! asked for a name that does not exist.)
//!
//! The local file stays. Its owner may remove it after [`Uploader::upload`] succeeded.

mod error;
#[cfg(test)]
mod faulty_store;
mod local_file;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyMode, CopyOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
};
use tokio::task::spawn_blocking;
use walstream::SegmentSize;

pub use error::UploadError;
pub use local_file::Fingerprint;

use local_file::{Fingerprinting, LocalFile};

use super::file_name::ArchiveFileName;
use super::objects::{Attempt, ObjectPrefix, RetryPolicy, StoreFault};

/// How files are put into an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadOptions {
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// How an object is confirmed before it gets its name.
    pub confirm: Confirmation,
    /// Size of the parts in which larger files are sent, in bytes: what an upload holds in memory. Stores want at least
    /// 5 MiB.
    pub part_size: u64,
}

impl UploadOptions {
    /// The usual options.
    #[must_use]
    pub fn new(segment_size: SegmentSize) -> Self {
        Self {
            segment_size,
            retry: RetryPolicy::default(),
            confirm: Confirmation::default(),
            part_size: 5 << 20,
        }
    }
}

/// How an object is confirmed before it gets its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirmation {
    /// It is read back and its checksum compared.
    #[default]
    ReadBack,
    /// Only its size is compared: for stores that compare checksums themselves, where reading costs.
    Size,
}

/// A file that is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The object, as messages call it.
    pub object: String,
    /// Its size and checksum.
    pub fingerprint: Fingerprint,
    /// Whether it was there before.
    pub was_there: bool,
    /// How often it was tried.
    pub attempts: u32,
}

/// Puts finished files into an archive.
#[derive(Clone, Debug)]
pub struct Uploader {
    to: ObjectPrefix,
    options: UploadOptions,
}

/// Why one attempt failed.
enum Failed {
    /// For good.
    Finally(UploadError),
    /// A request.
    Request(&'static str, String, StoreFault),
    /// The object is not what was sent.
    Unconfirmed(String, Fingerprint),
}

impl From<UploadError> for Failed {
    fn from(error: UploadError) -> Self {
        Self::Finally(error)
    }
}

/// One file on its way.
struct Upload<'a> {
    to: &'a ObjectPrefix,
    options: &'a UploadOptions,
    file: LocalFile,
    fingerprint: Fingerprint,
    name: &'a str,
    temporary_name: String,
}

impl Uploader {
    /// An uploader to this place.
    #[must_use]
    pub const fn new(to: ObjectPrefix, options: UploadOptions) -> Self {
        Self { to, options }
    }

    /// Where it puts files.
    #[must_use]
    pub const fn to(&self) -> &ObjectPrefix {
        &self.to
    }

    /// Puts a file there under this name, the name of a segment or history file with the ending of its compression.
    ///
    /// Files of different names may be put there at the same time. The future may be dropped; then nothing has the final
    /// name, or the whole file has.
    ///
    /// # Errors
    /// [`UploadError`], which says whether it may succeed later.
    pub async fn upload(&self, file: &Path, name: &str) -> Result<Uploaded, UploadError> {
        let segment_size = self.options.segment_size;
        let kind = ArchiveFileName::parse(name, segment_size).ok_or_else(|| UploadError::Name {
            name: name.to_owned(),
        })?;
        let file = LocalFile::new(file);
        let fingerprint = blocking(&file, move |file| {
            file.ensure_whole(kind, segment_size)?;
            file.fingerprint()
        })
        .await?;
        let start = fingerprint.sha256.first_chunk::<8>();
        let checksum = u64::from_be_bytes(*start.unwrap_or(&[0; 8]));
        let upload = Upload {
            to: &self.to,
            options: &self.options,
            file,
            fingerprint,
            name,
            temporary_name: format!("{name}.{checksum:016x}.uploading"),
        };
        upload.run().await
    }
}

impl Upload<'_> {
    async fn run(&self) -> Result<Uploaded, UploadError> {
        let mut attempt = Attempt::first(self.options.retry);
        loop {
            let attempts = attempt.number();
            let error = match self.attempt().await {
                Ok(was_there) => {
                    return Ok(Uploaded {
                        object: self.to.display(self.name),
                        fingerprint: self.fingerprint,
                        was_there,
                        attempts,
                    });
                }
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Request(operation, object, fault)) => {
                    UploadError::store(operation, object, &fault, attempts)
                }
                Err(Failed::Unconfirmed(object, found)) => UploadError::Unconfirmed {
                    object,
                    found: found.to_string(),
                    expected: self.fingerprint.to_string(),
                    attempts,
                },
            };
            if !error.is_passing() || !attempt.next().await {
                return Err(error);
            }
            tracing::warn!(%error, "putting a file into the archive again");
        }
    }

    /// One attempt; gives whether the file was there before.
    async fn attempt(&self) -> Result<bool, Failed> {
        if self.is_there().await? {
            // An earlier attempt may have been told of a failure after it had succeeded.
            self.remove_temporary().await;
            return Ok(true);
        }
        self.write().await?;
        self.confirm().await?;
        self.publish().await?;
        self.remove_temporary().await;
        Ok(false)
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        self.to.store()
    }

    fn final_path(&self) -> ObjectPath {
        self.to.path(self.name)
    }

    fn temporary_path(&self) -> ObjectPath {
        self.to.path(&self.temporary_name)
    }

    fn failed(&self, operation: &'static str, name: &str) -> impl Fn(StoreFault) -> Failed {
        let object = self.to.display(name);
        move |fault| Failed::Request(operation, object.clone(), fault)
    }

    /// Whether the final name exists; it must be this file then.
    async fn is_there(&self) -> Result<bool, Failed> {
        let path = self.final_path();
        let failed = self.failed("look for", self.name);
        let size = match self.options.retry.request(self.store().head(&path)).await {
            Ok(meta) => meta.size,
            Err(fault) if fault.is_not_found() => return Ok(false),
            Err(fault) => return Err(failed(fault)),
        };
        let different = |found: String| UploadError::Different {
            object: self.to.display(self.name),
            found,
            expected: self.fingerprint.to_string(),
        };
        if size != self.fingerprint.size {
            return Err(different(format!("{size} bytes")).into());
        }
        let found = self.read_back(&path).await.map_err(&failed)?;
        if found == self.fingerprint {
            return Ok(true);
        }
        // It is worth a second look whether it was read wrongly, as the verdict is final.
        if self.read_back(&path).await.map_err(&failed)? == found {
            return Err(different(found.to_string()).into());
        }
        Err(Failed::Unconfirmed(self.to.display(self.name), found))
    }

    /// Writes the temporary object.
    async fn write(&self) -> Result<(), Failed> {
        let mut sent = Fingerprinting::default();
        let file = self.file.clone();
        let opened = blocking(&file, |file| {
            File::open(&file.path).map_err(|error| file.error(error))
        });
        let opened = opened.await?;
        if self.fingerprint.size <= self.options.part_size {
            let (_, piece) = self.piece(opened).await?;
            sent.update(&piece);
            self.ensure_unchanged(sent)?;
            let (path, payload) = (self.temporary_path(), PutPayload::from(piece));
            let put = self.store().put(&path, payload);
            let result = self.options.retry.request(put).await;
            result.map_err(self.failed("write", &self.temporary_name))?;
            return Ok(());
        }
        let path = self.temporary_path();
        let begin = self.store().put_multipart(&path);
        let begin = self.options.retry.request(begin).await;
        let mut multipart = begin.map_err(self.failed("write", &self.temporary_name))?;
        let result = self.write_parts(opened, multipart.as_mut(), sent).await;
        if result.is_err() {
            // What was sent costs room until it is given up. A store that has forgotten it, or cannot be reached, is no
            // further error.
            let _ = self.options.retry.request(multipart.abort()).await;
        }
        result
    }

    async fn write_parts(
        &self,
        mut file: File,
        multipart: &mut dyn MultipartUpload,
        mut sent: Fingerprinting,
    ) -> Result<(), Failed> {
        let failed = self.failed("write", &self.temporary_name);
        loop {
            let piece;
            (file, piece) = self.piece(file).await?;
            if piece.is_empty() {
                break;
            }
            sent.update(&piece);
            let part = multipart.put_part(PutPayload::from(piece));
            self.options.retry.request(part).await.map_err(&failed)?;
        }
        self.ensure_unchanged(sent)?;
        let complete = self.options.retry.request(multipart.complete()).await;
        complete.map_err(failed)?;
        Ok(())
    }

    async fn piece(&self, mut opened: File) -> Result<(File, Bytes), UploadError> {
        // Made here and not where it is filled: threads that block come and go, and each would keep the memory it freed.
        let size = usize::try_from(self.options.part_size).unwrap_or(5 << 20);
        let buffer = vec![0; size.max(1)];
        blocking(&self.file, move |file| {
            let piece = file.piece(&mut opened, buffer)?;
            Ok((opened, piece))
        })
        .await
    }

    fn ensure_unchanged(&self, sent: Fingerprinting) -> Result<(), UploadError> {
        if sent.finish() == self.fingerprint {
            Ok(())
        } else {
            Err(UploadError::Changed {
                file: self.file.path.clone(),
            })
        }
    }

    /// Compares the temporary object with the local file.
    async fn confirm(&self) -> Result<(), Failed> {
        let path = self.temporary_path();
        let failed = self.failed("read back", &self.temporary_name);
        let found = match self.options.confirm {
            Confirmation::ReadBack => self.read_back(&path).await.map_err(failed)?,
            Confirmation::Size => {
                let head = self.options.retry.request(self.store().head(&path)).await;
                Fingerprint {
                    size: head.map_err(failed)?.size,
                    ..self.fingerprint
                }
            }
        };
        self.ensure_same(&self.temporary_name, found)
    }

    fn ensure_same(&self, name: &str, found: Fingerprint) -> Result<(), Failed> {
        if found == self.fingerprint {
            Ok(())
        } else {
            Err(Failed::Unconfirmed(self.to.display(name), found))
        }
    }

    async fn read_back(&self, path: &ObjectPath) -> Result<Fingerprint, StoreFault> {
        let policy = self.options.retry;
        let answer = policy.request(self.store().get(path)).await?;
        let mut stream = answer.into_stream();
        let mut fingerprint = Fingerprinting::default();
        // Each piece has the time of a request, so that a store that stops in the middle is noticed.
        while let Some(piece) = policy
            .request(async { stream.next().await.transpose() })
            .await?
        {
            fingerprint.update(&piece);
        }
        Ok(fingerprint.finish())
    }

    /// Gives the confirmed object its final name.
    async fn publish(&self) -> Result<(), Failed> {
        let (from, to) = (self.temporary_path(), self.final_path());
        let failed = self.failed("name", self.name);
        let policy = self.options.retry;
        let create = CopyOptions::new().with_mode(CopyMode::Create);
        let mut copied = policy
            .request(self.store().copy_opts(&from, &to, create))
            .await;
        if copied.as_ref().is_err_and(StoreFault::is_not_supported) {
            if self.is_there().await? {
                return Ok(());
            }
            copied = policy.request(self.store().copy(&from, &to)).await;
        }
        match copied {
            Ok(()) => {}
            Err(fault) if fault.is_already_exists() => {
                return match self.is_there().await? {
                    true => Ok(()),
                    false => Err(failed(fault)),
                };
            }
            Err(fault) => return Err(failed(fault)),
        }
        let head = policy.request(self.store().head(&to)).await;
        let found = Fingerprint {
            size: head.map_err(failed)?.size,
            ..self.fingerprint
        };
        self.ensure_same(self.name, found)
    }

    async fn remove_temporary(&self) {
        let path = self.temporary_path();
        let removed = self.options.retry.request(self.store().delete(&path)).await;
        match removed {
            Err(fault) if !fault.is_not_found() => {
                let object = self.to.display(&self.temporary_name);
                tracing::warn!(object, %fault, "cannot remove a temporary object; it does no harm");
            }
            _ => {}
        }
    }
}

/// Does something with the local file where it may block.
async fn blocking<T: Send + 'static>(
    file: &LocalFile,
    work: impl FnOnce(&LocalFile) -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    let moved = file.clone();
    match spawn_blocking(move || work(&moved)).await {
        Ok(result) => result,
        Err(error) => Err(file.error(std::io::Error::other(error))),
    }
}
