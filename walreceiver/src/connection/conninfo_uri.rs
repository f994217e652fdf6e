//! Connection URIs: `postgresql://user:password@host:port,host:port/dbname?keyword=value&…`.

use super::conninfo_error::ConnInfoError;
use super::parameter::{self, Parameters};

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// Whether the text has a URI's scheme.
pub(super) fn is_uri(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// Reads a connection URI.
///
/// # Errors
/// Those of libpq's parser. A password in the URI is not repeated in them.
///
/// # Source
/// `conninfo_uri_parse_options` in `src/interfaces/libpq/fe-connect.c`.
pub(super) fn parse(uri: &str) -> Result<Parameters, ConnInfoError> {
    let mut parameters = Parameters::default();
    let mut rest = SCHEMES
        .iter()
        .find_map(|scheme| uri.strip_prefix(scheme))
        .unwrap_or(uri);

    let (credentials, tail) = until(rest, &['@', '/']);
    if let Some(tail) = tail.strip_prefix('@') {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        store_decoded(&mut parameters, "user", user)?;
        store_decoded(&mut parameters, "password", password)?;
        rest = tail;
    }

    let mut hosts = String::new();
    let mut ports = String::new();
    loop {
        let (host, mut tail) = take_host(rest, uri)?;
        hosts.push_str(host);
        if let Some(after_colon) = tail.strip_prefix(':') {
            let (port, after_port) = until(after_colon, &['/', '?', ',']);
            ports.push_str(port);
            tail = after_port;
        }
        let Some(next) = tail.strip_prefix(',') else {
            rest = tail;
            break;
        };
        hosts.push(',');
        ports.push(',');
        rest = next;
    }
    store_decoded(&mut parameters, "host", &hosts)?;
    store_decoded(&mut parameters, "port", &ports)?;

    if let Some(path) = rest.strip_prefix('/') {
        let (dbname, tail) = until(path, &['?']);
        store_decoded(&mut parameters, "dbname", dbname)?;
        rest = tail;
    }
    if let Some(query) = rest.strip_prefix('?') {
        parse_query(query, &mut parameters)?;
    }
    Ok(parameters)
}

/// One host, brackets of an IPv6 address taken off, and what follows it.
fn take_host<'a>(rest: &'a str, uri: &str) -> Result<(&'a str, &'a str), ConnInfoError> {
    let Some(address) = rest.strip_prefix('[') else {
        return Ok(until(rest, &[':', '/', '?', ',']));
    };
    let Some((address, tail)) = address.split_once(']') else {
        return Err(ConnInfoError::UnterminatedAddress {
            uri: without_password(uri),
        });
    };
    if address.is_empty() {
        return Err(ConnInfoError::EmptyAddress {
            uri: without_password(uri),
        });
    }
    match tail.chars().next() {
        None | Some(':' | '/' | '?' | ',') => Ok((address, tail)),
        Some(found) => Err(ConnInfoError::UnexpectedCharacter {
            found,
            position: uri.len().saturating_sub(tail.len()).saturating_add(1),
            uri: without_password(uri),
        }),
    }
}

fn parse_query(query: &str, parameters: &mut Parameters) -> Result<(), ConnInfoError> {
    let mut rest = query;
    while !rest.is_empty() {
        let (pair, tail) = rest.split_once('&').unwrap_or((rest, ""));
        rest = tail;
        let Some((keyword, value)) = pair.split_once('=') else {
            return Err(ConnInfoError::MissingSeparator {
                keyword: pair.to_owned(),
            });
        };
        if value.contains('=') {
            return Err(ConnInfoError::ExtraSeparator {
                keyword: keyword.to_owned(),
            });
        }
        let keyword = decode(keyword, false)?;
        let secret = parameter::find(&keyword).is_some_and(|parameter| parameter.secret);
        let value = decode(value, secret)?;
        // What JDBC drivers write.
        let (keyword, value) = match (keyword.as_str(), value.as_str()) {
            ("ssl", "true") => ("sslmode", "require"),
            pair => pair,
        };
        if !parameters.set(keyword, value) {
            return Err(ConnInfoError::UnknownUriParameter {
                keyword: keyword.to_owned(),
            });
        }
    }
    Ok(())
}

