//! [`Exchange`], the state machine of one SCRAM authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::client_message::{BindingFlag, ClientFinal, ClientFirst};
use super::keys::{NONCE_LEN, hash, hmac};
use super::scram_error::ScramError;
use super::verifier::Verifier;

/// A mechanism that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// With channel binding.
    ScramSha256Plus,
    /// Without.
    ScramSha256,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScramStep {
    /// Send this, and feed the answer.
    Continue(Vec<u8>),
    /// The client knows the password. Send this to prove that we know the verifier.
    Proven(Vec<u8>),
    /// The client does not know the password, or there is no such user.
    Failed,
}

/// One exchange: feed [`handle`](Self::handle) with the client's messages until it says `Proven` or `Failed`, or fails.
/// Afterwards every further message fails.
#[derive(Debug)]
pub(crate) struct Exchange {
    verifier: Verifier,
    /// The verifier belongs to nobody: the exchange takes its course, and fails.
    is_mock: bool,
    mechanism: Mechanism,
    /// Hash of our certificate, where channel binding was offered.
    certificate_hash: Option<Vec<u8>>,
    server_nonce: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Begun,
    SaltSent {
        flag: BindingFlag,
        /// Client's and server's part.
        nonce: Vec<u8>,
        client_first_bare: Vec<u8>,
        server_first: Vec<u8>,
    },
    Over,
}

impl Mechanism {
    /// The mechanisms that are offered, the better one first.
    ///
    /// # Source
    /// `scram_get_mechanisms` in `src/backend/libpq/auth-scram.c`.
    pub(crate) const fn offered(can_bind: bool) -> &'static [&'static str] {
        if can_bind {
            &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
        } else {
            &["SCRAM-SHA-256"]
        }
    }

    /// What the client has chosen.
    ///
    /// # Errors
    /// [`ScramError::Mechanism`] when it was not offered.
    pub(crate) fn chosen(name: &[u8], can_bind: bool) -> Result<Self, ScramError> {
        match name {
            b"SCRAM-SHA-256-PLUS" if can_bind => Ok(Self::ScramSha256Plus),
            b"SCRAM-SHA-256" => Ok(Self::ScramSha256),
            _ => Err(ScramError::Mechanism),
        }
    }
}

impl Exchange {
    /// `certificate_hash` is there when channel binding was offered; `nonce` must be random.
    pub(crate) fn new(
        mechanism: Mechanism,
        verifier: Verifier,
        is_mock: bool,
        certificate_hash: Option<Vec<u8>>,
        nonce: [u8; NONCE_LEN],
    ) -> Self {
        Self {
            verifier,
            is_mock,
            mechanism,
            certificate_hash,
            server_nonce: STANDARD.encode(nonce),
            state: State::Begun,
        }
    }

