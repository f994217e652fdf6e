//! Who may connect, and how he proves who he is.
//!
//! | module | what |
//! |---|---|
//! | `hba` | rules, in PostgreSQL's `pg_hba.conf` format |
//! | `scram` | SCRAM-SHA-256 and -PLUS, without I/O |
//! | `verifier_file` | users and their verifiers |
//! | `access` | [`AccessFiles`]: the files above and TLS's; what they said when they were last good |
//! | `authentication` | the machine that takes a client from its startup message to AuthenticationOk |

mod access;
mod authentication;
pub(crate) mod fuzzing;
mod hba;
mod scram;
mod verifier_file;

pub(crate) use access::{Access, AccessControl, random_nonce};
pub use access::{AccessError, AccessFiles};
pub(crate) use authentication::{
    Authentication, ClientFacts, Denial, MAX_SASL_LENGTH, Progress, system_user,
};
pub use hba::{HbaError, HbaLineError, HbaProblem};
pub use scram::{Verifier, VerifierError};
pub use verifier_file::{VerifierFileError, VerifierLineProblem, verifier_line};
