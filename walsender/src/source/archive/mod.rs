//! Archives: places that hold WAL segments as files.
//!
//! An archive is a directory such as `pg_receivewal`, `archive_command` or our own receiver fills, a `pg_wal`, or a
//! prefix in an object store. It holds segments of one cluster, of any number of timelines, plain or compressed
//! (gzip, LZ4, zstd), complete or `.partial`, and history files. Other files are ignored and counted.
//!
//! ```no_run
//! use std::io::Read;
//! use walsender::source::archive::{Archive, ArchiveOptions, SegmentSource, TimelineChoice};
//!
//! let archive = Archive::open(&"/srv/wal".parse()?, &ArchiveOptions::default())?;
//! let timeline = archive.timeline(TimelineChoice::Newest)?;
//! for number in timeline.numbers() {
//!     let Some(mut segment) = timeline.open(number)? else { continue };
//!     let mut wal = Vec::new();
//!     segment.read_to_end(&mut wal)?;
//!     println!("{}: {} bytes", segment.path(), wal.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Archive::open`] lists the place once and learns the segment size and the system identifier from the first page
//! header that can be read; nobody is asked for them. Each segment that is opened later is held against both, and its
//! first page's address against the file's name. [`Archive::refresh`] lists the place again.
//!
//! A first page that is zero or of older WAL is no error here: in the `pg_wal` of a running server it is how a file looks
//! that is kept for later. The decoder knows it for the end of WAL, and
//! [`EndProbe`](walstream::wal::end::EndProbe) tells that from damage.
//!
//! | module | what |
//! |---|---|
//! | `location`, `file_name` | what users and files are called |
//! | `place`, `directory` | files by name: listed, read |
//! | `catalog`, `choice` | which files there are, and which of several is the segment |
//! | `decompress`, `lz4_frames`, `input` | compressed files |
//! | `open_segment` | the bytes of one segment |
//! | `timeline_view` | the segments along one timeline's history |
//! | `objects` | places in object stores |
//! | `upload` | putting files into an archive |

mod catalog;
mod choice;
mod decompress;
mod directory;
mod error;
mod file_name;
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod location;
mod lz4_frames;
pub(super) mod memory;
#[cfg(feature = "object-store")]
pub mod objects;
mod open_segment;
mod place;
#[cfg(test)]
mod tests;
mod timeline_view;
#[cfg(feature = "object-store")]
mod upload;

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use walstream::timeline::TimelineHistory;
use walstream::wal::page::LongPageHeader;
use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

pub use catalog::{Candidate, Catalog};
pub use error::ArchiveError;
pub use file_name::ArchiveFileName;
pub use location::{ArchiveLocation, LocationError, ObjectStoreKind};
pub use open_segment::OpenSegment;
pub use timeline_view::ArchiveTimeline;
#[cfg(feature = "object-store")]
pub use upload::{Confirmation, Fingerprint, UploadError, UploadOptions, Uploaded, Uploader};

use directory::Directory;
use place::Place;

/// Gives whole segments by number: what a reader of WAL needs of any place that holds WAL.
pub trait SegmentSource: Send + Sync {
    /// The size of its segments.
    fn segment_size(&self) -> SegmentSize;

    /// Opens the segment for reading from its first byte; `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError`] when it is there, but of another cluster or place, damaged or unreadable.
    fn open(&self, number: SegmentNumber) -> Result<Option<OpenSegment>, ArchiveError>;
}

/// What is known of an archive before it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// The cluster's segment size; `None` to learn it from the segments, of which there must be one then.
    pub segment_size: Option<SegmentSize>,
    /// The cluster's system identifier; `None` to learn it from the segments.
    pub system_identifier: Option<SystemIdentifier>,
}

/// Which timeline to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The one with the highest number.
    #[default]
    Newest,
    /// This one.
    Id(TimelineId),
}

/// A place that holds WAL of one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Box<dyn Place>,
    segment_size: SegmentSize,
    /// `None` while no header could be read, and then none is compared.
    system_identifier: Option<SystemIdentifier>,
    /// The header from which both were learnt.
    header: Option<LongPageHeader>,
    /// The file of the header, for messages.
    learnt_from: String,
    catalog: RwLock<Arc<Catalog>>,
}

/// How options are called in messages.
const OPTIONS: &str = "what is expected";

/// A history file is read up to this size in bytes, which is room for 16,000 promotions.
const HISTORY_LIMIT: u64 = 1 << 20;

impl Archive {
    /// Opens an archive and lists it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`] when it cannot be listed; [`ArchiveError::NoSegments`] when the segment size is not given and
    /// there is no segment to learn it from.
    pub fn open(
        location: &ArchiveLocation,
        options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        match location {
            ArchiveLocation::Directory(path) => {
                Self::in_place(Box::new(Directory::new(path.clone())), options)
            }
            ArchiveLocation::Objects { .. } => Self::open_objects(location, options),
        }
    }

