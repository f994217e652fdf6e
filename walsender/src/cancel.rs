//! [`CancelKeys`]: which connection a cancel request is for.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a cancel request must carry, in protocol 3.0.
pub(crate) type Secret = [u8; 4];

/// The connections that can be cancelled. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelKeys {
    keys: Arc<Mutex<Keys>>,
}

#[derive(Debug, Default)]
struct Keys {
    last_pid: u32,
    connections: BTreeMap<u32, (Secret, Arc<Notify>)>,
    random: RandomState,
}

/// One connection's number and secret, until it is dropped.
#[derive(Debug)]
pub(crate) struct CancelKey {
    pub(crate) pid: u32,
    pub(crate) secret: Secret,
    /// Notified when the client asks to cancel what the connection does.
    pub(crate) cancelled: Arc<Notify>,
    keys: CancelKeys,
}

impl CancelKeys {
    pub(crate) fn issue(&self) -> CancelKey {
        let mut keys = self.lock();
        let mut pid = keys.last_pid;
        loop {
            // Clients show it as a signed number.
            pid = if pid < i32::MAX.unsigned_abs() {
                pid + 1
            } else {
                1
            };
            if !keys.connections.contains_key(&pid) {
                break;
            }
        }
        keys.last_pid = pid;
        // Keyed by the system's randomness, so a secret cannot be told from others.
        let [a, b, c, d, ..] = keys.random.hash_one(pid).to_le_bytes();
        let secret = [a, b, c, d];
        let cancelled = Arc::new(Notify::new());
        keys.connections
            .insert(pid, (secret, Arc::clone(&cancelled)));
        CancelKey {
            pid,
            secret,
            cancelled,
            keys: self.clone(),
        }
    }

    /// Cancels what a connection does; nothing when there is no such connection.
    pub(crate) fn cancel(&self, pid: u32, secret: &[u8]) {
        if let Some((expected, cancelled)) = self.lock().connections.get(&pid)
            && expected == secret
        {
            cancelled.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        // No code that holds the lock can leave the map half changed.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.keys.lock().connections.remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_the_right_secret_cancels_while_the_connection_lasts() {
        let keys = CancelKeys::default();
        let (first, second) = (keys.issue(), keys.issue());
        assert_ne!((first.pid, first.secret), (second.pid, second.secret));
        let cancelled = Arc::clone(&first.cancelled);
        let waits = cancelled.notified();
        tokio::pin!(waits);
        waits.as_mut().enable();
        keys.cancel(first.pid, &[first.secret[0] ^ 1, 0, 0, 0]);
        keys.cancel(second.pid, &second.secret);
        assert!(
            tokio::time::timeout(Duration::ZERO, waits.as_mut())
                .await
                .is_err()
        );
        keys.cancel(first.pid, &first.secret);
        assert!(
            tokio::time::timeout(Duration::ZERO, waits.as_mut())
                .await
                .is_ok()
        );
        drop(first);
        assert_eq!(keys.lock().connections.len(), 1);
    }
}
