//! What always holds of a connection's first bytes, whatever they are.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken promise must stop the fuzzer"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::socket::Socket;
use super::startup::{self, Startup};
use super::{Client, Peer, admission};
use crate::auth::fuzzing::password_access;

/// The bytes of a client that knows no password: it is answered, and not let in.
pub(crate) fn client_bytes(data: &[u8]) {
    // Less than a socket's buffer, so that nobody waits.
    let data = data.get(..32 << 10).unwrap_or(data);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    theirs.write_all(data).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    ours.set_nonblocking(true).unwrap();
    let is_in = runtime.block_on(async {
        let mut client = Client::new(Socket::Unix(
            tokio::net::UnixStream::from_std(ours).unwrap(),
        ));
        let peer = Peer::Tcp("10.1.2.3:4".parse().unwrap());
        let mut tls = None;
        let startup = startup::receive(&mut client, &peer, None, &mut tls).await;
        let Ok(Startup::Session(start)) = startup else {
            return false;
        };
        assert!(!start.user.is_empty() && tls.is_none());
        let access = password_access();
        admission::admit(&mut client, &peer, &start, tls, &access)
            .await
            .is_ok()
    });
    assert!(!is_in, "somebody is let in without the password");
    // What it was told without being let in: a byte for each kind of encryption, and what it was asked.
    let mut told = Vec::new();
    theirs.read_to_end(&mut told).unwrap();
    let messages = told
        .iter()
        .position(|byte| *byte != b'N')
        .unwrap_or(told.len());
    assert!(messages <= 2 && told.get(messages).is_none_or(|tag| *tag == b'R'));
}
