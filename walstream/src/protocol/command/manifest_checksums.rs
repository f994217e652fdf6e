//! [`ManifestChecksums`]: how the files in a backup's manifest are checksummed.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Checksum algorithm of a manifest.
///
/// # Source
/// `pg_checksum_parse_type` in `src/common/checksum_helper.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ManifestChecksums {
    /// No checksums: only sizes are known.
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

impl ManifestChecksums {
    const NAMES: [(Self, &'static str); 6] = [
        (Self::None, "NONE"),
        (Self::Crc32c, "CRC32C"),
        (Self::Sha224, "SHA224"),
        (Self::Sha256, "SHA256"),
        (Self::Sha384, "SHA384"),
        (Self::Sha512, "SHA512"),
    ];

    /// The name, as a manifest has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("NONE", |(_, name)| name)
    }

    /// The algorithm of this name, in small letters or capitals.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(kind, _)| *kind)
    }

    /// Length of a checksum in bytes.
    #[must_use]
    pub const fn checksum_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for ManifestChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no checksum algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no checksum algorithm: use CRC32C, SHA224, SHA256, SHA384, SHA512 or NONE")]
pub struct UnknownChecksums(String);

impl FromStr for ManifestChecksums {
    type Err = UnknownChecksums;

    fn from_str(name: &str) -> Result<Self, UnknownChecksums> {
        Self::from_name(name).ok_or_else(|| UnknownChecksums(name.to_owned()))
    }
}
