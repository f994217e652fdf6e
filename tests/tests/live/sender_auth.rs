//! Who our sender lets in: PostgreSQL with the same rules, users and certificates says the same to the same client.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use walreceiver::demo::postgres_programs::PostgresPrograms;
use walsender::auth::AccessFiles;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::tls::{TlsFiles, TlsVersion};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::Lsn;
use walstream_tests::{Cluster, ClusterOptions, server_version};

use crate::certificates::Certificates;

pub(crate) const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../walreceiver/src/demo/coordinator.tar.zst"
);

/// The rules of both. The first line lets the test itself in.
const HBA: &str = "\
local     all          postgres                 trust
local     replication  u_scram                  scram-sha-256
local     replication  SYSTEM_USER,u_peer       peer
local     replication  u_reject                 reject
hostssl   replication  u_cert    127.0.0.1/32   cert
hostssl   replication  u_ca      127.0.0.1/32   scram-sha-256 clientcert=verify-ca
hostssl   replication  u_full    127.0.0.1/32   scram-sha-256 clientcert=verify-full
hostssl   replication  u_tfull   127.0.0.1/32   trust clientcert=verify-full
hostssl   replication  u_ssl     127.0.0.1      255.255.255.255  scram-sha-256
hostnossl replication  u_nossl   127.0.0.0/8    trust
host      replication  u_scram,ghost samehost   scram-sha-256
host      replication  u_md5     samenet        md5
host      replication  u_reject  0.0.0.0/0      reject
host      replication  \"u quoted\" all         scram-sha-256
host      all          u_all     all            trust
host      u_db         u_db      all            trust
";

/// Users with the password `pw`.
const USERS: &[&str] = &[
    "u_scram", "u_peer", "u_reject", "u_cert", "u_ca", "u_full", "u_tfull", "u_ssl", "u_nossl",
    "u_md5", "u quoted", "u_all", "u_db",
];

/// A PostgreSQL server and two senders of ours, on TCP and on a unix socket, with the same files.
pub(crate) struct Scene {
    pub(crate) certificates: Certificates,
    pub(crate) cluster: Cluster,
    files: TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) tcp: Sender,
    local: Sender,
}

