//! TLS as libpq does it: `psql` is asked the same, and must come to the same end.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use walreceiver::connection::{ConnInfo, Connection, Environment, Purpose};
use walreceiver::exit::{Exit, Recovery};
use walstream_tests::{Cluster, ClusterOptions};

use crate::certificates::Certificates;

/// How a connection ended: with TLS, without, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Tls,
    Plain,
    Refused,
}

const NAMES: &str = "DNS:db.example,DNS:*.wild.example,IP:127.0.0.1";

fn server(certificates: &Certificates, name: Option<&str>) -> Result<Cluster> {
    let mut options = ClusterOptions::default()
        .hba("hostssl all u_ssl 127.0.0.1/32 trust")
        .hba("hostnossl all u_nossl 127.0.0.1/32 trust")
        .hba("hostnossl all u_ssl 127.0.0.1/32 reject")
        .hba("hostssl all u_nossl 127.0.0.1/32 reject")
        .hba("host all u_any 127.0.0.1/32 scram-sha-256")
        .hba("host all u_md5 127.0.0.1/32 md5")
        .hba("host all u_trust 127.0.0.1/32 trust");
    if name.is_some() {
        options = options
            .hba("hostssl all u_cert 127.0.0.1/32 cert")
            .set("ssl", "on")
            .set("ssl_ca_file", "ca.crt");
    }
    let mut cluster = options.create()?;
    if let Some(name) = name {
        let directory = cluster.data_dir().to_owned();
        for (file, source) in [
            ("server.crt", format!("{name}.crt")),
            ("server.key", format!("{name}.key")),
            ("ca.crt", "ca.crt".into()),
        ] {
            cluster.write_file(&directory.join(file), &certificates.text(&source)?)?;
        }
    }
    cluster.start()?;
    for role in ["u_ssl", "u_nossl", "u_any", "u_cert", "u_trust"] {
        cluster.query(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'"))?;
    }
    cluster.query("SET password_encryption = md5; CREATE ROLE u_md5 LOGIN PASSWORD 'pw'")?;
    Ok(cluster)
}

async fn ours(text: &str, home: &Path) -> Result<(Outcome, String)> {
    let environment = Environment::default().with_home(home);
    let conninfo = match ConnInfo::resolve(text, &environment) {
        Ok(conninfo) => conninfo,
        Err(error) => return Ok((Outcome::Refused, error.to_string())),
    };
    match Connection::connect(&conninfo, Purpose::Sql).await {
        Ok(mut connection) => {
            let seen = connection
                .query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                .await?;
            assert_eq!(seen.text(0, 0) == Some("t"), connection.is_tls());
            Ok((
                if connection.is_tls() {
                    Outcome::Tls
                } else {
                    Outcome::Plain
                },
                String::new(),
            ))
        }
        Err(error) => Ok((Outcome::Refused, error.to_string())),
    }
}

fn psql(cluster: &Cluster, text: &str, home: &Path) -> Result<(Outcome, String)> {
    let mut command = cluster.command("psql");
    command.env("HOME", home).args([
        "-XAtw",
        "-c",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    ]);
    let output = command.arg(text).output()?;
    Ok(match String::from_utf8_lossy(&output.stdout).trim() {
        "t" => (Outcome::Tls, String::new()),
        "f" => (Outcome::Plain, String::new()),
        _ => (
            Outcome::Refused,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ),
    })
}

async fn same_as_psql(cluster: &Cluster, more: &str, home: &Path) -> Result<Outcome> {
    let text = format!("port={} dbname=postgres {more}", cluster.port());
    let (ours, our_message) = ours(&text, home).await?;
    let (theirs, their_message) = psql(cluster, &text, home)?;
    assert_eq!(
        ours, theirs,
        "{text}\nwe say: {our_message}\npsql says: {their_message}"
    );
    Ok(ours)
}

#[tokio::test]
async fn every_sslmode_ends_as_with_libpq() -> Result<()> {
    let certificates = Certificates::new()?;
    certificates.signed("server", Some(NAMES))?;
    let secure = server(&certificates, Some("server"))?;
    let plain = server(&certificates, None)?;
    let home = tempfile::tempdir()?;
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))?;
    let root = |file: &str| format!("sslrootcert={}", certificates.path(file).display());
    let mut seen = [0; 3];
    for cluster in [&secure, &plain] {
        for mode in [
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ] {
            for roots in [
                String::new(),
                root("ca.crt"),
                root("other-ca.crt"),
                root("missing.crt"),
            ] {
                for user in ["u_ssl", "u_nossl", "u_trust"] {
                    let more = format!("host=127.0.0.1 user={user} sslmode={mode} {roots}");
                    seen[same_as_psql(cluster, &more, home.path()).await? as usize] += 1;
                }
            }
            let more = format!("host=127.0.0.1 user=u_any password=no sslmode={mode}");
            assert_eq!(
                same_as_psql(cluster, &more, home.path()).await?,
                Outcome::Refused
            );
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn names_are_checked_as_with_libpq() -> Result<()> {
    let certificates = Certificates::new()?;
    certificates.signed("server", Some(NAMES))?;
    certificates.signed("common.example", None)?;
    certificates.signed_plainly("old.example")?;
    certificates.self_signed("self.example", &["-newkey", "rsa:2048", "-sha512"], &[])?;
    let home = tempfile::tempdir()?;
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))?;
    let verify = |file: &str| {
        let root = certificates.path(file);
        format!(
            "user=u_any password=pw sslmode=verify-full sslrootcert={} hostaddr=127.0.0.1",
            root.display()
        )
    };
    for (name, root, good, bad) in [
        (
            "server",
            "ca.crt",
            &[
                "host=db.example",
                "host=DB.Example",
                "host=a.wild.example",
                "host=127.0.0.1",
            ][..],
            &[
                "host=other.example",
                "host=a.b.wild.example",
                "host=wild.example",
                "host=127.0.0.2",
                "",
                "host=server",
            ][..],
        ),
        (
            "common.example",
            "ca.crt",
            &["host=common.example"],
            &["host=other.example", "host=127.0.0.1"],
        ),
        (
            "old.example",
            "ca.crt",
            &[
                "host=old.example",
                "host=old.example ssl_max_protocol_version=TLSv1.2",
            ],
            &["host=other.example"],
        ),
        ("old.example", "other-ca.crt", &[], &["host=old.example"]),
        (
            "self.example",
            "self.example.crt",
            &["host=self.example"],
            &["host=other.example"],
        ),
    ] {
        let cluster = server(&certificates, Some(name))?;
        for (hosts, expected) in [(good, Outcome::Tls), (bad, Outcome::Refused)] {
            for host in hosts {
                let more = format!("{} {host}", verify(root));
                assert_eq!(
                    same_as_psql(&cluster, &more, home.path()).await?,
                    expected,
                    "{name} {host}"
                );
                let bound = format!("{more} channel_binding=require");
                assert_eq!(
                    same_as_psql(&cluster, &bound, home.path()).await?,
                    expected,
                    "{name} {host}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_other_parameters_do_as_with_libpq() -> Result<()> {
    use Outcome::{Plain, Refused, Tls};
    let certificates = Certificates::new()?;
    certificates.signed("server", Some(NAMES))?;
    certificates.signed("u_cert", None)?;
    certificates.signed("u_other", None)?;
    certificates.revoke("none.crl", &[])?;
    certificates.revoke("server.crl", &["server"])?;
    let cluster = server(&certificates, Some("server"))?;
    let home = tempfile::tempdir()?;
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))?;
    // psql runs as the server's user and must own its key.
    for name in ["u_cert", "u_other"] {
        let key = cluster.scratch().join(format!("{name}.key"));
        cluster.write_file(&key, &certificates.text(&format!("{name}.key"))?)?;
    }
    let open_key = cluster.scratch().join("open.key");
    cluster.write_file(&open_key, &certificates.text("u_cert.key")?)?;
    std::fs::set_permissions(&open_key, PermissionsExt::from_mode(0o644))?;
    let ca = format!(
        "sslrootcert={} sslmode=verify-ca",
        certificates.path("ca.crt").display()
    );
    let certificate = |name: &str, key: &str| {
        let crt = certificates.path(&format!("{name}.crt"));
        format!(
            "sslcert={} sslkey={}",
            crt.display(),
            cluster.scratch().join(key).display()
        )
    };
    let crl = |file: &str| format!("sslcrl={}", certificates.path(file).display());
    for (more, expected) in [
        ("user=u_any password=pw channel_binding=require".to_owned(), Tls),
        ("user=u_any password=pw channel_binding=disable".to_owned(), Tls),
        ("user=u_any password=pw channel_binding=require sslmode=disable".to_owned(), Refused),
        ("user=u_md5 password=pw channel_binding=require".to_owned(), Refused),
        ("user=u_md5 password=pw".to_owned(), Tls),
        ("user=u_trust channel_binding=require".to_owned(), Refused),
        ("user=u_trust".to_owned(), Tls),
        (format!("user=u_cert {ca} {}", certificate("u_cert", "u_cert.key")), Tls),
        (format!("user=u_cert {ca} {}", certificate("u_other", "u_other.key")), Refused),
        (format!("user=u_cert {ca} {}", certificate("u_cert", "u_other.key")), Refused),
        (format!("user=u_cert {ca} {}", certificate("u_cert", "missing.key")), Refused),
        (format!("user=u_cert {ca} {}", certificate("u_cert", "open.key")), Refused),
        (format!("user=u_cert {ca}"), Refused),
        (format!("user=u_any password=pw {ca} {}", crl("none.crl")), Tls),
        (format!("user=u_any password=pw {ca} {}", crl("server.crl")), Refused),
        (format!("user=u_any password=pw {} sslmode=prefer", crl("server.crl")), Tls),
        ("user=u_any password=pw sslsni=0".to_owned(), Tls),
        ("user=u_any password=pw sslmode=require ssl_max_protocol_version=TLSv1.2".to_owned(), Tls),
        ("user=u_any password=pw sslmode=require ssl_min_protocol_version=TLSv1.3".to_owned(), Tls),
        ("user=u_any password=pw ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2".to_owned(), Refused),
        ("user=u_nossl sslmode=prefer".to_owned(), Plain),
    ] {
        let more = format!("host=127.0.0.1 {more}");
        assert_eq!(same_as_psql(&cluster, &more, home.path()).await?, expected, "{more}");
    }
    Ok(())
}

#[tokio::test]
async fn an_untrusted_server_is_denied_for_good() -> Result<()> {
    let certificates = Certificates::new()?;
    certificates.signed("server", Some(NAMES))?;
    let cluster = server(&certificates, Some("server"))?;
    let root = certificates.path("other-ca.crt");
    let text = format!(
        "host=127.0.0.1 port={} user=u_any password=pw sslmode=verify-full sslrootcert={}",
        cluster.port(),
        root.display()
    );
    let conninfo = ConnInfo::resolve(&text, &Environment::default())?;
    let error = Connection::connect(&conninfo, Purpose::Sql)
        .await
        .unwrap_err();
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Denied, Recovery::Permanent),
        "{error}"
    );
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    Ok(())
}

/// Messages much larger than a TLS record arrive whole.
#[tokio::test]
async fn large_results_arrive_over_tls() -> Result<()> {
    let certificates = Certificates::new()?;
    certificates.signed("server", Some(NAMES))?;
    let cluster = server(&certificates, Some("server"))?;
    let text = format!(
        "host=127.0.0.1 port={} user=u_any password=pw dbname=postgres sslmode=require",
        cluster.port()
    );
    let conninfo = ConnInfo::resolve(&text, &Environment::default())?;
    let mut connection = Connection::connect(&conninfo, Purpose::Sql).await?;
    let result = connection
        .query("SELECT repeat('x', 5000000), i FROM generate_series(1, 5) AS i")
        .await?;
    assert_eq!(result.rows.len(), 5);
    assert!((0..5).all(|row| {
        result
            .text(row, 0)
            .is_some_and(|text| text.len() == 5_000_000)
    }));
    Ok(())
}
