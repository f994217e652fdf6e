//! [`WalInput`]: the segments that the command line names.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use walsender::source::archive::{
    Archive, ArchiveError, ArchiveFileName, ArchiveLocation, ArchiveOptions, ArchiveTimeline,
    OpenSegment, SegmentSource as _, TimelineChoice,
};
use walstream::wal::segment_name::{SegmentName, WalFileName};
use walstream::{Dialect, Lsn, PageSize, SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

use super::waldump_error::WaldumpError;
use crate::wal_reader::{Segment, SegmentSource};

/// What the command line says about where WAL is.
#[derive(Clone, Debug, Default)]
pub struct InputRequest {
    /// `--path`.
    pub path: Option<String>,
    /// STARTSEG: a segment's file, or a directory or URL.
    pub first: Option<String>,
    /// ENDSEG.
    pub last: Option<String>,
    /// `--timeline`.
    pub timeline: Option<TimelineId>,
}

/// Segments of one timeline and its ancestors.
#[derive(Debug)]
pub struct WalInput {
    archive: Archive,
    choice: TimelineChoice,
    timeline: RwLock<ArchiveTimeline>,
    /// Files that were named themselves, which may be others than the archive would choose.
    named: Vec<(SegmentNumber, String)>,
    range: Option<(SegmentNumber, SegmentNumber)>,
}

impl WalInput {
    /// Finds the WAL.
    ///
    /// # Errors
    /// [`WaldumpError`] when there is none, or files are named that cannot be.
    ///
    /// # Source
    /// `identify_target_directory` and `main` in `src/bin/pg_waldump/pg_waldump.c`.
    pub fn open(request: &InputRequest) -> Result<Self, WaldumpError> {
        let (place, first) = match &request.first {
            Some(first) if is_place(first) => (Some(first.clone()), None),
            Some(first) => {
                let (directory, file) = split(first);
                (directory.map(str::to_owned), Some(file.to_owned()))
            }
            None => (None, None),
        };
        let place = request.path.clone().or(place);
        let archive = find_archive(place.as_deref(), first.as_deref())?;
        let size = archive.segment_size();
        let mut named = Vec::new();
        let mut timeline = None;
        let last = request.last.as_deref().map(|last| split(last).1);
        for file in first.as_deref().into_iter().chain(last) {
            let segment = segment_of(file, size)?;
            if archive.open_file(file)?.is_none() {
                return Err(WaldumpError::NoFile {
                    name: file.to_owned(),
                    place: archive.place_name(),
                });
            }
            timeline = Some(segment.timeline);
            named.push((segment.number, file.to_owned()));
        }
        let range = match (named.first(), named.last()) {
            (Some((first, _)), Some((last, _))) if last < first => {
                return Err(WaldumpError::Usage(format!(
                    "ENDSEG {} is before STARTSEG {}",
                    request.last.as_deref().unwrap_or_default(),
                    request.first.as_deref().unwrap_or_default()
                )));
            }
            (Some((first, _)), Some((last, _))) => Some((*first, *last)),
            _ => None,
        };
        let choice = request
            .timeline
            .filter(|_| named.is_empty())
            .or(timeline)
            .map_or(TimelineChoice::Newest, TimelineChoice::Id);
        let timeline = RwLock::new(archive.timeline(choice)?);
        Ok(Self {
            archive,
            choice,
            timeline,
            named,
            range,
        })
    }

    /// First and last segment that were named.
    #[must_use]
    pub const fn range(&self) -> Option<(SegmentNumber, SegmentNumber)> {
        self.range
    }

    /// Where the first segment that is there begins.
    #[must_use]
    pub fn first_lsn(&self) -> Option<Lsn> {
        let first = self.view().numbers().first().copied()?;
        first.start_lsn(self.archive.segment_size())
    }

    /// Format of the WAL, as its first page says.
    ///
    /// # Errors
    /// [`WaldumpError::UnknownFormat`] when no page could be read.
    pub fn dialect(&self) -> Result<Dialect, WaldumpError> {
        let unknown = || WaldumpError::UnknownFormat {
            place: self.archive.place_name(),
        };
        let header = self.archive.header().ok_or_else(unknown)?;
        header.dialect(PageSize::DEFAULT).map_err(|_| unknown())
    }

    /// The cluster.
    #[must_use]
    pub fn system_identifier(&self) -> Option<SystemIdentifier> {
        self.archive.system_identifier()
    }

    /// Whether a part of a segment can be read without what lies before it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let catalog = self.archive.catalog();
        catalog
            .segments()
            .all(|(_, files)| files.first().is_none_or(|file| file.compression.is_none()))
    }

    /// Looks again which files there are, and which timeline is the newest.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn refresh(&self) -> Result<(), ArchiveError> {
        self.archive.refresh()?;
        let view = self.archive.timeline(self.choice)?;
        *self
            .timeline
            .write()
            .unwrap_or_else(PoisonError::into_inner) = view;
        Ok(())
    }

    /// The segments along the timeline's history, as they were found last.
    #[must_use]
    pub fn view(&self) -> ArchiveTimeline {
        let view = self.timeline.read();
        view.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A segment of the input.
#[derive(Debug)]
pub struct InputSegment {
    segment: OpenSegment,
    /// Its timeline goes no further than this segment.
    was_left: bool,
}

impl SegmentSource for WalInput {
    type Segment = InputSegment;

    fn segment_size(&self) -> SegmentSize {
        self.archive.segment_size()
    }

    fn open(&self, number: SegmentNumber) -> Result<Option<InputSegment>, ArchiveError> {
        let named = self.named.iter().find(|(named, _)| *named == number);
        let view = self.view();
        let segment = match named {
            Some((_, file)) => self.archive.open_file(file)?,
            None => view.open(number)?,
        };
        Ok(segment.map(|segment| InputSegment {
            was_left: segment.timeline() != view.history().timeline(),
            segment,
        }))
    }

    fn next_after(&self, number: SegmentNumber) -> Option<SegmentNumber> {
        self.view()
            .numbers()
            .into_iter()
            .find(|next| *next > number)
    }
}

impl Segment for InputSegment {
    fn name(&self) -> &str {
        self.segment.path()
    }

    fn is_partial(&self) -> bool {
        self.was_left || self.segment.is_partial()
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError> {
        self.segment.seek_to(offset)
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        self.segment.read_full(buffer)
    }
}

/// Whether a text names a place rather than a file of one.
fn is_place(text: &str) -> bool {
    match text.parse() {
        Ok(ArchiveLocation::Directory(path)) => path.is_dir(),
        // The last part of a URL decides, as a store has no directories.
        Ok(ArchiveLocation::Objects { .. }) => {
            ArchiveFileName::parse(split(text).1, SegmentSize::MIN).is_none()
        }
        Err(_) => false,
    }
}

/// A path's or URL's directory and file.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('/') {
        Some(("", file)) => (Some("/"), file),
        Some((directory, file)) => (Some(directory), file),
        None => (None, text),
    }
}

