//! [`Settings`], the parameters of a connection string with their types.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conninfo_error::ConnInfoError;
use super::hosts::TargetSessionAttrs;
use super::parameter::Parameters;
use super::require_auth::RequireAuth;
use super::secret::Secret;
use super::tls_settings::TlsSettings;

/// Everything a connection string says apart from where the server is.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) user: String,
    pub(super) dbname: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) application_name: Option<String>,
    pub(super) client_encoding: String,
    pub(super) options: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) target_session_attrs: TargetSessionAttrs,
    pub(super) load_balance_random: bool,
    pub(super) channel_binding: ChannelBindingMode,
    pub(super) require_auth: RequireAuth,
    pub(super) require_peer: Option<String>,
    pub(super) keepalives: Keepalives,
    pub(super) tls: TlsSettings,
}

/// Whether the SCRAM exchange must be tied to the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelBindingMode {
    Disable,
    Prefer,
    Require,
}

/// TCP's own probes. `None` leaves the system's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalives {
    pub(super) enabled: bool,
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) count: Option<u32>,
    /// `tcp_user_timeout`: how long sent data may stay unacknowledged.
    pub(super) user_timeout: Option<Duration>,
}

impl Settings {
    /// Gives the parameters their types.
    ///
    /// # Errors
    /// A value that its keyword does not take.
    ///
    /// # Source
    /// `connectOptions2` in `src/interfaces/libpq/fe-connect.c`.
    pub(super) fn from_parameters(
        parameters: &Parameters,
        os_user: Option<&str>,
        home: Option<&Path>,
    ) -> Result<Self, ConnInfoError> {
        let owned = |keyword: &str| parameters.value(keyword).map(str::to_owned);
        let invalid = |keyword, value: &str| ConnInfoError::InvalidValue {
            keyword,
            value: value.to_owned(),
        };
        let user = owned("user")
            .or_else(|| os_user.map(str::to_owned))
            .ok_or(ConnInfoError::NoUser)?;
        let channel_binding = match parameters.value("channel_binding") {
            None | Some("prefer") => ChannelBindingMode::Prefer,
            Some("disable") => ChannelBindingMode::Disable,
            Some("require") => ChannelBindingMode::Require,
            Some(other) => return Err(invalid("channel_binding", other)),
        };
        let target_session_attrs = match parameters.value("target_session_attrs") {
            None => TargetSessionAttrs::Any,
            Some(text) => TargetSessionAttrs::parse(text)
                .ok_or_else(|| invalid("target_session_attrs", text))?,
        };
        let load_balance_random = match parameters.value("load_balance_hosts") {
            None | Some("disable") => false,
            Some("random") => true,
            Some(other) => return Err(invalid("load_balance_hosts", other)),
        };
        match parameters.value("gssencmode") {
            None | Some("disable" | "prefer") => {}
            Some("require") => return Err(ConnInfoError::GssUnsupported),
            Some(other) => return Err(invalid("gssencmode", other)),
        }
        Ok(Self {
            user,
            dbname: owned("dbname"),
            password: owned("password").map(Secret::new),
            passfile: owned("passfile")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".pgpass"))),
            application_name: owned("application_name")
                .or_else(|| owned("fallback_application_name")),
            client_encoding: owned("client_encoding")
                .filter(|name| name != "auto")
                .unwrap_or_else(|| "UTF8".to_owned()),
            options: owned("options"),
            connect_timeout: positive(parameters, "connect_timeout")?
                .map(|n| Duration::from_secs(n.into())),
            target_session_attrs,
            load_balance_random,
            channel_binding,
            require_auth: parameters
                .value("require_auth")
                .map_or(Ok(RequireAuth::Unset), RequireAuth::parse)?,
            require_peer: owned("requirepeer"),
            keepalives: Keepalives::from_parameters(parameters)?,
            tls: TlsSettings::from_parameters(parameters, home)?,
        })
    }
}

impl Keepalives {
    fn from_parameters(parameters: &Parameters) -> Result<Self, ConnInfoError> {
        Ok(Self {
            enabled: integer(parameters, "keepalives")? != Some(0),
            idle: positive(parameters, "keepalives_idle")?.map(|n| Duration::from_secs(n.into())),
            interval: positive(parameters, "keepalives_interval")?
                .map(|n| Duration::from_secs(n.into())),
            count: positive(parameters, "keepalives_count")?,
            user_timeout: positive(parameters, "tcp_user_timeout")?
                .map(|n| Duration::from_millis(n.into())),
        })
    }
}

/// A whole number of C's `int`, blanks around it allowed.
///
/// # Source
/// `parse_int_param` in `src/interfaces/libpq/fe-connect.c`.
fn integer(parameters: &Parameters, keyword: &'static str) -> Result<Option<i32>, ConnInfoError> {
    let Some(text) = parameters.value(keyword) else {
        return Ok(None);
    };
    let number = text.trim().parse();
    number.map(Some).map_err(|_| ConnInfoError::InvalidInteger {
        keyword,
        value: text.to_owned(),
    })
}

/// A number above zero; zero and less mean the default.
fn positive(parameters: &Parameters, keyword: &'static str) -> Result<Option<u32>, ConnInfoError> {
    Ok(integer(parameters, keyword)?
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0))
}
