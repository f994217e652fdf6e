//! One client's connection: startup, authentication, then one command after the other.

mod admission;
pub(crate) mod answer;
mod client;
mod client_frames;
mod encryption;
pub(crate) mod fuzzing;
mod session;
pub(crate) mod socket;
mod startup;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};

pub(crate) use client::Client;
pub(crate) use client_frames::ClientFrame;
use client_frames::FrameError;
pub(crate) use session::{Session, closed, shutting_down};
use socket::Socket;
use startup::{SessionStart, Startup};

use crate::counters::Refused;
use crate::refusal::Refusal;
use crate::sender::{LifeWatch, Shared};

/// How long a client may take to read why it is refused.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to hear the last message of a sender that ends.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

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

/// Serves one client until it leaves. `waiting` is its place among those that are not let in yet. The future may be
/// dropped at any time: the connection is then cut.
pub(crate) async fn serve(
    socket: Socket,
    peer: Peer,
    shared: Arc<Shared>,
    waiting: OwnedSemaphorePermit,
) {
    let mut client = Client::new(socket);
    let (mut life, mut ends) = (shared.life(), shared.life());
    // Nobody waits for those that are not let in, those included that are told why. They have their place until they go.
    let entered = tokio::select! {
        entered = enter(&mut client, &peer, &shared, &mut life) => entered,
        () = ends.ends() => return,
    };
    let Some((start, _place)) = entered else {
        return;
    };
    drop(waiting);
    info!(
        ?peer,
        user = start.user,
        application_name = start.application_name,
        "connection begins"
    );
    match session::run(&mut client, &start, &peer, &shared).await {
        result @ (Ok(()) | Err(Interruption::ShutDown)) => {
            info!(
                ?peer,
                application_name = start.application_name,
                "connection ends"
            );
            if result.is_err() {
                let _ = timeout(LAST_WORDS_TIMEOUT, client.close()).await;
            }
        }
        Err(Interruption::Gone(error)) => info!(?peer, "connection is lost: {error}"),
        Err(Interruption::Refused(refusal)) => {
            refuse(&mut client, &peer, &refusal, &mut life).await;
        }
    }
}

/// Lets the client in, to one of the places for sessions. `None` when it is not, and knows.
async fn enter<'a>(
    client: &mut Client,
    peer: &Peer,
    shared: &'a Shared,
    life: &mut LifeWatch,
) -> Option<(SessionStart, SemaphorePermit<'a>)> {
    let refusal = match begin(client, peer, shared).await {
        Ok(Some(start)) => match shared.places.try_acquire() {
            Ok(place) => return Some((start, place)),
            Err(_) => Refusal::fatal("53300", "sorry, too many clients already"),
        },
        Ok(None) | Err(Interruption::ShutDown) => return None,
        Err(Interruption::Refused(refusal)) => refusal,
        Err(Interruption::Gone(error)) => {
            debug!(?peer, "connection did not begin: {error}");
            return None;
        }
    };
    shared
        .counters
        .count_refused(Refused::by_sqlstate(refusal.sqlstate));
    refuse(client, peer, &refusal, life).await;
    None
}

/// From the first byte to the end of authentication, within the time for it. `None` for a client that wants no session.
async fn begin(
    client: &mut Client,
    peer: &Peer,
    shared: &Shared,
) -> Result<Option<SessionStart>, Interruption> {
    let deadline = Instant::now() + shared.config.authentication_timeout;
    // What holds now, whatever is loaded until the client is in.
    let access = shared.access.current();
    let mut tls_peer = None;
    let startup = startup::receive(client, peer, access.tls.as_deref(), &mut tls_peer);
    let start = match timeout_at(deadline, startup).await {
        Ok(Ok(Startup::Session(start))) => start,
        Ok(Ok(Startup::Cancel { pid, secret })) => {
            shared.cancel_keys.cancel(pid, &secret);
            return Ok(None);
        }
        Ok(Ok(Startup::Nothing)) => return Ok(None),
        Ok(Err(interruption)) => return Err(interruption),
        Err(_) => {
            shared.counters.count_refused(Refused::Timeout);
            debug!(?peer, "connection did not begin in time");
            return Ok(None);
        }
    };
    if start.wants_newer_minor || !start.unknown_options.is_empty() {
        client
            .answer
            .negotiate_protocol_version(&start.unknown_options);
    }
    let admission = admission::admit(client, peer, &start, tls_peer, &access);
    match timeout_at(deadline, admission).await {
        Ok(Ok(())) => Ok(Some(start)),
        Ok(Err(interruption)) => Err(interruption),
        Err(_) => Err(Refusal::fatal("57014", "canceling authentication due to timeout").into()),
    }
}

/// Tells the client why the connection ends.
async fn refuse(client: &mut Client, peer: &Peer, refusal: &Refusal, life: &mut LifeWatch) {
    info!(
        ?peer,
        sqlstate = refusal.sqlstate,
        "connection refused: {}",
        refusal.message
    );
    client.answer.error(refusal);
    // The client may be gone already; nothing more is to be done for it.
    if matches!(timeout(REFUSAL_TIMEOUT, client.flush()).await, Ok(Ok(()))) {
        tokio::select! {
            biased;
            _ = timeout(LAST_WORDS_TIMEOUT, client.close()) => {}
            // What has come was read. Nobody waits for a client that does nothing, such as one that its user has left alone.
            () = life.ends() => {}
        }
    }
}
