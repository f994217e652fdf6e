//! Whether a certificate names a host, by libpq's rules: alternative names first, then the common name.

use std::net::IpAddr;

use walsender::tls::certificate_name::{COMMON_NAME, name_text};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Whether the certificate (DER) is for this host, which may be a name or an address.
///
/// The common name counts only in a certificate without alternative names of the host's kind.
///
/// # Source
/// `pgtls_verify_peer_name_matches_certificate_guts` in `src/interfaces/libpq/fe-secure-openssl.c`.
pub(super) fn matches(certificate: &[u8], host: &str) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return false;
    };
    let address = host.parse::<IpAddr>().ok();
    let mut check_common_name = true;
    let alternative = certificate.tbs_certificate.get::<SubjectAltName>();
    let names = match alternative {
        Ok(Some((_, names))) => names.0,
        Ok(None) => Vec::new(),
        Err(_) => return false,
    };
    for name in &names {
        match name {
            GeneralName::DnsName(pattern) => {
                check_common_name = false;
                if name_matches(pattern.as_str(), host) {
                    return true;
                }
            }
            GeneralName::IpAddress(bytes) => {
                check_common_name &= address.is_none();
                if address.is_some_and(|address| is_address(bytes.as_bytes(), address)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    check_common_name && common_name(&certificate).is_some_and(|name| name_matches(&name, host))
}

fn is_address(bytes: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => bytes == address.octets(),
        IpAddr::V6(address) => bytes == address.octets(),
    }
}

/// The last common name of the subject.
fn common_name(certificate: &Certificate) -> Option<String> {
    let mut parts = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|part| part.0.iter());
    name_text(
        &parts
            .rfind(|part| part.oid.to_string() == COMMON_NAME)?
            .value,
    )
}

/// Whether a name, perhaps with `*` as its first label, fits the host. `*` stands for exactly one label.
///
/// # Source
/// `wildcard_certificate_match` in `src/interfaces/libpq/fe-secure-common.c`.
fn name_matches(pattern: &str, host: &str) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = pattern
        .strip_prefix('*')
        .filter(|suffix| suffix.starts_with('.') && suffix.len() > 1)
    else {
        return false;
    };
    let Some((label, rest)) = host.split_once('.') else {
        return false;
    };
    !label.is_empty()
        && suffix
            .strip_prefix('.')
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_label() {
        for (pattern, host, expected) in [
            ("db.example", "db.example", true),
            ("DB.example", "db.EXAMPLE", true),
            ("db.example", "db.example.org", false),
            ("*.example", "db.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*", "db", false),
            ("*.", "db.", false),
            ("d*.example", "db.example", false),
            ("db.example\0.org", "db.example", false),
        ] {
            assert_eq!(name_matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn compares_addresses_by_bytes() {
        assert!(is_address(&[127, 0, 0, 1], "127.0.0.1".parse().unwrap()));
        assert!(!is_address(&[127, 0, 0, 2], "127.0.0.1".parse().unwrap()));
        assert!(!is_address(&[127, 0, 0, 1], "::1".parse().unwrap()));
    }
}
