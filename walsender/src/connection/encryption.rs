//! TLS on a client's connection: asked for, or begun by the client without asking.

use std::io;

use tracing::info;

use super::socket::Socket;
use super::{Client, FrameError, Interruption, Peer};
use crate::refusal::Refusal;
use crate::tls::{ServerTls, TlsPeer};

/// First byte of a TLS handshake, which is no length of a startup packet.
const HANDSHAKE: u8 = 0x16;

/// Whether the client begins TLS without asking (`sslnegotiation=direct`). Waits for its first byte, and leaves it there.
///
/// # Source
/// `ProcessSSLStartup` in `src/backend/tcop/backend_startup.c`, since 17.
pub(super) async fn is_direct(client: &Client) -> io::Result<bool> {
    let Socket::Tcp(stream) = &client.socket else {
        return Ok(false);
    };
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first == [HANDSHAKE])
}

/// Shakes hands. What the client sent before it waits in its frames still: see [`check_nothing_unencrypted`].
pub(super) async fn begin(
    client: &mut Client,
    tls: &ServerTls,
    peer: &Peer,
) -> Result<TlsPeer, Interruption> {
    let Socket::Tcp(stream) = client.socket.take() else {
        // It is offered on TCP only, and once.
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    };
    match tls.accept(stream).await {
        Ok((stream, facts)) => {
            client.socket = Socket::Tls(Box::new(stream));
            Ok(facts)
        }
        Err(error) => {
            info!(?peer, "could not accept TLS connection: {error}");
            Err(FrameError::Io(error).into())
        }
    }
}

/// After TLS was begun, or declined: nothing may have come with the request, as somebody between us could have added it.
///
/// # Source
/// `ProcessStartupPacket` in `src/backend/postmaster/postmaster.c`.
pub(super) fn check_nothing_unencrypted(client: &Client, request: &str) -> Result<(), Refusal> {
    if client.frames.is_empty() {
        return Ok(());
    }
    Err(Refusal::fatal("08P01", format!("received unencrypted data after {request} request")).with_detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    ))
}
