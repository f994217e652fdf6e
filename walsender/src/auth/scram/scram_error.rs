//! [`ScramError`]: what a client may not send, with PostgreSQL's words for it.

use thiserror::Error;

use crate::refusal::Refusal;

/// A message of the client that ends the exchange.
///
/// # Source
/// The `ereport` calls of `src/backend/libpq/auth-scram.c`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ScramError {
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    #[error("malformed SCRAM message")]
    Malformed(#[source] Malformed),
    #[error("SCRAM channel binding negotiation error")]
    BindingNegotiation,
    #[error("unsupported SCRAM channel-binding type \"{name}\"")]
    BindingType { name: String },
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    #[error("client requires an unsupported SCRAM extension")]
    MandatoryExtension,
    #[error("non-printable characters in SCRAM nonce")]
    Nonce,
    #[error("SCRAM channel binding check failed")]
    BindingCheck,
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingAttribute,
    #[error("invalid SCRAM response")]
    NonceMismatch,
}

/// How a message is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("The message is empty.")]
    Empty,
    #[error("Message length does not match input length.")]
    ZeroByte,
    #[error("Expected attribute \"{expected}\" but found \"{}\".", shown_byte(*.found))]
    Attribute { expected: char, found: u8 },
    #[error("Expected character \"=\" for attribute \"{attribute}\".")]
    EqualsSign { attribute: char },
    #[error("Attribute expected, but found end of string.")]
    End,
    #[error("Attribute expected, but found invalid character \"{}\".", shown_byte(*.found))]
    AttributeName { found: u8 },
    #[error("Comma expected, but found character \"{}\".", shown_byte(*.found))]
    Comma { found: u8 },
    #[error(
        "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data."
    )]
    BindingMissing,
    #[error(
        "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding \
         data."
    )]
    BindingUnasked,
    #[error("Unexpected channel-binding flag \"{}\".", shown_byte(*.found))]
    BindingFlag { found: u8 },
    #[error("Unexpected attribute \"{}\" in client-first-message.", shown_byte(*.found))]
    FirstMessage { found: u8 },
    #[error("Malformed proof in client-final-message.")]
    Proof,
    #[error("Garbage found at the end of client-final-message.")]
    Garbage,
}

impl ScramError {
    const fn sqlstate(&self) -> &'static str {
        match self {
            Self::AuthorizationIdentity | Self::MandatoryExtension => "0A000",
            Self::BindingNegotiation | Self::BindingCheck => "28000",
            _ => "08P01",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Malformed(malformed) => Some(malformed.to_string()),
            Self::BindingNegotiation => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  However, this server does \
                 support channel binding."
                    .to_owned(),
            ),
            Self::NonceMismatch => Some("Nonce does not match.".to_owned()),
            _ => None,
        }
    }
}

impl From<Malformed> for ScramError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<ScramError> for Refusal {
    fn from(error: ScramError) -> Self {
        let refusal = Self::fatal(error.sqlstate(), error.to_string());
        match error.detail() {
            Some(detail) => refusal.with_detail(detail),
            None => refusal,
        }
    }
}

/// A byte of the client as text that no log or terminal minds.
fn shown_byte(byte: u8) -> String {
    if byte.is_ascii_graphic() {
        format!("'{}'", char::from(byte))
    } else {
        format!("0x{byte:02x}")
    }
}

/// A text of the client likewise, at most 30 characters of it.
pub(super) fn shown_text(text: &[u8]) -> String {
    let shown = text.iter().take(30);
    shown
        .map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_sent_is_shown_in_printable_form() {
        for (byte, shown) in [(b'x', "'x'"), (b' ', "0x20"), (0, "0x00"), (0xff, "0xff")] {
            assert_eq!(shown_byte(byte), shown);
        }
        assert_eq!(shown_text(b"tls-unique\x1b[2J\xff"), "tls-unique?[2J?");
        assert_eq!(shown_text(&[b'a'; 100]).len(), 30);
    }

    #[test]
    fn refusals_say_what_postgresql_says() {
        let refusal = Refusal::from(ScramError::from(Malformed::Comma { found: b';' }));
        assert_eq!(
            (refusal.sqlstate, refusal.message.as_str()),
            ("08P01", "malformed SCRAM message")
        );
        assert_eq!(
            refusal.detail.unwrap(),
            "Comma expected, but found character \"';'\"."
        );
        assert_eq!(Refusal::from(ScramError::BindingCheck).sqlstate, "28000");
        assert_eq!(
            Refusal::from(ScramError::MandatoryExtension).sqlstate,
            "0A000"
        );
    }
}