/// Over what a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Tcp,
    Unix,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        Self::with(|_| {})
    }

    /// With changes to the configuration of our senders.
    pub(crate) fn with(change: impl Fn(&mut SenderConfig)) -> Result<Self> {
        let certificates = Certificates::new()?;
        certificates.signed("server", Some("DNS:db.example,IP:127.0.0.1"))?;
        for name in ["u_cert", "u_full", "u_tfull"] {
            certificates.signed(name, None)?;
        }
        certificates.signed_plainly("u_ca")?;
        certificates.revoke("none.crl", &[])?;
        certificates.self_signed("stranger", &["-newkey", "rsa:2048"], &[])?;
        let mut cluster = ClusterOptions::default()
            .set("ssl", "on")
            .set("ssl_ca_file", "ca.crt")
            .create()?;
        let data_dir = cluster.data_dir().to_owned();
        for (file, source) in [
            ("server.crt", "server.crt"),
            ("server.key", "server.key"),
            ("ca.crt", "ca.crt"),
        ] {
            cluster.write_file(&data_dir.join(file), &certificates.text(source)?)?;
        }
        let hba = HBA.replace("SYSTEM_USER", &system_user(&cluster)?);
        cluster.write_file(&data_dir.join("pg_hba.conf"), &hba)?;
        cluster.start()?;
        for user in USERS {
            cluster.query(&format!(
                "CREATE ROLE \"{user}\" LOGIN REPLICATION PASSWORD 'pw'"
            ))?;
        }
        // The client runs as the server's user and must own its keys.
        for name in ["u_cert", "u_full", "u_tfull", "u_ca", "stranger"] {
            let key = cluster.scratch().join(format!("{name}.key"));
            cluster.write_file(&key, &certificates.text(&format!("{name}.key"))?)?;
        }
        let files = tempfile::tempdir()?;
        private_file(&files.path().join("hba"), &hba)?;
        let verifiers =
            cluster.query("SELECT rolname || ':' || rolpassword FROM pg_authid WHERE rolname LIKE 'u%' ORDER BY 1")?;
        private_file(&files.path().join("users"), &verifiers)?;
        private_file(
            &files.path().join("server.key"),
            &certificates.text("server.key")?,
        )?;
        let access = access(&files, &certificates);
        let ours = cluster.scratch().join("ours");
        fs::create_dir(&ours)?;
        fs::set_permissions(&ours, PermissionsExt::from_mode(0o755))?;
        let runtime = Runtime::new()?;
        let start = |listen| {
            let mut config = SenderConfig::new(listen);
            config.access = access.clone();
            change(&mut config);
            let server = RecordedServer::at_end(Recording::open(Path::new(RECORDING))?);
            anyhow::Ok(runtime.block_on(Sender::start(config, Arc::new(server)))?)
        };
        Ok(Self {
            tcp: start(ListenAddress::free_port())?,
            local: start(ListenAddress::Unix(ours.join(".s.PGSQL.5999")))?,
            certificates,
            cluster,
            files,
            runtime,
        })
    }

    fn postgres(&self, over: Over) -> String {
        match over {
            Over::Tcp => format!("host=127.0.0.1 port={}", self.cluster.port()),
            Over::Unix => format!(
                "host={} port={}",
                self.cluster.scratch().display(),
                self.cluster.port()
            ),
        }
    }

    fn ours(&self, over: Over) -> String {
        match over {
            Over::Tcp => self.tcp.conninfo(),
            Over::Unix => self.local.conninfo(),
        }
    }

    /// What psql says of a connection: whether a command went through, and its complaints without addresses.
    fn psql(&self, server: &str, more: &str) -> Result<(bool, String)> {
        let mut command = self.cluster.command("psql");
        let conninfo = format!("{server} replication=1 {more}");
        command.args(["-XAtw", "-c", "IDENTIFY_SYSTEM", "-d", &conninfo]);
        let output = command
            .env("HOME", self.files.path().join("nowhere"))
            .output()?;
        let mut complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        for word in server
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            complaints = complaints.replace(word.1, word.0);
        }
        Ok((output.status.success(), complaints))
    }

    /// What both say, which is the same.
    fn both(&self, over: Over, more: &str) -> Result<(bool, String)> {
        let theirs = self.psql(&self.postgres(over), more)?;
        let ours = self.psql(&self.ours(over), more)?;
        assert_eq!(ours, theirs, "ours, then PostgreSQL's: {over:?} {more}");
        Ok(ours)
    }

    fn client_certificate(&self, certificate: &str, key: &str) -> String {
        let crt = self.certificates.path(&format!("{certificate}.crt"));
        let key = self.cluster.scratch().join(format!("{key}.key"));
        format!(
            "sslmode=require sslcert={} sslkey={}",
            crt.display(),
            key.display()
        )
    }
}

fn access(files: &TempDir, certificates: &Certificates) -> AccessFiles {
    AccessFiles {
        hba: Some(files.path().join("hba")),
        verifiers: Some(files.path().join("users")),
        tls: Some(TlsFiles {
            certificate: certificates.path("server.crt"),
            key: files.path().join("server.key"),
            client_authorities: Some(certificates.path("ca.crt")),
            revocations: None,
            min_version: TlsVersion::default(),
        }),
    }
}

fn private_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(0o600))?)
}