/// Stores a value unless it is empty: an empty part of a URI leaves the variable or the default in force.
fn store_decoded(
    parameters: &mut Parameters,
    keyword: &'static str,
    value: &str,
) -> Result<(), ConnInfoError> {
    if !value.is_empty() {
        let secret = parameter::find(keyword).is_some_and(|parameter| parameter.secret);
        parameters.set(keyword, &decode(value, secret)?);
    }
    Ok(())
}

/// Resolves `%XX`.
///
/// # Source
/// `conninfo_uri_decode` in `src/interfaces/libpq/fe-connect.c`.
fn decode(text: &str, secret: bool) -> Result<String, ConnInfoError> {
    let token = || {
        if secret {
            "***".to_owned()
        } else {
            text.to_owned()
        }
    };
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit()
            .zip(digit())
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match value {
            None => return Err(ConnInfoError::InvalidPercent { token: token() }),
            Some(0) => return Err(ConnInfoError::PercentZero { token: token() }),
            Some(value) => bytes.push(value),
        }
    }
    String::from_utf8(bytes).map_err(|_| ConnInfoError::PercentNotUtf8 { token: token() })
}

/// The text before the first of these characters, and the text from it on.
fn until<'a>(text: &'a str, stops: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(stops).unwrap_or(text.len()))
}

