//! [`FakePrimary`]: a server that says what a test tells it to, for nonsense, stalls and lies.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use crate::fake_peer::FakePeer;

/// What the threads of one fake primary share.
#[derive(Debug, Default)]
struct Shared {
    stopped: Arc<AtomicBool>,
    accepted: AtomicUsize,
    errors: Mutex<Vec<String>>,
}

/// A TCP server on a free port of 127.0.0.1 that runs a script for each connection.
#[derive(Debug)]
pub struct FakePrimary {
    port: u16,
    shared: Arc<Shared>,
}

impl FakePrimary {
    /// Starts one. `script` gets each connection with its number, from 0; the connection is closed when it returns. What
    /// it fails with is kept for [`errors`](Self::errors): a receiver that goes away is an error to a script, too.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(
        script: impl Fn(usize, &mut FakePeer) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = accepting.accepted.fetch_add(1, Ordering::SeqCst);
                let (shared, script) = (Arc::clone(&accepting), Arc::clone(&script));
                thread::spawn(move || {
                    let played = FakePeer::new(stream, Arc::clone(&shared.stopped))
                        .and_then(|mut peer| script(number, &mut peer));
                    if let Err(error) = played {
                        let mut errors =
                            shared.errors.lock().unwrap_or_else(PoisonError::into_inner);
                        errors.push(format!("connection {number}: {error:#}"));
                    }
                });
            }
        });
        Ok(Self { port, shared })
    }

    /// How to connect to it.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres sslmode=disable",
            self.port
        )
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// What the scripts failed with so far.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.shared
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FakePrimary {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which ends and gives the port back.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