fn segment_of(file: &str, size: SegmentSize) -> Result<SegmentName, WaldumpError> {
    match ArchiveFileName::parse(file, size).map(|name| name.kind) {
        Some(WalFileName::Segment(segment) | WalFileName::Partial(segment)) => Ok(segment),
        _ => Err(WaldumpError::NotSegment {
            name: file.to_owned(),
            segment_size: size.bytes(),
        }),
    }
}

/// Opens the place that holds the file, or any WAL when no file is named.
fn find_archive(place: Option<&str>, file: Option<&str>) -> Result<Archive, WaldumpError> {
    let candidates: Vec<ArchiveLocation> = match place {
        Some(place) => match place.parse()? {
            ArchiveLocation::Directory(path) => {
                if !path.is_dir() {
                    return Err(WaldumpError::NoDirectory { path });
                }
                [path.clone(), path.join("pg_wal")]
                    .map(ArchiveLocation::Directory)
                    .into()
            }
            url => vec![url],
        },
        None => {
            let data = std::env::var_os("PGDATA").map(|data| Path::new(&data).join("pg_wal"));
            [
                Some(PathBuf::from(".")),
                Some(PathBuf::from("pg_wal")),
                data,
            ]
            .into_iter()
            .flatten()
            .map(ArchiveLocation::Directory)
            .collect()
        }
    };
    let mut refusal = None;
    for location in candidates {
        if matches!(&location, ArchiveLocation::Directory(path) if !path.is_dir()) {
            continue;
        }
        match Archive::open(&location, &ArchiveOptions::default()) {
            Ok(archive) if file.is_none_or(|file| has_file(&archive, file)) => return Ok(archive),
            Ok(_) => {}
            // Of several places without WAL, the one that looks as if it had some is meant.
            Err(error) => {
                let is_empty = matches!(error, ArchiveError::NoSegments { segments: 0, .. });
                if refusal.is_none() || !is_empty {
                    refusal = Some(error);
                }
            }
        }
    }
    let is_empty = matches!(
        refusal,
        None | Some(ArchiveError::NoSegments { segments: 0, .. })
    );
    Err(match (file, refusal) {
        (Some(file), _) if is_empty => WaldumpError::NoFile {
            name: file.to_owned(),
            place: place.unwrap_or(".").to_owned(),
        },
        (None, _) if is_empty && place.is_none() => WaldumpError::NoWal,
        (_, Some(error)) => error.into(),
        (_, None) => WaldumpError::NoWal,
    })
}

fn has_file(archive: &Archive, file: &str) -> bool {
    let catalog = archive.catalog();
    catalog
        .segments()
        .any(|(_, files)| files.iter().any(|candidate| candidate.name == file))
}
