//! [`ConnInfo`]: a connection string, completed and understood.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::conninfo_error::ConnInfoError;
use super::conninfo_text;
use super::environment::Environment;
use super::hosts::{self, Host, TargetSessionAttrs};
use super::parameter::{PARAMETERS, Parameters};
use super::passfile::{self, PassfileKey};
use super::secret::Secret;
use super::service;
use super::settings::Settings;

/// Variables that are sent with the start-up message, and the setting each one gives.
///
/// # Source
/// `EnvironmentOptions` in `src/interfaces/libpq/fe-connect.c`.
const SESSION_VARIABLES: [(&str, &str); 3] = [
    ("PGDATESTYLE", "datestyle"),
    ("PGTZ", "timezone"),
    ("PGGEQO", "geqo"),
];

/// Where to connect to and how, with every gap filled from the service file, the `PG*` variables and the defaults.
///
/// `Debug` and [`Self::redacted`] never show a password. The parameter `replication` is accepted and ignored: what a
/// connection is for is said when it is opened.
#[derive(Clone)]
pub struct ConnInfo {
    parameters: Parameters,
    environment: Environment,
    hosts: Vec<Host>,
    settings: Settings,
    session: Vec<(&'static str, String)>,
}

impl ConnInfo {
    /// Reads a connection string of either form, and completes it as libpq does: the string first, then the service
    /// file, then the environment, then the defaults.
    ///
    /// # Errors
    /// See [`ConnInfoError`].
    ///
    /// # Source
    /// `conninfo_add_defaults` and `connectOptions2` in `src/interfaces/libpq/fe-connect.c`.
    pub fn resolve(text: &str, environment: &Environment) -> Result<Self, ConnInfoError> {
        let mut parameters = conninfo_text::parse(text)?;
        service::apply(&mut parameters, environment)?;
        for parameter in PARAMETERS {
            if let Some(value) = parameter
                .variable
                .and_then(|variable| environment.variable(variable))
            {
                parameters.set_default(parameter.keyword, value);
            }
        }
        Self::from_parameters(parameters, environment.clone())
    }

    fn from_parameters(
        parameters: Parameters,
        environment: Environment,
    ) -> Result<Self, ConnInfoError> {
        let hosts = hosts::pair_up(&parameters, environment.socket_directory())?;
        let settings =
            Settings::from_parameters(&parameters, environment.os_user(), environment.home())?;
        let session = SESSION_VARIABLES
            .iter()
            .filter_map(|(variable, setting)| {
                Some((*setting, environment.variable(variable)?.to_owned()))
            })
            .filter(|(_, value)| !value.eq_ignore_ascii_case("default"))
            .collect();
        Ok(Self {
            parameters,
            environment,
            hosts,
            settings,
            session,
        })
    }

    /// The same with one parameter replaced.
    ///
    /// # Errors
    /// An unknown keyword, or a value that it does not take.
    pub fn with_parameter(&self, keyword: &str, value: &str) -> Result<Self, ConnInfoError> {
        let mut parameters = self.parameters.clone();
        if !parameters.set(keyword, value) {
            return Err(ConnInfoError::UnknownOption {
                keyword: keyword.to_owned(),
            });
        }
        Self::from_parameters(parameters, self.environment.clone())
    }

    /// The same with this application name, unless one was given.
    #[must_use]
    pub fn with_application_name_default(mut self, name: &str) -> Self {
        if self.settings.application_name.is_none() {
            self.parameters.set("fallback_application_name", name);
            self.settings.application_name = Some(name.to_owned());
        }
        self
    }

    /// The same with this database, unless one was given. libpq's own default is the user's name.
    #[must_use]
    pub fn with_database_default(mut self, dbname: &str) -> Self {
        if self.settings.dbname.is_none() {
            self.parameters.set("dbname", dbname);
            self.settings.dbname = Some(dbname.to_owned());
        }
        self
    }

