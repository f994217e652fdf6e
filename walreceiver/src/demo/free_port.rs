//! TCP ports for servers of our own.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A port nobody listens on. It lies below the range that the kernel gives to outgoing connections, so that it is
/// still free when a server is restarted.
pub(super) fn free_port() -> io::Result<u16> {
    const FIRST: u64 = 15_000;
    const COUNT: u64 = 17_000;
    let start = RandomState::new().hash_one(0_u8);
    let ports = (0..200).filter_map(|i| u16::try_from(FIRST + start.wrapping_add(i) % COUNT).ok());
    for port in ports {
        if is_free(port) {
            return Ok(port);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| Ok(listener.local_addr()?.port()))
}

/// Whether nobody listens on a port of 127.0.0.1.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_free_until_somebody_listens() {
        let port = free_port().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }
}
