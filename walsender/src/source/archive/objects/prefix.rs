//! [`ObjectPrefix`]: a place in an object store.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, RetryConfig};
use thiserror::Error;

use crate::source::archive::location::{ArchiveLocation, ObjectStoreKind};

/// A prefix of names in an object store's bucket, or a directory. Cheap to clone.
#[derive(Clone)]
pub struct ObjectPrefix {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    name: Arc<str>,
}

/// A store that cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// A setting is missing or wrong.
    #[error("{location} cannot be used: {source}; check the {variables} environment variables")]
    Config {
        /// The place.
        location: String,
        /// The variables that configure such a store.
        variables: &'static str,
        /// What the store's client says.
        source: object_store::Error,
    },
    /// A directory that is to be written to is not there.
    #[error("{} cannot be used as an archive: {source}; create it first", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system or the store's client says.
        source: object_store::Error,
    },
}

/// The client's own repetitions of a request: few and fast, since [`RetryPolicy`](super::RetryPolicy) is around them.
fn client_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
        ..RetryConfig::default()
    }
}

impl ObjectPrefix {
    /// The place, configured from the environment. Nothing is sent to the store yet.
    ///
    /// A directory is written to durably: files and directories are synced.
    ///
    /// # Errors
    /// [`OpenStoreError`] when a setting is missing or wrong, or a directory is not there.
    pub fn open(location: &ArchiveLocation) -> Result<Self, OpenStoreError> {
        let (store, bucket, prefix) = match location {
            ArchiveLocation::Directory(path) => {
                let store = LocalFileSystem::new_with_prefix(path).map_err(|source| {
                    OpenStoreError::Directory {
                        path: path.clone(),
                        source,
                    }
                })?;
                return Ok(Self::new(
                    Arc::new(store.with_fsync(true)),
                    ObjectPath::default(),
                    location.to_string(),
                ));
            }
            ArchiveLocation::Objects {
                store,
                bucket,
                prefix,
            } => (*store, bucket, prefix),
        };
        // The HTTP client takes the process's cryptography. Another choice that was made before stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (opened, variables) = match store {
            ObjectStoreKind::S3 => (s3(bucket), "AWS_*"),
            ObjectStoreKind::Gcs => (gcs(bucket), "GOOGLE_*"),
            ObjectStoreKind::Azure => (azure(bucket), "AZURE_*"),
        };
        let failed = |source| OpenStoreError::Config {
            location: location.to_string(),
            variables,
            source,
        };
        let prefix = ObjectPath::parse(prefix).map_err(|error| failed(error.into()))?;
        Ok(Self::new(
            opened.map_err(failed)?,
            prefix,
            location.to_string(),
        ))
    }

    /// A place in a store that the caller has opened. `name` is how messages call it.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: ObjectPath, name: impl Into<Arc<str>>) -> Self {
        Self {
            store,
            prefix,
            name: name.into(),
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The prefix, `None` for the whole store.
    pub(crate) fn prefix(&self) -> Option<&ObjectPath> {
        (!self.prefix.as_ref().is_empty()).then_some(&self.prefix)
    }

    /// Path of an object with this name, in the store.
    pub(crate) fn path(&self, name: &str) -> ObjectPath {
        self.prefix.clone().join(name)
    }

    /// How messages call an object with this name.
    pub(crate) fn display(&self, name: &str) -> String {
        format!("{}/{name}", self.name.trim_end_matches('/'))
    }
}

impl fmt::Display for ObjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for ObjectPrefix {
    /// Without the store, whose settings may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectPrefix").field(&self.name).finish()
    }
}

type Opened = object_store::Result<Arc<dyn ObjectStore>>;

fn s3(bucket: &str) -> Opened {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(client_retries());
    // The server compares what it received with a checksum of what was sent.
    if builder
        .get_config_value(&AmazonS3ConfigKey::Checksum)
        .is_none()
    {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    Ok(Arc::new(builder.build()?))
}

fn gcs(bucket: &str) -> Opened {
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(client_retries());
    Ok(Arc::new(builder.build()?))
}

fn azure(container: &str) -> Opened {
    let builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_retry(client_retries());
    Ok(Arc::new(builder.build()?))
}
