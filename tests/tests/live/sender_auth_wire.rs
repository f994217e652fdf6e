//! What our sender answers to bytes that no good client sends before it is let in: the same as PostgreSQL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use walsender::ListenAddress;
use walstream::protocol::message::{ProtocolVersion, StartupMessage, StartupRequest};
use walstream_tests::{SHORT, wait_for};

use crate::sender_auth::Scene;

/// SQLSTATE, message and detail of an error.
type Told = (String, String, Option<String>);

fn startup(user: &str) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    StartupRequest::Startup(StartupMessage {
        version: ProtocolVersion::V3_0,
        parameters: vec![("user", user), ("replication", "true")],
    })
    .encode(&mut bytes);
    bytes.to_vec()
}

fn ssl_request() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    StartupRequest::Ssl.encode(&mut bytes);
    bytes.to_vec()
}

fn message(tag: u8, content: &[u8]) -> Result<Vec<u8>> {
    let length = i32::try_from(content.len() + 4)?;
    Ok([&[tag], &length.to_be_bytes()[..], content].concat())
}

/// A password message that chooses a mechanism and brings the client's first message.
fn initial(mechanism: &str, first: &[u8]) -> Result<Vec<u8>> {
    let length = i32::try_from(first.len())?;
    message(
        b'p',
        &[mechanism.as_bytes(), b"\0", &length.to_be_bytes(), first].concat(),
    )
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// The next message: its tag and its content.
fn read_message(stream: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let [tag, length @ ..] = header;
    let mut content = vec![0; usize::try_from(i32::from_be_bytes(length))?.saturating_sub(4)];
    stream.read_exact(&mut content)?;
    Ok((tag, content))
}

fn told(content: &[u8]) -> Result<Told> {
    let field = |tag: u8| {
        let mut fields = content.split(|byte| *byte == 0);
        let text = fields.find_map(|field| field.strip_prefix(&[tag]))?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    Ok((
        field(b'C').context("a SQLSTATE")?,
        field(b'M').context("a message")?,
        field(b'D'),
    ))
}

/// Sends what is given, each piece but the first after a message of the server, and gives the error it ends with.
fn ending(port: u16, pieces: &[Vec<u8>]) -> Result<Told> {
    let mut stream = connect(port)?;
    let mut pieces = pieces.iter();
    loop {
        if let Some(piece) = pieces.next() {
            stream.write_all(piece)?;
        }
        let (tag, content) = read_message(&mut stream)?;
        if tag == b'E' {
            let mut rest = Vec::new();
            // Bytes that were not read may reset the connection.
            let _ = stream.read_to_end(&mut rest);
            ensure!(rest.is_empty(), "something comes after the error");
            return told(&content);
        }
        ensure!(tag == b'R', "message {}", char::from(tag));
    }
}

fn port_of(scene: &Scene) -> Result<u16> {
    match scene.tcp.address() {
        ListenAddress::Tcp(address) => Ok(address.port()),
        ListenAddress::Unix(_) => anyhow::bail!("listens at a unix socket"),
    }
}

#[test]
fn bad_messages_of_authentication_are_answered_as_by_postgresql() -> Result<()> {
    let scene = Scene::new()?;
    let (ours, theirs) = (port_of(&scene)?, scene.cluster.port());
    let start = || startup("u_scram");
    let begun =
        || -> Result<Vec<Vec<u8>>> { Ok(vec![start(), initial("SCRAM-SHA-256", b"n,,n=,r=abc")?]) };
    let mut scripts = vec![
        vec![startup("nobody")],
        vec![startup("u_reject")],
        vec![start(), message(b'Q', b"IDENTIFY_SYSTEM\0")?],
        vec![start(), message(b'p', &[b'x'; 2000])?],
        vec![start(), b"p\0\0\0\x03".to_vec()],
        vec![start(), b"p\xff\xff\xff\xff".to_vec()],
        vec![start(), b"p\x7f\xff\xff\xff".to_vec()],
        vec![start(), message(b'p', b"SCRAM-SHA-256")?],
        vec![start(), message(b'p', b"SCRAM-SHA-256\0")?],
        vec![
            start(),
            message(b'p', b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=")?,
        ],
        vec![
            start(),
            message(b'p', b"SCRAM-SHA-256\0\0\0\0\x01n,,n=,r=")?,
        ],
        vec![start(), message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xffx")?],
        vec![start(), message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xfex")?],
        vec![
            start(),
            message(b'p', b"md5a3556571e93b0d20722ba62be61e8c2d\0")?,
        ],
        vec![
            start(),
            initial("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc")?,
        ],
        vec![start(), initial("SCRAM-SHA-1", b"n,,n=,r=abc")?],
    ];
    for first in [
        &b""[..],
        b"n",
        b"n;",
        b"n,",
        b"n,,",
        b"q,,n=,r=x",
        b"y,,",
        b"p=tls-unique,,n=,r=x",
        b"n,a=u,n=,r=x",
        b"n,,m=x",
        b"n,,n=",
        b"n,,n=,r",
        b"n,,n=,r=\x01",
        b"n,,n=,r=x,1=2",
        b"n,,n=\0",
        b"n,,n=\xff\xfe,x=",
    ] {
        scripts.push(vec![start(), initial("SCRAM-SHA-256", first)?]);
    }
    for last in [
        &b""[..],
        b"c",
        b"c=biws",
        b"c=eSws,r=x",
        b"c=biws,r=abc",
        b"c=biws,r=abc,p=",
        b"c=biws,r=abc,x=y,p=AAAA",
        b"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"c=biws,r=abc,\xc3\xa9=x,p=x",
        b"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,x=y",
        b"r=abc",
        b"c=biws,p=x",
        b"c=\0",
    ] {
        let mut script = begun()?;
        script.push(message(b'p', last)?);
        scripts.push(script);
    }
    for script in &scripts {
        let shown: Vec<_> = script
            .iter()
            .map(|piece| piece.escape_ascii().to_string())
            .collect();
        let theirs = ending(theirs, script).with_context(|| format!("PostgreSQL: {shown:?}"))?;
        let ours = ending(ours, script).with_context(|| format!("ours: {shown:?}"))?;
        assert_eq!(ours, theirs, "{shown:?}");
    }
    Ok(())
}

/// Shakes hands as a client that trusts the tests' authority.
async fn shake_hands(
    scene: &Scene,
    stream: tokio::net::TcpStream,
    alpn: &[&[u8]],
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(
        scene.certificates.path("ca.crt"),
    )?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("db.example")?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

/// As CVE-2021-23214 was: what somebody put behind the request for TLS must not be taken for the client's.
#[test]
fn nothing_may_come_with_the_request_for_tls() -> Result<()> {
    let scene = Scene::new()?;
    let (ours, theirs) = (port_of(&scene)?, scene.cluster.port());
    for injected in [startup("u_all"), b"x".to_vec()] {
        let told_by = |port: u16| {
            scene.runtime.block_on(async {
                let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                stream
                    .write_all(&[ssl_request(), injected.clone()].concat())
                    .await?;
                ensure!(stream.read_u8().await? == b'S', "TLS is offered");
                let mut stream = shake_hands(&scene, stream, &[]).await?;
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                let (tag, content) = read_message(&mut &bytes[..])?;
                ensure!(tag == b'E', "message {tag}");
                told(&content)
            })
        };
        let (theirs, ours) = (told_by(theirs)?, told_by(ours)?);
        assert_eq!(ours, theirs);
        assert_eq!(ours.0, "08P01");
    }
    Ok(())
}

#[test]
fn tls_without_a_request_must_name_the_protocol() -> Result<()> {
    let scene = Scene::new()?;
    let port = port_of(&scene)?;
    for (alpn, is_served) in [
        (&[&b"postgresql"[..]][..], true),
        (&[], false),
        (&[&b"http/1.1"[..]][..], false),
    ] {
        let answered = scene.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            let mut stream = shake_hands(&scene, stream, alpn).await?;
            stream.write_all(&startup("u_scram")).await?;
            anyhow::Ok(stream.read_u8().await?)
        });
        assert_eq!(answered.ok(), is_served.then_some(b'R'), "{alpn:?}");
    }
    Ok(())
}

#[test]
fn who_is_not_let_in_holds_no_place_for_long() -> Result<()> {
    let scene = Scene::with(|config| {
        config.max_waiting = 2;
        config.authentication_timeout = Duration::from_millis(1500);
    })?;
    let port = port_of(&scene)?;
    let (mut silent, mut asked) = (connect(port)?, connect(port)?);
    asked.write_all(&startup("u_scram"))?;
    assert_eq!(read_message(&mut asked)?.0, b'R');
    // Both places are taken.
    let mut third = connect(port)?;
    assert_eq!(
        third.read(&mut [0]).unwrap_or(0),
        0,
        "closed without a word"
    );
    // Each is told, once there is somebody to tell, and leaves its place.
    assert_eq!(silent.read(&mut [0])?, 0);
    let (tag, content) = read_message(&mut asked)?;
    let told = told(&content)?;
    assert_eq!(
        (tag, told.0.as_str(), told.1.as_str()),
        (b'E', "57014", "canceling authentication due to timeout")
    );
    wait_for("a place", SHORT, || {
        let mut next = connect(port)?;
        next.write_all(&startup("u_scram"))?;
        Ok(read_message(&mut next).is_ok_and(|(tag, _)| tag == b'R'))
    })
}

#[test]
fn who_is_refused_has_his_place_until_he_goes_and_is_not_waited_for() -> Result<()> {
    let scene = Scene::with(|config| config.max_waiting = 1)?;
    let port = port_of(&scene)?;
    let refused = |stream: &mut TcpStream| -> Result<()> {
        // No replication.
        let mut bytes = BytesMut::new();
        StartupRequest::Startup(StartupMessage {
            version: ProtocolVersion::V3_0,
            parameters: vec![("user", "u_scram")],
        })
        .encode(&mut bytes);
        stream.write_all(&bytes)?;
        let (tag, content) = read_message(stream)?;
        ensure!(tag == b'E' && told(&content)?.0 == "0A000", "message {tag}");
        Ok(())
    };
    let mut stays = connect(port)?;
    refused(&mut stays)?;
    let mut next = connect(port)?;
    ensure!(next.read(&mut [0]).unwrap_or(0) == 0, "a second place");
    drop(stays);
    wait_for("a place", SHORT, || {
        let mut stream = connect(port)?;
        Ok(refused(&mut stream).is_ok())
    })
}
