//! [`FileChecksum`]: the checksum of a file in a manifest.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use walstream::protocol::command::ManifestChecksums;

/// A checksum that is taken piece by piece.
///
/// # Source
/// `src/common/checksum_helper.c`.
#[derive(Clone, Debug)]
pub(super) enum FileChecksum {
    None,
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl FileChecksum {
    pub(super) fn new(kind: ManifestChecksums) -> Self {
        match kind {
            ManifestChecksums::None => Self::None,
            ManifestChecksums::Crc32c => Self::Crc32c(0),
            ManifestChecksums::Sha224 => Self::Sha224(Sha224::new()),
            ManifestChecksums::Sha256 => Self::Sha256(Sha256::new()),
            ManifestChecksums::Sha384 => Self::Sha384(Sha384::new()),
            ManifestChecksums::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Sha224(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Name of the algorithm and the checksum's bytes, in a manifest's order; `None` where there is none.
    pub(super) fn finish(self) -> Option<(&'static str, Vec<u8>)> {
        let (kind, bytes) = match self {
            Self::None => return None,
            // As it lies in the server's memory.
            Self::Crc32c(crc) => (ManifestChecksums::Crc32c, crc.to_le_bytes().to_vec()),
            Self::Sha224(hash) => (ManifestChecksums::Sha224, hash.finalize().to_vec()),
            Self::Sha256(hash) => (ManifestChecksums::Sha256, hash.finalize().to_vec()),
            Self::Sha384(hash) => (ManifestChecksums::Sha384, hash.finalize().to_vec()),
            Self::Sha512(hash) => (ManifestChecksums::Sha512, hash.finalize().to_vec()),
        };
        Some((kind.name(), bytes))
    }
}
