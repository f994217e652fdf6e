//! Multixacts whose pages of offsets are made in either order: by servers before the fix of early 2026, which make the next page when its
//! first multixact is assigned, and by those after it, which make it when the one before is recorded. WAL does not say which it is.

use std::path::Path;

use walstream::read::Reader;
use walstream::redo::List;
use walstream::storage::slru::Slru;
use walstream::{Dialect, Lsn, PgMajor, TimelineId};

use super::control::{Control, ReplayPosition};
use super::crash_scene::{DATA, Scene};
use super::slru_files::SlruFiles;
use crate::wal_sink::faulty_storage::FaultyStorage;

/// Multixacts of a page of offsets.
const ON_PAGE: u32 = 2048;
const AT: ReplayPosition = ReplayPosition {
    lsn: Lsn(0x0100_0000),
    timeline: TimelineId(1),
};

/// What a record says.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// An offsets page is made.
    Page(u64),
    /// A multixact with two members begins at this offset.
    Multi(u32, u32),
    /// Replay was interrupted here, and goes on with what is in files.
    Restart,
}

/// The offsets of these multixacts after the records, replayed onto a backup.
fn replayed(backup: &FaultyStorage, major: PgMajor, told: &[Told], multis: &[u32]) -> Vec<u32> {
    let storage = backup.snapshot();
    let dialect = Dialect::with_default_sizes(major);
    let new = || SlruFiles::new(storage.clone(), DATA.into(), &dialect);
    let mut control = Control::read(storage.clone(), Path::new(DATA)).unwrap();
    let mut slrus = new();
    for told in told {
        match *told {
            Told::Page(page) => slrus
                .zero_page(&mut control, AT, Slru::MultiXactOffsets, page)
                .unwrap(),
            Told::Multi(multi, offset) => {
                let members = [100_u32, 1, 101, 1].map(u32::to_le_bytes).concat();
                let members = List::take(&mut Reader::new(&members), 2).unwrap();
                slrus
                    .new_multixact(&mut control, AT, (multi, offset), members)
                    .unwrap();
            }
            Told::Restart => {
                slrus.sync(&mut control, AT).unwrap();
                slrus = new();
            }
        }
    }
    slrus.sync(&mut control, AT).unwrap();
    multis
        .iter()
        .map(|multi| offset(&storage, *multi))
        .collect()
}

fn offset(storage: &FaultyStorage, multi: u32) -> u32 {
    let path = Path::new(DATA).join("pg_multixact/offsets/0000");
    let content = storage.content(&path).unwrap();
    let at = usize::try_from(multi).unwrap() * 4;
    content
        .get(at..at + 4)
        .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn wal_of_servers_before_and_after_the_fix_gives_the_same_offsets() {
    use Told::{Multi, Page, Restart};
    let backup = Scene::new().backup;
    let last = ON_PAGE - 1;
    let first = ON_PAGE;
    let multis = [last - 1, last, first, first + 1, first + 2];
    let begin = [Page(0), Multi(last - 1, 1)];
    for (name, rest) in [
        (
            "after the fix",
            &[
                Page(1),
                Multi(last, 3),
                Multi(first, 5),
                Multi(first + 1, 7),
            ][..],
        ),
        (
            "before it",
            &[
                Multi(last, 3),
                Page(1),
                Multi(first, 5),
                Multi(first + 1, 7),
            ],
        ),
        (
            // Backends record what they were assigned in any order.
            "before it, out of order",
            &[
                Page(1),
                Multi(first, 5),
                Multi(last, 3),
                Multi(first + 1, 7),
            ],
        ),
        (
            "before it, with a restart in between",
            &[
                Multi(last, 3),
                Restart,
                Page(1),
                Multi(first, 5),
                Multi(first + 1, 7),
            ],
        ),
        (
            "before it, begun within the page",
            &[
                Restart,
                Multi(last, 3),
                Page(1),
                Multi(first, 5),
                Multi(first + 1, 7),
            ],
        ),
        (
            "after it, begun between the page and its multixact",
            &[
                Page(1),
                Restart,
                Multi(last, 3),
                Multi(first, 5),
                Multi(first + 1, 7),
            ],
        ),
    ] {
        let told = [&begin, rest].concat();
        for major in [PgMajor::V14, PgMajor::V15, PgMajor::V18] {
            let found = replayed(&backup, major, &told, &multis);
            assert_eq!(found, [1, 3, 5, 7, 9], "{major:?}, {name}");
        }
        // Up to 13 the next offset is left to the next multixact.
        for major in [PgMajor::V12, PgMajor::V13] {
            let found = replayed(&backup, major, &told, &multis);
            assert_eq!(found, [1, 3, 5, 7, 0], "{major:?}, {name}");
        }
    }
}

#[test]
fn a_page_is_not_made_again_over_what_the_multixact_before_it_recorded() {
    use Told::{Multi, Page};
    let backup = Scene::new().backup;
    let last = ON_PAGE - 1;
    // WAL ends behind the record that makes the page: where the last one's members end stays known.
    let told = [Page(0), Multi(last, 3), Page(1)];
    assert_eq!(
        replayed(&backup, PgMajor::V15, &told, &[last, ON_PAGE]),
        [3, 5]
    );
    // Another page, made again, is empty.
    let told = [Page(0), Multi(7, 3), Page(0)];
    assert_eq!(replayed(&backup, PgMajor::V15, &told, &[7, 8]), [0, 0]);
}
