//! The machine against the client of `postgres-protocol`, and against rules of each kind.

use std::path::Path;
use std::sync::Arc;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::*;
use crate::auth::hba::HbaRules;
use crate::auth::verifier_file::Verifiers;
use crate::auth::{Verifier, verifier_line};

fn access(hba: &str) -> Access {
    let line = verifier_line("u", &Verifier::of_password(b"pw").unwrap());
    Access {
        rules: Arc::new(HbaRules::parse(hba.as_bytes(), Path::new("hba.conf")).unwrap()),
        verifiers: Arc::new(Verifiers::parse(line.as_bytes(), Path::new("users")).unwrap()),
        tls: None,
        hba_file: Some("hba.conf".into()),
    }
}

fn facts(user: &str, address: Option<&str>, tls: Option<TlsPeer>) -> ClientFacts {
    ClientFacts {
        address: address.map(|address| address.parse().unwrap()),
        tls,
        user: user.to_owned(),
        database: None,
    }
}

fn initial(mechanism: &str, message: Option<&[u8]>) -> Vec<u8> {
    let mut content = [mechanism.as_bytes(), b"\0"].concat();
    let length = message.map_or(-1, |message| i32::try_from(message.len()).unwrap());
    content.extend(length.to_be_bytes());
    content.extend(message.unwrap_or_default());
    content
}

/// The content of the one message that is to be asked, behind the number of its kind.
fn asked(progress: Progress) -> (u32, Vec<u8>) {
    let Progress::Ask(bytes) = progress else {
        panic!("{progress:?}")
    };
    assert_eq!(bytes[0], b'R');
    (
        u32::from_be_bytes(bytes[5..9].try_into().unwrap()),
        bytes[9..].to_vec(),
    )
}

/// Authenticates with a password; the message of the refusal where it fails.
fn with_password(
    access: &Access,
    facts: &ClientFacts,
    password: &str,
    keeps_back: bool,
) -> Result<(), String> {
    let told = |denial: Denial| denial.refusal.message;
    let mut machine = Authentication::new(access, facts).map_err(told)?;
    let (kind, mechanisms) = asked(
        machine
            .begin(Err(String::new()), [1; NONCE_LEN])
            .map_err(told)?,
    );
    assert_eq!(kind, 10);
    let hash = facts
        .tls
        .as_ref()
        .and_then(|tls| tls.certificate_hash.clone());
    let (binding, mechanism, offered) = match hash {
        Some(hash) => {
            let offered = &b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..];
            (
                ChannelBinding::tls_server_end_point(hash),
                "SCRAM-SHA-256-PLUS",
                offered,
            )
        }
        None => (
            ChannelBinding::unsupported(),
            "SCRAM-SHA-256",
            &b"SCRAM-SHA-256\0\0"[..],
        ),
    };
    assert_eq!(mechanisms, offered);
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let progress = if keeps_back {
        let empty = asked(
            machine
                .handle(b'p', &initial(mechanism, None))
                .map_err(told)?,
        );
        assert_eq!(empty, (11, Vec::new()));
        machine.handle(b'p', client.message())
    } else {
        machine.handle(b'p', &initial(mechanism, Some(client.message())))
    };
    let (kind, challenge) = asked(progress.map_err(told)?);
    assert_eq!(kind, 11);
    client.update(&challenge).unwrap();
    match machine.handle(b'p', client.message()).map_err(told)? {
        Progress::Accepted(bytes) => {
            assert_eq!(bytes[5..9], [0, 0, 0, 12]);
            client.finish(&bytes[9..]).unwrap();
            Ok(())
        }
        Progress::Ask(_) => panic!("a third round"),
    }
}

#[test]
fn passwords_open_to_those_who_know_them() {
    let access = access("host replication all all scram-sha-256");
    let denied = |user: &str| {
        Err(format!(
            "password authentication failed for user \"{user}\""
        ))
    };
    let tls = TlsPeer {
        certificate_hash: Some(vec![1, 2, 3]),
        ..TlsPeer::default()
    };
    for tls in [None, Some(tls)] {
        for (user, password, expected) in [
            ("u", "pw", Ok(())),
            ("u", "no", denied("u")),
            ("ghost", "pw", denied("ghost")),
        ] {
            for keeps_back in [false, true] {
                let facts = facts(user, Some("10.0.0.1"), tls.clone());
                assert_eq!(
                    with_password(&access, &facts, password, keeps_back),
                    expected,
                    "{user} {password}"
                );
            }
        }
    }
}

