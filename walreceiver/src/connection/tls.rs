//! TLS on a TCP connection: the request, the handshake, and what the certificate must be.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use walsender::tls::{ALPN, certificate_hash};

use super::hosts::Host;
use super::stream::Stream;
use super::tls_error::TlsError;
use super::tls_files;
use super::tls_settings::{RootCertificates, SslMode, TlsSettings, TlsVersion};
use super::tls_verifier::Verifier;

/// Asks the server for TLS and shakes hands. Where it has none, the plain stream, unless TLS is required.
///
/// With TLS, also the certificate's hash for channel binding, if it has one.
///
/// # Source
/// "SSL Session Encryption" in the protocol chapter.
pub(super) async fn upgrade(
    mut stream: TcpStream,
    settings: &TlsSettings,
    host: &Host,
    required: bool,
) -> Result<(Stream, Option<Vec<u8>>), TlsError> {
    // Files first: nothing is said to a server that we could not trust.
    let config = client_config(settings, host)?;
    if !settings.direct && !request(&mut stream).await? {
        return if required {
            Err(TlsError::NotOffered)
        } else {
            Ok((Stream::Tcp(stream), None))
        };
    }
    let address = stream.peer_addr().map_err(TlsError::Io)?.ip();
    let name = host
        .name
        .as_deref()
        .and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = name.unwrap_or_else(|| ServerName::IpAddress(address.into()));
    let connecting = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let stream = connecting.map_err(handshake_error)?;
    let (_, session) = stream.get_ref();
    if settings.direct && session.alpn_protocol() != Some(ALPN) {
        return Err(TlsError::NoAlpn);
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let hash =
        certificate.and_then(|certificate| certificate_hash::tls_server_end_point(certificate));
    Ok((Stream::Tls(Box::new(stream)), hash))
}

/// Asks for TLS. Exactly one byte is read: what an intruder may have put behind it is left to TLS, which refuses it.
async fn request(stream: &mut TcpStream) -> Result<bool, TlsError> {
    let mut message = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut message);
    stream.write_all(&message).await.map_err(TlsError::Io)?;
    match stream.read_u8().await.map_err(TlsError::Io)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        b'E' => Err(TlsError::ErrorAnswer),
        answer => Err(TlsError::BadAnswer { answer }),
    }
}

fn handshake_error(error: io::Error) -> TlsError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => TlsError::Handshake(error),
        Err(error) => TlsError::Io(error),
    }
}

fn client_config(settings: &TlsSettings, host: &Host) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = tls_files::root_certificates(settings)?;
    if roots.is_none() && settings.mode >= SslMode::VerifyCa {
        let file = match &settings.roots {
            RootCertificates::File(path) => Some(path.clone()),
            RootCertificates::System | RootCertificates::None => None,
        };
        return Err(TlsError::NoRootCertificates { file });
    }
    let revocations = if roots.is_some() {
        tls_files::revocations(settings)?
    } else {
        Vec::new()
    };
    let checked_host = match settings.mode {
        SslMode::VerifyFull => Some(host.name.clone().ok_or(TlsError::NoHostName)?),
        _ => None,
    };
    let verifier = Verifier::new(Arc::clone(&provider), roots, revocations, checked_host)
        .map_err(TlsError::Handshake)?;
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&versions(settings)?)
        .map_err(TlsError::Handshake)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match tls_files::identity(settings)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(TlsError::Handshake)?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = settings.server_name_indication;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn versions(settings: &TlsSettings) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let known = [
        (TlsVersion::Tls12, &version::TLS12),
        (TlsVersion::Tls13, &version::TLS13),
    ];
    let within =
        |version: TlsVersion| (settings.min_version..=settings.max_version).contains(&version);
    let versions: Vec<_> = known
        .into_iter()
        .filter(|(name, _)| within(*name))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        Err(TlsError::NoVersion)
    } else {
        Ok(versions)
    }
}
