//! Any number of threads gives what one decoder gives, whatever the WAL.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use walsender::source::archive::ArchiveError;
use walstream::fuzzing::WalBuilder;
use walstream::wal::decode::DecodeError;
use walstream::wal::record::Record;
use walstream::{Dialect, Lsn, PgMajor, SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

use super::*;

const SIZE: SegmentSize = SegmentSize::MIN;
const FIRST: u64 = 5;

/// Segments in memory.
struct Memory(BTreeMap<u64, Arc<Vec<u8>>>);

struct MemorySegment {
    name: String,
    bytes: Arc<Vec<u8>>,
    at: usize,
}

impl SegmentSource for Memory {
    type Segment = MemorySegment;

    fn segment_size(&self) -> SegmentSize {
        SIZE
    }

    fn open(&self, number: SegmentNumber) -> Result<Option<MemorySegment>, ArchiveError> {
        Ok(self.0.get(&number.0).map(|bytes| MemorySegment {
            name: format!("segment {}", number.0),
            bytes: Arc::clone(bytes),
            at: 0,
        }))
    }

    fn next_after(&self, number: SegmentNumber) -> Option<SegmentNumber> {
        let (next, _) = self.0.range(number.0 + 1..).next()?;
        Some(SegmentNumber(*next))
    }
}

impl Segment for MemorySegment {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_partial(&self) -> bool {
        false
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError> {
        self.at = usize::try_from(offset).unwrap();
        Ok(())
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Start, end, link and checksum of a record.
type Seen = (Lsn, Lsn, Lsn, u32);

#[derive(Default)]
struct Gather {
    seen: Vec<Seen>,
    full: usize,
    refuse: Option<Lsn>,
}

impl RecordVisitor for Gather {
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        if self.refuse == Some(record.start_lsn) {
            record.body()?;
        }
        let header = &record.header;
        self.seen
            .push((record.start_lsn, record.end_lsn, header.prev, header.crc));
        Ok(Flow::Continue)
    }

    fn is_full(&self) -> bool {
        self.seen.len() >= self.full
    }
}

#[derive(Default)]
struct Joined {
    seen: Vec<Seen>,
    enough: Option<usize>,
}

impl VisitorSink for Joined {
    type Visitor = Gather;

    fn take(&mut self, visitor: &mut Gather) -> Flow {
        self.seen.append(&mut visitor.seen);
        match self.enough {
            Some(enough) if self.seen.len() >= enough => Flow::Stop,
            _ => Flow::Continue,
        }
    }
}

/// What is visible of how reading ended.
type Outcome = (
    Vec<Seen>,
    Stopped,
    (
        Lsn,
        Option<Lsn>,
        Option<Lsn>,
        Option<TimelineId>,
        Option<DecodeError>,
    ),
    Result<WalEnd, Damage>,
);

fn request(threads: usize, span: u64, until: Lsn) -> ReadRequest {
    ReadRequest {
        dialect: dialect(),
        system_identifier: Some(SystemIdentifier(WalBuilder::SYSTEM_IDENTIFIER)),
        from: Lsn(FIRST * SIZE.bytes()),
        prev: None,
        until,
        span,
        threads: NonZeroUsize::new(threads).unwrap(),
    }
}

fn read(source: &Memory, request: &ReadRequest, full: usize, refuse: Option<Lsn>) -> Outcome {
    let mut joined = Joined::default();
    let fresh = || Gather {
        seen: Vec::new(),
        full,
        refuse,
    };
    let cancel = AtomicBool::new(false);
    let end = read_wal(source, request, &fresh, &mut joined, &cancel).unwrap();
    let decoder = &end.decoder;
    let state = (
        decoder.valid_end(),
        decoder.last_record(),
        decoder.unfinished_record(),
        decoder.timeline(),
        decoder.error(),
    );
    let verdict = judge_end(&mut SegmentReader::new(source), &end).unwrap();
    (joined.seen, end.stopped, state, verdict)
}

fn dialect() -> Dialect {
    Dialect {
        segment_size: SIZE,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Records {
        count: usize,
        body: usize,
    },
    Switch,
    /// A record that is cut at a page's end and overwritten.
    Lost {
        body: usize,
    },
}

#[derive(Clone, Debug)]
enum Harm {
    Flip {
        at: prop::sample::Index,
        bit: u8,
    },
    Zero {
        page: prop::sample::Index,
        pages: usize,
    },
    Remove {
        segment: prop::sample::Index,
    },
    Cut {
        segment: prop::sample::Index,
        at: usize,
    },
    Swap {
        one: prop::sample::Index,
        other: prop::sample::Index,
    },
    Double {
        one: prop::sample::Index,
        other: prop::sample::Index,
    },
    /// A page that claims to continue a record, or no longer does.
    Continue {
        page: prop::sample::Index,
    },
    Timeline {
        page: prop::sample::Index,
        timeline: u8,
    },
    End {
        at: prop::sample::Index,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let body = prop_oneof![4 => 0usize..200, 4 => 200usize..9000, 1 => 9000usize..200_000, 1 => Just(3_000_000usize)];
    let step = prop_oneof![
        8 => (1usize..60, body.clone()).prop_map(|(count, body)| Step::Records {
            count: if body > 10_000 { 1 } else { count },
            body,
        }),
        1 => Just(Step::Switch),
        1 => body.prop_map(|body| Step::Lost { body: body + 20_000 }),
    ];
    prop::collection::vec(step, 3..25)
}

fn harm() -> impl Strategy<Value = Option<Harm>> {
    let index = any::<prop::sample::Index>;
    prop::option::weighted(
        0.8,
        prop_oneof![
            3 => (index(), 0u8..8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
            1 => (index(), 1usize..200).prop_map(|(page, pages)| Harm::Zero { page, pages }),
            1 => index().prop_map(|segment| Harm::Remove { segment }),
            1 => (index(), 0usize..1 << 20).prop_map(|(segment, at)| Harm::Cut { segment, at }),
            1 => (index(), index()).prop_map(|(one, other)| Harm::Swap { one, other }),
            1 => (index(), index()).prop_map(|(one, other)| Harm::Double { one, other }),
            2 => index().prop_map(|page| Harm::Continue { page }),
            2 => (index(), 0u8..4).prop_map(|(page, timeline)| Harm::Timeline { page, timeline }),
            1 => index().prop_map(|at| Harm::End { at }),
        ],
    )
}

fn build(steps: &[Step]) -> WalBuilder {
    let mut wal = WalBuilder::new(dialect(), Lsn(FIRST * SIZE.bytes()));
    wal.record(10, 0, &[255, 1, 7]);
    for step in steps {
        match step {
            Step::Records { count, body } => {
                for number in 0..*count {
                    wal.record(10, 0, &vec![u8::try_from(number % 251).unwrap(); *body]);
                }
            }
            Step::Switch => {
                wal.switch();
            }
            Step::Lost { body } => {
                let body = vec![1; *body];
                let mut whole = wal.clone();
                whole.record(10, 0, &body);
                // The last page that would hold a byte of it.
                let page = Lsn(whole.end().0 - 8).page_start(dialect().wal_page_size);
                let aborted = wal.torn_record(10, 0, &body, page);
                wal.overwrite_contrecord(aborted);
            }
        }
    }
    wal
}

fn harmed(wal: &WalBuilder, harm: Option<&Harm>) -> Memory {
    let mut bytes = wal.bytes().to_vec();
    let pages = bytes.len().div_ceil(8192);
    match harm {
        Some(Harm::Flip { at, bit }) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Some(Harm::Zero { page, pages: count }) => {
            let at = page.index(pages) * 8192;
            let end = bytes.len().min(at + count * 8192);
            bytes[at..end].fill(0);
        }
        Some(Harm::Continue { page }) => bytes[page.index(pages) * 8192 + 2] ^= 1,
        Some(Harm::Timeline { page, timeline }) => {
            bytes[page.index(pages) * 8192 + 4] = *timeline;
        }
        Some(Harm::End { at }) => {
            let at = at.index(bytes.len());
            bytes[at..].fill(0);
        }
        _ => {}
    }
    let size = usize::try_from(SIZE.bytes()).unwrap();
    bytes.resize(bytes.len().next_multiple_of(size), 0);
    let mut segments: Vec<(u64, Vec<u8>)> = (FIRST..)
        .zip(bytes.chunks(size).map(<[u8]>::to_vec))
        .collect();
    let count = segments.len();
    match harm {
        Some(Harm::Remove { segment }) => {
            segments.remove(segment.index(count));
        }
        Some(Harm::Cut { segment, at }) => segments[segment.index(count)].1.truncate(*at),
        Some(Harm::Swap { one, other }) => {
            let (one, other) = (one.index(count), other.index(count));
            let bytes = segments[one].1.clone();
            segments[one].1 = std::mem::replace(&mut segments[other].1, bytes);
        }
        Some(Harm::Double { one, other }) => {
            segments[one.index(count)].1 = segments[other.index(count)].1.clone();
        }
        _ => {}
    }
    let shared = segments
        .into_iter()
        .map(|(number, bytes)| (number, Arc::new(bytes)));
    Memory(shared.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_threads_gives_what_one_gives(
        steps in steps(),
        harm in harm(),
        threads in 2usize..5,
        span in 13u32..22,
        full in 1usize..300,
        until in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        refuse in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let wal = build(&steps);
        let source = harmed(&wal, harm.as_ref());
        let until = until.map_or(Lsn::MAX, |until| {
            Lsn(FIRST * SIZE.bytes() + u64::try_from(until.index(wal.bytes().len())).unwrap())
        });
        let refuse = refuse.map(|refuse| *refuse.get(&wal.starts));
        let one = read(&source, &request(1, 1 << 20, until), usize::MAX, refuse);
        let many = read(&source, &request(threads, 1 << span, until), full, refuse);
        prop_assert_eq!(&one.1, &many.1);
        prop_assert_eq!(&one.2, &many.2);
        prop_assert_eq!(&one.3, &many.3);
        let different = one.0.iter().zip(&many.0).position(|(one, other)| one != other);
        prop_assert_eq!((one.0.len(), None), (many.0.len(), different));
        if harm.is_none() && until == Lsn::MAX && refuse.is_none() {
            let starts: Vec<Lsn> = one.0.iter().map(|seen| seen.0).collect();
            prop_assert_eq!(&starts, &wal.starts);
            prop_assert!(one.3.is_ok(), "{:?}", one.3);
        }
    }
}

#[test]
fn a_gap_is_damage_and_the_last_segment_is_an_end() {
    let wal = build(&[Step::Records {
        count: 50,
        body: 100_000,
    }]);
    let mut source = harmed(&wal, None);
    let last = *source.0.last_key_value().unwrap().0;
    let bytes = source.0.remove(&last).unwrap();
    let (_, stopped, _, verdict) = read(&source, &request(2, 1 << 20, Lsn::MAX), 10, None);
    assert_eq!(stopped, Stopped::NoSegment(SegmentNumber(last)));
    assert!(verdict.is_ok(), "{verdict:?}");
    source.0.insert(last, bytes);
    source.0.remove(&(FIRST + 1));
    let (_, _, _, verdict) = read(&source, &request(2, 1 << 20, Lsn::MAX), 10, None);
    let Err(damage @ Damage::Missing { .. }) = verdict else {
        panic!("{verdict:?}");
    };
    let text = damage.to_string();
    assert!(
        text.contains("000000010000000000000006 is missing"),
        "{text}"
    );
    assert!(text.contains("000000010000000000000007 is there"), "{text}");
    assert_eq!(damage.lsn(), Lsn((FIRST + 1) * SIZE.bytes()));
}

#[test]
fn a_sink_that_has_enough_and_a_raised_flag_end_it() {
    let wal = build(&[Step::Records {
        count: 200,
        body: 20_000,
    }]);
    let source = harmed(&wal, None);
    for threads in [1, 3] {
        let mut joined = Joined {
            seen: Vec::new(),
            enough: Some(70),
        };
        let fresh = || Gather {
            full: 7,
            ..Gather::default()
        };
        let request = request(threads, 1 << 16, Lsn::MAX);
        let cancel = AtomicBool::new(false);
        let end = read_wal(&source, &request, &fresh, &mut joined, &cancel).unwrap();
        assert_eq!(end.stopped, Stopped::Enough);
        assert!((70..80).contains(&joined.seen.len()));
        let cancel = AtomicBool::new(true);
        let end = read_wal(&source, &request, &fresh, &mut joined, &cancel).unwrap();
        assert_eq!(end.stopped, Stopped::Cancelled);
    }
}

/// The bytes that belong to records, page headers and padding left out.
fn covered(wal: &WalBuilder) -> Vec<bool> {
    let bytes = wal.bytes();
    let mut covered = vec![false; bytes.len()];
    for start in &wal.starts {
        let mut at = usize::try_from(start.0 - FIRST * SIZE.bytes()).unwrap();
        let length: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        for _ in 0..u32::from_le_bytes(length) {
            if at.is_multiple_of(8192) {
                let long = at.is_multiple_of(usize::try_from(SIZE.bytes()).unwrap());
                at += if long { 40 } else { 24 };
            }
            covered[at] = true;
            at += 1;
        }
    }
    covered
}

/// A flipped bit, at ten thousand places of WAL: it is found, at an LSN that leads to it, or it is where nothing is kept.
#[test]
fn a_flipped_bit_is_found_or_lies_outside_every_record() {
    const PLACES: usize = 10_000;
    let wal = build(&[
        Step::Records {
            count: 400,
            body: 77,
        },
        Step::Records {
            count: 60,
            body: 8300,
        },
        Step::Records {
            count: 3000,
            body: 20,
        },
        Step::Records {
            count: 1,
            body: 300_000,
        },
        Step::Records {
            count: 100,
            body: 5000,
        },
    ]);
    let covered = covered(&wal);
    let mut source = harmed(&wal, None);
    let size = usize::try_from(SIZE.bytes()).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for place in 0..PLACES {
        // Places all over, and each bit in turn; a tenth of them in page headers.
        let mut at = place.wrapping_mul(7_368_787) % wal.bytes().len();
        if place % 10 == 0 {
            at = at / 8192 * 8192 + place / 10 % 40;
        }
        let lsn = Lsn(FIRST * SIZE.bytes() + u64::try_from(at).unwrap());
        let page = lsn.page_start(dialect().wal_page_size);
        // From the page before the record to the page after it.
        let after = wal.starts.partition_point(|start| *start <= lsn);
        let start = wal.starts[after.saturating_sub(1)].page_start(dialect().wal_page_size);
        let end = wal.starts.get(after).copied().unwrap_or(wal.end());
        let window = ReadRequest {
            from: Lsn(start.0.saturating_sub(8192).max(FIRST * SIZE.bytes())),
            ..request(1, 1 << 20, (end.max(page) + 2 * 8192).min(wal.end()))
        };
        let (seen, stopped, _, _) = read(&source, &window, usize::MAX, None);
        assert_eq!(stopped, Stopped::Reached);
        let mut flip = || {
            let segment = source.0.get_mut(&lsn.segment_number(SIZE).0).unwrap();
            Arc::get_mut(segment).unwrap()[at % size] ^= 1 << (place % 8);
        };
        flip();
        let (now, stopped, _, _) = read(&source, &window, usize::MAX, None);
        let mut flip = || {
            let segment = source.0.get_mut(&lsn.segment_number(SIZE).0).unwrap();
            Arc::get_mut(segment).unwrap()[at % size] ^= 1 << (place % 8);
        };
        flip();
        assert!(seen.starts_with(&now), "{lsn}: other records");
        match stopped {
            Stopped::Fault(fault) => {
                // A page that claims a later timeline is found by the next one.
                let named = fault.lsn();
                assert!(
                    window.from <= named && named <= page + 8192,
                    "{lsn}: {fault}"
                );
                found += 1;
            }
            other => {
                assert_eq!(other, Stopped::Reached, "{lsn}");
                assert_eq!(now, seen, "{lsn}: a record is gone");
                // A record that goes on behind the window is not complete in it.
                let last = seen.last().map_or(window.from, |last| last.1);
                assert!(
                    !covered[at] || lsn >= last,
                    "{lsn}: not found, but in a record"
                );
                harmless += 1;
            }
        }
    }
    assert!(found > PLACES / 2 && harmless > 0, "{found} {harmless}");
}