/// Name of the user that PostgreSQL's programs run as.
fn system_user(cluster: &Cluster) -> Result<String> {
    let mut command = cluster.user().command("id", cluster.scratch());
    let output = command.arg("-un").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn everybody_hears_what_postgresql_says() -> Result<()> {
    use Over::{Tcp, Unix};
    let scene = Scene::new()?;
    let ca = format!(
        "sslrootcert={}",
        scene.certificates.path("ca.crt").display()
    );
    let other_ca = format!(
        "sslrootcert={}",
        scene.certificates.path("other-ca.crt").display()
    );
    let with = |certificate: &str, key: &str| scene.client_certificate(certificate, key);
    let none = |user: &str, encryption: &str| {
        format!(
            "no pg_hba.conf entry for replication connection from host \"host\", user \"{user}\", {encryption}"
        )
    };
    let wrong = |user: &str| format!("password authentication failed for user \"{user}\"");
    // The user may stand in the text of an address, which psql's complaints are freed of.
    for (over, more, expected) in [
        (Tcp, "user=u_scram password=pw".to_owned(), None),
        (Tcp, "user=u_scram password=pw sslmode=disable".into(), None),
        (Tcp, "user=u_scram password=pw sslmode=require".into(), None),
        (Tcp, "user=u_scram password=pw sslmode=require channel_binding=require".into(), None),
        (Tcp, "user=u_scram password=pw sslmode=require channel_binding=disable".into(), None),
        (Tcp, "user=u_scram password=pw sslmode=disable channel_binding=require".into(), Some("channel binding".into())),
        (Tcp, "user=u_scram password=pw sslmode=require ssl_max_protocol_version=TLSv1.2".into(), None),
        (Tcp, "user=u_scram password=pw sslmode=require ssl_min_protocol_version=TLSv1.3".into(), None),
        (Tcp, format!("user=u_scram password=pw sslmode=verify-full {ca}"), None),
        (Tcp, format!("user=u_scram password=pw sslmode=verify-full {ca} channel_binding=require"), None),
        (Tcp, format!("user=u_scram password=pw sslmode=verify-ca {other_ca}"), Some("certificate verify failed".into())),
        (Tcp, "user=u_scram password=no".into(), Some(wrong("u_scram"))),
        (Tcp, "user=u_scram password=no sslmode=disable".into(), Some(wrong("u_scram"))),
        (Tcp, "user=u_scram password=no sslmode=require channel_binding=require".into(), Some(wrong("u_scram"))),
        (Tcp, "user=u_scram".into(), Some("no password supplied".into())),
        (Tcp, "user=ghost password=pw".into(), Some(wrong("ghost"))),
        (Tcp, "user='u quoted' password=pw".into(), None),
        (Tcp, "user=u_md5 password=pw".into(), None),
        (Tcp, "user=u_md5 password=no sslmode=disable".into(), Some(wrong("u_md5"))),
        (Tcp, "user=u_reject password=pw sslmode=disable".into(), Some("pg_hba.conf rejects replication connection for host \"host\", user \"u_reject\", no encryption".into())),
        (Tcp, "user=u_reject sslmode=require".into(), Some("user \"u_reject\", SSL encryption".into())),
        (Tcp, "user=u_ssl password=pw sslmode=require".into(), None),
        (Tcp, "user=u_ssl password=pw sslmode=disable".into(), Some(none("u_ssl", "no encryption"))),
        (Tcp, "user=u_nossl sslmode=disable".into(), None),
        (Tcp, "user=u_nossl sslmode=prefer".into(), None),
        (Tcp, "user=u_nossl sslmode=require".into(), Some(none("u_nossl", "SSL encryption"))),
        // `all` does not stand for replication, nor does a database's name.
        (Tcp, "user=u_all sslmode=disable".into(), Some(none("u_all", "no encryption"))),
        (Tcp, "user=u_db dbname=u_db sslmode=disable".into(), Some(none("u_db", "no encryption"))),
        (Tcp, "user=nobody sslmode=require".into(), Some(none("nobody", "SSL encryption"))),
        (Tcp, format!("user=u_cert {}", with("u_cert", "u_cert")), None),
        (Tcp, format!("user=u_cert {}", with("u_full", "u_full")), Some("certificate authentication failed for user \"u_cert\"".into())),
        (Tcp, "user=u_cert sslmode=require".into(), Some("connection requires a valid client certificate".into())),
        (Tcp, "user=u_cert sslmode=disable".into(), Some(none("u_cert", "no encryption"))),
        (Tcp, format!("user=u_ca password=pw {}", with("u_ca", "u_ca")), None),
        (Tcp, format!("user=u_ca password=pw {}", with("u_full", "u_full")), None),
        (Tcp, format!("user=u_ca password=no {}", with("u_ca", "u_ca")), Some(wrong("u_ca"))),
        (Tcp, "user=u_ca password=pw sslmode=require".into(), Some("connection requires a valid client certificate".into())),
        (Tcp, format!("user=u_full password=pw {}", with("u_full", "u_full")), None),
        (Tcp, format!("user=u_full password=pw {}", with("u_cert", "u_cert")), Some(wrong("u_full"))),
        (Tcp, format!("user=u_full password=no {}", with("u_full", "u_full")), Some(wrong("u_full"))),
        (Tcp, format!("user=u_tfull {}", with("u_tfull", "u_tfull")), None),
        (Tcp, format!("user=u_tfull {}", with("u_cert", "u_cert")), Some("\"trust\" authentication failed for user \"u_tfull\"".into())),
        (Unix, "user=u_scram password=pw".into(), None),
        (Unix, "user=u_scram password=pw sslmode=require".into(), None),
        (Unix, "user=u_scram password=no".into(), Some(wrong("u_scram"))),
        (Unix, format!("user={}", system_user(&scene.cluster)?), None),
        (Unix, "user=u_peer".into(), Some("Peer authentication failed for user \"u_peer\"".into())),
        (Unix, "user=u_reject".into(), Some("pg_hba.conf rejects replication connection for host \"[local]\"".into())),
        (Unix, "user=nobody".into(), Some("replication connection from host \"[local]\", user \"nobody\", no encryption".into())),
    ] {
        let (is_in, complaints) = scene.both(over, &more)?;
        match expected {
            None => assert!(is_in, "{over:?} {more}: {complaints}"),
            Some(text) => {
                assert!(!is_in && complaints.contains(&text), "{over:?} {more}: {complaints}");
            }
        }
    }
    Ok(())
}

/// The two TLS libraries word their complaints differently, so only the outcome is compared.
#[test]
fn certificates_of_strangers_end_the_handshake() -> Result<()> {
    let scene = Scene::new()?;
    let stranger = scene.client_certificate("stranger", "stranger");
    for more in ["user=u_cert", "user=u_scram password=pw"] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let more = format!("{more} {stranger} ssl_max_protocol_version={version}");
            for server in [scene.postgres(Over::Tcp), scene.ours(Over::Tcp)] {
                let (is_in, complaints) = scene.psql(&server, &more)?;
                assert!(
                    !is_in && complaints.contains("alert"),
                    "{more}: {complaints}"
                );
            }
        }
    }
    Ok(())
}

