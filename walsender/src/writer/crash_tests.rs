//! A log under kills and losses of power: any records, any batches, any point, and it is opened again with a prefix of what
//! was appended that holds all that was told as flushed. Then it goes on, and is killed again.
//!
//! Without wiping what is behind the end, the last of these finds records of the batch that was lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use walstream::wal::WalDecoder;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, PgMajor, SegmentNumber, SegmentSize};

use super::buffer::{AppendBuffer, Batch, encoder_at, first_record};
use super::control::LogControl;
use super::error::OpenError;
use super::faulty_storage::FaultyStorage;
use super::message::LogicalMessage;
use super::recovery::recover;
use super::segment_directory::SegmentDirectory;
use super::segment_writer::SegmentWriter;

const DIRECTORY: &str = "/log/pg_wal";

fn control() -> LogControl {
    LogControl::new(PgMajor::V15).with_segment_size(SegmentSize::MIN)
}

/// A log without its threads: every step is made when the test says so.
struct Log {
    control: LogControl,
    directory: Arc<SegmentDirectory>,
    buffer: AppendBuffer,
    writer: SegmentWriter,
    /// Exclusive end of what was told as flushed.
    flushed: Lsn,
    /// Start of the last record of it.
    last_record: Lsn,
}

impl Log {
    fn open(storage: &FaultyStorage, control: LogControl) -> Result<Self, OpenError> {
        let directory = Arc::new(SegmentDirectory::new(
            Arc::new(storage.clone()),
            PathBuf::from(DIRECTORY),
            control.timeline,
            control.dialect.segment_size,
        ));
        let recovered = recover(&directory, &control, false)?;
        let encoder = encoder_at(&control, recovered.end, recovered.prev)?;
        let mut buffer = AppendBuffer::new(encoder, u64::MAX);
        if recovered.prev == Lsn::INVALID {
            buffer.append(&first_record()).unwrap();
        }
        Ok(Self {
            writer: SegmentWriter::new(
                Arc::clone(&directory),
                control.dialect.wal_page_size,
                recovered.current,
            ),
            flushed: recovered.end,
            last_record: recovered.prev,
            control,
            directory,
            buffer,
        })
    }

    /// Writes what was appended; false when the storage does not let it.
    fn flush(&mut self) -> bool {
        let mut batch = Batch::default();
        self.buffer.take(&mut batch);
        let result = self.writer.write(&batch);
        if result.is_ok() {
            self.flushed = batch.end;
            self.last_record = batch.last_record;
        }
        result.is_ok()
    }

    /// Recycles segments as if nobody needed any.
    fn recycle(&self) {
        let kept = self
            .last_record
            .segment_number(self.control.dialect.segment_size);
        // A failure is no reason to stop: nothing is lost by a segment too many.
        let _ = self.directory.remove_before(kept, |_| true);
    }
}

