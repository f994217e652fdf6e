//! [`Verifier`], what is stored of a password.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::keys::{Key, hash};

/// How the text of a verifier begins.
const SCHEME: &str = "SCRAM-SHA-256$";

/// What proves that a client knows a password, and does not hold the password:
/// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`, keys and salt in base64, as in `pg_authid.rolpassword`.
///
/// Debug output hides the keys: with them somebody could pass for the server, and try passwords.
///
/// # Source
/// `parse_scram_secret` in `src/backend/libpq/auth-scram.c`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    /// In base64, as it goes to the client.
    pub(super) salt: String,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

/// A text that is no verifier. It never shows the text, which may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifierError {
    /// PostgreSQL's older form, which SCRAM cannot use.
    #[error(
        "this is an MD5 hash, which is not accepted: set the password again on the server with \
         password_encryption = 'scram-sha-256' and take the new pg_authid.rolpassword, or make a line with \
         \"walsender verifier USER\""
    )]
    Md5,
    /// It has another form.
    #[error(
        "this is no verifier (SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY): take pg_authid.rolpassword, or make \
         a line with \"walsender verifier USER\""
    )]
    Form,
    /// It begins like a verifier, and a field is wrong.
    #[error("the verifier's {field} is not valid: was the line cut?")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

impl Verifier {
    /// Makes a verifier of a password, with a new random salt and PostgreSQL's number of iterations, 4096.
    ///
    /// # Source
    /// `pg_be_scram_build_secret` in `src/backend/libpq/auth-scram.c`.
    ///
    /// # Errors
    /// [`VerifierError`], which should not happen.
    pub fn of_password(password: &[u8]) -> Result<Self, VerifierError> {
        postgres_protocol::password::scram_sha_256(password).parse()
    }

    /// How often the password is hashed.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    #[cfg(test)]
    pub(crate) fn salt_len(&self) -> usize {
        self.salt.len()
    }

    /// For a user who does not exist: looks like `model`, and no password fits.
    pub(crate) fn mock(model: Option<&Self>, salt: &Key) -> Self {
        // Accounts look alike, or the salt's length and the iterations would tell who is real.
        let length = model.map_or(16, |model| {
            STANDARD.decode(&model.salt).map_or(16, |salt| salt.len())
        });
        Self {
            iterations: model.map_or(4096, |model| model.iterations),
            salt: STANDARD.encode(salt.get(..length).unwrap_or(salt)),
            stored_key: Key::default(),
            server_key: Key::default(),
        }
    }

    /// What only someone who has read the verifier knows.
    pub(crate) fn secret(&self) -> Key {
        hash(&[self.stored_key, self.server_key].concat())
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            let is_md5 = text.strip_prefix("md5").is_some_and(|hex| {
                hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
            return Err(if is_md5 {
                VerifierError::Md5
            } else {
                VerifierError::Form
            });
        };
        let field = |field| VerifierError::Field { field };
        let (front, keys) = rest.split_once('$').ok_or(VerifierError::Form)?;
        let (iterations, salt) = front.split_once(':').ok_or(VerifierError::Form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let iterations: u32 = iterations
            .parse()
            .map_err(|_| field("number of iterations"))?;
        if iterations == 0 || i32::try_from(iterations).is_err() {
            return Err(field("number of iterations"));
        }
        if STANDARD.decode(salt).map_or(true, |salt| salt.is_empty()) {
            return Err(field("salt"));
        }
        Ok(Self {
            iterations,
            salt: salt.to_owned(),
            stored_key: key(stored_key).ok_or(field("StoredKey"))?,
            server_key: key(server_key).ok_or(field("ServerKey"))?,
        })
    }
}

fn key(text: &str) -> Option<Key> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stored_key, server_key) = (
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key),
        );
        write!(
            f,
            "{SCHEME}{}:{}${stored_key}:{server_key}",
            self.iterations, self.salt
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password "pencil", from a PostgreSQL 15.
    pub(crate) const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_reads_as_it_is_written() {
        let verifier: Verifier = PENCIL.parse().unwrap();
        assert_eq!(
            (verifier.iterations(), verifier.to_string().as_str()),
            (4096, PENCIL)
        );
        let made = Verifier::of_password(b"pencil").unwrap();
        assert_ne!(made, verifier, "the salt is random");
        assert_eq!(made.to_string().parse(), Ok(made.clone()));
        assert!(!format!("{made:?}").contains(&STANDARD.encode(made.stored_key)));
    }

    #[test]
    fn what_is_no_verifier_is_refused_by_name() {
        let field = |field| VerifierError::Field { field };
        for (text, error) in [
            (
                "md5a3556571e93b0d20722ba62be61e8c2d".to_owned(),
                VerifierError::Md5,
            ),
            ("md5 is my password".to_owned(), VerifierError::Form),
            ("secret".to_owned(), VerifierError::Form),
            (String::new(), VerifierError::Form),
            (SCHEME.to_owned(), VerifierError::Form),
            (PENCIL.replace("SHA-256", "SHA-1"), VerifierError::Form),
            (PENCIL.replace("4096", "0"), field("number of iterations")),
            (PENCIL.replace("4096", "-1"), field("number of iterations")),
            (
                PENCIL.replace("4096", "2147483648"),
                field("number of iterations"),
            ),
            (PENCIL.replace("W22ZaJ0", "W22*aJ0"), field("salt")),
            (
                PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
                field("salt"),
            ),
            (PENCIL.replace("T4qY=:", "T4qY:"), field("StoredKey")),
            (PENCIL.replace("WG5d", ""), field("StoredKey")),
            (PENCIL.replace("l2dU=", ""), field("ServerKey")),
            (format!("{PENCIL} "), field("ServerKey")),
        ] {
            assert_eq!(text.parse::<Verifier>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_mock_looks_like_the_model() {
        let model: Verifier = PENCIL.replace("4096", "10000").parse().unwrap();
        let mock = Verifier::mock(Some(&model), &[7; 32]);
        assert_eq!(
            (mock.iterations, mock.salt.len()),
            (10_000, model.salt.len())
        );
        assert_eq!(Verifier::mock(None, &[7; 32]).iterations, 4096);
    }
}
