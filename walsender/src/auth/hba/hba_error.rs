//! [`HbaError`]: a rules file that cannot be used.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A rules file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HbaError {
    /// Lines are wrong; each is named.
    #[error("{}", Lines(.0))]
    Lines(Vec<HbaLineError>),
    /// There is no rule in it.
    #[error("\"{}\" contains no entries: nobody could connect", .file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// A line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} of \"{}\": {problem}", .file.display())]
pub struct HbaLineError {
    /// The file.
    pub file: PathBuf,
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: HbaProblem,
}

/// What is wrong with a line. Where PostgreSQL would refuse the line too, it says the same.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HbaProblem {
    /// It is no text.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// It holds a zero byte.
    #[error("the line holds a zero byte")]
    ZeroByte,
    /// The line ends too early.
    #[error("end-of-line before {0}")]
    EndOfLine(&'static str),
    /// A list where one word is expected.
    #[error("multiple values specified for {0}")]
    MultipleValues(&'static str),
    /// The first word is no type of connection.
    #[error("invalid connection type \"{0}\": expected local, host, hostssl or hostnossl")]
    ConnectionType(String),
    /// Other files are not read in.
    #[error("\"{0}\": other files cannot be included: write the rules and names into this one")]
    Include(String),
    /// Groups exist in a database.
    #[error(
        "\"{0}\": groups are not known here, as there is no database: write the names of their members"
    )]
    Group(String),
    /// A keyword that asks for groups.
    #[error("\"{0}\": roles and their members are not known here, as there is no database")]
    SameRole(String),
    /// A regular expression, since PostgreSQL 16.
    #[error(
        "\"{0}\": regular expressions are not supported: write the names, or quote a name that begins with a slash"
    )]
    RegularExpression(String),
    /// A host name, or nonsense.
    #[error(
        "\"{0}\" is no IP address: host names are not supported, use an address such as 192.0.2.0/24"
    )]
    HostName(String),
    /// The length behind the slash.
    #[error("invalid CIDR mask in address \"{0}\"")]
    CidrMask(String),
    /// The mask's own field.
    #[error("invalid IP mask \"{0}\"")]
    IpMask(String),
    /// One of version 4, one of version 6.
    #[error("IP address and mask do not match")]
    FamilyMismatch,
    /// A word that is no method.
    #[error("invalid authentication method \"{0}\"")]
    Method(String),
    /// A method of PostgreSQL that there is not here.
    #[error(
        "authentication method \"{0}\" is not supported: use scram-sha-256, cert, peer, trust or reject"
    )]
    UnsupportedMethod(String),
    /// Passwords in clear.
    #[error(
        "authentication method \"password\" is not supported, as the client would send its password in clear: use \
         scram-sha-256"
    )]
    PasswordMethod,
    /// `peer` on TCP.
    #[error("peer authentication is only supported on local sockets")]
    PeerNotLocal,
    /// `cert` on what may be unencrypted.
    #[error("cert authentication is only supported on hostssl connections")]
    CertNotSsl,
    /// An option without `=`.
    #[error("authentication option not in name=value format: {0}")]
    OptionForm(String),
    /// An option that is not known.
    #[error("unrecognized authentication option name: \"{0}\"")]
    OptionName(String),
    /// User name maps.
    #[error(
        "\"map\" is not supported, as there is no pg_ident.conf here: the system user or the certificate's common name \
         must be the user's name"
    )]
    Map,
    /// `clientcert`, `clientname` elsewhere than in `hostssl`.
    #[error("{0} can only be configured for \"hostssl\" rows")]
    OptionNotSsl(&'static str),
    /// `clientcert=verify-ca` with the method `cert`.
    #[error("clientcert only accepts \"verify-full\" when using \"cert\" authentication")]
    CertVerifyCa,
    /// An option's value.
    #[error("invalid value for {name}: \"{value}\"")]
    OptionValue {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// `clientname=DN`.
    #[error(
        "clientname=DN is not supported: the user's name is compared with the certificate's common name"
    )]
    DistinguishedName,
}

struct Lines<'a>(&'a [HbaLineError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}
