//! The two messages of a SCRAM client.
//!
//! Where they differ from the grammar they are refused at the same byte, and with the same words, as by PostgreSQL.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::keys::Key;
use super::scram_error::{Malformed, ScramError, shown_text};

/// What a client says of channel binding (`gs2-cbind-flag`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindingFlag {
    /// `n`: it does not bind.
    No,
    /// `y`: it would, and believes that the server cannot.
    ServerCannot,
    /// `p=tls-server-end-point`.
    ServerEndPoint,
}

/// `client-first-message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag,
    /// Everything after the GS2 header, which the proof covers.
    pub(super) bare: &'a [u8],
    pub(super) nonce: &'a [u8],
}

/// `client-final-message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// In base64, as it came.
    pub(super) binding: &'a [u8],
    pub(super) nonce: &'a [u8],
    /// What the proof covers.
    pub(super) without_proof: &'a [u8],
    pub(super) proof: Key,
}

impl<'a> ClientFirst<'a> {
    /// `plus`: the client has chosen the mechanism with channel binding; `can_bind`: it was offered.
    ///
    /// # Source
    /// `read_client_first_message` in `src/backend/libpq/auth-scram.c`.
    pub(super) fn parse(message: &'a [u8], plus: bool, can_bind: bool) -> Result<Self, ScramError> {
        let mut cursor = Cursor(checked(message)?);
        let flag = match cursor.first() {
            b'n' if plus => return Err(Malformed::BindingMissing.into()),
            b'n' => BindingFlag::No,
            b'y' if plus => return Err(Malformed::BindingMissing.into()),
            // Somebody between us has taken the offer away.
            b'y' if can_bind => return Err(ScramError::BindingNegotiation),
            b'y' => BindingFlag::ServerCannot,
            b'p' if !plus => return Err(Malformed::BindingUnasked.into()),
            b'p' => BindingFlag::ServerEndPoint,
            found => return Err(Malformed::BindingFlag { found }.into()),
        };
        if flag == BindingFlag::ServerEndPoint {
            let kind = cursor.attribute('p')?;
            if kind != b"tls-server-end-point" {
                return Err(ScramError::BindingType {
                    name: shown_text(kind),
                });
            }
        } else {
            cursor.skip();
            match cursor.first() {
                b',' => cursor.skip(),
                found => return Err(Malformed::Comma { found }.into()),
            }
        }
        match cursor.first() {
            b',' => cursor.skip(),
            b'a' => return Err(ScramError::AuthorizationIdentity),
            found => return Err(Malformed::FirstMessage { found }.into()),
        }
        let bare = cursor.0;
        if cursor.first() == b'm' {
            return Err(ScramError::MandatoryExtension);
        }
        cursor.attribute('n')?;
        let nonce = cursor.attribute('r')?;
        if !nonce.iter().all(u8::is_ascii_graphic) {
            return Err(ScramError::Nonce);
        }
        while !cursor.0.is_empty() {
            cursor.any_attribute()?;
        }
        Ok(Self { flag, bare, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    /// Reads the message. Whether binding and nonce are right is for the caller to judge, in this order.
    ///
    /// # Source
    /// `read_client_final_message` in `src/backend/libpq/auth-scram.c`.
    pub(super) fn parse(
        message: &'a [u8],
        check_binding: impl FnOnce(&[u8]) -> Result<(), ScramError>,
    ) -> Result<Self, ScramError> {
        let message = checked(message)?;
        let mut cursor = Cursor(message);
        let binding = cursor.attribute('c')?;
        check_binding(binding)?;
        let nonce = cursor.attribute('r')?;
        let (proof, before) = loop {
            let before = message.len() - cursor.0.len();
            if let (b'p', value) = cursor.any_attribute()? {
                break (value, before);
            }
        };
        let decoded = STANDARD.decode(proof).ok();
        let proof = decoded
            .and_then(|proof| Key::try_from(proof).ok())
            .ok_or(Malformed::Proof)?;
        if !cursor.0.is_empty() {
            return Err(Malformed::Garbage.into());
        }
        // Without the comma before the proof.
        let without_proof = message.get(..before.saturating_sub(1)).unwrap_or_default();
        Ok(Self {
            binding,
            nonce,
            without_proof,
            proof,
        })
    }
}

fn checked(message: &[u8]) -> Result<&[u8], Malformed> {
    if message.is_empty() {
        Err(Malformed::Empty)
    } else if message.contains(&0) {
        Err(Malformed::ZeroByte)
    } else {
        Ok(message)
    }
}

/// What is left of a message, which holds no zero byte.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// The next byte, 0 at the end.
    fn first(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn skip(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    /// `NAME=VALUE` and the comma behind it.
    fn attribute(&mut self, expected: char) -> Result<&'a [u8], Malformed> {
        let found = self.first();
        if char::from(found) != expected {
            return Err(Malformed::Attribute { expected, found });
        }
        self.value(expected)
    }

    fn any_attribute(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        match self.first() {
            0 => Err(Malformed::End),
            name if name.is_ascii_alphabetic() => Ok((name, self.value(char::from(name))?)),
            found => Err(Malformed::AttributeName { found }),
        }
    }

    fn value(&mut self, attribute: char) -> Result<&'a [u8], Malformed> {
        self.skip();
        if self.first() != b'=' {
            return Err(Malformed::EqualsSign { attribute });
        }
        self.skip();
        let end = self.0.iter().position(|byte| *byte == b',');
        let (value, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_read_or_refused_as_by_postgresql() {
        let first = ClientFirst::parse(b"n,,n=user,r=nonce,x=y", false, false).unwrap();
        assert_eq!(
            (first.flag, first.nonce, first.bare),
            (BindingFlag::No, &b"nonce"[..], &b"n=user,r=nonce,x=y"[..])
        );
        let first = ClientFirst::parse(b"p=tls-server-end-point,,n=,r=x", true, true).unwrap();
        assert_eq!(
            (first.flag, first.bare),
            (BindingFlag::ServerEndPoint, &b"n=,r=x"[..])
        );
        assert_eq!(
            ClientFirst::parse(b"y,,n=,r=x", false, false).unwrap().flag,
            BindingFlag::ServerCannot
        );
        let malformed = |malformed: Malformed| ScramError::from(malformed);
        for (message, plus, can_bind, error) in [
            (&b""[..], false, false, malformed(Malformed::Empty)),
            (b"n,,n=\0,r=x", false, false, malformed(Malformed::ZeroByte)),
            (
                b"n,,n=,r=x",
                true,
                true,
                malformed(Malformed::BindingMissing),
            ),
            (
                b"y,,n=,r=x",
                true,
                true,
                malformed(Malformed::BindingMissing),
            ),
            (b"y,,n=,r=x", false, true, ScramError::BindingNegotiation),
            (
                b"p=tls-server-end-point,,n=,r=x",
                false,
                true,
                malformed(Malformed::BindingUnasked),
            ),
            (
                b"p=tls-unique,,n=,r=x",
                true,
                true,
                ScramError::BindingType {
                    name: "tls-unique".into(),
                },
            ),
            (
                b"px",
                true,
                true,
                malformed(Malformed::EqualsSign { attribute: 'p' }),
            ),
            (
                b"q,,n=,r=x",
                false,
                false,
                malformed(Malformed::BindingFlag { found: b'q' }),
            ),
            (
                b"n;,n=,r=x",
                false,
                false,
                malformed(Malformed::Comma { found: b';' }),
            ),
            (b"n", false, false, malformed(Malformed::Comma { found: 0 })),
            (
                b"n,a=other,n=,r=x",
                false,
                false,
                ScramError::AuthorizationIdentity,
            ),
            (
                b"n,x,n=,r=x",
                false,
                false,
                malformed(Malformed::FirstMessage { found: b'x' }),
            ),
            (
                b"n,",
                false,
                false,
                malformed(Malformed::FirstMessage { found: 0 }),
            ),
            (
                b"n,,m=x,n=,r=x",
                false,
                false,
                ScramError::MandatoryExtension,
            ),
            (
                b"n,,r=x",
                false,
                false,
                malformed(Malformed::Attribute {
                    expected: 'n',
                    found: b'r',
                }),
            ),
            (
                b"n,,n=",
                false,
                false,
                malformed(Malformed::Attribute {
                    expected: 'r',
                    found: 0,
                }),
            ),
            (
                b"n,,n=,r",
                false,
                false,
                malformed(Malformed::EqualsSign { attribute: 'r' }),
            ),
            (b"n,,n=,r=a\x7f", false, false, ScramError::Nonce),
            (b"n,,n=,r=a b", false, false, ScramError::Nonce),
            (
                b"n,,n=,r=x,1=y",
                false,
                false,
                malformed(Malformed::AttributeName { found: b'1' }),
            ),
        ] {
            let result = ClientFirst::parse(message, plus, can_bind);
            assert_eq!(result, Err(error), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn final_messages_are_read_or_refused_as_by_postgresql() {
        let proof = STANDARD.encode([9; 32]);
        let good = format!("c=biws,r=nonce,x=y,p={proof}");
        let message = ClientFinal::parse(good.as_bytes(), |_| Ok(())).unwrap();
        assert_eq!(
            (message.binding, message.nonce, message.proof),
            (&b"biws"[..], &b"nonce"[..], [9; 32])
        );
        assert_eq!(message.without_proof, b"c=biws,r=nonce,x=y");
        for (message, error) in [
            (String::new(), Malformed::Empty),
            (
                "r=x".into(),
                Malformed::Attribute {
                    expected: 'c',
                    found: b'r',
                },
            ),
            (
                format!("c=biws,p={proof}"),
                Malformed::Attribute {
                    expected: 'r',
                    found: b'p',
                },
            ),
            ("c=biws,r=x".into(), Malformed::End),
            ("c=biws,r=x,p=".into(), Malformed::Proof),
            ("c=biws,r=x,p=AAAA".into(), Malformed::Proof),
            (format!("c=biws,r=x,p=!{proof}"), Malformed::Proof),
            (format!("c=biws,r=x,p={proof},x=y"), Malformed::Garbage),
            (
                format!("c=biws,r=x,\u{e9}p={proof}"),
                Malformed::AttributeName { found: 0xc3 },
            ),
        ] {
            let result = ClientFinal::parse(message.as_bytes(), |_| Ok(()));
            assert_eq!(result, Err(error.into()), "{message}");
        }
        let result = ClientFinal::parse(good.as_bytes(), |_| Err(ScramError::BindingCheck));
        assert_eq!(result, Err(ScramError::BindingCheck));
    }
}
