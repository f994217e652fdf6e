//! [`FaultyStore`]: a store in memory that fails as real ones do, at chosen requests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, UploadPart,
};

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails before it has done anything, and may succeed later.
    Fails,
    /// It does what it should, but its answer is lost.
    AnswerLost,
    /// It never ends.
    Hangs,
    /// It fails for good.
    Denied,
    /// What it writes or reads loses its last byte; other requests are not touched.
    Short,
    /// A bit of what it writes or reads is flipped; other requests are not touched.
    Corrupt,
}

/// A store over one in memory. Requests are counted from 0: each part of a multipart upload is one.
#[derive(Debug)]
pub(super) struct FaultyStore {
    pub(super) inner: Arc<InMemory>,
    state: Arc<State>,
    /// Whether it can copy "only if there is none".
    pub(super) copies_conditionally: bool,
    /// Whether it copies what there is also where a request's fault is to spoil what it writes.
    pub(super) copies_rightly: bool,
}

#[derive(Debug, Default)]
struct State {
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    made: Vec<String>,
    faults: BTreeMap<usize, Fault>,
}

impl State {
    /// Counts a request and gives its fault; one that hangs does not come back from here.
    async fn begin(&self, what: &str, path: &Path) -> Result<Option<Fault>> {
        let fault = {
            let mut requests = self.requests.lock().unwrap();
            let number = requests.made.len();
            requests.made.push(format!("{what} {path}"));
            requests.faults.get(&number).copied()
        };
        match fault {
            Some(Fault::Fails) => Err(broken("the connection was lost")),
            Some(Fault::Denied) => Err(Error::PermissionDenied {
                path: path.to_string(),
                source: "no".into(),
            }),
            Some(Fault::Hangs) => std::future::pending().await,
            fault => Ok(fault),
        }
    }
}

fn broken(why: &'static str) -> Error {
    Error::Generic {
        store: "faulty",
        source: why.into(),
    }
}

fn answer<T>(fault: Option<Fault>, result: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::AnswerLost) => Err(broken("the connection was lost before the answer")),
        _ => result,
    }
}

/// The payload as the store gets it.
fn spoiled(fault: Option<Fault>, payload: PutPayload) -> PutPayload {
    // Not the byte that reading spoils, as two faults would undo each other.
    spoiled_at(0, fault, payload)
}

fn spoiled_at(index: usize, fault: Option<Fault>, payload: PutPayload) -> PutPayload {
    let mut bytes = Vec::from(Bytes::from(payload));
    match fault {
        Some(Fault::Short) => {
            bytes.pop();
        }
        Some(Fault::Corrupt) => {
            if let Some(byte) = bytes.get_mut(index) {
                *byte ^= 0x20;
            }
        }
        _ => {}
    }
    bytes.into()
}

impl FaultyStore {
    pub(super) fn new(faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        let store = Self {
            inner: Arc::new(InMemory::new()),
            state: Arc::default(),
            copies_conditionally: true,
            copies_rightly: false,
        };
        store.state.requests.lock().unwrap().faults = faults.into_iter().collect();
        store
    }

    /// What was requested so far.
    pub(super) fn made(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().made.clone()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty store")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.state.begin("put", location).await?;
        let payload = spoiled(fault, payload);
        answer(fault, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.state.begin("begin", location).await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        answer(
            fault,
            Ok(Box::new(FaultyUpload {
                inner,
                state: Arc::clone(&self.state),
                location: location.clone(),
            })),
        )
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        let fault = self.state.begin(what, location).await?;
        let head = options.head;
        let mut result = answer(fault, self.inner.get_opts(location, options).await)?;
        if !head && matches!(fault, Some(Fault::Short | Fault::Corrupt)) {
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            let payload = std::mem::replace(&mut result.payload, payload);
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let whole = GetResult {
                payload,
                meta,
                range,
                attributes: result.attributes.clone(),
                extensions: result.extensions.clone(),
            };
            let bytes = Bytes::from(spoiled_at(1, fault, whole.bytes().await?.into()));
            result.payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.state.begin("list", &Path::default()).await?;
        answer(fault, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = options.mode == CopyMode::Create;
        if create && !self.copies_conditionally {
            return Err(Error::NotSupported {
                source: "not here".into(),
            });
        }
        let fault = self.state.begin("copy", to).await?;
        if matches!(fault, Some(Fault::Short | Fault::Corrupt)) && !self.copies_rightly {
            let content = self.inner.get(from).await?.bytes().await?;
            let payload = spoiled(fault, content.into());
            self.inner.put(to, payload).await?;
            return Ok(());
        }
        answer(fault, self.inner.copy_opts(from, to, options).await)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
    location: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        // The fault decides on the payload, so it is looked at here; to fail or hang is for later.
        let (state, location) = (Arc::clone(&self.state), self.location.clone());
        let number = state.requests.lock().unwrap().made.len();
        let fault = state.requests.lock().unwrap().faults.get(&number).copied();
        let inner = self.inner.put_part(spoiled(fault, payload));
        Box::pin(async move {
            let fault = state.begin("part", &location).await?;
            answer(fault, inner.await)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.state.begin("complete", &self.location).await?;
        answer(fault, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
