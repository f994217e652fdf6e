//! Checksums of files in a backup manifest: which algorithm, computed while bytes pass, written in hexadecimal.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use thiserror::Error;

/// How the files of a base backup are checksummed.
///
/// # Source
/// `pg_checksum_type` in `src/include/common/checksum_helper.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// No checksum; only the size is known.
    None,
    /// CRC-32C, the server's default.
    #[default]
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// The name that `MANIFEST_CHECKSUMS` and the manifest use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Length of the checksum in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Begins a checksum.
    #[must_use]
    pub fn start(self) -> Checksummer {
        match self {
            Self::None => Checksummer::None,
            Self::Crc32c => Checksummer::Crc32c(0),
            Self::Sha224 => Checksummer::Sha224(Sha224::new()),
            Self::Sha256 => Checksummer::Sha256(Sha256::new()),
            Self::Sha384 => Checksummer::Sha384(Sha384::new()),
            Self::Sha512 => Checksummer::Sha512(Sha512::new()),
        }
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no checksum algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no checksum algorithm: use CRC32C, SHA224, SHA256, SHA384, SHA512 or NONE")]
pub struct UnknownAlgorithm(String);

impl FromStr for ChecksumAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            Self::None,
            Self::Crc32c,
            Self::Sha224,
            Self::Sha256,
            Self::Sha384,
            Self::Sha512,
        ]
        .into_iter()
        .find(|algorithm| algorithm.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

/// A finished checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct FileChecksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Its bytes, as the manifest writes them: [`ChecksumAlgorithm::length`] of them.
    pub bytes: Box<[u8]>,
}

impl FileChecksum {
    /// Reads the hexadecimal form; `None` when it is not that or has the wrong length.
    #[must_use]
    pub fn parse(algorithm: ChecksumAlgorithm, hex: &str) -> Option<Self> {
        let bytes = decode_hex(hex.as_bytes())?;
        (bytes.len() == algorithm.length()).then(|| Self {
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
        write!(f, "{} {self}", self.algorithm)
    }
}

/// A checksum in progress.
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
            Self::None => (ChecksumAlgorithm::None, Box::default()),
            Self::Crc32c(crc) => (ChecksumAlgorithm::Crc32c, Box::new(crc.to_le_bytes())),
            Self::Sha224(state) => (
                ChecksumAlgorithm::Sha224,
                state.finalize().as_slice().into(),
            ),
            Self::Sha256(state) => (
                ChecksumAlgorithm::Sha256,
                state.finalize().as_slice().into(),
            ),
            Self::Sha384(state) => (
                ChecksumAlgorithm::Sha384,
                state.finalize().as_slice().into(),
            ),
            Self::Sha512(state) => (
                ChecksumAlgorithm::Sha512,
                state.finalize().as_slice().into(),
            ),
        };
        FileChecksum { algorithm, bytes }
    }
}

/// The bytes that a hexadecimal text stands for; `None` when it has an odd length or another character.
pub(super) fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
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
            let algorithm: ChecksumAlgorithm = name.parse().unwrap();
            for cut in 0..9 {
                let (first, second) = b"123456789".split_at(cut);
                let mut sum = algorithm.start();
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
        for algorithm in [ChecksumAlgorithm::Sha384, ChecksumAlgorithm::Sha512] {
            assert_eq!(algorithm.start().finish().bytes.len(), algorithm.length());
        }
    }

    #[test]
    fn wrong_texts_are_refused() {
        assert!("md5".parse::<ChecksumAlgorithm>().is_err());
        for hex in ["8392", "839206e3ff", "839206g3", "839206e"] {
            assert_eq!(
                FileChecksum::parse(ChecksumAlgorithm::Crc32c, hex),
                None,
                "{hex}"
            );
        }
    }
}
