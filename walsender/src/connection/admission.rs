//! The authentication of one client: drives [`Authentication`] over its connection.

use tracing::info;

use super::socket::Socket;
use super::startup::SessionStart;
use super::{Client, Interruption, Peer, closed};
use crate::auth::{
    Access, Authentication, ClientFacts, Denial, MAX_SASL_LENGTH, Progress, random_nonce,
    system_user,
};
use crate::connection::FrameError;
use crate::refusal::Refusal;
use crate::tls::TlsPeer;

/// Lets the client in, or says why not. What it is to be told before AuthenticationOk then waits to be sent.
pub(super) async fn admit(
    client: &mut Client,
    peer: &Peer,
    start: &SessionStart,
    tls: Option<TlsPeer>,
    access: &Access,
) -> Result<(), Interruption> {
    let facts = ClientFacts {
        // A client of IPv4 that came to a socket of IPv6 is one of IPv4, for the rules and in messages.
        address: peer.address().map(|address| address.ip().to_canonical()),
        tls,
        user: start.user.clone(),
        database: start.database.clone(),
    };
    let denied = |denial: Denial| {
        if let Some(log) = denial.log {
            info!(?peer, user = start.user, "authentication fails: {log}");
        }
        Interruption::Refused(denial.refusal)
    };
    let mut machine = Authentication::new(access, &facts).map_err(denied)?;
    let system_user = if machine.wants_system_user() {
        other_end(client).await
    } else {
        Err(String::new())
    };
    let nonce = random_nonce().map_err(|error| Refusal::fatal("XX000", error.to_string()))?;
    let mut progress = machine.begin(system_user, nonce).map_err(denied)?;
    loop {
        let request = match progress {
            Progress::Accepted(last) => {
                client.answer.encoded(&last);
                return Ok(());
            }
            Progress::Ask(request) => request,
        };
        client.answer.encoded(&request);
        client.flush().await?;
        let Client { frames, socket, .. } = &mut *client;
        let message = match frames.authentication_message(socket, MAX_SASL_LENGTH).await {
            Ok(Some(message)) => message,
            // As a client does that has to ask its user for the password first.
            Ok(None) => return Err(closed()),
            Err(FrameError::Protocol(_)) => return Err(denied(machine.too_long())),
            Err(error) => return Err(error.into()),
        };
        progress = machine
            .handle(message.tag, &message.content)
            .map_err(denied)?;
    }
}

/// The name of the system's user at the other end of a unix socket.
async fn other_end(client: &Client) -> Result<String, String> {
    let Socket::Unix(stream) = &client.socket else {
        return Err("this is no unix socket".to_owned());
    };
    let failed = |error: &dyn std::fmt::Display| format!("could not get peer credentials: {error}");
    let uid = stream.peer_cred().map_err(|error| failed(&error))?.uid();
    let named = tokio::task::spawn_blocking(move || system_user(uid)).await;
    named.map_err(|error| failed(&error))?
}