/// For messages: the URI with `***` for its passwords.
fn without_password(uri: &str) -> String {
    let scheme = SCHEMES
        .iter()
        .find(|scheme| uri.starts_with(**scheme))
        .copied()
        .unwrap_or_default();
    let rest = uri.strip_prefix(scheme).unwrap_or(uri);
    let (credentials, tail) = until(rest, &['@', '/']);
    let shown = match credentials.split_once(':') {
        Some((user, _)) if tail.starts_with('@') => format!("{scheme}{user}:***{tail}"),
        _ => uri.to_owned(),
    };
    match shown.split_once("password=") {
        Some((before, _)) => format!("{before}password=***"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of libpq's own `t/001_uri.pl`, in our order of keywords.
    #[test]
    fn reads_uris_as_libpq_does() {
        for (uri, expected) in [
            (
                "postgresql://uri-user:secret@host:12345/db",
                "user=uri-user password=*** dbname=db host=host port=12345",
            ),
            (
                "postgresql://uri-user@host:12345/db",
                "user=uri-user dbname=db host=host port=12345",
            ),
            (
                "postgresql://host:12345/db",
                "dbname=db host=host port=12345",
            ),
            (
                "postgresql://uri-user@host:12345/",
                "user=uri-user host=host port=12345",
            ),
            ("postgresql://uri-user@", "user=uri-user"),
            ("postgresql://host:12345", "host=host port=12345"),
            ("postgresql://host", "host=host"),
            ("postgresql://", ""),
            ("postgresql://?hostaddr=127.0.0.1", "hostaddr=127.0.0.1"),
            (
                "postgresql://example.com?hostaddr=63.1.2.4",
                "host=example.com hostaddr=63.1.2.4",
            ),
            ("postgresql://%68ost/", "host=host"),
            (
                "postgresql://host/db?u%73er=someotheruser&port=12345",
                "user=someotheruser dbname=db host=host port=12345",
            ),
            (
                "postgresql://host:12345?user=uri-user",
                "user=uri-user host=host port=12345",
            ),
            ("postgresql://host?", "host=host"),
            (
                "postgresql://[::1]:12345/db",
                "dbname=db host=::1 port=12345",
            ),
            ("postgresql://[2001:db8::1234]/", "host=2001:db8::1234"),
            ("postgresql://[200z:db8::1234]/", "host=200z:db8::1234"),
            ("postgresql://[::1]", "host=::1"),
            ("postgres://", ""),
            ("postgres:///", ""),
            ("postgres:///db", "dbname=db"),
            ("postgres://uri-user@/db", "user=uri-user dbname=db"),
            (
                "postgres://?host=/path/to/socket/dir",
                "host=/path/to/socket/dir",
            ),
            ("postgres://@host", "host=host"),
            ("postgres://host:/", "host=host"),
            ("postgres://:12345/", "port=12345"),
            (
                "postgres://otheruser@/?host=/no/such/directory",
                "user=otheruser host=/no/such/directory",
            ),
            (
                "postgres://otheruser@:12345/db?host=/p",
                "user=otheruser dbname=db host=/p port=12345",
            ),
            (
                "postgres://%2Fvar%2Flib%2Fpostgresql/dbname",
                "dbname=dbname host=/var/lib/postgresql",
            ),
            (
                "postgresql://a:1,b:2,[::1]:3/db",
                "dbname=db host=a,b,::1 port=1,2,3",
            ),
            ("postgresql://a,b:2", "host=a,b port=,2"),
            ("postgresql://host?ssl=true", "host=host sslmode=require"),
            (
                "postgresql://u:p%40ss@host",
                "user=u password=*** host=host",
            ),
        ] {
            assert_eq!(parse(uri).unwrap().redacted(), expected, "{uri}");
        }
        assert_eq!(
            parse("postgres://u:p%40s:s@host")
                .unwrap()
                .value("password"),
            Some("p@s:s")
        );
    }

    #[test]
    fn refuses_what_libpq_refuses() {
        for (uri, expected) in [
            (
                "postgresql://host/db?u%7aer=x&port=1",
                "invalid URI query parameter: \"uzer\"",
            ),
            (
                "postgresql://host?uzer=",
                "invalid URI query parameter: \"uzer\"",
            ),
            (
                "postgres://[::1",
                "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"postgres://[::1\"",
            ),
            (
                "postgres://[]",
                "IPv6 host address may not be empty in URI: \"postgres://[]\"",
            ),
            (
                "postgres://[::1]z",
                "unexpected character \"z\" at position 17 in URI (expected \":\" or \"/\"): \"postgres://[::1]z\"",
            ),
            (
                "postgres://u:secret@[]",
                "IPv6 host address may not be empty in URI: \"postgres://u:***@[]\"",
            ),
            (
                "postgres://[]?password=secret",
                "IPv6 host address may not be empty in URI: \"postgres://[]?password=***\"",
            ),
            (
                "postgresql://host?zzz",
                "missing key/value separator \"=\" in URI query parameter: \"zzz\"",
            ),
            (
                "postgresql://host?value1&value2",
                "missing key/value separator \"=\" in URI query parameter: \"value1\"",
            ),
            (
                "postgresql://host?key=key=value",
                "extra key/value separator \"=\" in URI query parameter: \"key\"",
            ),
            (
                "postgres://host?dbname=%XXfoo",
                "invalid percent-encoded token: \"%XXfoo\"",
            ),
            (
                "postgresql://a%00b",
                "forbidden value %00 in percent-encoded value: \"a%00b\"",
            ),
            ("postgresql://%zz", "invalid percent-encoded token: \"%zz\""),
            ("postgresql://%1", "invalid percent-encoded token: \"%1\""),
            ("postgresql://%", "invalid percent-encoded token: \"%\""),
            (
                "postgresql://u:se%zzcret@h",
                "invalid percent-encoded token: \"***\"",
            ),
            (
                "postgresql://%ff",
                "percent-encoded value is not valid UTF-8: \"%ff\"",
            ),
        ] {
            assert_eq!(parse(uri).unwrap_err().to_string(), expected, "{uri}");
        }
    }
}
