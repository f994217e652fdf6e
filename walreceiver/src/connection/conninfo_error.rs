//! [`ConnInfoError`]: what can be wrong with a connection string, a service file or a `PG*` variable.

use std::path::PathBuf;

use crate::exit::{Exit, Recovery};

/// Why a connection string cannot be used. The messages are libpq's, so that what is found on the web helps.
///
/// Passwords are never part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnInfoError {
    /// A keyword without a value.
    #[error("missing \"=\" after \"{after}\" in connection info string")]
    MissingEquals {
        /// What stands where a keyword was expected.
        after: String,
    },
    /// A quote that never ends.
    #[error("unterminated quoted string in connection info string")]
    UnterminatedQuote,
    /// A keyword that does not exist.
    #[error("invalid connection option \"{keyword}\"")]
    UnknownOption {
        /// As given.
        keyword: String,
    },
    /// `[` without `]`.
    #[error(
        "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"{uri}\""
    )]
    UnterminatedAddress {
        /// As given, without its password.
        uri: String,
    },
    /// `[]`.
    #[error("IPv6 host address may not be empty in URI: \"{uri}\"")]
    EmptyAddress {
        /// As given, without its password.
        uri: String,
    },
    /// Something after `]` that is neither a port nor a path.
    #[error(
        "unexpected character \"{found}\" at position {position} in URI (expected \":\" or \"/\"): \"{uri}\""
    )]
    UnexpectedCharacter {
        /// What was found.
        found: char,
        /// Counted in bytes from 1.
        position: usize,
        /// As given, without its password.
        uri: String,
    },
    /// A query parameter that does not exist.
    #[error("invalid URI query parameter: \"{keyword}\"")]
    UnknownUriParameter {
        /// As given.
        keyword: String,
    },
    /// A query parameter without `=`.
    #[error("missing key/value separator \"=\" in URI query parameter: \"{keyword}\"")]
    MissingSeparator {
        /// As given.
        keyword: String,
    },
    /// A query parameter with more than one `=`.
    #[error("extra key/value separator \"=\" in URI query parameter: \"{keyword}\"")]
    ExtraSeparator {
        /// As given.
        keyword: String,
    },
    /// `%` without two hexadecimal digits.
    #[error("invalid percent-encoded token: \"{token}\"")]
    InvalidPercent {
        /// As given; `***` for a password.
        token: String,
    },
    /// `%00`, which no C program could take.
    #[error("forbidden value %00 in percent-encoded value: \"{token}\"")]
    PercentZero {
        /// As given; `***` for a password.
        token: String,
    },
    /// Percent-encoded bytes that are no UTF-8.
    #[error("percent-encoded value is not valid UTF-8: \"{token}\"")]
    PercentNotUtf8 {
        /// As given; `***` for a password.
        token: String,
    },
    /// A value outside the list of what the keyword takes.
    #[error("invalid {keyword} value: \"{value}\"")]
    InvalidValue {
        /// The keyword.
        keyword: &'static str,
        /// As given.
        value: String,
    },
    /// A value that should be a whole number.
    #[error("invalid integer value \"{value}\" for connection option \"{keyword}\"")]
    InvalidInteger {
        /// The keyword.
        keyword: &'static str,
        /// As given.
        value: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("invalid port number: \"{value}\"")]
    InvalidPort {
        /// As given.
        value: String,
    },
    /// `hostaddr` with something that is no IP address.
    #[error("could not parse network address \"{value}\": hostaddr takes an IPv4 or IPv6 address")]
    InvalidAddress {
        /// As given.
        value: String,
    },
    /// Lists of different lengths.
    #[error("could not match {hosts} host names to {addresses} hostaddr values")]
    HostCount {
        /// Elements of `host`.
        hosts: usize,
        /// Elements of `hostaddr`.
        addresses: usize,
    },
    /// Lists of different lengths.
    #[error("could not match {ports} port numbers to {hosts} hosts")]
    PortCount {
        /// Elements of `port`.
        ports: usize,
        /// Hosts to try.
        hosts: usize,
    },
    /// The minimum is above the maximum.
    #[error("invalid SSL protocol version range")]
    TlsVersionRange,
    /// The system's roots vouch for the whole internet: only with the name checked are they worth something.
    #[error(
        "weak sslmode \"{mode}\" may not be used with sslrootcert=system (use \"verify-full\")"
    )]
    WeakModeWithSystemRoots {
        /// The sslmode given.
        mode: String,
    },
    /// Direct TLS cannot fall back to plain text.
    #[error(
        "weak sslmode \"{mode}\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \"verify-full\")"
    )]
    WeakModeWithDirectTls {
        /// The sslmode given.
        mode: String,
    },
    /// There is no GSSAPI here.
    #[error(
        "gssencmode value \"require\" invalid: GSSAPI is not supported; use sslmode for encryption"
    )]
    GssUnsupported,
    /// `require_auth` mixes what is allowed with what is not.
    #[error("require_auth method \"{method}\" cannot be mixed with {}methods", if *.negative { "non-negative " } else { "negative " })]
    RequireAuthMixed {
        /// The method that does not fit those before it.
        method: String,
        /// Whether this one was negative.
        negative: bool,
    },
    /// `require_auth` names a method twice.
    #[error("require_auth method \"{method}\" is specified more than once")]
    RequireAuthTwice {
        /// As given.
        method: String,
    },
    /// No file where `PGSERVICEFILE` says.
    #[error("service file \"{}\" not found", file.display())]
    ServiceFileNotFound {
        /// The file.
        file: PathBuf,
    },
    /// A service file that cannot be read.
    #[error("could not read service file \"{}\": {cause}", file.display())]
    ServiceFileUnreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// A line that is no `key=value`, or with an unknown key.
    #[error("syntax error in service file \"{}\", line {line}", file.display())]
    ServiceFileSyntax {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A service that refers to a service.
    #[error("nested service specifications not supported in service file \"{}\", line {line}", file.display())]
    NestedService {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No such section in any service file.
    #[error("definition of service \"{service}\" not found")]
    ServiceNotFound {
        /// The service.
        service: String,
    },
    /// No user was named and the operating system knows no name for ours.
    #[error(
        "could not look up the name of the local user: give user= in the connection string or set PGUSER"
    )]
    NoUser,
}

impl ConnInfoError {
    /// The exit code: always [`Exit::Usage`].
    #[must_use]
    pub const fn exit(&self) -> Exit {
        Exit::Usage
    }

    /// Always [`Recovery::Permanent`].
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}
