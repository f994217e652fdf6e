//! [`Rule`], one line of the file.

use super::Connecting;
use super::address::AddressMatch;
use super::hba_error::HbaProblem;
use super::options::Options;
use super::tokens::{Field, Token};

/// How a client proves who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Not at all.
    Trust,
    /// He cannot.
    Reject,
    /// By a password, over SCRAM.
    ScramSha256,
    /// By a certificate whose common name is the user's name.
    Cert,
    /// By the system's user at the other end of a unix socket, which has the same name.
    Peer,
}

/// What a client's certificate must be, beside the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCert {
    /// None is needed.
    Off,
    /// Signed by an authority of ours.
    VerifyCa,
    /// That, and its common name is the user's name.
    VerifyFull,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Number in its file, from 1; 0 for a rule that stands in none.
    pub(crate) line: usize,
    /// The line as it stands there.
    pub(crate) text: String,
    transport: Transport,
    databases: Field,
    users: Field,
    /// `None` for unix sockets.
    address: Option<AddressMatch>,
    pub(crate) method: Method,
    pub(crate) client_cert: ClientCert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

impl Rule {
    /// For everybody at these addresses.
    pub(super) fn for_everybody(address: Option<AddressMatch>, method: Method) -> Self {
        let word = |text: &str| Token {
            text: text.to_owned(),
            is_quoted: false,
        };
        Self {
            line: 0,
            text: "the default rules".to_owned(),
            transport: if address.is_some() {
                Transport::Host
            } else {
                Transport::Local
            },
            databases: vec![word("replication"), word("all")],
            users: vec![word("all")],
            address,
            method,
            client_cert: ClientCert::Off,
        }
    }

    /// # Source
    /// `parse_hba_line` in `src/backend/libpq/hba.c`.
    pub(super) fn parse(line: usize, text: &str, fields: Vec<Field>) -> Result<Self, HbaProblem> {
        let mut fields = fields.into_iter();
        let transport = transport(&single(&mut fields, "connection type", "connection type")?)?;
        let databases = fields
            .next()
            .ok_or(HbaProblem::EndOfLine("database specification"))?;
        databases.iter().try_for_each(check_database)?;
        let users = fields
            .next()
            .ok_or(HbaProblem::EndOfLine("role specification"))?;
        users.iter().try_for_each(check_user)?;
        let address = match transport {
            Transport::Local => None,
            _ => {
                let token = single(&mut fields, "IP address specification", "host address")?;
                Some(match AddressMatch::parse(&token)? {
                    Ok(address) => address,
                    Err(address) => {
                        let mask = single(&mut fields, "netmask specification", "netmask")?;
                        AddressMatch::masked(address, &mask.text)?
                    }
                })
            }
        };
        let method = single(&mut fields, "authentication method", "authentication type")?;
        let method = method_of(&method.text, transport)?;
        let mut options = Options::default();
        for token in fields.flatten() {
            options.set(&token.text, transport, method)?;
        }
        let client_cert = if method == Method::Cert {
            ClientCert::VerifyFull
        } else {
            options.client_cert
        };
        Ok(Self {
            line,
            text: text.to_owned(),
            transport,
            databases,
            users,
            address,
            method,
            client_cert,
        })
    }

    /// Whether the rule is about this connection.
    pub(super) fn matches(&self, connecting: &Connecting<'_>) -> bool {
        let reachable = match (self.transport, connecting.address, &self.address) {
            (Transport::Local, None, _) => true,
            (Transport::Local, Some(_), _) | (_, None, _) | (_, Some(_), None) => false,
            (Transport::HostSsl, Some(_), _) if !connecting.is_encrypted => false,
            (Transport::HostNoSsl, Some(_), _) if connecting.is_encrypted => false,
            (_, Some(client), Some(address)) => address.matches(client),
        };
        reachable
            && self
                .databases
                .iter()
                .any(|token| database_matches(token, connecting))
            && self
                .users
                .iter()
                .any(|token| token.is_keyword("all") || token.text == connecting.user)
    }

    /// Whether it can only match encrypted connections.
    pub(crate) fn needs_encryption(&self) -> bool {
        self.transport == Transport::HostSsl
    }
}