    #[cfg(feature = "object-store")]
    fn open_objects(
        location: &ArchiveLocation,
        options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        let prefix = objects::ObjectPrefix::open(location).map_err(|error| ArchiveError::Io {
            operation: "open",
            file: location.to_string(),
            source: Arc::new(std::io::Error::other(error)),
        })?;
        Self::in_store(prefix, objects::RetryPolicy::default(), options)
    }

    #[cfg(not(feature = "object-store"))]
    fn open_objects(
        location: &ArchiveLocation,
        _options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        Err(ArchiveError::Io {
            operation: "open",
            file: location.to_string(),
            source: Arc::new(std::io::Error::other(
                "this program was built without object stores",
            )),
        })
    }

    /// Opens an archive in a store that the caller has opened, and lists it.
    ///
    /// # Errors
    /// As [`Archive::open`].
    #[cfg(feature = "object-store")]
    pub fn in_store(
        prefix: objects::ObjectPrefix,
        policy: objects::RetryPolicy,
        options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        let name = prefix.to_string();
        let place =
            objects::ObjectPlace::new(prefix, policy).map_err(|error| ArchiveError::Io {
                operation: "open",
                file: name,
                source: Arc::new(error),
            })?;
        Self::in_place(Box::new(place), options)
    }

    pub(crate) fn in_place(
        place: Box<dyn Place>,
        options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        let files = place.list()?;
        // Every size's names are among those of the smallest; which file it is does not matter yet.
        let names = Catalog::new(&files, SegmentSize::MIN);
        let found = first_header(place.as_ref(), &names)?;
        let header = found.as_ref().map(|(header, _)| *header);
        let found_size = header.and_then(|header| SegmentSize::new(header.segment_size).ok());
        let Some(segment_size) = options.segment_size.or(found_size) else {
            return Err(ArchiveError::NoSegments {
                place: place.display_place(),
                segments: names.segments().count(),
                foreign: names.foreign(),
            });
        };
        let given = options.segment_size.is_some() || options.system_identifier.is_some();
        Ok(Self(Arc::new(Inner {
            catalog: RwLock::new(Arc::new(Catalog::new(&files, segment_size))),
            segment_size,
            system_identifier: options
                .system_identifier
                .or(header.map(|header| header.system_identifier)),
            header,
            learnt_from: match found {
                Some((_, file)) if !given => file,
                _ => OPTIONS.to_owned(),
            },
            place,
        })))
    }