    /// Takes the client's next message.
    ///
    /// # Errors
    /// [`ScramError`] when it is none that may come.
    ///
    /// # Source
    /// `scram_exchange` in `src/backend/libpq/auth-scram.c`.
    pub(crate) fn handle(&mut self, message: &[u8]) -> Result<ScramStep, ScramError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Begun => {
                let plus = self.mechanism == Mechanism::ScramSha256Plus;
                let first = ClientFirst::parse(message, plus, self.certificate_hash.is_some())?;
                let nonce = [first.nonce, self.server_nonce.as_bytes()].concat();
                let rest = format!(",s={},i={}", self.verifier.salt, self.verifier.iterations);
                let server_first = [b"r=", &nonce[..], rest.as_bytes()].concat();
                self.state = State::SaltSent {
                    flag: first.flag,
                    nonce,
                    client_first_bare: first.bare.to_vec(),
                    server_first: server_first.clone(),
                };
                Ok(ScramStep::Continue(server_first))
            }
            State::SaltSent {
                flag,
                nonce,
                client_first_bare,
                server_first,
            } => {
                let last =
                    ClientFinal::parse(message, |binding| self.check_binding(flag, binding))?;
                if !bool::from(last.nonce.ct_eq(&nonce)) {
                    return Err(ScramError::NonceMismatch);
                }
                let signed = [
                    &client_first_bare[..],
                    b",",
                    &server_first,
                    b",",
                    last.without_proof,
                ];
                // The proof is calculated for a user who does not exist, too: it takes the same time.
                let is_proven = self.verify(&last, signed);
                if self.is_mock || !is_proven {
                    return Ok(ScramStep::Failed);
                }
                let signature = hmac(&self.verifier.server_key, signed);
                Ok(ScramStep::Proven(
                    format!("v={}", STANDARD.encode(signature)).into_bytes(),
                ))
            }
            State::Over => Err(ScramError::Mechanism),
        }
    }

    /// Whether the client's final message repeats what was agreed on, and names our certificate.
    fn check_binding(&self, flag: BindingFlag, binding: &[u8]) -> Result<(), ScramError> {
        match (flag, &self.certificate_hash) {
            (BindingFlag::No, _) if binding == b"biws" => Ok(()),
            (BindingFlag::ServerCannot, _) if binding == b"eSws" => Ok(()),
            (BindingFlag::ServerEndPoint, Some(hash)) => {
                let expected = STANDARD.encode([b"p=tls-server-end-point,,", &hash[..]].concat());
                if bool::from(expected.as_bytes().ct_eq(binding)) {
                    Ok(())
                } else {
                    Err(ScramError::BindingCheck)
                }
            }
            _ => Err(ScramError::BindingAttribute),
        }
    }

    /// # Source
    /// `verify_client_proof` in `src/backend/libpq/auth-scram.c`.
    fn verify(&self, last: &ClientFinal<'_>, signed: [&[u8]; 5]) -> bool {
        let mut client_key = hmac(&self.verifier.stored_key, signed);
        for (byte, proof) in client_key.iter_mut().zip(last.proof) {
            *byte ^= proof;
        }
        hash(&client_key).ct_eq(&self.verifier.stored_key).into()
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;

    /// Of the RFC's password, with its salt.
    const RFC_7677: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn exchange(verifier: &str, mechanism: Mechanism, hash: Option<Vec<u8>>) -> Exchange {
        Exchange::new(
            mechanism,
            verifier.parse().unwrap(),
            false,
            hash,
            [7; NONCE_LEN],
        )
    }

    /// The example of RFC 7677, whose server nonce is no base64 of 18 bytes.
    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let mut exchange = exchange(RFC_7677, Mechanism::ScramSha256, None);
        exchange.server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        let first = exchange
            .handle(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
            .unwrap();
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(first, ScramStep::Continue(expected.into()));
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let proven = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(
            exchange.handle(last.as_bytes()),
            Ok(ScramStep::Proven(proven.into()))
        );
        assert!(
            exchange.handle(last.as_bytes()).is_err(),
            "an exchange is not repeated"
        );
    }

    #[test]
    fn only_mechanisms_that_were_offered_are_taken() {
        for (name, can_bind, chosen) in [
            (&b"SCRAM-SHA-256"[..], false, Ok(Mechanism::ScramSha256)),
            (b"SCRAM-SHA-256", true, Ok(Mechanism::ScramSha256)),
            (b"SCRAM-SHA-256-PLUS", true, Ok(Mechanism::ScramSha256Plus)),
            (b"SCRAM-SHA-256-PLUS", false, Err(ScramError::Mechanism)),
            (b"SCRAM-SHA-1", true, Err(ScramError::Mechanism)),
            (b"", true, Err(ScramError::Mechanism)),
        ] {
            assert_eq!(Mechanism::chosen(name, can_bind), chosen);
        }
    }

    #[test]
    fn a_final_message_must_repeat_flag_and_nonce() {
        let proof = STANDARD.encode([0; 32]);
        let nonce = STANDARD.encode([7; NONCE_LEN]);
        for (first, last, expected) in [
            (
                "n,,n=,r=c",
                format!("c=biws,r=c{nonce},p={proof}"),
                Ok(ScramStep::Failed),
            ),
            (
                "y,,n=,r=c",
                format!("c=eSws,r=c{nonce},p={proof}"),
                Ok(ScramStep::Failed),
            ),
            (
                "n,,n=,r=c",
                format!("c=eSws,r=c{nonce},p={proof}"),
                Err(ScramError::BindingAttribute),
            ),
            (
                "y,,n=,r=c",
                format!("c=biws,r=c{nonce},p={proof}"),
                Err(ScramError::BindingAttribute),
            ),
            (
                "n,,n=,r=c",
                format!("c=biws,r=d{nonce},p={proof}"),
                Err(ScramError::NonceMismatch),
            ),
            (
                "n,,n=,r=c",
                format!("c=biws,r=c,p={proof}"),
                Err(ScramError::NonceMismatch),
            ),
        ] {
            let mut exchange = exchange(RFC_7677, Mechanism::ScramSha256, None);
            exchange.handle(first.as_bytes()).unwrap();
            assert_eq!(exchange.handle(last.as_bytes()), expected, "{first} {last}");
        }
    }

    /// Runs a client of `postgres-protocol` against a server: whether the server lets it in, and the client believes it.
    fn meets(mut client: ScramSha256, server: &mut Exchange) -> Result<bool, ScramError> {
        let ScramStep::Continue(first) = server.handle(client.message())? else {
            panic!("the exchange ended early");
        };
        client.update(&first).unwrap();
        match server.handle(client.message())? {
            ScramStep::Proven(last) => {
                client.finish(&last).unwrap();
                Ok(true)
            }
            ScramStep::Failed => Ok(false),
            ScramStep::Continue(_) => panic!("a third message"),
        }
    }

    #[test]
    fn channel_binding_must_be_to_our_certificate() {
        let verifier = Verifier::of_password(b"pw").unwrap().to_string();
        for (ours, theirs, expected) in [
            (&b"hash"[..], &b"hash"[..], Ok(true)),
            (b"hash", b"other", Err(ScramError::BindingCheck)),
        ] {
            let client =
                ScramSha256::new(b"pw", ChannelBinding::tls_server_end_point(theirs.to_vec()));
            let mut server = exchange(&verifier, Mechanism::ScramSha256Plus, Some(ours.to_vec()));
            assert_eq!(meets(client, &mut server), expected);
        }
        // The client was told that there is no binding, where there is.
        let client = ScramSha256::new(b"pw", ChannelBinding::unrequested());
        let mut server = exchange(&verifier, Mechanism::ScramSha256, Some(b"hash".to_vec()));
        assert_eq!(
            meets(client, &mut server),
            Err(ScramError::BindingNegotiation)
        );
    }

    #[test]
    fn a_user_who_does_not_exist_fails_at_the_end_only() {
        let verifier = Verifier::of_password(b"pw").unwrap();
        let mut server =
            Exchange::new(Mechanism::ScramSha256, verifier, true, None, [0; NONCE_LEN]);
        let client = ScramSha256::new(b"pw", ChannelBinding::unsupported());
        assert_eq!(meets(client, &mut server), Ok(false));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_right_password_proves_itself_and_no_other(
            password in "\\PC{1,20}", other in "\\PC{1,20}", nonce: [u8; NONCE_LEN], bound: bool,
        ) {
            let prepared = |text: &str| {
                let verifier = Verifier::of_password(text.as_bytes()).unwrap();
                let hash = bound.then(|| vec![1, 2, 3]);
                let mechanism = if bound { Mechanism::ScramSha256Plus } else { Mechanism::ScramSha256 };
                Exchange::new(mechanism, verifier, false, hash, nonce)
            };
            let client = |text: &str| {
                let binding = if bound {
                    ChannelBinding::tls_server_end_point(vec![1, 2, 3])
                } else {
                    ChannelBinding::unsupported()
                };
                ScramSha256::new(text.as_bytes(), binding)
            };
            prop_assert!(meets(client(&password), &mut prepared(&password)).unwrap());
            // Two texts may be one password after SASLprep: then each opens the other's verifier.
            let there = meets(client(&password), &mut prepared(&other)).unwrap();
            let back = meets(client(&other), &mut prepared(&password)).unwrap();
            prop_assert_eq!(there, back);
        }

        #[test]
        fn no_message_panics(first: Vec<u8>, last: Vec<u8>, bound: bool) {
            let hash = bound.then(|| vec![1, 2, 3]);
            let mechanism = if bound { Mechanism::ScramSha256Plus } else { Mechanism::ScramSha256 };
            let mut server = exchange(RFC_7677, mechanism, hash);
            let _ = server.handle(&first);
            let proven = matches!(server.handle(&last), Ok(ScramStep::Proven(_)));
            prop_assert!(!proven);
        }
    }
}
