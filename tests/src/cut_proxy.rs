//! [`CutProxy`]: a network between a receiver and its primary that a test can cut, stall, slow down and corrupt.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

const POLL: Duration = Duration::from_millis(5);

/// What the network does now.
#[derive(Debug, Default)]
struct Network {
    stopped: bool,
    refusing: bool,
    frozen: bool,
    delay: Duration,
    /// Bytes that still pass from the primary before every connection is cut.
    cut_after: Option<u64>,
    /// Bytes that still pass from the primary before one byte is changed by this mask.
    flip_after: Option<(u64, u8)>,
    connections: Vec<(TcpStream, TcpStream)>,
    accepted: u64,
    bytes_down: u64,
}

impl Network {
    fn cut(&mut self) {
        for (receiver, primary) in self.connections.drain(..) {
            // One that has ended already cannot be ended again.
            let _ = receiver.shutdown(Shutdown::Both);
            let _ = primary.shutdown(Shutdown::Both);
        }
    }
}

/// A TCP proxy on a free port of 127.0.0.1. "Down" is the direction from the primary to the receiver.
#[derive(Debug)]
pub struct CutProxy {
    port: u16,
    network: Arc<Mutex<Network>>,
}

impl CutProxy {
    /// A proxy to a port of 127.0.0.1, which nobody has to listen on yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let network = Arc::new(Mutex::new(Network::default()));
        let shared = Arc::clone(&network);
        thread::spawn(move || accept(&listener, target_port, &shared));
        Ok(Self { port, network })
    }

    /// The port to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection that is open now. New ones are accepted.
    pub fn cut(&self) {
        self.network().cut();
    }

    /// Cuts every connection, and every new one at once, until [`restore`](Self::restore).
    pub fn refuse(&self) {
        let mut network = self.network();
        network.refusing = true;
        network.cut();
    }

    /// Passes nothing in either direction and closes nothing, until [`restore`](Self::restore).
    pub fn freeze(&self) {
        self.network().frozen = true;
    }

    /// Ends refusal, stall and delay.
    pub fn restore(&self) {
        let mut network = self.network();
        network.refusing = false;
        network.frozen = false;
        network.delay = Duration::ZERO;
    }

    /// Holds every piece of data back for this long.
    pub fn delay(&self, delay: Duration) {
        self.network().delay = delay;
    }

    /// Passes this many more bytes down, then cuts every connection, once.
    pub fn cut_after(&self, bytes: u64) {
        self.network().cut_after = Some(bytes);
    }

    /// Passes this many more bytes down, then changes the bits of `mask` in the next one.
    pub fn flip_after(&self, bytes: u64, mask: u8) {
        self.network().flip_after = Some((bytes, mask));
    }

    /// Whether the byte of [`flip_after`](Self::flip_after) is still to come.
    #[must_use]
    pub fn flip_pending(&self) -> bool {
        self.network().flip_after.is_some()
    }

    /// How many bytes have passed down.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.network().bytes_down
    }

    /// How many connections were accepted, those that were refused included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.network().accepted
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        lock(&self.network)
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        {
            let mut network = self.network();
            network.stopped = true;
            network.cut();
        }
        // Wakes the accepting thread, which ends and gives the port back.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn lock(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, target_port: u16, network: &Arc<Mutex<Network>>) {
    for receiver in listener.incoming() {
        let refused = {
            let mut network = lock(network);
            if network.stopped {
                return;
            }
            network.accepted += 1;
            network.refusing
        };
        if refused {
            continue;
        }
        // A connection that fails is closed, which is what the receiver sees of a primary that is not there.
        if let Ok(receiver) = receiver {
            let _ = connect(receiver, target_port, network);
        }
    }
}

fn connect(
    receiver: TcpStream,
    target_port: u16,
    network: &Arc<Mutex<Network>>,
) -> std::io::Result<()> {
    let primary = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port))?;
    receiver.set_nodelay(true)?;
    primary.set_nodelay(true)?;
    lock(network)
        .connections
        .push((receiver.try_clone()?, primary.try_clone()?));
    let (up, down) = (Arc::clone(network), Arc::clone(network));
    let (from, to) = (receiver.try_clone()?, primary.try_clone()?);
    thread::spawn(move || pump(from, to, &up, false));
    thread::spawn(move || pump(primary, receiver, &down, true));
    Ok(())
}

/// Passes data on until one side closes, then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, network: &Mutex<Network>, down: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(data) = buffer.get_mut(..count).filter(|data| !data.is_empty()) else {
            break;
        };
        let delay = loop {
            let state = lock(network);
            if state.stopped || !state.frozen {
                break state.delay;
            }
            drop(state);
            thread::sleep(POLL);
        };
        thread::sleep(delay);
        let passes = if down {
            pass_down(data, network)
        } else {
            Some(count)
        };
        let whole = to
            .write_all(data.get(..passes.unwrap_or(count)).unwrap_or_default())
            .is_ok();
        if passes.is_some_and(|passes| passes < count) {
            lock(network).cut();
        }
        if !whole {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Counts and corrupts data, and says how much of it passes: less than all when the connections are to be cut then.
fn pass_down(data: &mut [u8], network: &Mutex<Network>) -> Option<usize> {
    let mut network = lock(network);
    let length = u64::try_from(data.len()).ok()?;
    if let Some((before, mask)) = network.flip_after {
        network.flip_after = Some((before.saturating_sub(length), mask));
        if before < length {
            network.flip_after = None;
            if let Some(byte) = usize::try_from(before)
                .ok()
                .and_then(|index| data.get_mut(index))
            {
                *byte ^= mask;
            }
        }
    }
    let passes = match network.cut_after {
        Some(before) if before < length => {
            network.cut_after = None;
            before
        }
        before => {
            network.cut_after = before.map(|before| before.saturating_sub(length));
            length
        }
    };
    network.bytes_down += passes;
    usize::try_from(passes).ok()
}
