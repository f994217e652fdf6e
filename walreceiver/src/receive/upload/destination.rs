//! [`Destination`]: the place that `--to` names, and what it holds at the start.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::task::spawn_blocking;
use walsender::source::archive::objects::ObjectPrefix;
use walsender::source::archive::{
    Archive as StoredArchive, ArchiveError, ArchiveLocation, ArchiveOptions, Candidate,
};
use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

use super::upload_error::UploadsError;
use crate::receive::messages::Messages;

/// The place that `--to` names.
#[derive(Clone, Debug)]
pub struct Destination {
    location: ArchiveLocation,
    prefix: ObjectPrefix,
}

/// What the place holds of what a start needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredContent {
    /// The highest complete segment.
    pub newest: Option<SegmentName>,
    /// The system whose WAL it is; `None` when no segment says so.
    pub system: Option<SystemIdentifier>,
    /// The history files' content.
    pub histories: BTreeMap<TimelineId, Vec<u8>>,
}

impl Destination {
    /// The place; `directory` is that of `-D`. Nothing is sent to a store yet.
    ///
    /// # Errors
    /// [`UploadsError::Open`] and [`UploadsError::SamePlace`].
    pub fn open(location: &ArchiveLocation, directory: &Path) -> Result<Self, UploadsError> {
        let prefix = ObjectPrefix::open(location)?;
        if let ArchiveLocation::Directory(place) = location
            && is_same_directory(place, directory)
        {
            return Err(UploadsError::SamePlace {
                directory: directory.to_owned(),
            });
        }
        Ok(Self {
            location: location.clone(),
            prefix,
        })
    }

    /// The place, to be written to.
    #[must_use]
    pub const fn prefix(&self) -> &ObjectPrefix {
        &self.prefix
    }

    /// Looks at what is there. Requests are repeated for a while where that can help.
    ///
    /// # Errors
    /// [`UploadsError::List`].
    pub async fn content(
        &self,
        segment_size: SegmentSize,
        messages: &Messages,
    ) -> Result<StoredContent, UploadsError> {
        let (location, messages) = (self.location.clone(), messages.clone());
        let read = spawn_blocking(move || read_content(&location, segment_size, &messages));
        let content = match read.await {
            Ok(result) => result,
            Err(error) => Err(ArchiveError::Io {
                operation: "list",
                file: self.location.to_string(),
                source: std::sync::Arc::new(std::io::Error::other(error)),
            }),
        };
        content.map_err(|source| UploadsError::List {
            place: self.location.to_string(),
            source,
        })
    }
}

fn read_content(
    location: &ArchiveLocation,
    segment_size: SegmentSize,
    messages: &Messages,
) -> Result<StoredContent, ArchiveError> {
    let options = ArchiveOptions {
        segment_size: Some(segment_size),
        system_identifier: None,
    };
    let archive = StoredArchive::open(location, &options)?;
    let catalog = archive.catalog();
    let is_whole = |file: &Candidate| {
        let whole = file.compression.is_some() || file.size == segment_size.bytes();
        if !whole && !file.partial {
            messages.warning(&format!(
                "segment file \"{}\" in {location} has incorrect size {}, skipping",
                file.name, file.size
            ));
        }
        whole && !file.partial
    };
    let newest = catalog
        .segments()
        .filter(|(segment, files)| segment.number > SegmentNumber(0) && files.iter().any(is_whole))
        .map(|(segment, _)| segment)
        .max_by_key(|segment| (segment.number, segment.timeline));
    let mut histories = BTreeMap::new();
    for timeline in catalog.timelines() {
        if let Some(content) = archive.history(timeline)? {
            histories.insert(timeline, content);
        }
    }
    Ok(StoredContent {
        newest,
        system: archive.system_identifier(),
        histories,
    })
}

/// Whether both are one directory, whatever links and mounts lead there.
fn is_same_directory(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|found| Some(found) == identity(other))
}