    /// The size of its segments.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.0.segment_size
    }

    /// The cluster whose WAL it holds; `None` when it was not given and no segment says so.
    #[must_use]
    pub fn system_identifier(&self) -> Option<SystemIdentifier> {
        self.0.system_identifier
    }

    /// The first header that was read when the archive was opened. It tells the [`Dialect`](walstream::Dialect).
    #[must_use]
    pub fn header(&self) -> Option<&LongPageHeader> {
        self.0.header.as_ref()
    }

    /// How the place is called in messages.
    #[must_use]
    pub fn place_name(&self) -> String {
        self.0.place.display_place()
    }

    /// What it held when it was listed last.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        let catalog = self.0.catalog.read();
        Arc::clone(&catalog.unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists it again, for this archive, its clones and views.
    ///
    /// # Errors
    /// [`ArchiveError::Io`] when it cannot be listed.
    pub fn refresh(&self) -> Result<Arc<Catalog>, ArchiveError> {
        let catalog = Arc::new(Catalog::new(&self.0.place.list()?, self.0.segment_size));
        let shared = self.0.catalog.write();
        *shared.unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalog);
        Ok(catalog)
    }

    /// When a file was last added, renamed or removed; `None` where that takes a listing to know.
    pub(crate) fn changed_at(&self) -> Option<SystemTime> {
        self.0.place.changed_at()
    }

    /// The size of a file now; `None` when it is not there or cannot be read.
    pub(crate) fn file_size(&self, name: &str) -> Option<u64> {
        self.0.place.open(name).ok()??.size().ok()
    }

    /// The segments along a timeline's history.
    ///
    /// A timeline without a history file has no ancestors, as for PostgreSQL.
    ///
    /// # Errors
    /// [`ArchiveError::NoTimeline`] when there is none; [`ArchiveError::History`] when its history file is damaged.
    pub fn timeline(&self, choice: TimelineChoice) -> Result<ArchiveTimeline, ArchiveError> {
        let timelines = self.catalog().timelines();
        let newest = timelines.last().copied();
        let timeline = match choice {
            TimelineChoice::Id(timeline) => timeline,
            TimelineChoice::Newest => newest.unwrap_or(TimelineId(1)),
        };
        if !timelines.contains(&timeline) {
            return Err(ArchiveError::NoTimeline {
                place: self.place_name(),
                timeline,
                newest,
            });
        }
        let history = match self.history_content(timeline)? {
            None => TimelineHistory::without_ancestors(timeline),
            Some((file, content)) => TimelineHistory::parse(timeline, &content)
                .map_err(|source| ArchiveError::History { file, source })?,
        };
        Ok(ArchiveTimeline::new(self.clone(), history))
    }

    /// The content of a timeline's history file, decompressed; `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError`] when it cannot be read, or is damaged.
    pub fn history(&self, timeline: TimelineId) -> Result<Option<Vec<u8>>, ArchiveError> {
        Ok(self.history_content(timeline)?.map(|(_, content)| content))
    }

    fn history_content(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<(String, Vec<u8>)>, ArchiveError> {
        let place = self.0.place.as_ref();
        // Not a segment, but a file that is read in the same way.
        let name = SegmentName {
            timeline,
            number: SegmentNumber(0),
        };
        for candidate in self.catalog().history_files(timeline) {
            if let Some(file) = OpenSegment::open(place, candidate, name, SegmentSize::MIN)? {
                let path = file.path().to_owned();
                let mut content = Vec::new();
                file.take(HISTORY_LIMIT)
                    .read_to_end(&mut content)
                    .map_err(|error| ArchiveError::from_read(error, &path))?;
                return Ok(Some((path, content)));
            }
        }
        Ok(None)
    }

    /// Opens a segment of a timeline, out of the best of its files; `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError`] when it is of another cluster or place, damaged or unreadable.
    pub fn open_segment(&self, name: SegmentName) -> Result<Option<OpenSegment>, ArchiveError> {
        let (place, segment_size) = (self.0.place.as_ref(), self.0.segment_size);
        let catalog = self.catalog();
        let candidates = catalog.candidates(name);
        let mut found = choice::choose(place, candidates, name, segment_size)?;
        if found.is_none() && !candidates.is_empty() {
            // Meanwhile the segment was completed, which renames it, or compressed or removed.
            found = choice::choose(place, self.refresh()?.candidates(name), name, segment_size)?;
        }
        found.map(|segment| self.checked(segment)).transpose()
    }

    /// Opens the file of this name, and no other one that may hold the segment; `None` when there is none, or it is no
    /// segment's.
    ///
    /// # Errors
    /// As [`Archive::open_segment`].
    pub fn open_file(&self, name: &str) -> Result<Option<OpenSegment>, ArchiveError> {
        let catalog = self.catalog();
        let found = catalog.segments().find_map(|(segment, candidates)| {
            let candidate = candidates.iter().find(|candidate| candidate.name == name)?;
            Some((segment, candidate))
        });
        let Some((segment, candidate)) = found else {
            return Ok(None);
        };
        OpenSegment::open(
            self.0.place.as_ref(),
            candidate,
            segment,
            self.0.segment_size,
        )?
        .map(|segment| self.checked(segment))
        .transpose()
    }

    /// The segment, when its first page is of this cluster and not of a later place.
    fn checked(&self, mut segment: OpenSegment) -> Result<OpenSegment, ArchiveError> {
        match self.mismatch(&segment) {
            None => Ok(segment),
            // A compressed file's own checksums know better whether it is another cluster's or damaged.
            Some(mismatch) if segment.compression().is_some() => {
                segment.seek_to(u64::MAX)?;
                Err(mismatch)
            }
            Some(mismatch) => Err(mismatch),
        }
    }

    /// What in its first page's header is not this cluster's, or of a later place.
    fn mismatch(&self, segment: &OpenSegment) -> Option<ArchiveError> {
        let header = segment.header()?;
        let (file, other_file) = (segment.path().to_owned(), self.0.learnt_from.clone());
        let found = header.system_identifier;
        if let Some(expected) = self.0.system_identifier.filter(|id| *id != found) {
            return Some(ArchiveError::OtherSystem {
                file,
                found,
                expected,
                other_file,
            });
        }
        let (found, expected) = (header.segment_size, self.0.segment_size.bytes_u32());
        if found != expected {
            return Some(ArchiveError::OtherSegmentSize {
                file,
                found,
                expected,
                other_file,
            });
        }
        let found = header.page.address;
        let expected = segment.number().start_lsn(self.0.segment_size)?;
        (found > expected).then_some(ArchiveError::Misplaced {
            file,
            found,
            expected,
        })
    }
}

/// The first page header of a known version, and its file; newest timeline first, as that is the one in use.
fn first_header(
    place: &dyn Place,
    names: &Catalog,
) -> Result<Option<(LongPageHeader, String)>, ArchiveError> {
    let newest_first = names.segments().rev();
    for (segment, candidate) in
        newest_first.flat_map(|(s, files)| files.iter().map(move |f| (s, f)))
    {
        match OpenSegment::open(place, candidate, segment, SegmentSize::MAX) {
            Ok(Some(opened)) => {
                if let Some(header) = opened.header() {
                    return Ok(Some((*header, opened.path().to_owned())));
                }
            }
            Ok(None) => {}
            // It may be another file's turn to be the good one; this one's error comes when it is opened.
            Err(error) => tracing::debug!(%error, "learning the segment size"),
        }
    }
    Ok(None)
}
