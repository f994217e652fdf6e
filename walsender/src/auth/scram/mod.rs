//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, without I/O.
//!
//! [`Verifier`] is what is stored of a password, in PostgreSQL's form. [`Exchange`] takes the client's messages and gives
//! the server's. What differs from RFC 5802 differs as in PostgreSQL: the name in the exchange is ignored, the user is
//! the one of the startup packet; a password that is no UTF-8, or holds what SASLprep prohibits, counts as its bytes.
//!
//! Hostile input: messages may hold any bytes. They are read in one pass, and nothing is kept of them but slices that
//! are bounded by the message, whose length the caller bounds.

mod client_message;
mod exchange;
mod keys;
mod scram_error;
mod verifier;

pub(crate) use exchange::{Exchange, Mechanism, ScramStep};
pub(crate) use keys::{Key, NONCE_LEN, mock_salt};
pub use verifier::{Verifier, VerifierError};