    /// The same with this time limit per host and address, unless one was given. libpq's own default is no limit.
    #[must_use]
    pub fn with_connect_timeout_default(mut self, timeout: Duration) -> Self {
        if !self.parameters.is_given("connect_timeout") {
            self.settings.connect_timeout = Some(timeout);
        }
        self
    }

    /// As a key=value string, passwords as `***`, for messages and logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.parameters.redacted()
    }

    /// As a key=value string that connects to the same server again, without passwords: to be kept in a file.
    #[must_use]
    pub fn without_secrets(&self) -> String {
        self.parameters.without_secrets()
    }

    /// The value of a parameter, completed, where there is one and it is not empty. `None` for passwords.
    #[must_use]
    pub fn parameter(&self, keyword: &str) -> Option<&str> {
        let secret = super::parameter::find(keyword).is_some_and(|parameter| parameter.secret);
        if secret {
            None
        } else {
            self.parameters.value(keyword)
        }
    }

    /// The servers to try, in the order given.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.settings.user
    }

    /// The database; the role's name where none was given.
    #[must_use]
    pub fn dbname(&self) -> &str {
        self.settings
            .dbname
            .as_deref()
            .unwrap_or(&self.settings.user)
    }

    /// The application name, where there is one.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.settings.application_name.as_deref()
    }

    /// Which server is wanted.
    #[must_use]
    pub const fn target_session_attrs(&self) -> TargetSessionAttrs {
        self.settings.target_session_attrs
    }

    /// The time limit for each address, where there is one.
    #[must_use]
    pub const fn connect_timeout(&self) -> Option<Duration> {
        self.settings.connect_timeout
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Settings from the environment that are sent with the start-up message.
    pub(super) fn session(&self) -> &[(&'static str, String)] {
        &self.session
    }

    /// The password for this host: the one given, or what the password file says for this database.
    pub(super) fn password(&self, host: &Host, dbname: &str) -> Option<Secret> {
        if let Some(password) = &self.settings.password {
            return Some(password.clone());
        }
        let file = self.settings.passfile.as_deref()?;
        let name = host.passfile_name(self.environment.socket_directory());
        let port = host.port.to_string();
        passfile::look_up(
            file,
            PassfileKey {
                host: &name,
                port: &port,
                dbname,
                user: &self.settings.user,
            },
        )
    }

    /// The password file that is read, where there is one: named in hints when a password is wrong.
    #[must_use]
    pub fn passfile(&self) -> Option<PathBuf> {
        self.settings.passfile.clone()
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnInfo").field(&self.redacted()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::SslMode;

    fn environment() -> Environment {
        Environment::default()
            .with_os_user("me")
            .with_home("/home/me")
    }

    #[test]
    fn the_string_wins_over_the_service_over_the_variables() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("pg_service.conf"),
            "[s]\nhost=service\nport=2\ndbname=service\n",
        )
        .unwrap();
        let environment = environment()
            .with_variable("PGSYSCONFDIR", directory.path().to_str().unwrap())
            .with_variable("PGHOST", "variable")
            .with_variable("PGDATABASE", "variable")
            .with_variable("PGUSER", "variable")
            .with_variable("PGPASSWORD", "hunter2");
        let conninfo = ConnInfo::resolve("service=s host=string", &environment).unwrap();
        let expected = "service=s user=variable password=*** dbname=service host=string port=2";
        assert_eq!(conninfo.redacted(), expected);
        assert_eq!(format!("{conninfo:?}"), format!("ConnInfo({expected:?})"));
        assert_eq!(conninfo.parameter("password"), None);
        assert!(!format!("{:?}", conninfo.settings()).contains("hunter2"));
    }

    #[test]
    fn defaults_are_those_of_libpq() {
        let conninfo = ConnInfo::resolve("", &environment()).unwrap();
        assert_eq!((conninfo.user(), conninfo.dbname()), ("me", "me"));
        assert_eq!(conninfo.hosts()[0].to_string(), "/tmp/.s.PGSQL.5432");
        assert_eq!(conninfo.target_session_attrs(), TargetSessionAttrs::Any);
        assert_eq!(conninfo.connect_timeout(), None);
        assert_eq!(conninfo.settings().tls.mode, SslMode::Prefer);
        assert_eq!(conninfo.passfile(), Some("/home/me/.pgpass".into()));
        let empty = ConnInfo::resolve(
            "dbname='' user=you",
            &environment().with_variable("PGDATABASE", "x"),
        )
        .unwrap();
        assert_eq!(empty.dbname(), "you");
        assert_eq!(
            ConnInfo::resolve("", &Environment::default()).unwrap_err(),
            ConnInfoError::NoUser
        );
    }

    #[test]
    fn defaults_of_ours_give_way() {
        let name = |text: &str| {
            let conninfo = ConnInfo::resolve(text, &environment()).unwrap();
            conninfo
                .with_application_name_default("ours")
                .application_name()
                .unwrap()
                .to_owned()
        };
        assert_eq!(name(""), "ours");
        assert_eq!(name("application_name=theirs"), "theirs");
        assert_eq!(name("fallback_application_name=theirs"), "theirs");
        let database = |text: &str| {
            let conninfo = ConnInfo::resolve(text, &environment()).unwrap();
            conninfo
                .with_database_default("postgres")
                .dbname()
                .to_owned()
        };
        assert_eq!([database(""), database("dbname=d")], ["postgres", "d"]);
        let timeout = |text: &str| {
            let conninfo = ConnInfo::resolve(text, &environment()).unwrap();
            conninfo
                .with_connect_timeout_default(Duration::from_secs(9))
                .connect_timeout()
        };
        assert_eq!(timeout(""), Some(Duration::from_secs(9)));
        assert_eq!(timeout("connect_timeout=3"), Some(Duration::from_secs(3)));
        assert_eq!(timeout("connect_timeout=0"), None);
    }

    #[test]
    fn values_are_checked() {
        for (text, expected) in [
            ("sslmode=on", "invalid sslmode value: \"on\""),
            ("channel_binding=x", "invalid channel_binding value: \"x\""),
            (
                "target_session_attrs=x",
                "invalid target_session_attrs value: \"x\"",
            ),
            (
                "load_balance_hosts=x",
                "invalid load_balance_hosts value: \"x\"",
            ),
            (
                "connect_timeout=x",
                "invalid integer value \"x\" for connection option \"connect_timeout\"",
            ),
            (
                "keepalives=2147483648",
                "invalid integer value \"2147483648\" for connection option \"keepalives\"",
            ),
            (
                "ssl_min_protocol_version=TLSv2",
                "invalid ssl_min_protocol_version value: \"TLSv2\"",
            ),
            (
                "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=tlsv1.2",
                "invalid SSL protocol version range",
            ),
            (
                "sslrootcert=system sslmode=verify-ca",
                "weak sslmode \"verify-ca\" may not be used with sslrootcert=system (use \"verify-full\")",
            ),
            (
                "sslnegotiation=direct",
                "weak sslmode \"prefer\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \"verify-full\")",
            ),
            (
                "gssencmode=require",
                "gssencmode value \"require\" invalid: GSSAPI is not supported; use sslmode for encryption",
            ),
        ] {
            assert_eq!(
                ConnInfo::resolve(text, &environment())
                    .unwrap_err()
                    .to_string(),
                expected,
                "{text}"
            );
        }
        let system = ConnInfo::resolve("sslrootcert=system", &environment()).unwrap();
        assert_eq!(system.settings().tls.mode, SslMode::VerifyFull);
        let older = ConnInfo::resolve(
            "ssl_min_protocol_version=TLSv1 keepalives=' 0 '",
            &environment(),
        )
        .unwrap();
        assert!(!older.settings().keepalives.enabled);
        assert!(older.with_parameter("port", "0").is_err());
    }
}
