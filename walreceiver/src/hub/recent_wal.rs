//! [`RecentWal`]: the WAL that came last, in memory, for all followers of a hub together.
//!
//! Pieces are the very buffers that came from the socket. Small ones are copied, because each would keep a whole receive
//! buffer alive. Neighbours that are small are joined by the first follower that sends them, outside the lock, and the
//! others find the joined piece.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use walstream::Lsn;

/// Below this a piece is copied.
const COPIED_BELOW: usize = 16 << 10;
/// A piece below this is joined with those behind it, up to about as much.
const JOINED: usize = 64 << 10;
/// What a piece costs beside its bytes, so that tiny ones are bounded, too.
const PIECE_COST: usize = 128;

/// The last WAL, up to a number of bytes. It is put in by one and read by many; the lock is held for the time of a few
/// instructions, never over I/O and never while bytes are copied.
#[derive(Debug)]
pub struct RecentWal {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each begins where the one before it ends.
    pieces: VecDeque<Piece>,
    cost: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    start_lsn: Lsn,
    bytes: Bytes,
}

impl Piece {
    fn end_lsn(&self) -> Lsn {
        self.start_lsn + to_u64(self.bytes.len())
    }

    fn cost(&self) -> usize {
        self.bytes.len().saturating_add(PIECE_COST)
    }

    /// What of it lies within the range, which begins in it.
    fn within(&self, range: &Range<Lsn>) -> Bytes {
        let mut bytes = self.bytes.clone();
        let length = range.end.saturating_sub(self.start_lsn);
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let skipped = usize::try_from(range.start.saturating_sub(self.start_lsn));
        bytes.advance(skipped.unwrap_or(usize::MAX).min(bytes.len()));
        bytes
    }
}

impl RecentWal {
    /// Keeps about `capacity` bytes; none when that is 0.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// WAL that came. Where it begins again before the end of what is here, as after damage, that is forgotten from there
    /// on; behind a gap everything is.
    pub fn push(&self, start_lsn: Lsn, bytes: &Bytes) {
        if self.capacity == 0 || bytes.is_empty() {
            return;
        }
        let bytes = if bytes.len() < COPIED_BELOW {
            Bytes::copy_from_slice(bytes)
        } else {
            bytes.clone()
        };
        let mut state = self.lock();
        state.cut_at(start_lsn);
        state.push(Piece { start_lsn, bytes });
        while state.cost > self.capacity {
            state.pop_oldest();
        }
    }

    /// WAL from the start of the range on, in one piece, as far as it is here; `None` when its first byte is not.
    #[must_use]
    pub fn read(&self, range: &Range<Lsn>) -> Option<Bytes> {
        let small = {
            let state = self.lock();
            let (index, first) = state.find(range.start)?;
            let bytes = first.within(range);
            if bytes.len() >= JOINED || first.end_lsn() >= range.end {
                return Some(bytes);
            }
            let small = state.small_from(index, range.end);
            if small.len() < 2 {
                return Some(bytes);
            }
            small
        };
        let joined = joined(&small)?;
        let bytes = joined.within(range);
        self.lock().replace(&small, joined);
        Some(bytes)
    }

    /// The bytes that are here, from where to where.
    #[must_use]
    pub fn range(&self) -> Option<Range<Lsn>> {
        let state = self.lock();
        Some(state.pieces.front()?.start_lsn..state.pieces.back()?.end_lsn())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, piece: Piece) {
        self.cost = self.cost.saturating_add(piece.cost());
        self.pieces.push_back(piece);
    }

    fn pop_oldest(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.cost = self.cost.saturating_sub(piece.cost());
        }
    }

    /// Makes what is here end at `lsn`.
    fn cut_at(&mut self, lsn: Lsn) {
        if self.pieces.back().is_some_and(|last| last.end_lsn() < lsn) {
            self.pieces.clear();
            self.cost = 0;
        }
        while let Some(last) = self.pieces.pop_back_if(|last| last.end_lsn() > lsn) {
            self.cost = self.cost.saturating_sub(last.cost());
            if last.start_lsn < lsn {
                let bytes = last.within(&(last.start_lsn..lsn));
                let start_lsn = last.start_lsn;
                self.push(Piece { start_lsn, bytes });
            }
        }
    }

    /// The piece that holds the byte at `lsn`.
    fn find(&self, lsn: Lsn) -> Option<(usize, &Piece)> {
        let behind = self.pieces.partition_point(|piece| piece.start_lsn <= lsn);
        let index = behind.checked_sub(1)?;
        let piece = self.pieces.get(index)?;
        (lsn < piece.end_lsn()).then_some((index, piece))
    }

    /// The pieces from this one on, up to `end_lsn` and as many as are worth joining.
    fn small_from(&self, index: usize, end_lsn: Lsn) -> Vec<Piece> {
        let mut length = 0;
        self.pieces
            .range(index..)
            .take_while(|piece| {
                length += piece.bytes.len();
                piece.end_lsn() <= end_lsn && (length <= JOINED || length == piece.bytes.len())
            })
            .cloned()
            .collect()
    }

    /// Puts the joined piece in the place of those that it was made of, where they are still there.
    fn replace(&mut self, parts: &[Piece], joined: Piece) {
        let Some((index, _)) = self.find(joined.start_lsn) else {
            return;
        };
        let same = |(here, part): (&Piece, &Piece)| {
            let (here_bytes, part_bytes) = (&here.bytes, &part.bytes);
            here.start_lsn == part.start_lsn
                && (here_bytes.as_ptr(), here_bytes.len())
                    == (part_bytes.as_ptr(), part_bytes.len())
        };
        let here = self.pieces.range(index..);
        if here.len() < parts.len() || !here.zip(parts).all(same) {
            return;
        }
        let end = index.saturating_add(parts.len());
        for part in self.pieces.range(index..end) {
            self.cost = self.cost.saturating_sub(part.cost());
        }
        self.cost = self.cost.saturating_add(joined.cost());
        self.pieces.drain(index.saturating_add(1)..end);
        if let Some(first) = self.pieces.get_mut(index) {
            *first = joined;
        }
    }
}

