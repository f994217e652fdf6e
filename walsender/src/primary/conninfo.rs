//! The connection string of the server beside us: libpq's, as far as `tokio-postgres` has its parts, with libpq's
//! variables and password file.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::PrimaryError;

/// Where a server of this machine has its socket when nobody says so: Debian's directory, then PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The database that SQL runs in when none is named. libpq would take the user's name, of which there need be no database.
const DEFAULT_DATABASE: &str = "postgres";

/// Reads a connection string, or URL, and adds what it leaves out.
///
/// `variable` gives environment variables: `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGPASSFILE`, `HOME`.
///
/// # Errors
/// [`PrimaryError::Conninfo`].
pub fn parse_conninfo(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Config, PrimaryError> {
    let bad = |reason: String| PrimaryError::Conninfo { reason };
    let mut config = Config::from_str(text).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let cause = cause.unwrap_or_else(|| error.to_string());
        bad(format!("{cause} in the connection string"))
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match variable("PGHOST") {
            Some(host) => config.host(host),
            None => {
                let is_there = |directory: &&str| Path::new(directory).is_dir();
                config.host(
                    SOCKET_DIRECTORIES
                        .into_iter()
                        .find(is_there)
                        .unwrap_or("localhost"),
                )
            }
        };
    }
    if config.get_ports().is_empty()
        && let Some(port) = variable("PGPORT")
    {
        let number = port
            .parse()
            .map_err(|_| bad(format!("PGPORT is \"{port}\", which is no port")))?;
        config.port(number);
    }
    if config.get_user().is_none()
        && let Some(user) = variable("PGUSER").or_else(|| variable("USER"))
    {
        config.user(user);
    }
    if config.get_dbname().is_none() {
        config.dbname(
            variable("PGDATABASE")
                .as_deref()
                .unwrap_or(DEFAULT_DATABASE),
        );
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_password().is_none() {
        let file = variable("PGPASSFILE").map(PathBuf::from);
        let file = file.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".pgpass")));
        let content = file.and_then(|file| std::fs::read_to_string(file).ok());
        if let Some(password) = content.and_then(|content| password_of(&content, &config)) {
            config.password(password);
        }
    }
    if config.get_application_name().is_none() {
        config.application_name("walsender");
    }
    Ok(config)
}

/// The password in a password file for a connection's first host.
///
/// # Source
/// `passwordFromFile` in `src/interfaces/libpq/fe-connect.c`.
fn password_of(content: &str, config: &Config) -> Option<String> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(_)) | None => "localhost".to_owned(),
    };
    let port = config
        .get_ports()
        .first()
        .copied()
        .unwrap_or(5432)
        .to_string();
    let wanted = [
        host.as_str(),
        &port,
        config.get_dbname().unwrap_or_default(),
        config.get_user().unwrap_or_default(),
    ];
    content
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = fields(line).into_iter();
            let matches = wanted.iter().all(|wanted| {
                fields
                    .next()
                    .is_some_and(|field| field == "*" || field == *wanted)
            });
            fields.next().filter(|_| matches)
        })
}

/// The fields of a line, which end with colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let taken = match character {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(taken);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, PrimaryError> {
        parse_conninfo(text, |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_left_out_comes_from_the_environment() {
        let variables = [
            ("PGHOST", "/run/x"),
            ("PGPORT", "5499"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "p"),
        ];
        let config = parse("", &variables).unwrap();
        assert_eq!(config.get_hosts(), [Host::Unix("/run/x".into())]);
        assert_eq!(config.get_ports(), [5499]);
        assert_eq!(
            (config.get_user(), config.get_dbname()),
            (Some("u"), Some("postgres"))
        );
        assert_eq!(config.get_password(), Some(&b"p"[..]));
        let config = parse("host=h port=1 user=v dbname=d password=q", &variables).unwrap();
        assert_eq!(config.get_hosts(), [Host::Tcp("h".into())]);
        assert_eq!(
            (config.get_user(), config.get_dbname()),
            (Some("v"), Some("d"))
        );
        assert_eq!(config.get_password(), Some(&b"q"[..]));
    }

    #[test]
    fn bad_strings_are_named() {
        for (text, word) in [
            ("host", "unexpected EOF in the connection string"),
            ("nonsense=1", "nonsense"),
            ("port=x", "port"),
        ] {
            let error = parse(text, &[]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(
            parse("host=a", &[("PGPORT", "x")])
                .unwrap_err()
                .to_string()
                .contains("PGPORT")
        );
    }

    #[test]
    fn the_password_file_is_read_as_libpq_does() {
        let file = "# h:1:*:*:no\nh:2:*:u:two\n*:1:d\\:b:u:o\\\\n\\:e\nlocalhost:*:*:*:local\n";
        for (text, expected) in [
            ("host=h port=2 user=u", Some("two")),
            ("host=h port=1 user=u dbname=d:b", Some("o\\n:e")),
            ("host=/run port=9 user=z", Some("local")),
            ("host=h port=2 user=z", None),
        ] {
            let config = parse(text, &[]).unwrap();
            assert_eq!(password_of(file, &config).as_deref(), expected, "{text}");
        }
    }
}
