//! [`ArchiveLocation`]: where an archive is, as a user writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A place that may hold WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveLocation {
    /// A directory of the local file system: a path, or `file:///path`.
    Directory(PathBuf),
    /// A prefix in an object store's bucket or container.
    Objects {
        /// Which kind of store.
        store: ObjectStoreKind,
        /// Bucket or container.
        bucket: String,
        /// What the names begin with, without slashes at either end; empty for the bucket's root.
        prefix: String,
    },
}

/// A kind of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectStoreKind {
    /// `s3://bucket/prefix`.
    S3,
    /// `gs://bucket/prefix`.
    Gcs,
    /// `az://container/prefix`.
    Azure,
}

impl ObjectStoreKind {
    const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    /// The scheme of its URLs.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A text that names no place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LocationError {
    /// Nothing at all.
    #[error(
        "the archive's location is empty: give a directory, or file://, s3://, gs:// or az:// and what follows it"
    )]
    Empty,
    /// A scheme that is not known.
    #[error(
        "\"{text}\": {scheme}:// is not known; give a directory, or file://, s3://, gs:// or az:// and what follows it"
    )]
    Scheme {
        /// The text.
        text: String,
        /// Its scheme.
        scheme: String,
    },
    /// `file://` with a host, or with a relative path.
    #[error("\"{text}\": expected an absolute path after file://, as in file:///srv/wal")]
    FilePath {
        /// The text.
        text: String,
    },
    /// No bucket.
    #[error(
        "\"{text}\": expected a bucket or container after {scheme}://, as in {scheme}://bucket/prefix"
    )]
    Bucket {
        /// The text.
        text: String,
        /// The scheme.
        scheme: &'static str,
    },
    /// A part of the prefix that stores and file systems would take for something else.
    #[error("\"{text}\": a prefix may not have an empty part, \".\" or \"..\" in it, nor ? or #")]
    Prefix {
        /// The text.
        text: String,
    },
}

impl FromStr for ArchiveLocation {
    type Err = LocationError;

    /// A text with `://` after letters is a URL, every other one a path. Nothing is decoded: `%20` is three characters.
    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        let is_scheme = |scheme: &str| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let Some((scheme, rest)) = text.split_once("://").filter(|(s, _)| is_scheme(s)) else {
            return Ok(Self::Directory(text.into()));
        };
        if scheme.eq_ignore_ascii_case("file") {
            // The empty host and this machine are the same.
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            return if path.starts_with('/') {
                Ok(Self::Directory(path.into()))
            } else {
                Err(LocationError::FilePath {
                    text: text.to_owned(),
                })
            };
        }
        let store = ObjectStoreKind::ALL
            .into_iter()
            .find(|store| scheme.eq_ignore_ascii_case(store.scheme()))
            .ok_or_else(|| LocationError::Scheme {
                text: text.to_owned(),
                scheme: scheme.to_owned(),
            })?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
            return Err(LocationError::Bucket {
                text: text.to_owned(),
                scheme: store.scheme(),
            });
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
        if !prefix.is_empty() && (prefix.split('/').any(bad_part) || prefix.contains(['?', '#'])) {
            return Err(LocationError::Prefix {
                text: text.to_owned(),
            });
        }
        Ok(Self::Objects {
            store,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for ArchiveLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Objects {
                store,
                bucket,
                prefix,
            } => {
                write!(f, "{}://{bucket}", store.scheme())?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(store: ObjectStoreKind, bucket: &str, prefix: &str) -> ArchiveLocation {
        ArchiveLocation::Objects {
            store,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn paths_and_urls_are_told_apart() {
        use ObjectStoreKind::{Azure, Gcs, S3};
        let directory = |path: &str| ArchiveLocation::Directory(path.into());
        for (text, location) in [
            ("wal", directory("wal")),
            ("/srv/wal", directory("/srv/wal")),
            ("./s3:/x", directory("./s3:/x")),
            ("a/b://c", directory("a/b://c")),
            ("file:///srv/wal", directory("/srv/wal")),
            ("file://localhost/srv/wal", directory("/srv/wal")),
            ("s3://b", objects(S3, "b", "")),
            ("s3://b/", objects(S3, "b", "")),
            ("S3://b/p/q/", objects(S3, "b", "p/q")),
            ("gs://b/p", objects(Gcs, "b", "p")),
            ("az://c/p", objects(Azure, "c", "p")),
        ] {
            assert_eq!(text.parse(), Ok(location.clone()), "{text}");
            assert_eq!(location.to_string().parse(), Ok(location), "{text}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused() {
        let error = |text: &str| text.parse::<ArchiveLocation>().unwrap_err();
        assert_eq!(error(""), LocationError::Empty);
        assert!(matches!(error("ftp://h/p"), LocationError::Scheme { .. }));
        for text in ["file://", "file://host/p", "file://rel"] {
            assert!(
                matches!(error(text), LocationError::FilePath { .. }),
                "{text}"
            );
        }
        for text in [
            "s3://",
            "s3:///p",
            "gs://u@b/p",
            "az://h:80/p",
            "s3://b?x=1",
        ] {
            assert!(
                matches!(error(text), LocationError::Bucket { .. }),
                "{text}"
            );
        }
        for text in [
            "s3://b//p",
            "s3://b/p//",
            "s3://b/../p",
            "s3://b/./p",
            "s3://b/p?v=1",
        ] {
            assert!(
                matches!(error(text), LocationError::Prefix { .. }),
                "{text}"
            );
        }
    }
}
