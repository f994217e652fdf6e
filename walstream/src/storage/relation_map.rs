//! `pg_filenode.map`: file numbers of the catalogs that must be found before `pg_class` can be read, one map for each database
//! and one in `global` for the shared ones.
//!
//! ```text
//! 0 magic 0x592717   4 number of mappings   8 mappings: catalog OID, file number   then CRC-32C of all before it
//! ```
//!
//! There is room for 62 mappings up to PostgreSQL 15, with 4 bytes of padding behind the CRC: 512 bytes in all; since 16 for 64,
//! without padding: 524. A relation map's record holds the whole file, except that its CRC and padding may be anything.
//!
//! # Source
//! `RelMapFile` in `src/backend/utils/cache/relmapper.c`.

use thiserror::Error;

use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::types::Oid;

/// The file's name in its directory (`RELMAPPER_FILENAME`).
pub const FILE_NAME: &str = "pg_filenode.map";
/// What it is called while it is written, since 16 (`RELMAPPER_TEMP_FILENAME`); before, it is overwritten in place.
pub const TEMPORARY_FILE_NAME: &str = "pg_filenode.map.tmp";
/// `RELMAPPER_FILEMAGIC`.
const MAGIC: u32 = 0x0059_2717;
/// Bytes before the mappings.
const HEADER_LEN: usize = 8;
/// Bytes of a mapping.
const MAPPING_LEN: usize = 8;
/// Most mappings of any version.
const MAX_MAPPINGS: usize = 64;

/// A catalog's file number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RelationMapping {
    /// The catalog (`mapoid`).
    pub catalog: Oid,
    /// Its file number (`mapfilenode`, since 16 `mapfilenumber`).
    pub relation: Oid,
}

/// The content of the file. Order is kept, as it means nothing but is compared byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationMap {
    /// All of them, those in use first.
    mappings: [RelationMapping; MAX_MAPPINGS],
    count: usize,
}

/// A relation map that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RelationMapError {
    /// It ends too early.
    #[error("relation map ends too early: {0}; take it from a backup")]
    Short(#[from] OutOfBytes),
    /// It is no relation map, or a damaged one.
    #[error(
        "relation map begins with {magic:#x} and {count} mappings, expected 0x592717 and 0 to {max}; take it from a backup"
    )]
    Header {
        /// The first number.
        magic: u32,
        /// The number of mappings.
        count: i32,
        /// Most that there is room for.
        max: usize,
    },
    /// Its checksum is wrong.
    #[error(
        "relation map is damaged: it stores CRC {found:08X}, its content has {computed:08X}; take it from a backup"
    )]
    Crc {
        /// The stored CRC-32C.
        found: u32,
        /// The content's CRC-32C.
        computed: u32,
    },
}

impl RelationMap {
    /// Bytes of the file.
    #[must_use]
    pub const fn size(major: PgMajor) -> usize {
        let crc = Self::crc_offset(major);
        match major {
            PgMajor::V12 | PgMajor::V13 | PgMajor::V14 | PgMajor::V15 => crc + 8,
            PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => crc + 4,
        }
    }

    const fn max_mappings(major: PgMajor) -> usize {
        match major {
            PgMajor::V12 | PgMajor::V13 | PgMajor::V14 | PgMajor::V15 => 62,
            PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => MAX_MAPPINGS,
        }
    }

    const fn crc_offset(major: PgMajor) -> usize {
        HEADER_LEN + Self::max_mappings(major) * MAPPING_LEN
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`RelationMapError`].
    ///
    /// # Source
    /// `read_relmap_file` in `src/backend/utils/cache/relmapper.c`.
    pub fn parse(file: &[u8], major: PgMajor) -> Result<Self, RelationMapError> {
        let map = Self::parse_record(file, major)?;
        let mut whole = Reader::new(file);
        let computed = crc32c::crc32c(whole.take(Self::crc_offset(major))?);
        let found = whole.u32_le()?;
        if found != computed {
            return Err(RelationMapError::Crc { found, computed });
        }
        Ok(map)
    }

