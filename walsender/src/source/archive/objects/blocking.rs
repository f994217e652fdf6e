//! [`Blocking`]: waits for what is asynchronous, from wherever it is called.

use std::future::Future;
use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};

/// A runtime with one thread of its own. Waiting blocks the calling thread, but is allowed everywhere, also on a thread
/// of another runtime.
#[derive(Debug)]
pub(crate) struct Blocking {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Blocking {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("object-store")
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs the future to its end.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the object store's thread has ended");
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.as_ref().ok_or_else(ended)?.spawn(async move {
            // The receiver waits below for as long as this runs.
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| ended())
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // To wait for its end, as a plain drop does, is not allowed on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