/// The next field, which must be one word; `what` for its absence, `value` for too many.
fn single(
    fields: &mut impl Iterator<Item = Field>,
    what: &'static str,
    value: &'static str,
) -> Result<Token, HbaProblem> {
    let mut field = fields
        .next()
        .ok_or(HbaProblem::EndOfLine(what))?
        .into_iter();
    match (field.next(), field.next()) {
        (Some(token), None) => Ok(token),
        (None, _) => Err(HbaProblem::EndOfLine(what)),
        (Some(_), Some(_)) => Err(HbaProblem::MultipleValues(value)),
    }
}

fn transport(token: &Token) -> Result<Transport, HbaProblem> {
    match token.text.as_str() {
        "local" => Ok(Transport::Local),
        // Encryption by GSSAPI does not exist here, so no connection has it.
        "host" | "hostnogssenc" => Ok(Transport::Host),
        "hostssl" => Ok(Transport::HostSsl),
        "hostnossl" => Ok(Transport::HostNoSsl),
        "include" | "include_if_exists" | "include_dir" => {
            Err(HbaProblem::Include(token.text.clone()))
        }
        other => Err(HbaProblem::ConnectionType(other.to_owned())),
    }
}

fn check_database(token: &Token) -> Result<(), HbaProblem> {
    if token.is_keyword("samerole") || token.is_keyword("samegroup") {
        return Err(HbaProblem::SameRole(token.text.clone()));
    }
    check_name(token)
}

fn check_user(token: &Token) -> Result<(), HbaProblem> {
    if !token.is_quoted && token.text.starts_with('+') {
        return Err(HbaProblem::Group(token.text.clone()));
    }
    check_name(token)
}

fn check_name(token: &Token) -> Result<(), HbaProblem> {
    match token.text.chars().next() {
        Some('@') if !token.is_quoted && token.text.len() > 1 => {
            Err(HbaProblem::Include(token.text.clone()))
        }
        Some('/') if !token.is_quoted => Err(HbaProblem::RegularExpression(token.text.clone())),
        _ => Ok(()),
    }
}

/// # Source
/// `check_db` in `src/backend/libpq/hba.c`.
fn database_matches(token: &Token, connecting: &Connecting<'_>) -> bool {
    match connecting.database {
        None => token.is_keyword("replication"),
        Some(_) if token.is_keyword("all") => true,
        Some(database) if token.is_keyword("sameuser") => database == connecting.user,
        Some(_) if token.is_keyword("replication") => false,
        Some(database) => token.text == database,
    }
}