    /// Reads what a record holds, whose CRC is not looked at.
    ///
    /// # Errors
    /// [`RelationMapError::Short`] and [`RelationMapError::Header`].
    pub fn parse_record(bytes: &[u8], major: PgMajor) -> Result<Self, RelationMapError> {
        let mut reader = Reader::new(bytes);
        let (magic, count) = (reader.u32_le()?, reader.i32_le()?);
        let max = Self::max_mappings(major);
        let in_use = usize::try_from(count).ok().filter(|count| *count <= max);
        let (MAGIC, Some(in_use)) = (magic, in_use) else {
            return Err(RelationMapError::Header { magic, count, max });
        };
        let mut mappings = [RelationMapping::default(); MAX_MAPPINGS];
        for mapping in mappings.iter_mut().take(max) {
            *mapping = RelationMapping {
                catalog: reader.u32_le()?,
                relation: reader.u32_le()?,
            };
        }
        Ok(Self {
            mappings,
            count: in_use,
        })
    }

    /// The file's content.
    ///
    /// # Source
    /// `write_relmap_file` in `src/backend/utils/cache/relmapper.c`.
    #[must_use]
    pub fn encode(&self, major: PgMajor) -> Vec<u8> {
        let mut file = Vec::with_capacity(Self::size(major));
        file.extend(MAGIC.to_le_bytes());
        file.extend(u32::try_from(self.count).unwrap_or(0).to_le_bytes());
        for mapping in self.mappings.iter().take(Self::max_mappings(major)) {
            file.extend(mapping.catalog.to_le_bytes());
            file.extend(mapping.relation.to_le_bytes());
        }
        file.extend(crc32c::crc32c(&file).to_le_bytes());
        file.resize(Self::size(major), 0);
        file
    }

    /// The mappings in use.
    #[must_use]
    pub fn mappings(&self) -> &[RelationMapping] {
        self.mappings.get(..self.count).unwrap_or_default()
    }

    /// The file number of a catalog, if it is mapped.
    #[must_use]
    pub fn relation_of(&self, catalog: Oid) -> Option<Oid> {
        let mut mappings = self.mappings().iter();
        mappings
            .find(|mapping| mapping.catalog == catalog)
            .map(|mapping| mapping.relation)
    }

    /// The catalog that has this file number, if it is mapped.
    #[must_use]
    pub fn catalog_of(&self, relation: Oid) -> Option<Oid> {
        let mut mappings = self.mappings().iter();
        mappings
            .find(|mapping| mapping.relation == relation)
            .map(|mapping| mapping.catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(major: PgMajor) -> Vec<u8> {
        let mut mappings = [RelationMapping::default(); MAX_MAPPINGS];
        mappings[0] = RelationMapping {
            catalog: 1259,
            relation: 16390,
        };
        // Left over from before.
        mappings[1] = RelationMapping {
            catalog: 1,
            relation: 2,
        };
        RelationMap { mappings, count: 1 }.encode(major)
    }

    #[test]
    fn a_map_is_written_and_read_back() {
        for (major, size) in [
            (PgMajor::V12, 512),
            (PgMajor::V15, 512),
            (PgMajor::V16, 524),
            (PgMajor::V18, 524),
        ] {
            let file = file(major);
            assert_eq!(file.len(), size);
            let map = RelationMap::parse(&file, major).unwrap();
            assert_eq!(map.relation_of(1259), Some(16390));
            assert_eq!(map.relation_of(1), None, "not in use");
            assert_eq!(map.catalog_of(16390), Some(1259));
            assert_eq!(map.encode(major), file);
        }
    }

    #[test]
    fn damage_is_found() {
        let good = file(PgMajor::V15);
        for at in 0..508 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(RelationMap::parse(&bad, PgMajor::V15).is_err(), "byte {at}");
        }
        for len in 0..508 {
            assert!(RelationMap::parse(&good[..len], PgMajor::V15).is_err());
        }
        let mut bad = good;
        bad[4] = 63;
        assert_eq!(
            RelationMap::parse_record(&bad, PgMajor::V15),
            Err(RelationMapError::Header {
                magic: MAGIC,
                count: 63,
                max: 62
            })
        );
    }
}
