//! [`ObjectPlace`]: a prefix in an object store, read as an archive's place.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, ObjectStoreExt};

use super::blocking::Blocking;
use super::prefix::ObjectPrefix;
use super::retry::{Attempt, RetryPolicy, StoreFault};
use crate::source::archive::error::ArchiveError;
use crate::source::archive::place::{ListedFile, Place, ReadAt};

/// Bytes asked for at a time: at first, as often only a header is wanted, and at most. The most is what an open object
/// holds in memory.
const REQUEST: (u64, u64) = (64 << 10, 4 << 20);

/// The objects of a prefix as files; not those below a further slash.
#[derive(Debug)]
pub(crate) struct ObjectPlace {
    prefix: ObjectPrefix,
    policy: RetryPolicy,
    blocking: Arc<Blocking>,
}

impl ObjectPlace {
    pub(crate) fn new(prefix: ObjectPrefix, policy: RetryPolicy) -> io::Result<Self> {
        Ok(Self {
            prefix,
            policy,
            blocking: Arc::new(Blocking::new()?),
        })
    }
}

impl Place for ObjectPlace {
    fn list(&self) -> Result<Vec<ListedFile>, ArchiveError> {
        let (prefix, policy) = (self.prefix.clone(), self.policy);
        let listed = self.blocking.wait(async move {
            repeat(policy, || async {
                let listing = prefix.store().list_with_delimiter(prefix.prefix());
                policy.request(listing).await
            })
            .await
        });
        let result = listed
            .and_then(|result| Ok(result?))
            .map_err(|source| ArchiveError::Io {
                operation: "list",
                file: self.display_place(),
                source: Arc::new(source),
            })?;
        Ok(result
            .objects
            .into_iter()
            .filter_map(|object| {
                Some(ListedFile {
                    name: object.location.filename()?.to_owned(),
                    size: object.size,
                })
            })
            .collect())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn ReadAt>>, ArchiveError> {
        let (prefix, policy) = (self.prefix.clone(), self.policy);
        let path = prefix.path(name);
        let head = self.blocking.wait({
            let path = path.clone();
            async move { repeat(policy, || policy.request(prefix.store().head(&path))).await }
        });
        match head {
            Ok(Ok(meta)) => Ok(Some(Box::new(ObjectReader {
                prefix: self.prefix.clone(),
                policy: self.policy,
                blocking: Arc::clone(&self.blocking),
                path,
                size: meta.size,
                e_tag: meta.e_tag,
                request: REQUEST.0,
                start: 0,
                bytes: Bytes::new(),
            }))),
            Ok(Err(fault)) if fault.is_not_found() => Ok(None),
            result => Err(ArchiveError::Io {
                operation: "open",
                file: self.display(name),
                source: Arc::new(match result {
                    Ok(Err(fault)) => fault.into(),
                    Err(error) => error,
                    Ok(Ok(_)) => io::ErrorKind::Other.into(),
                }),
            }),
        }
    }

    fn display(&self, name: &str) -> String {
        self.prefix.display(name)
    }

    fn display_place(&self) -> String {
        self.prefix.to_string()
    }
}

/// An object read by ranges. An object that is replaced meanwhile is an error, never a mixture of both.
struct ObjectReader {
    prefix: ObjectPrefix,
    policy: RetryPolicy,
    blocking: Arc<Blocking>,
    path: ObjectPath,
    size: u64,
    e_tag: Option<String>,
    /// Length of the next request.
    request: u64,
    /// Offset of `bytes`.
    start: u64,
    /// What the last request gave.
    bytes: Bytes,
}

impl ObjectReader {
    /// The bytes at hand from this offset on.
    fn at_hand(&self, offset: u64) -> &[u8] {
        let skipped = offset.checked_sub(self.start);
        skipped
            .and_then(|skipped| self.bytes.get(usize::try_from(skipped).ok()?..))
            .unwrap_or_default()
    }

    fn fetch(&mut self, offset: u64) -> io::Result<()> {
        let goes_on = offset == self.start.saturating_add(self.bytes.len() as u64);
        self.request = if goes_on && !self.bytes.is_empty() {
            self.request.saturating_mul(4).min(REQUEST.1)
        } else {
            REQUEST.0
        };
        let end = offset.saturating_add(self.request).min(self.size);
        let options = GetOptions::new()
            .with_range(Some(offset..end))
            .with_if_match(self.e_tag.clone());
        // Freed before as much is received again.
        self.bytes = Bytes::new();
        let (prefix, policy, path) = (self.prefix.clone(), self.policy, self.path.clone());
        let expected = end.saturating_sub(offset);
        let bytes = self.blocking.wait(async move {
            repeat(policy, || {
                let answer = prefix.store().get_opts(&path, options.clone());
                async move {
                    let answer = async { answer.await?.bytes().await };
                    let bytes = policy.request(answer).await?;
                    match bytes.len() as u64 {
                        found if found == expected => Ok(bytes),
                        found => Err(StoreFault::Short { found, expected }),
                    }
                }
            })
            .await
        })??;
        (self.start, self.bytes) = (offset, bytes);
        Ok(())
    }
}

impl ReadAt for ObjectReader {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.at_hand(offset).is_empty() {
            self.fetch(offset)?;
        }
        io::Read::read(&mut self.at_hand(offset), buffer)
    }
}

/// Tries a request until it succeeds, fails for good, or was tried often enough.
async fn repeat<T, F: Future<Output = Result<T, StoreFault>>>(
    policy: RetryPolicy,
    mut request: impl FnMut() -> F,
) -> Result<T, StoreFault> {
    let mut attempt = Attempt::first(policy);
    loop {
        match request().await {
            Err(fault) if fault.is_passing() && attempt.next().await => {}
            result => return result,
        }
    }
}