fn method_of(text: &str, transport: Transport) -> Result<Method, HbaProblem> {
    match text {
        "trust" => Ok(Method::Trust),
        "reject" => Ok(Method::Reject),
        // Every verifier here is one of SCRAM, and with those PostgreSQL does SCRAM where the file says md5.
        "scram-sha-256" | "md5" => Ok(Method::ScramSha256),
        "peer" if transport != Transport::Local => Err(HbaProblem::PeerNotLocal),
        "peer" => Ok(Method::Peer),
        "ident" if transport == Transport::Local => Ok(Method::Peer),
        "cert" if transport != Transport::HostSsl => Err(HbaProblem::CertNotSsl),
        "cert" => Ok(Method::Cert),
        "password" => Err(HbaProblem::PasswordMethod),
        "ident" | "gss" | "sspi" | "pam" | "bsd" | "ldap" | "radius" | "oauth" => {
            Err(HbaProblem::UnsupportedMethod(text.to_owned()))
        }
        other => Err(HbaProblem::Method(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hba::tokens;

    fn parse(text: &str) -> Result<Rule, HbaProblem> {
        let line = tokens::lines(text.as_bytes()).remove(0);
        Rule::parse(1, text, line.fields()?)
    }

    #[test]
    fn methods_and_options_are_read() {
        use {ClientCert as C, Method as M};
        for (text, method, client_cert) in [
            ("local replication all trust", M::Trust, C::Off),
            ("local replication all ident", M::Peer, C::Off),
            ("local replication all peer", M::Peer, C::Off),
            ("host replication all all md5", M::ScramSha256, C::Off),
            ("hostnogssenc replication all all reject", M::Reject, C::Off),
            ("hostssl replication all all cert", M::Cert, C::VerifyFull),
            (
                "hostssl replication all all cert clientcert=verify-full clientname=CN",
                M::Cert,
                C::VerifyFull,
            ),
            (
                "hostssl replication all samenet scram-sha-256 clientcert=verify-ca",
                M::ScramSha256,
                C::VerifyCa,
            ),
            (
                "hostssl replication all ::1/128 trust clientcert=verify-full",
                M::Trust,
                C::VerifyFull,
            ),
        ] {
            let rule = parse(text).unwrap();
            assert_eq!(
                (rule.method, rule.client_cert, rule.text.as_str()),
                (method, client_cert, text),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        use HbaProblem as P;
        for (text, problem) in [
            (
                "hos replication all all trust",
                P::ConnectionType("hos".into()),
            ),
            (
                "hostgssenc replication all all trust",
                P::ConnectionType("hostgssenc".into()),
            ),
            (
                "local,host replication all trust",
                P::MultipleValues("connection type"),
            ),
            ("include other.conf", P::Include("include".into())),
            ("local", P::EndOfLine("database specification")),
            ("local replication", P::EndOfLine("role specification")),
            (
                "local replication all",
                P::EndOfLine("authentication method"),
            ),
            (
                "host replication all",
                P::EndOfLine("IP address specification"),
            ),
            (
                "host replication all 10.0.0.1",
                P::EndOfLine("netmask specification"),
            ),
            (
                "host replication all 10.0.0.1,10.0.0.2 trust",
                P::MultipleValues("host address"),
            ),
            (
                "host replication all 10.0.0.1 255.0.0.0,255.0.0.0 trust",
                P::MultipleValues("netmask"),
            ),
            (
                "host replication all 10.0.0.1 trust",
                P::IpMask("trust".into()),
            ),
            (
                "host replication all standby.example trust",
                P::HostName("standby.example".into()),
            ),
            (
                "host replication +admins all trust",
                P::Group("+admins".into()),
            ),
            (
                "host replication a,+admins all trust",
                P::Group("+admins".into()),
            ),
            (
                "host replication @users all trust",
                P::Include("@users".into()),
            ),
            ("host @dbs all all trust", P::Include("@dbs".into())),
            (
                "host replication /^st all trust",
                P::RegularExpression("/^st".into()),
            ),
            (
                "host samerole all all trust",
                P::SameRole("samerole".into()),
            ),
            (
                "host replication all all trust,reject",
                P::MultipleValues("authentication type"),
            ),
            ("host replication all all password", P::PasswordMethod),
            ("host replication all all peer", P::PeerNotLocal),
            ("host replication all all cert", P::CertNotSsl),
            (
                "host replication all all ident",
                P::UnsupportedMethod("ident".into()),
            ),
            (
                "host replication all all gss",
                P::UnsupportedMethod("gss".into()),
            ),
            ("host replication all all none", P::Method("none".into())),
            ("local replication all peer map=m", P::Map),
            ("hostssl replication all all cert map=m", P::Map),
            (
                "host replication all all trust x",
                P::OptionForm("x".into()),
            ),
            (
                "host replication all all trust x=y",
                P::OptionName("x".into()),
            ),
            (
                "host replication all all trust clientcert=verify-ca",
                P::OptionNotSsl("clientcert"),
            ),
            (
                "host replication all all trust clientname=CN",
                P::OptionNotSsl("clientname"),
            ),
            (
                "hostssl replication all all cert clientcert=verify-ca",
                P::CertVerifyCa,
            ),
            (
                "hostssl replication all all cert clientname=DN",
                P::DistinguishedName,
            ),
            (
                "hostssl replication all all trust clientcert=1",
                P::OptionValue {
                    name: "clientcert",
                    value: "1".into(),
                },
            ),
            (
                "hostssl replication all all trust clientname=x",
                P::OptionValue {
                    name: "clientname",
                    value: "x".into(),
                },
            ),
        ] {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
        for quoted in [
            "host replication \"+admins\" all trust",
            "host replication \"@users\" all trust",
            "host replication \"/x\" all trust",
            "host \"samerole\" all all trust",
        ] {
            assert!(parse(quoted).is_ok(), "{quoted}");
        }
    }
}
