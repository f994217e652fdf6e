//! [`RecentWal`]: the newest WAL in memory, from which standbys that keep up are served.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use walstream::Lsn;

use super::buffer::Batch;

/// A piece of fewer bytes is joined with those behind it, where more is asked for: commits that come one by one make
/// pieces of a few hundred bytes, and a standby that is behind must not get a message for each.
const WORTH_A_MESSAGE: usize = 16 << 10;

/// Flushed WAL, contiguous, up to a number of bytes.
#[derive(Debug)]
pub(super) struct RecentWal {
    pieces: VecDeque<(Lsn, Bytes)>,
    end: Lsn,
    bytes: u64,
    limit: u64,
}

impl RecentWal {
    pub(super) const fn new(end: Lsn, limit: u64) -> Self {
        Self {
            pieces: VecDeque::new(),
            end,
            bytes: 0,
            limit,
        }
    }

    /// Adds WAL that follows, and forgets the oldest beyond the limit.
    pub(super) fn push(&mut self, batch: &mut Batch) {
        for piece in batch.pieces.drain(..) {
            let len = to_u64(piece.len());
            self.pieces.push_back((self.end, piece));
            self.end = self.end + len;
            self.bytes += len;
        }
        while self.bytes > self.limit
            && let Some((_, oldest)) = self.pieces.pop_front()
        {
            self.bytes -= to_u64(oldest.len());
        }
    }

    /// The front of this range, when it is here.
    pub(super) fn read(&self, range: &Range<Lsn>) -> Option<Bytes> {
        let at = self
            .pieces
            .partition_point(|(start, _)| *start <= range.start)
            .checked_sub(1)?;
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let (start, piece) = self.pieces.get(at)?;
        let skipped = usize::try_from(range.start.saturating_sub(*start)).ok()?;
        if skipped >= piece.len() {
            return None;
        }
        let first = piece.slice(skipped..piece.len().min(skipped.saturating_add(wanted)));
        if first.len() == wanted || first.len() >= WORTH_A_MESSAGE {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(wanted.min(2 * WORTH_A_MESSAGE));
        joined.extend_from_slice(&first);
        for (_, piece) in self.pieces.range(at + 1..) {
            let left = wanted - joined.len();
            if left == 0 {
                break;
            }
            joined.extend_from_slice(piece.get(..left).unwrap_or(piece));
        }
        Some(joined.freeze())
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(recent: &mut RecentWal, pieces: &[&'static [u8]]) {
        let mut batch = Batch {
            pieces: pieces
                .iter()
                .map(|piece| Bytes::from_static(piece))
                .collect(),
            ..Batch::default()
        };
        recent.push(&mut batch);
    }

    #[test]
    fn gives_what_it_has_and_forgets_the_oldest() {
        let mut recent = RecentWal::new(Lsn(100), 12);
        assert_eq!(recent.read(&(Lsn(100)..Lsn(101))), None);
        push(&mut recent, &[b"abcd", b"efgh"]);
        push(&mut recent, &[b"ijkl"]);
        let read = |recent: &RecentWal, from: u64, to: u64| {
            recent
                .read(&(Lsn(from)..Lsn(to)))
                .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        assert_eq!(read(&recent, 100, 104).as_deref(), Some("abcd"));
        assert_eq!(read(&recent, 101, 103).as_deref(), Some("bc"));
        assert_eq!(read(&recent, 103, 110).as_deref(), Some("defghij"));
        assert_eq!(read(&recent, 99, 101), None);
        assert_eq!(read(&recent, 112, 113), None);
        push(&mut recent, &[b"m"]);
        assert_eq!(read(&recent, 103, 105), None);
        assert_eq!(read(&recent, 104, 113).as_deref(), Some("efghijklm"));
    }

    #[test]
    fn a_large_piece_is_given_without_a_copy() {
        let mut recent = RecentWal::new(Lsn(0), 1 << 20);
        let large = Bytes::from(vec![1; WORTH_A_MESSAGE]);
        let mut batch = Batch {
            pieces: vec![large.clone(), Bytes::from_static(b"x")],
            ..Batch::default()
        };
        recent.push(&mut batch);
        let given = recent.read(&(Lsn(0)..Lsn(1 << 18))).unwrap();
        assert_eq!(given.as_ptr(), large.as_ptr());
        assert_eq!(given.len(), large.len());
    }
}
