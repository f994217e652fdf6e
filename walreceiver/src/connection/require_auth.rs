//! [`RequireAuth`]: which authentication methods the user accepts.

use super::conninfo_error::ConnInfoError;

/// A way to authenticate, as `require_auth` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The password as it is, readable by the server.
    Password,
    /// MD5 of password, role and salt.
    Md5,
    /// GSSAPI.
    Gss,
    /// Windows' SSPI.
    Sspi,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// The server asks for nothing.
    None,
}

impl AuthMethod {
    const ALL: [Self; 6] = [
        Self::Password,
        Self::Md5,
        Self::Gss,
        Self::Sspi,
        Self::ScramSha256,
        Self::None,
    ];

    /// As `require_auth` writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::ScramSha256 => "scram-sha-256",
            Self::None => "none",
        }
    }
}

/// The list of `require_auth`: methods accepted, or methods refused.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) enum RequireAuth {
    /// Nothing was said.
    #[default]
    Unset,
    /// One of these.
    OneOf(Vec<AuthMethod>),
    /// None of these.
    NoneOf(Vec<AuthMethod>),
}

impl RequireAuth {
    /// Reads a list such as `scram-sha-256,md5` or `!password,!none`.
    ///
    /// # Errors
    /// Unknown methods, a method given twice, and lists with both signs.
    ///
    /// # Source
    /// `pqConnectOptions2` in `src/interfaces/libpq/fe-connect.c` of PostgreSQL 16.
    pub(super) fn parse(text: &str) -> Result<Self, ConnInfoError> {
        let mut methods = Vec::new();
        let mut list_is_negative = None;
        for element in text.split(',') {
            let (negative, name) = element
                .strip_prefix('!')
                .map_or((false, element), |name| (true, name));
            if *list_is_negative.get_or_insert(negative) != negative {
                return Err(ConnInfoError::RequireAuthMixed {
                    method: element.to_owned(),
                    negative,
                });
            }
            let method = AuthMethod::ALL
                .into_iter()
                .find(|method| method.name() == name)
                .ok_or_else(|| ConnInfoError::InvalidValue {
                    keyword: "require_auth",
                    value: element.to_owned(),
                })?;
            if methods.contains(&method) {
                return Err(ConnInfoError::RequireAuthTwice {
                    method: element.to_owned(),
                });
            }
            methods.push(method);
        }
        Ok(if list_is_negative == Some(true) {
            Self::NoneOf(methods)
        } else {
            Self::OneOf(methods)
        })
    }

    /// Whether the server may use this method.
    ///
    /// Stricter than libpq in one point: a password is sent readable only where the list says `password`.
    pub(super) fn accepts(&self, method: AuthMethod) -> bool {
        match self {
            Self::Unset => method != AuthMethod::Password,
            Self::OneOf(methods) => methods.contains(&method),
            Self::NoneOf(methods) => method != AuthMethod::Password && !methods.contains(&method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AuthMethod::{Md5, None as Nothing, Password, ScramSha256};

    #[test]
    fn accepts_what_the_list_says() {
        for (text, accepted, refused) in [
            (
                "scram-sha-256",
                vec![ScramSha256],
                vec![Md5, Password, Nothing],
            ),
            (
                "scram-sha-256,md5",
                vec![ScramSha256, Md5],
                vec![Password, Nothing],
            ),
            ("password", vec![Password], vec![Md5, Nothing]),
            ("none", vec![Nothing], vec![ScramSha256]),
            ("!none", vec![ScramSha256, Md5], vec![Nothing, Password]),
            (
                "!md5,!none",
                vec![ScramSha256],
                vec![Md5, Nothing, Password],
            ),
        ] {
            let list = RequireAuth::parse(text).unwrap();
            assert!(
                accepted.iter().all(|method| list.accepts(*method)),
                "{text}"
            );
            assert!(
                !refused.iter().any(|method| list.accepts(*method)),
                "{text}"
            );
        }
        assert!(RequireAuth::Unset.accepts(Nothing) && !RequireAuth::Unset.accepts(Password));
    }

    #[test]
    fn refuses_bad_lists() {
        for (text, expected) in [
            ("krb5", "invalid require_auth value: \"krb5\""),
            ("md5,", "invalid require_auth value: \"\""),
            (
                "md5,!none",
                "require_auth method \"!none\" cannot be mixed with non-negative methods",
            ),
            (
                "!md5,none",
                "require_auth method \"none\" cannot be mixed with negative methods",
            ),
            (
                "md5,md5",
                "require_auth method \"md5\" is specified more than once",
            ),
        ] {
            assert_eq!(
                RequireAuth::parse(text).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }
}
