//! The common name of a certificate.

use x509_cert::Certificate;
use x509_cert::attr::AttributeValue;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Tag, Tagged};

/// Object identifier of a subject's common name.
pub const COMMON_NAME: &str = "2.5.4.3";

/// The first common name of the subject of a certificate (DER). `None` where there is none, it is in an encoding that
/// nobody uses for names, or holds a zero byte.
///
/// # Source
/// `be_tls_open_server` in `src/backend/libpq/be-secure-openssl.c`.
#[must_use]
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = &certificate.tbs_certificate.subject;
    let mut parts = subject.0.iter().flat_map(|part| part.0.iter());
    let part = parts.find(|part| part.oid.to_string() == COMMON_NAME)?;
    name_text(&part.value)
}

/// A part of a name as text.
#[must_use]
pub fn name_text(value: &AttributeValue) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => value
            .decode_as::<Utf8StringRef<'_>>()
            .ok()?
            .as_str()
            .to_owned(),
        Tag::PrintableString => value
            .decode_as::<PrintableStringRef<'_>>()
            .ok()?
            .as_str()
            .to_owned(),
        Tag::Ia5String => value
            .decode_as::<Ia5StringRef<'_>>()
            .ok()?
            .as_str()
            .to_owned(),
        Tag::TeletexString => value
            .decode_as::<TeletexStringRef<'_>>()
            .ok()?
            .as_str()
            .to_owned(),
        _ => return None,
    };
    // A zero byte inside would let "good\0bad" pass for the first half elsewhere.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_name() {
        assert_eq!(common_name(b"nonsense"), None);
        assert_eq!(common_name(b""), None);
    }
}