/// A revoked certificate ends the handshake, once the list is read; others go on to be let in. The list can be changed and read
/// again. PostgreSQL does the same with the same list.
#[test]
fn revoked_certificates_end_the_handshake() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let list = directory.path().join("ca.crl");
    let mut scene = Scene::with(|config| {
        if let Some(tls) = &mut config.access.tls
            && let Some(authorities) = &tls.client_authorities
        {
            let _ = fs::copy(authorities.with_file_name("none.crl"), &list);
            tls.revocations = Some(list.clone());
        }
    })?;
    let on_server = scene.cluster.data_dir().join("ca.crl");
    scene.certificates.revoke("one.crl", &["u_cert"])?;
    scene.certificates.revoke("other.crl", &["u_full"])?;
    let certificate = |name: &str| {
        let password = "password=pw ssl_max_protocol_version";
        let more = scene.client_certificate(name, name);
        ["TLSv1.2", "TLSv1.3"].map(|version| format!("user={name} {password}={version} {more}"))
    };
    let (cert, full) = (certificate("u_cert"), certificate("u_full"));
    for (file, cert_is_in, full_is_in) in [
        ("none.crl", true, true),
        ("one.crl", false, true),
        ("other.crl", true, false),
    ] {
        let text = scene.certificates.text(file)?;
        fs::write(&list, &text)?;
        scene.cluster.write_file(&on_server, &text)?;
        scene.cluster.configure(&[("ssl_crl_file", "ca.crl")])?;
        scene.cluster.reload();
        assert!(scene.tcp.reload_access(), "{file}");
        for (attempts, is_expected_in) in [(&cert, cert_is_in), (&full, full_is_in)] {
            for more in attempts {
                // The server reads its files a moment after the signal.
                walstream_tests::wait_for("PostgreSQL's answer", walstream_tests::SHORT, || {
                    Ok(scene.psql(&scene.postgres(Over::Tcp), more)?.0 == is_expected_in)
                })?;
                for server in [scene.postgres(Over::Tcp), scene.ours(Over::Tcp)] {
                    let (is_in, complaints) = scene.psql(&server, more)?;
                    assert_eq!(
                        is_in, is_expected_in,
                        "{file} {server} {more}: {complaints}"
                    );
                    assert!(is_in || complaints.contains("revoked"), "{complaints}");
                }
            }
        }
    }
    // A file that is no list changes nothing.
    fs::write(&list, "nonsense")?;
    assert!(!scene.tcp.reload_access());
    for more in &full {
        assert!(!scene.psql(&scene.ours(Over::Tcp), more)?.0);
    }
    Ok(())
}

