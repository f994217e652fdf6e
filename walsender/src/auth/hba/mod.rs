//! `pg_hba`-style rules: which client may connect, from where, and how he proves who he is.
//!
//! A file has a rule on each line, in PostgreSQL's format; the first rule that matches a connection decides, and a
//! connection that no rule matches is refused. What cannot be kept here (groups, host names, maps, other methods) is
//! refused when the file is read, with file and line: a rule that would silently never match, or match more than it
//! says, lets the wrong people in or out.
//!
//! Hostile input: a file may hold any bytes; it is an error or a list of rules.
//!
//! # Source
//! `src/backend/libpq/hba.c`.

mod address;
mod hba_error;
mod options;
mod rule;
mod tokens;

use std::net::IpAddr;
use std::path::Path;

pub use hba_error::{HbaError, HbaLineError, HbaProblem};
pub(crate) use rule::{ClientCert, Method, Rule};

/// Rules in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HbaRules {
    rules: Vec<Rule>,
}

/// What rules are matched against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connecting<'a> {
    /// `None`: over a unix socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) is_encrypted: bool,
    pub(crate) user: &'a str,
    /// The database of a logical connection; `None` for a physical one, which only the word `replication` matches.
    pub(crate) database: Option<&'a str>,
}

impl HbaRules {
    /// What holds without a file: this machine is trusted, everybody else needs a password.
    pub(crate) fn default_rules() -> Self {
        use address::AddressMatch as Match;
        Self {
            rules: vec![
                Rule::for_everybody(None, Method::Trust),
                Rule::for_everybody(Some(Match::LOOPBACK_V4), Method::Trust),
                Rule::for_everybody(Some(Match::LOOPBACK_V6), Method::Trust),
                Rule::for_everybody(Some(Match::All), Method::ScramSha256),
            ],
        }
    }

    /// Reads the content of a file; `file` is for errors.
    ///
    /// # Errors
    /// [`HbaError`] with every line that is wrong, or when there is no rule at all.
    ///
    /// # Source
    /// `load_hba` in `src/backend/libpq/hba.c`.
    pub(crate) fn parse(content: &[u8], file: &Path) -> Result<Self, HbaError> {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for line in tokens::lines(content) {
            let number = line.number;
            let rule = line.fields().and_then(|fields| match fields {
                fields if fields.is_empty() => Ok(None),
                fields => Rule::parse(number, line.text().trim_end(), fields).map(Some),
            });
            match rule {
                Ok(rule) => rules.extend(rule),
                Err(problem) => errors.push(HbaLineError {
                    file: file.to_owned(),
                    line: number,
                    problem,
                }),
            }
        }
        if !errors.is_empty() {
            return Err(HbaError::Lines(errors));
        }
        if rules.is_empty() {
            return Err(HbaError::Empty {
                file: file.to_owned(),
            });
        }
        Ok(Self { rules })
    }

    /// The first rule that matches.
    ///
    /// # Source
    /// `check_hba` in `src/backend/libpq/hba.c`.
    pub(crate) fn first_match(&self, connecting: &Connecting<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(connecting))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> HbaRules {
        HbaRules::parse(text.as_bytes(), Path::new("hba.conf")).unwrap()
    }

    /// Line of the rule that matches.
    fn matched(
        rules: &HbaRules,
        from: &str,
        encrypted: bool,
        user: &str,
        database: Option<&str>,
    ) -> Option<usize> {
        let address = (from != "local").then(|| from.parse().unwrap());
        let connecting = Connecting {
            address,
            is_encrypted: encrypted,
            user,
            database,
        };
        rules.first_match(&connecting).map(|rule| rule.line)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(
            "# who may follow\n\
             local     replication  all                       peer\n\
             hostssl   replication  standby  10.0.0.0/8       scram-sha-256\n\
             host      all          all      10.0.0.0/8       reject\n\
             hostnossl replication  \"all\"  10.0.0.0 255.0.0.0  trust\n\
             host      replication  a,\"b c\",d  ::1/128     md5\n\
             host      replication  all      all              reject\n\
             local     sameuser,db  all                       trust\n",
        );
        for (from, encrypted, user, database, line) in [
            ("local", false, "anybody", None, Some(2)),
            ("10.1.2.3", true, "standby", None, Some(3)),
            // Not encrypted, or another user; `all` does not stand for replication.
            ("10.1.2.3", false, "standby", None, Some(7)),
            ("10.1.2.3", true, "other", None, Some(7)),
            // Quoted, `all` is a name.
            ("10.1.2.3", false, "all", None, Some(5)),
            ("10.1.2.3", true, "all", None, Some(7)),
            ("::1", false, "b c", None, Some(6)),
            ("::1", true, "d", None, Some(6)),
            ("::1", true, "b", None, Some(7)),
            // Logical connections have a database, and `replication` is none.
            ("10.1.2.3", true, "standby", Some("db"), Some(4)),
            ("10.1.2.3", true, "standby", Some("replication"), Some(4)),
            ("127.0.0.1", true, "standby", Some("db"), None),
            ("local", false, "x", Some("x"), Some(8)),
            ("local", false, "x", Some("db"), Some(8)),
            ("local", false, "x", Some("y"), None),
        ] {
            assert_eq!(
                matched(&rules, from, encrypted, user, database),
                line,
                "{from} {encrypted} {user} {database:?}"
            );
        }
    }

    #[test]
    fn without_a_file_only_this_machine_is_trusted() {
        let rules = HbaRules::default_rules();
        for (from, method) in [
            ("local", Method::Trust),
            ("127.0.0.1", Method::Trust),
            ("127.8.0.1", Method::Trust),
            ("::1", Method::Trust),
            ("10.0.0.1", Method::ScramSha256),
            ("128.0.0.1", Method::ScramSha256),
            ("::2", Method::ScramSha256),
        ] {
            let address = (from != "local").then(|| from.parse().unwrap());
            for database in [None, Some("db")] {
                let connecting = Connecting {
                    address,
                    is_encrypted: false,
                    user: "x",
                    database,
                };
                assert_eq!(
                    rules.first_match(&connecting).unwrap().method,
                    method,
                    "{from}"
                );
            }
        }
    }

    #[test]
    fn every_wrong_line_is_named() {
        let text = "local all all trust\nhost\n\nlocal replication +group trust\n";
        let error = HbaRules::parse(text.as_bytes(), Path::new("/etc/hba.conf")).unwrap_err();
        let text = error.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(
            lines[0],
            "line 2 of \"/etc/hba.conf\": end-of-line before database specification"
        );
        assert!(
            lines[1].starts_with("line 4 of \"/etc/hba.conf\": \"+group\""),
            "{text}"
        );
        let error = HbaRules::parse(b"# nothing\n", Path::new("/etc/hba.conf")).unwrap_err();
        assert!(matches!(error, HbaError::Empty { .. }));
    }
}
