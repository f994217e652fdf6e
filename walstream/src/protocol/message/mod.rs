//! The messages around the replication protocol: framing, the startup family, what servers and clients send.
//!
//! ```text
//! after startup    tag u8, length i32 (itself included, the tag not), content
//! startup          length i32 (itself included), code i32, content
//! ```
//!
//! A claimed length is checked against the greatest that its kind may have before anything is waited for or
//! reserved. Any bytes may be parsed.

pub mod backend;
pub mod error_fields;
pub mod frame;
pub mod frontend;
pub mod row;
pub mod startup;

pub use backend::{Authentication, BackendMessage, CopyFormat, TransactionStatus};
pub use error_fields::ErrorFields;
pub use frame::{FrameHeader, max_backend_length, max_frontend_length};
pub use frontend::FrontendMessage;
pub use row::{DataRow, FieldDescription, RowDescription};
pub use startup::{ProtocolVersion, StartupMessage, StartupRequest};
