//! Finds a server: host after host, address after address, with TLS and without, until one is of the kind wanted.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::connect_error::{AttemptFailure, ConnectError, FailedAttempt};
use super::connection::Connection;
use super::connection_error::ConnectionError;
use super::conninfo::ConnInfo;
use super::hosts::{Host, HostAddress, TargetSessionAttrs};
use super::negotiate::{self, Target};
use super::session_attrs;
use super::socket;
use super::startup::Purpose;

/// Whether the search goes on after a failed attempt.
enum Next {
    /// With the host's next address.
    Address,
    /// With the next host.
    Host,
    /// libpq stops at an error such as a wrong password: another host would most likely say the same, and trying every
    /// one could lock an account.
    Stop,
}

/// Connects.
///
/// # Source
/// `PQconnectPoll` in `src/interfaces/libpq/fe-connect.c`.
pub(super) async fn connect(
    conninfo: &ConnInfo,
    purpose: Purpose,
) -> Result<Connection, ConnectError> {
    let wanted = conninfo.target_session_attrs();
    let mut failures = Vec::new();
    // prefer-standby is two searches: for a standby, then for whatever there is.
    let (first, second) = match wanted {
        TargetSessionAttrs::PreferStandby => {
            (TargetSessionAttrs::Standby, Some(TargetSessionAttrs::Any))
        }
        wanted => (wanted, None),
    };
    for wanted in std::iter::once(first).chain(second) {
        if let Some(connection) = search(conninfo, purpose, wanted, &mut failures).await {
            return Ok(connection);
        }
    }
    Err(ConnectError::new(failures))
}

async fn search(
    conninfo: &ConnInfo,
    purpose: Purpose,
    wanted: TargetSessionAttrs,
    failures: &mut Vec<FailedAttempt>,
) -> Option<Connection> {
    let random = conninfo.settings().load_balance_random;
    let mut hosts: Vec<&Host> = conninfo.hosts().iter().collect();
    if random {
        shuffle(&mut hosts);
    }
    for host in hosts {
        let targets = match look_up(conninfo, host).await {
            Ok(targets) => targets,
            Err(failure) => {
                failures.push(FailedAttempt {
                    peer: host.to_string(),
                    location: host.name.clone().unwrap_or_else(|| host.to_string()),
                    failure,
                });
                continue;
            }
        };
        for target in targets {
            let failure = match try_target(conninfo, host, &target, purpose, wanted, failures).await
            {
                Ok(connection) => return Some(connection),
                Err(failure) => failure,
            };
            let next = after(&failure);
            failures.push(FailedAttempt {
                peer: target.describe(host),
                location: target.locate(host),
                failure,
            });
            match next {
                Next::Address => {}
                Next::Host => break,
                Next::Stop => return None,
            }
        }
    }
    None
}

/// The host's addresses, within the time limit.
async fn look_up(conninfo: &ConnInfo, host: &Host) -> Result<Vec<Target>, AttemptFailure> {
    if let HostAddress::UnixSocket(directory) = &host.address {
        return Ok(vec![Target::Unix(host.socket_path(directory))]);
    }
    let mut addresses = limited(conninfo, async {
        socket::addresses(host)
            .await
            .map_err(AttemptFailure::LookUp)
    })
    .await?;
    if conninfo.settings().load_balance_random {
        shuffle(&mut addresses);
    }
    Ok(addresses.into_iter().map(Target::Tcp).collect())
}

/// One address: without TLS where that is first, then with it, or the other way round.
async fn try_target(
    conninfo: &ConnInfo,
    host: &Host,
    target: &Target,
    purpose: Purpose,
    wanted: TargetSessionAttrs,
    failures: &mut Vec<FailedAttempt>,
) -> Result<Connection, AttemptFailure> {
    limited(conninfo, async {
        let mut plans = negotiate::plans(conninfo.settings().tls.mode, target)
            .iter()
            .peekable();
        let mut connection = loop {
            let Some(plan) = plans.next() else {
                return Err(AttemptFailure::Session(ConnectionError::Closed));
            };
            match negotiate::attempt(conninfo, host, target, purpose, *plan).await {
                Ok(connection) => break connection,
                Err((failure, tls_used))
                    if plans.peek().is_some() && plan.is_worth_another(&failure, tls_used) =>
                {
                    failures.push(FailedAttempt {
                        peer: target.describe(host),
                        location: target.locate(host),
                        failure,
                    });
                }
                Err((failure, _)) => return Err(failure),
            }
        };
        match session_attrs::check(&mut connection, purpose, wanted).await {
            Ok(()) => Ok(connection),
            Err(failure) => {
                connection.terminate().await;
                Err(failure)
            }
        }
    })
    .await
}

/// The same within `connect_timeout`.
async fn limited<T>(
    conninfo: &ConnInfo,
    step: impl Future<Output = Result<T, AttemptFailure>>,
) -> Result<T, AttemptFailure> {
    match conninfo.connect_timeout() {
        None => step.await,
        Some(limit) => tokio::time::timeout(limit, step)
            .await
            .unwrap_or(Err(AttemptFailure::Timeout(limit))),
    }
}

/// # Source
/// The uses of `try_next_addr` and `try_next_host` in `src/interfaces/libpq/fe-connect.c`.
fn after(failure: &AttemptFailure) -> Next {
    match failure {
        AttemptFailure::Connect(_) | AttemptFailure::Timeout(_) => Next::Address,
        AttemptFailure::LookUp(_) | AttemptFailure::WrongServer { .. } => Next::Host,
        AttemptFailure::Session(ConnectionError::Server(error)) if error.sqlstate == "57P03" => {
            Next::Host
        }
        // libpq stops here. A server that dies while we knock should not keep us from the others.
        AttemptFailure::Session(ConnectionError::Closed | ConnectionError::Io(_)) => Next::Host,
        AttemptFailure::Tls(_) | AttemptFailure::Auth(_) | AttemptFailure::Session(_) => Next::Stop,
    }
}

/// Fisher and Yates. The standard library's hasher keys are random enough to spread load.
fn shuffle<T>(items: &mut [T]) {
    for index in (1..items.len()).rev() {
        let random = RandomState::new().build_hasher().finish();
        let bound = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
        items.swap(index, usize::try_from(random % bound).unwrap_or(index));
    }
}
