//! TLS of the listener, by `rustls`: certificate and key, certificates of clients, and what both ends of our programs
//! need to know of certificates.
//!
//! | module | what |
//! |---|---|
//! | `server` | [`ServerTls`]: files made into a configuration, the handshake, what is known of the client after it |
//! | `client_verifier` | certificates of clients, judged as PostgreSQL does |
//! | `files` | files that must be closed to others, certificates, keys |
//! | [`certificate_hash`], [`certificate_name`], [`certificate_v1`] | channel binding, common names, old certificates; `walreceiver` uses them too |
//!
//! As PostgreSQL's server: no resumption and no renegotiation, so every connection shows its certificate anew.

pub mod certificate_hash;
pub mod certificate_name;
pub mod certificate_v1;
mod client_verifier;
mod files;
mod server;
mod tls_error;

pub use files::{FileAccessError, read_private};
pub use server::{ParseTlsVersionError, ServerTls, TlsFiles, TlsPeer, TlsVersion};
pub use tls_error::TlsError;

/// Name of PostgreSQL's protocol in TLS's own negotiation (ALPN).
///
/// # Source
/// `PG_ALPN_PROTOCOL` in `src/include/libpq/pqcomm.h`, since 17.
pub const ALPN: &[u8] = b"postgresql";
