//! The client side of PostgreSQL's wire: connection strings, authentication, TLS, commands and copies.
//!
//! [`ConnInfo`] reads a connection string and completes it from the service file, the `PG*` variables and the password
//! file as libpq does, with the same messages. [`Connection`] is the session that comes of it.
//!
//! # Hostile input
//! A server may send anything: every message has a maximum length that is judged before its body arrives, memory grows
//! only with bytes received, and nothing panics. A wait that is given up loses nothing.

mod auth;
mod auth_error;
mod cancel;
mod certificate_name;
mod connect;
mod connect_error;
#[expect(
    clippy::module_inception,
    reason = "the type that the module is named for"
)]
mod connection;
mod connection_error;
mod conninfo;
mod conninfo_error;
mod conninfo_text;
mod conninfo_uri;
mod environment;
mod frame;
mod hosts;
mod local_stream;
mod message;
mod negotiate;
mod parameter;
mod passfile;
mod require_auth;
mod secret;
mod server_error;
mod service;
mod session_attrs;
mod settings;
mod socket;
mod startup;
mod stream;
mod tls;
mod tls_error;
mod tls_files;
mod tls_settings;
mod tls_verifier;
mod wire;

pub use auth_error::AuthError;
pub use cancel::CancelToken;
pub use connect_error::{AttemptFailure, ConnectError, FailedAttempt};
pub use connection::Connection;
pub use connection_error::ConnectionError;
pub use conninfo::ConnInfo;
pub use conninfo_error::ConnInfoError;
pub use environment::Environment;
pub use frame::FrameError;
pub use hosts::{Host, HostAddress, TargetSessionAttrs};
pub use message::{BackendMessage, Column, ResultSet};
pub use require_auth::AuthMethod;
pub use server_error::ServerError;
pub use startup::Purpose;
pub use tls_error::TlsError;
pub use tls_settings::SslMode;