#[test]
fn refusals_say_what_postgresql_says() {
    let access = access(
        "host replication u 10.0.0.0/8 trust\nhostssl replication all 10.0.0.0/8 reject\nlocal replication a reject",
    );
    let tls = || Some(TlsPeer::default());
    for (user, address, tls, database, expected) in [
        ("u", Some("10.0.0.1"), None, None, None),
        (
            "v",
            Some("10.0.0.1"),
            None,
            None,
            Some(
                "no pg_hba.conf entry for replication connection from host \"10.0.0.1\", user \"v\", no encryption",
            ),
        ),
        (
            "v",
            Some("10.0.0.1"),
            tls(),
            None,
            Some(
                "pg_hba.conf rejects replication connection for host \"10.0.0.1\", user \"v\", SSL encryption",
            ),
        ),
        (
            "a",
            None,
            None,
            None,
            Some(
                "pg_hba.conf rejects replication connection for host \"[local]\", user \"a\", no encryption",
            ),
        ),
        (
            "u",
            Some("10.0.0.1"),
            tls(),
            Some("db"),
            Some(
                "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"db\", SSL encryption",
            ),
        ),
    ] {
        let facts = ClientFacts {
            database: database.map(ToOwned::to_owned),
            ..facts(user, address, tls)
        };
        let denial = Authentication::new(&access, &facts).err();
        assert_eq!(
            denial
                .as_ref()
                .map(|denial| denial.refusal.message.as_str()),
            expected
        );
        assert!(denial.is_none_or(|denial| denial.refusal.sqlstate == "28000"));
    }
}

#[test]
fn the_system_user_must_have_the_name() {
    let access = access("local replication all peer");
    let facts = facts("u", None, None);
    for (system_user, is_in) in [
        (Ok("u".to_owned()), true),
        (Ok("v".to_owned()), false),
        (Err("unknown".to_owned()), false),
    ] {
        let mut machine = Authentication::new(&access, &facts).unwrap();
        assert!(machine.wants_system_user());
        match machine.begin(system_user, [0; NONCE_LEN]) {
            Ok(progress) => assert!(is_in && progress == Progress::Accepted(BytesMut::new())),
            Err(denial) => {
                assert!(!is_in);
                assert_eq!(
                    denial.refusal.message,
                    "Peer authentication failed for user \"u\""
                );
                assert!(
                    denial
                        .log
                        .unwrap()
                        .contains("line 1 of \"hba.conf\": \"local replication all peer\"")
                );
            }
        }
    }
}

#[test]
fn messages_that_may_not_come_end_it() {
    let access = access("host replication all all scram-sha-256");
    let facts = facts("u", Some("10.0.0.1"), None);
    for (tag, content, sqlstate, message) in [
        (
            b'Q',
            b"SELECT 1\0".to_vec(),
            "08P01",
            "expected SASL response, got message type 81",
        ),
        (
            b'p',
            vec![b'x'; 1025],
            "28P01",
            "password authentication failed for user \"u\"",
        ),
        (
            b'p',
            b"SCRAM-SHA-256".to_vec(),
            "08P01",
            "invalid string in message",
        ),
        (
            b'p',
            b"SCRAM-SHA-256\0".to_vec(),
            "08P01",
            "insufficient data left in message",
        ),
        (
            b'p',
            b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=".to_vec(),
            "08P01",
            "insufficient data left in message",
        ),
        (
            b'p',
            b"SCRAM-SHA-256\0\0\0\0\x01n,,n=,r=".to_vec(),
            "08P01",
            "invalid message format",
        ),
        (
            b'p',
            b"SCRAM-SHA-256\0\x80\0\0\x01n".to_vec(),
            "08P01",
            "insufficient data left in message",
        ),
        (
            b'p',
            b"SCRAM-SHA-256\0\xff\xff\xff\xffn".to_vec(),
            "08P01",
            "invalid message format",
        ),
        (
            b'p',
            initial("SCRAM-SHA-256-PLUS", Some(b"p")),
            "08P01",
            "client selected an invalid SASL authentication mechanism",
        ),
        (
            b'p',
            initial("SCRAM-SHA-256", Some(b"")),
            "08P01",
            "malformed SCRAM message",
        ),
    ] {
        let mut machine = Authentication::new(&access, &facts).unwrap();
        machine.begin(Err(String::new()), [0; NONCE_LEN]).unwrap();
        let denial = machine.handle(tag, &content).unwrap_err();
        assert_eq!(
            (denial.refusal.sqlstate, denial.refusal.message.as_str()),
            (sqlstate, message)
        );
        // Nothing lets the client in afterwards.
        assert!(
            machine
                .handle(b'p', &initial("SCRAM-SHA-256", None))
                .is_err()
                || tag == b'Q'
                || content.len() > 1024
        );
    }
}

#[test]
fn this_machines_users_have_names() {
    assert_eq!(system_user(0).as_deref(), Ok("root"));
    assert!(
        system_user(4_000_000_001)
            .unwrap_err()
            .contains("does not exist")
    );
}
