//! [`AbortOnDrop`]: a helper task that ends with who started it.

use tokio::task::JoinHandle;

/// A helper task that ends with this value.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
