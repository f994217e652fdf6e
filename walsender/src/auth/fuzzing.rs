//! What always holds of rules, verifiers and SASL messages, whatever their bytes.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken promise must stop the fuzzer"
)]

use std::path::Path;
use std::sync::Arc;

use super::hba::{Connecting, HbaError, HbaRules};
use super::scram::NONCE_LEN;
use super::verifier_file::Verifiers;
use super::{Access, Authentication, ClientFacts, Progress, verifier_line};
use crate::tls::TlsPeer;

/// A user "u" whose password is nowhere written down.
const USERS: &[u8] = b"u:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// Rules by which everybody needs a password.
pub(crate) fn password_access() -> Access {
    let rules =
        b"local all,replication all scram-sha-256\nhost all,replication all all scram-sha-256";
    Access {
        rules: Arc::new(HbaRules::parse(rules, Path::new("hba")).unwrap()),
        verifiers: Arc::new(Verifiers::parse(USERS, Path::new("users")).unwrap()),
        tls: None,
        hba_file: Some("hba".into()),
    }
}

/// A rules file: errors name lines that exist, and a rule that matches is the same each time.
pub(crate) fn hba_file(data: &[u8]) {
    let line_count = data.iter().filter(|byte| **byte == b'\n').count() + 1;
    let is_line = |line: usize| (1..=line_count).contains(&line);
    let rules = match HbaRules::parse(data, Path::new("hba")) {
        Ok(rules) => rules,
        Err(HbaError::Lines(errors)) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| is_line(error.line)));
            return;
        }
        Err(HbaError::Empty { .. }) => return,
    };
    assert!(rules.iter().all(|rule| is_line(rule.line)));
    for address in [None, Some("127.0.0.1"), Some("::1"), Some("10.1.2.3")] {
        for database in [None, Some("replication")] {
            let connecting = Connecting {
                address: address.map(|address| address.parse().unwrap()),
                is_encrypted: false,
                user: "u",
                database,
            };
            let rule = rules.first_match(&connecting);
            assert!(rule.is_none_or(|rule| !rule.needs_encryption()));
        }
    }
}

/// A file of verifiers: a user's line, written again, is the same user.
pub(crate) fn verifier_file(data: &[u8]) {
    let Ok(verifiers) = Verifiers::parse(data, Path::new("users")) else {
        return;
    };
    for user in verifiers.users() {
        let (verifier, is_mock) = verifiers.find(user);
        let again = Verifiers::parse(
            verifier_line(user, &verifier).as_bytes(),
            Path::new("users"),
        )
        .unwrap();
        assert!(!is_mock && again.find(user) == (verifier, false));
    }
}

/// SASL messages: the first byte says whether channel binding is offered and the user exists, then come messages, each
/// behind its tag and its length in two bytes. Nobody gets in.
pub(crate) fn sasl_messages(data: &[u8]) {
    let Some((flags, mut rest)) = data.split_first() else {
        return;
    };
    let access = password_access();
    let facts = ClientFacts {
        address: Some("10.1.2.3".parse().unwrap()),
        tls: (flags & 1 != 0).then(|| TlsPeer {
            certificate_hash: Some(vec![1, 2, 3]),
            ..TlsPeer::default()
        }),
        user: if flags & 2 != 0 { "u" } else { "ghost" }.to_owned(),
        database: None,
    };
    let mut machine = Authentication::new(&access, &facts).unwrap();
    assert!(matches!(
        machine.begin(Err(String::new()), [0; NONCE_LEN]),
        Ok(Progress::Ask(_))
    ));
    while let Some(([tag, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (content, after) = after.split_at(length);
        rest = after;
        match machine.handle(*tag, content) {
            Ok(Progress::Ask(_)) => {}
            Ok(Progress::Accepted(_)) => panic!("somebody is let in without the password"),
            Err(denial) => {
                assert!(!denial.refusal.message.is_empty());
                break;
            }
        }
    }
}
