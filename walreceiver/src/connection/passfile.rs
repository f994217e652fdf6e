//! Password files: `hostname:port:database:username:password` a line, as in `~/.pgpass`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::secret::Secret;

/// What a line must match.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassfileKey<'a> {
    /// Host name, address, or socket directory; `localhost` for the default socket directory.
    pub(super) host: &'a str,
    /// Port in decimal.
    pub(super) port: &'a str,
    /// Database; `replication` for a physical replication connection.
    pub(super) dbname: &'a str,
    /// Role.
    pub(super) user: &'a str,
}

/// The password of the first line that matches. A file that is missing counts as empty, and so does one that others
/// may read, with a warning.
///
/// # Source
/// `passwordFromFile` in `src/interfaces/libpq/fe-connect.c`.
pub(super) fn look_up(file: &Path, key: PassfileKey<'_>) -> Option<Secret> {
    let metadata = std::fs::metadata(file).ok()?;
    if !metadata.is_file() {
        tracing::warn!("password file \"{}\" is not a plain file", file.display());
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(
            "password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            file.display()
        );
        return None;
    }
    let text = std::fs::read(file).ok()?;
    find(&String::from_utf8_lossy(&text), key)
}

fn find(text: &str, key: PassfileKey<'_>) -> Option<Secret> {
    text.split('\n')
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut rest = line.trim_end_matches(['\r', '\n']);
            for wanted in [key.host, key.port, key.dbname, key.user] {
                rest = strip_field(rest, wanted)?;
            }
            Some(Secret::new(take_password(rest)))
        })
}

/// What follows the field and its colon, if the field is `*` or, once unescaped, what is wanted.
fn strip_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.chars();
    loop {
        match chars.next()? {
            ':' => return wanted.next().is_none().then_some(chars.as_str()),
            c => {
                let c = if c == '\\' { chars.next()? } else { c };
                if wanted.next() != Some(c) {
                    return None;
                }
            }
        }
    }
}

/// The password: up to a colon that is not escaped, or the end.
fn take_password(text: &str) -> String {
    let mut password = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => password.push(chars.next().unwrap_or('\\')),
            c => password.push(c),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: PassfileKey<'_> = PassfileKey {
        host: "db.example",
        port: "5432",
        dbname: "replication",
        user: "mirror",
    };

    #[test]
    fn matches_lines_as_libpq_does() {
        for (text, expected) in [
            ("db.example:5432:replication:mirror:pw", Some("pw")),
            ("*:*:*:*:pw", Some("pw")),
            ("db.example:*:replication:*:pw\r\n", Some("pw")),
            (
                "#db.example:5432:replication:mirror:no\n*:*:*:mirror:pw\n*:*:*:*:later",
                Some("pw"),
            ),
            ("db.example:5433:*:*:pw", None),
            ("db.exampl:*:*:*:pw", None),
            ("db.examplee:*:*:*:pw", None),
            ("*:*:*:other:pw\n", None),
            ("*:*:*:*", None),
            ("*:*:*:*:", Some("")),
            (r"*:*:*:*:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:*:a:b", Some("a")),
            (r"*:*:*:*:a\", Some(r"a\")),
            (r"db\.example:*:*:mirror:pw", Some("pw")),
            ("", None),
        ] {
            let found = find(text, KEY);
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{text:?}");
        }
        let colon = PassfileKey { host: "::1", ..KEY };
        assert_eq!(
            find(r"\:\:1:*:*:*:pw", colon).as_ref().map(Secret::expose),
            Some("pw")
        );
    }

    #[test]
    fn ignores_files_that_others_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pass");
        assert!(look_up(&file, KEY).is_none(), "missing");
        std::fs::write(&file, "*:*:*:*:pw\n").unwrap();
        for (mode, found) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o610, false),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look_up(&file, KEY).is_some(), found, "{mode:o}");
        }
        assert!(look_up(directory.path(), KEY).is_none(), "directory");
    }
}
