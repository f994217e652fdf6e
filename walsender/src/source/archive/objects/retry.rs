//! [`RetryPolicy`]: which failures of a store are tried again, and when.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

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
    #[error("the store gave {found} of {expected} bytes")]
    Short { found: u64, expected: u64 },
}

impl StoreFault {
    /// Whether the same request may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        use object_store::Error as Store;
        match self {
            Self::TimedOut(_) | Self::Short { .. } => true,
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
            StoreFault::Short { .. } => io::ErrorKind::UnexpectedEof,
            StoreFault::Store(_) => io::ErrorKind::Other,
        };
        Self::new(kind, fault)
    }
}

/// Whether the cause of this error stays.
fn is_lasting(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let lasting = matches!(
                io.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
            );
            // The error that it wraps is not its source, but stands for it.
            match io.get_ref() {
                Some(wrapped) if !lasting => cause = Some(wrapped),
                _ => return lasting,
            }
            continue;
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
        tokio::time::sleep(self.delay()).await;
        self.number = self.number.saturating_add(1);
        true
    }

    /// The wait after it.
    fn delay(&self) -> Duration {
        let factor = 1u32.checked_shl(self.number.saturating_sub(1));
        let delay = self
            .policy
            .first_delay
            .saturating_mul(factor.unwrap_or(u32::MAX));
        delay.min(self.policy.max_delay)
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

#[cfg(test)]
mod tests {
    use object_store::Error as Store;
    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;

    fn generic(source: impl Error + Send + Sync + 'static) -> StoreFault {
        let source = Box::new(source);
        StoreFault::Store(Store::Generic {
            store: "test",
            source,
        })
    }

    #[test]
    fn only_what_is_known_to_stay_is_given_up() {
        let passing = [
            StoreFault::TimedOut(Duration::from_secs(1)),
            StoreFault::Short {
                found: 1,
                expected: 2,
            },
            generic(HttpError::new(
                HttpErrorKind::Connect,
                io::Error::other("x"),
            )),
            generic(io::Error::from(io::ErrorKind::StorageFull)),
            generic(io::Error::from(io::ErrorKind::ConnectionReset)),
        ];
        assert!(passing.iter().all(StoreFault::is_passing));
        let (path, source) = (String::new, || "x".into());
        let lasting = [
            StoreFault::Store(Store::NotFound {
                path: path(),
                source: source(),
            }),
            StoreFault::Store(Store::PermissionDenied {
                path: path(),
                source: source(),
            }),
            StoreFault::Store(Store::Unauthenticated {
                path: path(),
                source: source(),
            }),
            StoreFault::Store(Store::NotSupported { source: source() }),
            generic(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
            // Wherever in the chain of causes it is.
            generic(io::Error::other(io::Error::from(
                io::ErrorKind::PermissionDenied,
            ))),
        ];
        assert!(!lasting.iter().any(StoreFault::is_passing));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy {
            attempts: 5,
            first_delay: Duration::from_millis(4),
            max_delay: Duration::from_millis(10),
            ..RetryPolicy::default()
        };
        let mut attempt = Attempt::first(policy);
        let mut waits = Vec::new();
        while attempt.number() < policy.attempts {
            waits.push(attempt.delay().as_millis());
            attempt.number += 1;
        }
        assert_eq!(waits, [4, 8, 10, 10]);
        attempt.number = u32::MAX;
        assert_eq!(attempt.delay(), policy.max_delay);
    }
}
