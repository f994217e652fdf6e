//! [`Catalog`]: what an archive holds, by timeline and segment.

use std::collections::BTreeMap;

use walstream::wal::segment_name::{Compression, SegmentName, WalFileName};
use walstream::{SegmentSize, TimelineId};

use super::file_name::ArchiveFileName;
use super::place::ListedFile;

/// A file that may hold a segment, or a timeline's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file's name within the archive.
    pub name: String,
    /// Its size in bytes when it was listed.
    pub size: u64,
    /// Whether its name says that the segment may not be complete.
    pub partial: bool,
    /// How it is compressed.
    pub compression: Option<Compression>,
}

/// The files of an archive, as they were when it was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    segments: BTreeMap<SegmentName, Vec<Candidate>>,
    histories: BTreeMap<TimelineId, Vec<Candidate>>,
    foreign: usize,
    other_size: usize,
}

impl Catalog {
    /// Sorts files by their names.
    pub(crate) fn new(files: &[ListedFile], segment_size: SegmentSize) -> Self {
        let mut catalog = Self::default();
        for file in files {
            let Some(ArchiveFileName { kind, compression }) =
                ArchiveFileName::parse(&file.name, segment_size)
            else {
                // Every segment size's names are among those of the smallest.
                if ArchiveFileName::parse(&file.name, SegmentSize::MIN).is_some() {
                    catalog.other_size += 1;
                } else {
                    catalog.foreign += 1;
                }
                continue;
            };
            let candidate = |partial| Candidate {
                name: file.name.clone(),
                size: file.size,
                partial,
                compression,
            };
            match kind {
                WalFileName::Segment(segment) => {
                    let candidates = catalog.segments.entry(segment).or_default();
                    candidates.push(candidate(false));
                }
                WalFileName::Partial(segment) => {
                    let candidates = catalog.segments.entry(segment).or_default();
                    candidates.push(candidate(true));
                }
                WalFileName::History(timeline) => {
                    let candidates = catalog.histories.entry(timeline).or_default();
                    candidates.push(candidate(false));
                }
                WalFileName::BackupHistory { .. } => {}
            }
        }
        for candidates in catalog
            .segments
            .values_mut()
            .chain(catalog.histories.values_mut())
        {
            candidates.sort_by(|a, b| {
                let rank = |c: &Candidate| (c.partial, c.compression.is_some());
                rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
            });
        }
        catalog
    }

    /// Every segment with the files that may hold it, by timeline and position; complete and plain ones first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = (SegmentName, &[Candidate])> {
        self.segments
            .iter()
            .map(|(segment, candidates)| (*segment, candidates.as_slice()))
    }

    /// The files that may hold this segment; complete and plain ones first.
    #[must_use]
    pub fn candidates(&self, segment: SegmentName) -> &[Candidate] {
        self.segments.get(&segment).map_or(&[], Vec::as_slice)
    }

    /// The history files of this timeline; plain ones first.
    #[must_use]
    pub fn history_files(&self, timeline: TimelineId) -> &[Candidate] {
        self.histories.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Every timeline of which there is a history file or a segment, ascending.
    #[must_use]
    pub fn timelines(&self) -> Vec<TimelineId> {
        let mut timelines: Vec<_> = self.histories.keys().copied().collect();
        timelines.extend(self.segments.keys().map(|segment| segment.timeline));
        timelines.sort_unstable();
        timelines.dedup();
        timelines
    }

    /// Number of files that have no name of WAL.
    #[must_use]
    pub const fn foreign(&self) -> usize {
        self.foreign
    }

    /// Number of files whose name is that of a segment, but of a cluster with smaller segments.
    #[must_use]
    pub const fn other_size(&self) -> usize {
        self.other_size
    }
}