fn joined(parts: &[Piece]) -> Option<Piece> {
    let start_lsn = parts.first()?.start_lsn;
    let length = parts.iter().map(|part| part.bytes.len()).sum();
    let mut bytes = BytesMut::with_capacity(length);
    for part in parts {
        bytes.extend_from_slice(&part.bytes);
    }
    let bytes = bytes.freeze();
    Some(Piece { start_lsn, bytes })
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The byte that belongs at this LSN in the given life of the stream.
    fn byte(lsn: u64, life: u8) -> u8 {
        u8::try_from(lsn % 251).unwrap() ^ life
    }

    fn bytes(start: u64, length: usize, life: u8) -> Bytes {
        (start..start + length as u64)
            .map(|lsn| byte(lsn, life))
            .collect()
    }

    #[test]
    fn large_pieces_are_the_buffers_that_came_and_small_ones_are_joined_once() {
        let wal = RecentWal::new(1 << 20);
        let large = bytes(0, 100 << 10, 0);
        wal.push(Lsn(0), &large);
        let read = wal.read(&(Lsn(10)..Lsn(90 << 10))).unwrap();
        assert_eq!(read.as_ptr(), large.slice(10..).as_ptr());
        let start = 100 << 10;
        for number in 0..100 {
            wal.push(
                Lsn(start + number * 1000),
                &bytes(start + number * 1000, 1000, 0),
            );
        }
        let range = Lsn(start + 500)..Lsn(start + 100_000);
        let first = wal.read(&range).unwrap();
        assert!(
            first.len() > 60_000 && first.len() <= JOINED,
            "{}",
            first.len()
        );
        assert_eq!(wal.lock().pieces.len(), 1 + 1 + 35);
        assert_eq!(wal.read(&range).unwrap().as_ptr(), first.as_ptr());
        assert_eq!(first, bytes(start + 500, first.len(), 0));
        // What is not flushed yet stays apart.
        let wal = RecentWal::new(1 << 20);
        for number in 0..4 {
            wal.push(Lsn(number * 100), &bytes(number * 100, 100, 0));
        }
        assert_eq!(wal.read(&(Lsn(0)..Lsn(250))).unwrap().len(), 200);
        assert_eq!(wal.read(&(Lsn(200)..Lsn(250))).unwrap().len(), 50);
        assert_eq!(wal.lock().pieces.len(), 3);
        assert_eq!(wal.read(&(Lsn(400)..Lsn(450))), None);
    }

    #[test]
    fn the_oldest_goes_and_a_gap_starts_anew() {
        let wal = RecentWal::new(3000);
        for number in 0..10 {
            wal.push(Lsn(number * 1000), &bytes(number * 1000, 1000, 0));
            assert!(wal.lock().cost <= 3000);
        }
        assert_eq!(wal.range(), Some(Lsn(8000)..Lsn(10_000)));
        assert_eq!(wal.read(&(Lsn(7999)..Lsn(8100))), None);
        wal.push(Lsn(20_000), &bytes(20_000, 5, 0));
        assert_eq!(wal.range(), Some(Lsn(20_000)..Lsn(20_005)));
        let none = RecentWal::new(0);
        none.push(Lsn(0), &bytes(0, 1, 0));
        assert_eq!(none.range(), None);
    }

    proptest! {
        /// Whatever came, was cut and came again, what is read is what came last at its place.
        #[test]
        fn what_is_read_is_what_came_last(
            steps in prop::collection::vec((0u64..3000, 1usize..40_000, any::<bool>()), 1..15),
            reads in prop::collection::vec((0u64..200_000, 1u64..150_000), 1..5),
        ) {
            let wal = RecentWal::new(150_000);
            let (mut end, mut lives) = (0u64, vec![(0u64, 0u8)]);
            for (life, (back, length, goes_back)) in steps.into_iter().enumerate() {
                if goes_back {
                    end = end.saturating_sub(back);
                    lives.retain(|(from, _)| *from < end);
                    lives.push((end, u8::try_from(life % 200).unwrap()));
                }
                let life = lives.last().map_or(0, |(_, life)| *life);
                wal.push(Lsn(end), &bytes(end, length, life));
                end += length as u64;
                for (start, length) in &reads {
                    let range = Lsn(*start)..Lsn((start + length).min(end));
                    if range.is_empty() { continue }
                    let Some(read) = wal.read(&range) else { continue };
                    prop_assert!(!read.is_empty() && read.len() as u64 <= range.end.0 - range.start.0);
                    for (at, found) in (*start..).zip(&read) {
                        let life = lives.iter().rfind(|(from, _)| *from <= at).map_or(0, |(_, life)| *life);
                        prop_assert_eq!(*found, byte(at, life), "at {}", at);
                    }
                }
                let state = wal.lock();
                let cost: usize = state.pieces.iter().map(Piece::cost).sum();
                prop_assert_eq!(cost, state.cost);
                let follows = |(a, b): (&Piece, &Piece)| a.end_lsn() == b.start_lsn;
                prop_assert!(state.pieces.iter().zip(state.pieces.iter().skip(1)).all(follows));
            }
        }
    }
}
