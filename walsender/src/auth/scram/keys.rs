//! The hash functions of SCRAM-SHA-256.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Length of a key, in bytes.
///
/// # Source
/// `SCRAM_KEY_LEN` in `src/include/common/scram-common.h`.
pub(crate) const KEY_LEN: usize = 32;

/// Random bytes of a server's nonce, before base64.
///
/// # Source
/// `SCRAM_RAW_NONCE_LEN` in `src/include/common/scram-common.h`.
pub(crate) const NONCE_LEN: usize = 18;

/// One of the derived keys.
pub(crate) type Key = [u8; KEY_LEN];

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac<'a>(key: &Key, parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    // Of the hash's block size, which is what HMAC makes of a shorter key; so it has no length to refuse.
    let mut block = [0; 64];
    for (padded, byte) in block.iter_mut().zip(key) {
        *padded = *byte;
    }
    let mut hmac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

/// SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

/// The salt that a user gets who does not exist: always the same for one name, and not to be told from a real one without
/// `secret`.
///
/// # Source
/// `scram_mock_salt` in `src/backend/libpq/auth-scram.c`.
pub(crate) fn mock_salt(secret: &Key, user: &str) -> Key {
    hmac(secret, [user.as_bytes()])
}
