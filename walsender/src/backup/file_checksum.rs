//! Checksums of files in a backup manifest: computed while bytes pass, written in hexadecimal.
//!
//! Who makes a manifest and who checks one share this.

use std::fmt;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use walstream::protocol::command::ManifestChecksums;

/// A finished checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct FileChecksum {
    /// How it was computed.
    pub algorithm: ManifestChecksums,
    /// Its bytes, as the manifest writes them: [`ManifestChecksums::checksum_len`] of them.
    pub bytes: Box<[u8]>,
}

impl FileChecksum {
    /// Reads the hexadecimal form; `None` when it is not that or has the wrong length.
    #[must_use]
    pub fn parse(algorithm: ManifestChecksums, hex: &str) -> Option<Self> {
        let bytes = decode_hex(hex.as_bytes())?;
        (bytes.len() == algorithm.checksum_len()).then(|| Self {
            algorithm,
            bytes: bytes.into(),
        })
    }
}

impl fmt::Display for FileChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.algorithm.name())
    }
}

/// A checksum in progress.
///
/// # Source
/// `src/common/checksum_helper.c`.
#[derive(Clone)]
pub enum Checksummer {
    /// Nothing is computed.
    None,
    /// CRC-32C so far.
    Crc32c(u32),
    /// SHA-224 so far.
    Sha224(Sha224),
    /// SHA-256 so far.
    Sha256(Sha256),
    /// SHA-384 so far.
    Sha384(Sha384),
    /// SHA-512 so far.
    Sha512(Sha512),
}

impl Checksummer {
    /// Begins a checksum.
    #[must_use]
    pub fn new(algorithm: ManifestChecksums) -> Self {
        match algorithm {
            ManifestChecksums::None => Self::None,
            ManifestChecksums::Crc32c => Self::Crc32c(0),
            ManifestChecksums::Sha224 => Self::Sha224(Sha224::new()),
            ManifestChecksums::Sha256 => Self::Sha256(Sha256::new()),
            ManifestChecksums::Sha384 => Self::Sha384(Sha384::new()),
            ManifestChecksums::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Sha224(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha384(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// The checksum of all bytes added. A CRC is in the byte order of the server's machine, which is little-endian.
    #[must_use]
    pub fn finish(self) -> FileChecksum {
        let (algorithm, bytes): (_, Box<[u8]>) = match self {
            Self::None => (ManifestChecksums::None, Box::default()),
            Self::Crc32c(crc) => (ManifestChecksums::Crc32c, Box::new(crc.to_le_bytes())),
            Self::Sha224(state) => (
                ManifestChecksums::Sha224,
                state.finalize().as_slice().into(),
            ),
            Self::Sha256(state) => (
                ManifestChecksums::Sha256,
                state.finalize().as_slice().into(),
            ),
            Self::Sha384(state) => (
                ManifestChecksums::Sha384,
                state.finalize().as_slice().into(),
            ),
            Self::Sha512(state) => (
                ManifestChecksums::Sha512,
                state.finalize().as_slice().into(),
            ),
        };
        FileChecksum { algorithm, bytes }
    }
}

/// The bytes that a hexadecimal text stands for; `None` when it has an odd length or another character.
#[must_use]
pub fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_whatever_the_pieces() {
        // CRC-32C of "123456789" is 0xE3069283; the manifest has it in little-endian byte order.
        for (name, hex) in [
            ("none", ""),
            ("crc32c", "839206e3"),
            (
                "sha224",
                "9b3e61bf29f17c75572fae2e86e17809a4513d07c8a18152acf34521",
            ),
            (
                "Sha256",
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
        ] {
            let algorithm = ManifestChecksums::from_name(name).unwrap();
            for cut in 0..9 {
                let (first, second) = b"123456789".split_at(cut);
                let mut sum = Checksummer::new(algorithm);
                sum.update(first);
                sum.update(second);
                let sum = sum.finish();
                assert_eq!(sum.to_string(), hex);
                assert_eq!(
                    FileChecksum::parse(algorithm, &hex.to_uppercase()),
                    Some(sum)
                );
            }
        }
        for algorithm in [ManifestChecksums::Sha384, ManifestChecksums::Sha512] {
            assert_eq!(
                Checksummer::new(algorithm).finish().bytes.len(),
                algorithm.checksum_len()
            );
        }
    }

    #[test]
    fn wrong_texts_are_refused() {
        assert_eq!(ManifestChecksums::from_name("md5"), None);
        for hex in ["8392", "839206e3ff", "839206g3", "839206e"] {
            assert_eq!(
                FileChecksum::parse(ManifestChecksums::Crc32c, hex),
                None,
                "{hex}"
            );
        }
    }
}
