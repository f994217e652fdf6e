//! [`Compression`]: what `--compress` asks for.

use std::ops::RangeInclusive;

use thiserror::Error;
use walstream::wal::segment_name::Compression as Method;

use super::c_number::decimal;

/// How archived segments are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `.gz`; level 1 to 9, or zlib's default.
    Gzip(Option<u32>),
    /// `.lz4`; 0 is fast, 1 to 12.
    Lz4(u32),
    /// `.zst`; -131072 to 22.
    Zstd(i32),
}

impl Compression {
    /// Ending of a compressed file's name; empty without compression.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip(_) => Method::Gzip.suffix(),
            Self::Lz4(_) => Method::Lz4.suffix(),
            Self::Zstd(_) => Method::Zstd.suffix(),
        }
    }

    /// Reads the option's value: a level, a method, or `METHOD:DETAIL`.
    ///
    /// # Errors
    /// [`CompressionError`], with the texts of `pg_receivewal`.
    ///
    /// # Source
    /// `parse_compress_options` in `src/bin/pg_basebackup/pg_receivewal.c`.
    pub fn parse(text: &str) -> Result<Self, CompressionError> {
        let (level, rest) = decimal(text);
        let (method, detail) = match text.split_once(':') {
            _ if rest.is_empty() && level == 0 => ("none", None),
            _ if rest.is_empty() => ("gzip", Some(text)),
            Some((method, detail)) => (method, Some(detail)),
            None => (text, None),
        };
        let method = Kind::named(method).ok_or_else(|| CompressionError::Unknown {
            name: method.to_owned(),
        })?;
        let detail = Detail::parse(method, detail)?;
        detail.validate(method)
    }
}

/// Why a compression cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompressionError {
    /// No such method.
    #[error("unrecognized compression algorithm: \"{name}\"")]
    Unknown {
        /// As given.
        name: String,
    },
    /// A detail that the method does not take.
    #[error("invalid compression specification: {0}")]
    Detail(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    const fn default_level(self) -> i64 {
        match self {
            Self::None | Self::Lz4 => 0,
            Self::Gzip => -1,
            Self::Zstd => 3,
        }
    }

    fn levels(self) -> RangeInclusive<i64> {
        match self {
            Self::None => 0..=0,
            Self::Gzip => 1..=9,
            Self::Lz4 => 1..=12,
            Self::Zstd => -131_072..=22,
        }
    }
}

/// What stands behind the method.
///
/// # Source
/// `pg_compress_specification` in `src/include/common/compression.h`.
struct Detail {
    level: i64,
    has_workers: bool,
}

impl Detail {
    /// # Source
    /// `parse_compress_specification` in `src/common/compression.c`.
    fn parse(kind: Kind, text: Option<&str>) -> Result<Self, CompressionError> {
        let mut detail = Self {
            level: kind.default_level(),
            has_workers: false,
        };
        let Some(text) = text else {
            return Ok(detail);
        };
        let (level, rest) = decimal(text);
        if rest.is_empty() && !text.is_empty() {
            detail.level = level;
            return Ok(detail);
        }
        for entry in text.split(',') {
            let (keyword, value) = match entry.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (entry, None),
            };
            match keyword {
                "" => {
                    return Err(CompressionError::Detail(
                        "found empty string where a compression option was expected".to_owned(),
                    ));
                }
                "level" => detail.level = integer(keyword, value)?,
                "workers" => {
                    integer(keyword, value)?;
                    detail.has_workers = true;
                }
                other => {
                    return Err(CompressionError::Detail(format!(
                        "unrecognized compression option: \"{other}\""
                    )));
                }
            }
        }
        Ok(detail)
    }

    /// # Source
    /// `validate_compress_specification` in `src/common/compression.c`.
    fn validate(&self, kind: Kind) -> Result<Compression, CompressionError> {
        let name = kind.name();
        if kind == Kind::None && self.level != 0 {
            return Err(CompressionError::Detail(format!(
                "compression algorithm \"{name}\" does not accept a compression level"
            )));
        }
        let (levels, default) = (kind.levels(), kind.default_level());
        if !levels.contains(&self.level) && self.level != default {
            return Err(CompressionError::Detail(format!(
                "compression algorithm \"{name}\" expects a compression level between {} and {} (default at {default})",
                levels.start(),
                levels.end()
            )));
        }
        if self.has_workers && kind != Kind::Zstd {
            return Err(CompressionError::Detail(format!(
                "compression algorithm \"{name}\" does not accept a worker count"
            )));
        }
        let unsigned = u32::try_from(self.level);
        Ok(match kind {
            Kind::None => Compression::None,
            Kind::Gzip => Compression::Gzip(unsigned.ok()),
            Kind::Lz4 => Compression::Lz4(unsigned.unwrap_or_default()),
            Kind::Zstd => Compression::Zstd(i32::try_from(self.level).unwrap_or_default()),
        })
    }
}

/// # Source
/// `expect_integer_value` in `src/common/compression.c`.
fn integer(keyword: &str, value: Option<&str>) -> Result<i64, CompressionError> {
    let Some(value) = value else {
        return Err(CompressionError::Detail(format!(
            "compression option \"{keyword}\" requires a value"
        )));
    };
    let (number, rest) = decimal(value);
    if value.is_empty() || !rest.is_empty() {
        return Err(CompressionError::Detail(format!(
            "value for compression option \"{keyword}\" must be an integer"
        )));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_understood() {
        for (text, expected) in [
            ("0", Compression::None),
            ("none", Compression::None),
            ("none:0", Compression::None),
            ("5", Compression::Gzip(Some(5))),
            ("gzip", Compression::Gzip(None)),
            ("gzip:-1", Compression::Gzip(None)),
            ("gzip:level=9", Compression::Gzip(Some(9))),
            ("lz4", Compression::Lz4(0)),
            ("lz4:12", Compression::Lz4(12)),
            ("zstd", Compression::Zstd(3)),
            ("zstd:level=-5,workers=2", Compression::Zstd(-5)),
        ] {
            assert_eq!(Compression::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "10",
            "gzip:0",
            "lz4:13",
            "zstd:23",
            "none:1",
            "gzip:workers=1",
            "gzip:",
            "x",
            "gzip:level",
        ] {
            assert!(Compression::parse(text).is_err(), "{text}");
        }
    }
}
