//! Object stores: `s3://`, `gs://` and `az://`, and directories as the same thing.
//!
//! Credentials, regions and endpoints come from the variables that each store's own tools read: `AWS_*` (among them
//! `AWS_ENDPOINT_URL` and `AWS_ALLOW_HTTP` for other servers than Amazon's), `GOOGLE_*`, `AZURE_*`.
//!
//! [`ObjectPrefix`] is a place in a store. [`Archive`](super::Archive) reads it, [`Uploader`](super::Uploader) writes to it.
//!
//! # Source
//! The variables are listed in the crate `object_store`: `AmazonS3ConfigKey`, `GoogleConfigKey`, `AzureConfigKey`.

mod blocking;
mod object_place;
mod prefix;
mod retry;

pub use prefix::{ObjectPrefix, OpenStoreError};
pub use retry::RetryPolicy;

pub(crate) use object_place::ObjectPlace;
pub(crate) use retry::{Attempt, StoreFault};