/// What the psql of these programs says of our sender.
fn connect_with(programs: &PostgresPrograms, scene: &Scene, more: &str) -> Result<(bool, String)> {
    let mut command = scene
        .cluster
        .user()
        .command(programs.client("psql"), scene.cluster.scratch());
    if let Some(libraries) = programs.libraries() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let conninfo = format!("{} replication=1 {more}", scene.ours(Over::Tcp));
    let output = command
        .args(["-XAtw", "-c", "IDENTIFY_SYSTEM", "-d", &conninfo])
        .output()?;
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn newer_clients_begin_tls_at_once_and_ask_for_newer_protocols() -> Result<()> {
    let scene = Scene::new()?;
    let root = scene.certificates.path("ca.crt");
    for major in [15, 17, 18] {
        let programs = server_version(major)?;
        let direct = format!(
            "sslnegotiation=direct sslmode=verify-full sslrootcert={}",
            root.display()
        );
        let mut cases = vec![
            ("sslmode=require".to_owned(), true),
            ("sslmode=disable".to_owned(), true),
            ("sslmode=require channel_binding=require".to_owned(), true),
        ];
        if major >= 17 {
            cases.push((direct.clone(), true));
            cases.push((format!("{direct} channel_binding=require"), true));
            cases.push((format!("{direct} require_auth=scram-sha-256"), true));
        }
        if major >= 18 {
            cases.push((format!("{direct} max_protocol_version=latest"), true));
            cases.push(("min_protocol_version=3.2 sslmode=disable".to_owned(), false));
        }
        for (more, expected) in cases {
            let more = format!("user=u_scram password=pw {more}");
            let (is_in, complaints) = connect_with(&programs, &scene, &more)?;
            assert_eq!(is_in, expected, "{major} {more}: {complaints}");
            if expected {
                let more = more.replace("password=pw", "password=no");
                let (is_in, complaints) = connect_with(&programs, &scene, &more)?;
                assert!(
                    !is_in && complaints.contains("password authentication failed"),
                    "{more}: {complaints}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn pg_receivewal_streams_over_tls() -> Result<()> {
    let scene = Scene::new()?;
    let target: PathBuf = scene.cluster.scratch().join("archive");
    let conninfo = format!(
        "{} user=u_scram password=pw sslmode=verify-full channel_binding=require sslrootcert={}",
        scene.ours(Over::Tcp),
        scene.certificates.path("ca.crt").display()
    );
    let mut make = scene
        .cluster
        .user()
        .command("mkdir", scene.cluster.scratch());
    ensure!(make.arg(&target).status()?.success());
    let recording = Recording::open(Path::new(RECORDING))?;
    // It ends when it is beyond this.
    let end = Lsn(recording.wal_end().lsn.0 - 1).to_string();
    let mut command = scene.cluster.command("pg_receivewal");
    let output = command
        .args([
            "--no-loop",
            "--no-sync",
            "--endpos",
            &end,
            "-d",
            &conninfo,
            "-D",
        ])
        .arg(&target)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let received: u64 = fs::read_dir(&target)?
        .map(|entry| anyhow::Ok(entry?.metadata()?.len()))
        .sum::<Result<u64>>()?;
    assert!(received > 0);
    Ok(())
}

#[test]
fn reloaded_files_hold_for_new_connections() -> Result<()> {
    let scene = Scene::new()?;
    let log_in = |more: &str| scene.psql(&scene.ours(Over::Tcp), more);
    let users = fs::read_to_string(scene.files.path().join("users"))?;
    let broken = format!("{users}\nu_new:nonsense\n");
    private_file(&scene.files.path().join("users"), &broken)?;
    assert!(!scene.runtime.block_on(async { scene.tcp.reload_access() }));
    assert!(log_in("user=u_scram password=pw")?.0, "the old users stay");
    // The certificate is exchanged, and the user's password with it.
    let other = scene.cluster.query(
        "ALTER ROLE u_scram PASSWORD 'other'; SELECT rolname || ':' || rolpassword FROM pg_authid WHERE rolname = \
         'u_scram'",
    )?;
    let line = other.lines().last().context("there is a line")?;
    private_file(&scene.files.path().join("users"), line)?;
    scene
        .certificates
        .signed("server", Some("DNS:renamed.example"))?;
    private_file(
        &scene.files.path().join("server.key"),
        &scene.certificates.text("server.key")?,
    )?;
    let root = scene.certificates.path("ca.crt");
    let named = |host: &str, password: &str| {
        let address = scene.ours(Over::Tcp).replace("host=", "hostaddr=");
        let more = format!(
            "user=u_scram password={password} sslmode=verify-full sslrootcert={}",
            root.display()
        );
        scene.psql(&address, &format!("host={host} {more}"))
    };
    assert!(named("db.example", "pw")?.0, "before the reload");
    assert!(scene.tcp.reload_access());
    assert!(!named("db.example", "other")?.0, "the old name");
    assert!(!named("renamed.example", "pw")?.0, "the old password");
    let (is_in, complaints) = named("renamed.example", "other")?;
    assert!(is_in, "{complaints}");
    Ok(())
}
