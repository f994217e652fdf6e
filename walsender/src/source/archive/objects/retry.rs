//! [`RetryPolicy`]: which failures of a store are tried again, and when.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use thiserror::Error as ThisError;

/// How often and how long something is tried. The store's client tries single requests again by itself; this is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is tried at most, the first time included.
    pub attempts: u32,
    /// Wait after the first failure; doubled after each further one.
    pub first_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
    /// How long one request may take, with what the client does to repeat it.
    pub request_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
        }
    }
}

/// A request that failed.
#[derive(Debug, ThisError)]
pub(crate) enum StoreFault {
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

impl StoreFault {
    /// Whether the same request may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        use object_store::Error as Store;
        match self {
            Self::TimedOut(_) => true,
            Self::Store(error) => match error {
                Store::NotFound { .. }
                | Store::InvalidPath { .. }
                | Store::NotSupported { .. }
                | Store::AlreadyExists { .. }
                | Store::Precondition { .. }
                | Store::NotModified { .. }
                | Store::NotImplemented { .. }
                | Store::PermissionDenied { .. }
                | Store::Unauthenticated { .. }
                | Store::UnknownConfigurationKey { .. } => false,
                // What is not told apart by the store's client: lost connections, servers that are busy or broken, full
                // disks. Only what is known not to pass is given up at once.
                other => !is_lasting(other),
            },
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(
            self,
            Self::Store(
                object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }
            )
        )
    }

    pub(crate) fn is_not_supported(&self) -> bool {
        matches!(
            self,
            Self::Store(
                object_store::Error::NotSupported { .. }
                    | object_store::Error::NotImplemented { .. }
            )
        )
    }
}

impl From<StoreFault> for io::Error {
    fn from(fault: StoreFault) -> Self {
        use object_store::Error as Store;
        let kind = match &fault {
            StoreFault::TimedOut(_) => io::ErrorKind::TimedOut,
            StoreFault::Store(Store::NotFound { .. }) => io::ErrorKind::NotFound,
            StoreFault::Store(Store::PermissionDenied { .. } | Store::Unauthenticated { .. }) => {
                io::ErrorKind::PermissionDenied
            }
            StoreFault::Store(_) => io::ErrorKind::Other,
        };
        Self::new(kind, fault)
    }
}

/// Whether the cause of this error stays.
fn is_lasting(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return matches!(http.kind(), HttpErrorKind::Decode);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
            );
        }
        cause = error.source();
    }
    false
}

/// One of the attempts that a policy allows.
#[derive(Debug)]
pub(crate) struct Attempt {
    policy: RetryPolicy,
    number: u32,
}

impl Attempt {
    pub(crate) const fn first(policy: RetryPolicy) -> Self {
        Self { policy, number: 1 }
    }

    /// Its number, from 1.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Waits until the next one is due; `false` when there is none.
    pub(crate) async fn next(&mut self) -> bool {
        if self.number >= self.policy.attempts {
            return false;
        }
        let factor = 1u32
            .checked_shl(self.number.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let delay = self.policy.first_delay.saturating_mul(factor);
        tokio::time::sleep(delay.min(self.policy.max_delay)).await;
        self.number = self.number.saturating_add(1);
        true
    }
}

impl RetryPolicy {
    /// One request within its time.
    pub(crate) async fn request<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreFault> {
        match tokio::time::timeout(self.request_timeout, request).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(StoreFault::TimedOut(self.request_timeout)),
        }
    }
}
