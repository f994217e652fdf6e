//! One client's connection: startup, authentication, then one command after the other.

pub(crate) mod answer;
mod client;
mod client_frames;
mod session;
pub(crate) mod socket;
mod startup;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, info};

pub(crate) use client::Client;
pub(crate) use client_frames::ClientFrame;
use client_frames::FrameError;
pub(crate) use session::{Session, closed, shutting_down};
use socket::Socket;
use startup::{SessionStart, Startup};

use crate::refusal::Refusal;
use crate::sender::Shared;

/// How long a client may take until its session has begun (`authentication_timeout`).
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take that is to hear that there are too many.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this machine, over a unix socket.
    Local,
    /// An address, over TCP.
    Tcp(std::net::SocketAddr),
}

impl Peer {
    pub(crate) const fn address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Local => None,
            Self::Tcp(address) => Some(*address),
        }
    }
}

/// Why a connection ended, or a command did not.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The client is told, and goes on if the error is not fatal.
    Refused(Refusal),
    /// The client has gone.
    Gone(FrameError),
    /// The sender ends and the client has been told.
    ShutDown,
}

impl From<Refusal> for Interruption {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<FrameError> for Interruption {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Protocol(error) => Self::Refused(error.into()),
            gone => Self::Gone(gone),
        }
    }
}

impl From<io::Error> for Interruption {
    fn from(error: io::Error) -> Self {
        Self::Gone(FrameError::Io(error))
    }
}

/// Serves one client until it leaves. The future may be dropped at any time: the connection is then cut.
pub(crate) async fn serve(socket: Socket, peer: Peer, shared: Arc<Shared>) {
    let mut client = Client::new(socket);
    let started = timeout(STARTUP_TIMEOUT, startup::receive(&mut client)).await;
    let start = match started {
        Ok(Ok(Startup::Session(start))) => start,
        Ok(Ok(Startup::Cancel { pid, secret })) => return shared.cancel_keys.cancel(pid, &secret),
        Ok(Ok(Startup::Nothing)) => return,
        Ok(Err(Interruption::Refused(refusal))) => {
            return refuse(&mut client, &peer, &refusal).await;
        }
        Ok(Err(Interruption::Gone(error))) => {
            return debug!(?peer, "connection did not begin: {error}");
        }
        Ok(Err(Interruption::ShutDown)) => return,
        Err(_) => return debug!(?peer, "connection did not begin in time"),
    };
    if let Err(refusal) = authenticate(&start, &peer) {
        return refuse(&mut client, &peer, &refusal).await;
    }
    info!(
        ?peer,
        user = start.user,
        application_name = start.application_name,
        "connection begins"
    );
    match session::run(&mut client, &start, &peer, &shared).await {
        Ok(()) | Err(Interruption::ShutDown) => info!(
            ?peer,
            application_name = start.application_name,
            "connection ends"
        ),
        Err(Interruption::Gone(error)) => info!(?peer, "connection is lost: {error}"),
        Err(Interruption::Refused(refusal)) => refuse(&mut client, &peer, &refusal).await,
    }
}

/// Tells a client that there are too many already.
pub(crate) async fn turn_away(socket: Socket, peer: Peer) {
    let mut client = Client::new(socket);
    let started = startup::receive(&mut client);
    if let Ok(Ok(Startup::Session(_))) = timeout(TURN_AWAY_TIMEOUT, started).await {
        refuse(
            &mut client,
            &peer,
            &Refusal::fatal("53300", "sorry, too many clients already"),
        )
        .await;
    }
}

/// Clients of this machine are trusted. There is no way yet to authenticate others, so they are refused.
fn authenticate(start: &SessionStart, peer: &Peer) -> Result<(), Refusal> {
    match peer {
        Peer::Local => Ok(()),
        Peer::Tcp(address) if address.ip().to_canonical().is_loopback() => Ok(()),
        Peer::Tcp(address) => Err(Refusal::fatal(
            "28000",
            format!(
                "no pg_hba.conf entry for replication connection from host \"{}\", user \"{}\", no encryption",
                address.ip(),
                start.user
            ),
        )),
    }
}

async fn refuse(client: &mut Client, peer: &Peer, refusal: &Refusal) {
    info!(
        ?peer,
        sqlstate = refusal.sqlstate,
        "connection refused: {}",
        refusal.message
    );
    client.answer.error(refusal);
    // The client may be gone already; nothing more is to be done for it.
    let _ = timeout(STARTUP_TIMEOUT, client.flush()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted() {
        let start = SessionStart::default();
        for (address, is_trusted) in [
            ("127.0.0.1:1", true),
            ("127.8.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            let peer = Peer::Tcp(address.parse().unwrap());
            assert_eq!(authenticate(&start, &peer).is_ok(), is_trusted, "{address}");
        }
        assert!(authenticate(&start, &Peer::Local).is_ok());
    }
}
