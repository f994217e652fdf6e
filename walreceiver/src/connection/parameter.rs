//! [`Parameters`], the keywords of a connection string with the values given so far.

use std::collections::BTreeMap;
use std::fmt;

/// One keyword of a connection string.
///
/// # Source
/// `PQconninfoOptions` in `src/interfaces/libpq/fe-connect.c`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// As written in a connection string.
    pub(super) keyword: &'static str,
    /// The variable that gives a value when the string does not.
    pub(super) variable: Option<&'static str>,
    /// Never shown.
    pub(super) secret: bool,
}

const fn plain(keyword: &'static str, variable: &'static str) -> Parameter {
    Parameter {
        keyword,
        variable: Some(variable),
        secret: false,
    }
}

const fn no_variable(keyword: &'static str) -> Parameter {
    Parameter {
        keyword,
        variable: None,
        secret: false,
    }
}

/// Every keyword that is understood, in the order in which they are shown.
pub(super) const PARAMETERS: &[Parameter] = &[
    plain("service", "PGSERVICE"),
    plain("user", "PGUSER"),
    Parameter {
        keyword: "password",
        variable: Some("PGPASSWORD"),
        secret: true,
    },
    plain("passfile", "PGPASSFILE"),
    plain("channel_binding", "PGCHANNELBINDING"),
    plain("require_auth", "PGREQUIREAUTH"),
    plain("connect_timeout", "PGCONNECT_TIMEOUT"),
    plain("dbname", "PGDATABASE"),
    plain("host", "PGHOST"),
    plain("hostaddr", "PGHOSTADDR"),
    plain("port", "PGPORT"),
    plain("client_encoding", "PGCLIENTENCODING"),
    plain("options", "PGOPTIONS"),
    plain("application_name", "PGAPPNAME"),
    no_variable("fallback_application_name"),
    no_variable("keepalives"),
    no_variable("keepalives_idle"),
    no_variable("keepalives_interval"),
    no_variable("keepalives_count"),
    no_variable("tcp_user_timeout"),
    plain("sslmode", "PGSSLMODE"),
    plain("sslnegotiation", "PGSSLNEGOTIATION"),
    plain("sslcompression", "PGSSLCOMPRESSION"),
    plain("sslcert", "PGSSLCERT"),
    plain("sslkey", "PGSSLKEY"),
    plain("sslcertmode", "PGSSLCERTMODE"),
    Parameter {
        keyword: "sslpassword",
        variable: None,
        secret: true,
    },
    plain("sslrootcert", "PGSSLROOTCERT"),
    plain("sslcrl", "PGSSLCRL"),
    plain("sslcrldir", "PGSSLCRLDIR"),
    plain("sslsni", "PGSSLSNI"),
    plain("requirepeer", "PGREQUIREPEER"),
    plain("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    plain("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    plain("gssencmode", "PGGSSENCMODE"),
    plain("krbsrvname", "PGKRBSRVNAME"),
    plain("gsslib", "PGGSSLIB"),
    plain("gssdelegation", "PGGSSDELEGATION"),
    no_variable("replication"),
    plain("target_session_attrs", "PGTARGETSESSIONATTRS"),
    plain("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

/// The [`Parameter`] of this name, if there is one.
pub(super) fn find(keyword: &str) -> Option<&'static Parameter> {
    PARAMETERS
        .iter()
        .find(|parameter| parameter.keyword == keyword)
}

/// Values given for keywords. An empty value counts as given: no later source replaces it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// The value, where one was given and is not empty.
    pub(super) fn value(&self, keyword: &str) -> Option<&str> {
        self.0
            .get(keyword)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether a value was given, be it empty.
    pub(super) fn is_given(&self, keyword: &str) -> bool {
        self.0.contains_key(keyword)
    }

    /// Replaces the value. `false` when there is no such keyword.
    pub(super) fn set(&mut self, keyword: &str, value: &str) -> bool {
        // Older clients wrote this instead of sslmode.
        if keyword == "requiressl" {
            let mode = if value.starts_with('1') {
                "require"
            } else {
                "prefer"
            };
            return self.set("sslmode", mode);
        }
        let Some(parameter) = find(keyword) else {
            return false;
        };
        self.0.insert(parameter.keyword, value.to_owned());
        true
    }

    /// Gives the value unless one was given before. `false` when there is no such keyword.
    pub(super) fn set_default(&mut self, keyword: &str, value: &str) -> bool {
        self.is_given(keyword) || self.set(keyword, value)
    }

    /// As a key=value string, secrets as `***`.
    pub(super) fn redacted(&self) -> String {
        self.text(Some("***"))
    }

    /// As a key=value string that can be read back, without secrets.
    pub(super) fn without_secrets(&self) -> String {
        self.text(None)
    }

    fn text(&self, in_place_of_secrets: Option<&str>) -> String {
        let mut text = String::new();
        for parameter in PARAMETERS {
            let Some(value) = self.value(parameter.keyword) else {
                continue;
            };
            let value = match (parameter.secret, in_place_of_secrets) {
                (false, _) => quoted(value),
                (true, Some(mask)) => mask.to_owned(),
                (true, None) => continue,
            };
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(parameter.keyword);
            text.push('=');
            text.push_str(&value);
        }
        text
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// A value as a connection string writes it: quoted where it would not be read back otherwise.
fn quoted(value: &str) -> String {
    let needs_quotes = value.contains(|c: char| c.is_ascii_whitespace() || c == '\'' || c == '\\');
    if !needs_quotes {
        return value.to_owned();
    }
    let mut text = String::from("'");
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacts_secrets_and_quotes_the_rest() {
        let mut parameters = Parameters::default();
        assert!(parameters.set("password", "hunter2"));
        assert!(parameters.set("sslpassword", "hunter3"));
        assert!(parameters.set("host", "a b'c\\d"));
        assert!(parameters.set("user", "u"));
        assert!(!parameters.set("no_such", "x"));
        let expected = r"user=u password=*** host='a b\'c\\d' sslpassword=***";
        assert_eq!(parameters.redacted(), expected);
        assert_eq!(format!("{parameters:?}"), expected);
        assert_eq!(parameters.without_secrets(), r"user=u host='a b\'c\\d'");
    }

    #[test]
    fn empty_counts_as_given() {
        let mut parameters = Parameters::default();
        assert!(parameters.set("host", ""));
        assert!(parameters.set_default("host", "other"));
        assert_eq!(parameters.value("host"), None);
        assert!(parameters.is_given("host"));
    }

    #[test]
    fn requiressl_becomes_sslmode() {
        for (value, mode) in [("1", "require"), ("0", "prefer")] {
            let mut parameters = Parameters::default();
            assert!(parameters.set("requiressl", value));
            assert_eq!(parameters.value("sslmode"), Some(mode));
        }
    }
}
