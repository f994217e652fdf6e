//! One attempt at one address: socket, TLS where it is wanted, start-up.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::auth_error::AuthError;
use super::connect_error::AttemptFailure;
use super::connection::Connection;
use super::connection_error::ConnectionError;
use super::conninfo::ConnInfo;
use super::hosts::Host;
use super::local_stream::LocalStream;
use super::settings::ChannelBindingMode;
use super::socket;
use super::startup::{self, Purpose, StartupFailure};
use super::stream::Stream;
use super::tls;
use super::tls_settings::SslMode;
use super::wire::Wire;

/// An address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What an attempt does about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Plain,
    /// Asks for it, and goes on without it when the server has none.
    TlsIfOffered,
    /// Asks for it and ends when the server has none.
    Tls,
}

impl Target {
    /// As messages name it.
    pub(super) fn describe(&self, host: &Host) -> String {
        match self {
            Self::Tcp(address)
                if host
                    .name
                    .as_deref()
                    .is_some_and(|name| name != address.ip().to_string()) =>
            {
                let name = host.name.as_deref().unwrap_or_default();
                format!("{name}:{} ({})", address.port(), address.ip())
            }
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => host.to_string(),
        }
    }

    /// As libpq names it.
    ///
    /// # Source
    /// `emitHostIdentityInfo` in `src/interfaces/libpq/fe-connect.c`.
    pub(super) fn locate(&self, host: &Host) -> String {
        match self {
            Self::Tcp(address) => {
                let (ip, port) = (address.ip().to_string(), address.port());
                match host.name.as_deref() {
                    Some(name) if name != ip => {
                        format!("server at \"{name}\" ({ip}), port {port}")
                    }
                    _ => format!("server at \"{ip}\", port {port}"),
                }
            }
            Self::Unix(_) => format!("server on socket \"{host}\""),
        }
    }
}

/// The attempts that an `sslmode` allows, in their order. Unix sockets never speak TLS.
pub(super) const fn plans(mode: SslMode, target: &Target) -> &'static [Plan] {
    match (target, mode) {
        (Target::Unix(_), _) | (_, SslMode::Disable) => &[Plan::Plain],
        (_, SslMode::Allow) => &[Plan::Plain, Plan::Tls],
        (_, SslMode::Prefer) => &[Plan::TlsIfOffered, Plan::Plain],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Plan::Tls],
    }
}

impl Plan {
    /// Whether the next plan may do better: the server refused this one, or TLS failed where it was only preferred.
    pub(super) fn is_worth_another(self, failure: &AttemptFailure, tls_used: bool) -> bool {
        match failure {
            AttemptFailure::Session(ConnectionError::Server(error)) => {
                error.sqlstate != "57P03" && tls_used == (self == Self::TlsIfOffered)
            }
            AttemptFailure::Tls(_) => self == Self::TlsIfOffered,
            _ => false,
        }
    }
}

/// Makes one attempt. The flag of a failure says whether TLS was in use.
pub(super) async fn attempt(
    conninfo: &ConnInfo,
    host: &Host,
    target: &Target,
    purpose: Purpose,
    plan: Plan,
) -> Result<Connection, (AttemptFailure, bool)> {
    let (stream, certificate_hash) = open(conninfo, host, target, plan)
        .await
        .map_err(|failure| (failure, false))?;
    let tls_used = stream.is_tls();
    if conninfo.settings().channel_binding == ChannelBindingMode::Require && !tls_used {
        let error = AuthError::ChannelBinding {
            reason: "SSL is not in use",
        };
        return Err((AttemptFailure::Auth(error), tls_used));
    }
    let mut wire = Wire::new(stream);
    match startup::start(&mut wire, conninfo, host, purpose, certificate_hash).await {
        Ok(session) => Ok(Connection::new(wire, session, host, target.clone())),
        Err(StartupFailure::Auth(error)) => Err((AttemptFailure::Auth(error), tls_used)),
        Err(StartupFailure::Connection(error)) => Err((AttemptFailure::Session(error), tls_used)),
    }
}

/// Opens the stream; with TLS, also the hash of the server's certificate.
async fn open(
    conninfo: &ConnInfo,
    host: &Host,
    target: &Target,
    plan: Plan,
) -> Result<(Stream, Option<Vec<u8>>), AttemptFailure> {
    let settings = conninfo.settings();
    match target {
        Target::Unix(path) => {
            let stream = socket::connect_unix(path)
                .await
                .map_err(AttemptFailure::Connect)?;
            if let Some(wanted) = &settings.require_peer {
                let verdict =
                    socket::check_peer(&stream, wanted).map_err(AttemptFailure::Connect)?;
                verdict.map_err(AttemptFailure::Auth)?;
            }
            let stream = LocalStream::new(stream).map_err(AttemptFailure::Connect)?;
            Ok((Stream::Unix(stream), None))
        }
        Target::Tcp(address) => {
            let stream = socket::connect_tcp(*address, settings.keepalives)
                .await
                .map_err(AttemptFailure::Connect)?;
            match plan {
                Plan::Plain => Ok((Stream::Tcp(stream), None)),
                Plan::TlsIfOffered | Plan::Tls => {
                    tls::upgrade(stream, &settings.tls, host, plan == Plan::Tls)
                        .await
                        .map_err(AttemptFailure::Tls)
                }
            }
        }
    }
}