/// Payloads of the messages in a log, with their ends, from the oldest segment on.
fn messages(storage: &FaultyStorage, control: &LogControl) -> Vec<(Lsn, Vec<u8>)> {
    let size = control.dialect.segment_size;
    let files = storage.files();
    let segments: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.file_name().unwrap().len() == 24)
        .collect();
    let Some((first, _)) = segments.first() else {
        return Vec::new();
    };
    let name = first.file_name().unwrap().to_str().unwrap();
    let number = SegmentName::parse(name, size).unwrap().number;
    let mut decoder = WalDecoder::new(control.dialect, number.start_lsn(size).unwrap());
    let mut found = Vec::new();
    for (_, bytes) in segments {
        let mut feed = decoder.feed(bytes);
        loop {
            match feed.next_record() {
                Ok(Some(record)) if record.header.rmgr == LogicalMessage::RMGR => {
                    let data = record.main_data().unwrap();
                    let message = LogicalMessage::parse(data, 0).unwrap();
                    found.push((record.end_lsn, message.payload.to_vec()));
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Flush,
    Switch,
    Recycle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Records of the same length, many within a page, and such that cross pages and segments.
        6 => Just(Step::Append(40)),
        3 => (0usize..20_000).prop_map(Step::Append),
        1 => (500_000usize..2_500_000).prop_map(Step::Append),
        4 => Just(Step::Flush),
        1 => Just(Step::Switch),
        1 => Just(Step::Recycle),
    ]
}

/// Random numbers that a failing case repeats.
fn chance(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

/// What was appended, and how much of it must be there.
#[derive(Default)]
struct Told {
    /// Start, end and payload.
    appended: Vec<(Lsn, Lsn, Vec<u8>)>,
}

impl Told {
    /// Runs the steps until the storage dies, and gives up to where it was told as flushed.
    fn run(&mut self, log: &mut Log, life: u8, steps: &[Step]) -> Lsn {
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Step::Append(len) => {
                    let mut payload = vec![life; len];
                    payload.extend_from_slice(&(at as u64).to_le_bytes());
                    let message = LogicalMessage::new("m", &payload);
                    let appended = log.buffer.append_message(&message).unwrap();
                    self.appended
                        .push((appended.start_lsn, appended.end_lsn, payload));
                }
                Step::Switch => {
                    log.buffer.switch_segment().unwrap();
                }
                Step::Recycle => log.recycle(),
                Step::Flush => {
                    if !log.flush() {
                        break;
                    }
                }
            }
        }
        log.flushed
    }

    /// The log is a prefix of what was appended with all that was flushed; what is missing is forgotten.
    fn check(&mut self, storage: &FaultyStorage, control: &LogControl, flushed: Lsn) {
        let found = messages(storage, control);
        let size = control.dialect.segment_size;
        // Those that begin before the oldest segment went with the segments that nobody needed.
        let oldest = oldest_segment(storage, size)
            .and_then(|number| number.start_lsn(size))
            .unwrap_or(control.start_lsn);
        self.appended.retain(|(start, ..)| *start >= oldest);
        assert!(found.len() <= self.appended.len(), "more than was appended");
        for (found, (_, end, payload)) in found.iter().zip(&self.appended) {
            assert!(
                found.0 == *end && found.1 == *payload,
                "{} instead of {end}",
                found.0
            );
        }
        let ends = self.appended.iter().map(|(_, end, _)| *end);
        let last = ends.filter(|end| *end <= flushed).max();
        let end = found.last().map(|(lsn, _)| *lsn);
        assert!(end >= last, "ends at {end:?}, flushed was {last:?}");
        self.appended.truncate(found.len());
    }
}

fn oldest_segment(storage: &FaultyStorage, size: SegmentSize) -> Option<SegmentNumber> {
    let files = storage.files();
    let names = files.keys().filter_map(|path| path.file_name()?.to_str());
    names
        .filter_map(|name| SegmentName::parse(name, size).ok())
        .map(|name| name.number)
        .min()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_log_that_was_left_anywhere_is_a_prefix_with_all_that_was_flushed(
        lives in prop::collection::vec(
            (prop::collection::vec(step(), 1..25), any::<prop::sample::Index>(), 0usize..30_000, any::<bool>()),
            1..4,
        ),
        seed in any::<u64>(),
    ) {
        let control = control();
        let mut chance = chance(seed);
        let mut storage = FaultyStorage::default();
        let mut told = Told::default();
        for (life, (steps, kill, bytes, power)) in lives.iter().enumerate() {
            let life = u8::try_from(life).unwrap();
            // How many calls these steps make, so that the kill falls among them; opening may be killed, too.
            let rehearsal = storage.after_kill();
            let mut log = Log::open(&rehearsal, control).unwrap();
            Told::default().run(&mut log, life, steps);
            storage.die_at(kill.index(rehearsal.calls() + 1), *bytes);
            let flushed = match Log::open(&storage, control) {
                Ok(mut log) => told.run(&mut log, life, steps),
                Err(OpenError::File(_)) => Lsn(0),
                Err(error) => panic!("{error}"),
            };
            storage = if *power {
                storage.after_power_loss(&mut chance)
            } else {
                storage.after_kill()
            };
            // What is there after opening is what the next reader sees.
            let reopened = Log::open(&storage, control);
            prop_assert!(reopened.is_ok(), "{}", reopened.err().unwrap());
            told.check(&storage, &control, flushed);
        }
    }

    #[test]
    fn damage_before_the_flush_lsn_is_refused(
        steps in prop::collection::vec(step(), 1..12),
        place in any::<prop::sample::Index>(),
        forgets in any::<bool>(),
    ) {
        let control = control();
        let storage = FaultyStorage::default();
        let mut log = Log::open(&storage, control).unwrap();
        let mut told = Told::default();
        told.run(&mut log, 1, &steps.iter().filter(|s| !matches!(s, Step::Recycle)).cloned().collect::<Vec<_>>());
        prop_assert!(log.flush());
        let end = log.flushed;
        if forgets {
            storage.forget_flushed();
        }
        // Anywhere in what is always read again: the last segment.
        let size = control.dialect.segment_size;
        let from = end.prev_segment_number(size).start_lsn(size).unwrap();
        let at = Lsn(from.0 + place.index(usize::try_from(end.0 - from.0).unwrap()) as u64);
        let path = Path::new(DIRECTORY).join(log.directory.name(at.segment_number(size)));
        let before = messages(&storage, &control);
        prop_assert!(storage.flip(&path, usize::try_from(at.segment_offset(size)).unwrap()));
        match Log::open(&storage, control) {
            Err(OpenError::Damaged { .. } | OpenError::Missing { .. }) => {}
            Err(error) => panic!("{error}"),
            // The padding behind a record, zeros behind a switch, or a record of which only the rest is read: nothing that
            // is told is lost. Without the flush LSN, the very last record looks like one that was being written.
            Ok(log) if forgets => prop_assert!(log.flushed <= end),
            Ok(log) => {
                prop_assert_eq!(log.flushed, end);
                prop_assert!(messages(&storage, &control).len() == before.len(), "flipped {at}");
            }
        }
    }
}

/// Every sync of a run fails in turn: the flush LSN does not advance over it.
#[test]
fn nothing_is_told_as_flushed_after_a_failed_sync() {
    let control = control();
    let run = |storage: &FaultyStorage| -> Vec<(Lsn, bool)> {
        let Ok(mut log) = Log::open(storage, control) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for size in [10, 100_000, 1_200_000, 10, 900_000] {
            let payload = vec![5; size];
            log.buffer
                .append_message(&LogicalMessage::new("m", &payload))
                .unwrap();
            let before = log.flushed;
            let is_flushed = log.flush();
            assert_eq!(log.flushed > before, is_flushed);
            told.push((log.flushed, is_flushed));
            if !is_flushed {
                break;
            }
        }
        told
    };
    let whole = FaultyStorage::default();
    assert!(run(&whole).iter().all(|(_, is_flushed)| *is_flushed));
    let mut failures = 0;
    for number in 0..whole.syncs() {
        let storage = FaultyStorage::default();
        storage.fail_sync(number);
        let told = run(&storage);
        failures += usize::from(told.last().is_none_or(|(_, is_flushed)| !is_flushed));
        // Whatever was told is there after a loss of power.
        let mut chance = chance(number as u64);
        for _ in 0..20 {
            let after = storage.after_power_loss(&mut chance);
            let log = Log::open(&after, control).unwrap();
            let flushed = told.iter().rev().find(|(_, is_flushed)| *is_flushed);
            assert!(log.flushed >= flushed.map_or(Lsn(0), |(lsn, _)| *lsn));
        }
    }
    assert_eq!(failures, whole.syncs());
}
