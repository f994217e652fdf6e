//! [`CompressionSpec`]: what `COMPRESSION` and `COMPRESSION_DETAIL` ask for, with PostgreSQL's limits and messages.

use walstream::protocol::command::{BackupCompression, CompressionAlgorithm};

use super::error::BackupError;

/// How archives are compressed.
///
/// # Source
/// `pg_compress_specification` in `src/include/common/compression.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompressionSpec {
    pub(crate) algorithm: CompressionAlgorithm,
    pub(crate) level: i32,
    pub(crate) workers: Option<i32>,
}

/// gzip's own default (`Z_DEFAULT_COMPRESSION`).
const GZIP_DEFAULT: i32 = -1;
/// Without a level, LZ4 compresses fast.
const LZ4_DEFAULT: i32 = 0;

impl CompressionSpec {
    pub(crate) const NONE: Self = Self {
        algorithm: CompressionAlgorithm::None,
        level: 0,
        workers: None,
    };

    /// # Source
    /// `parse_compress_specification` and `validate_compress_specification` in `src/common/compression.c`.
    pub(crate) fn parse(compression: &BackupCompression) -> Result<Self, BackupError> {
        let algorithm = compression.algorithm;
        let mut spec = Self {
            algorithm,
            level: Self::limits(algorithm).2,
            workers: None,
        };
        let parsed = compression
            .detail
            .as_deref()
            .map_or(Ok(()), |detail| spec.read(detail));
        parsed
            .and_then(|()| spec.validate())
            .map_err(|reason| BackupError::Compression { reason })?;
        Ok(spec)
    }

    /// Least, most and default level.
    fn limits(algorithm: CompressionAlgorithm) -> (i32, i32, i32) {
        match algorithm {
            CompressionAlgorithm::None => (1, 1, 0),
            CompressionAlgorithm::Gzip => (1, 9, GZIP_DEFAULT),
            CompressionAlgorithm::Lz4 => (1, 12, LZ4_DEFAULT),
            CompressionAlgorithm::Zstd => {
                let levels = zstd::compression_level_range();
                (
                    *levels.start(),
                    *levels.end(),
                    zstd::DEFAULT_COMPRESSION_LEVEL,
                )
            }
        }
    }

    fn read(&mut self, detail: &str) -> Result<(), String> {
        if let Ok(level) = detail.trim_start().parse() {
            self.level = level;
            return Ok(());
        }
        for entry in detail.split(',') {
            let (keyword, value) = match entry.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (entry, None),
            };
            match keyword {
                "" => {
                    return Err(
                        "found empty string where a compression option was expected".to_owned()
                    );
                }
                "level" => self.level = integer(keyword, value)?,
                "workers" => self.workers = Some(integer(keyword, value)?),
                _ => return Err(format!("unrecognized compression option: \"{keyword}\"")),
            }
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        let name = self.algorithm.name();
        let (least, most, default) = Self::limits(self.algorithm);
        if self.algorithm == CompressionAlgorithm::None && self.level != 0 {
            return Err(format!(
                "compression algorithm \"{name}\" does not accept a compression level"
            ));
        }
        if !(least..=most).contains(&self.level) && self.level != default {
            return Err(format!(
                "compression algorithm \"{name}\" expects a compression level between {least} and {most} (default at {default})"
            ));
        }
        if self.workers.is_some() && self.algorithm != CompressionAlgorithm::Zstd {
            return Err(format!(
                "compression algorithm \"{name}\" does not accept a worker count"
            ));
        }
        Ok(())
    }

    /// What an archive's name ends with.
    pub(crate) const fn suffix(&self) -> &'static str {
        match self.algorithm {
            CompressionAlgorithm::None => "",
            CompressionAlgorithm::Gzip => ".gz",
            CompressionAlgorithm::Lz4 => ".lz4",
            CompressionAlgorithm::Zstd => ".zst",
        }
    }
}

fn integer(keyword: &str, value: Option<&str>) -> Result<i32, String> {
    let value =
        value.ok_or_else(|| format!("compression option \"{keyword}\" requires a value"))?;
    let number = value.trim_start().parse();
    number.map_err(|_| format!("value for compression option \"{keyword}\" must be an integer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_read_with_their_limits() {
        use CompressionAlgorithm::{Gzip, Lz4, None as Plain, Zstd};
        for (algorithm, detail, expected) in [
            (Gzip, "", Ok((-1, None))),
            (Gzip, "9", Ok((9, None))),
            (Gzip, "level=1", Ok((1, None))),
            (Lz4, "12", Ok((12, None))),
            (Zstd, "level=-5,workers=2", Ok((-5, Some(2)))),
            (
                Gzip,
                "10",
                Err("compression level between 1 and 9 (default at -1)"),
            ),
            (Gzip, "0", Err("between 1 and 9")),
            (Lz4, "13", Err("between 1 and 12 (default at 0)")),
            (Gzip, "workers=1", Err("does not accept a worker count")),
            (Plain, "1", Err("does not accept a compression level")),
            (Gzip, "level", Err("requires a value")),
            (Gzip, "level=x", Err("must be an integer")),
            (Gzip, "level=", Err("must be an integer")),
            (Gzip, "level=1,", Err("found empty string")),
            (Gzip, "=1", Err("found empty string")),
            (
                Zstd,
                "long",
                Err("unrecognized compression option: \"long\""),
            ),
        ] {
            let detail_option = (!detail.is_empty()).then(|| detail.to_owned());
            let parsed = CompressionSpec::parse(&BackupCompression {
                algorithm,
                detail: detail_option,
            });
            match (parsed, expected) {
                (Ok(spec), Ok(expected)) => {
                    assert_eq!((spec.level, spec.workers), expected, "{detail}");
                }
                (Err(error), Err(text)) => {
                    assert!(error.to_string().contains(text), "{detail}: {error}");
                }
                (parsed, _) => panic!("{algorithm:?} {detail}: {parsed:?}"),
            }
        }
    }
}
