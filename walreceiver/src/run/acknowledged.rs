//! [`RecordBoundaries`]: the last whole record before a flush position.
//!
//! A flush LSN may lie inside a record, since messages end anywhere. What a restart must find again is every whole
//! record before it; the half behind that is received anew. So what is kept in `walstream.flushed` is a record's end.

use std::collections::VecDeque;

use walstream::Lsn;

/// Remembers the ends of verified records that are received and not yet flushed, one for each piece of WAL.
#[derive(Debug)]
pub struct RecordBoundaries {
    /// Ascending.
    pending: VecDeque<Lsn>,
    flushed: Lsn,
}

impl RecordBoundaries {
    /// Starts at a record's end that is flushed.
    #[must_use]
    pub const fn new(flushed: Lsn) -> Self {
        Self {
            pending: VecDeque::new(),
            flushed,
        }
    }

    /// A piece of WAL came; the last whole record up to its end ends at `valid_end`.
    pub fn received(&mut self, valid_end: Lsn) {
        if valid_end > self.pending.back().copied().unwrap_or(self.flushed) {
            self.pending.push_back(valid_end);
        }
    }

    /// Bytes up to `flush_lsn` are durable. Gives the end of the last record among them that ended a piece.
    pub fn flushed(&mut self, flush_lsn: Lsn) -> Lsn {
        while let Some(valid_end) = self
            .pending
            .pop_front_if(|valid_end| *valid_end <= flush_lsn)
        {
            self.flushed = valid_end;
        }
        self.flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_last_record_end_at_or_before_the_flush() {
        let mut boundaries = RecordBoundaries::new(Lsn(100));
        assert_eq!(boundaries.flushed(Lsn(150)), Lsn(100));
        for valid_end in [180, 180, 400] {
            boundaries.received(Lsn(valid_end));
        }
        assert_eq!(boundaries.flushed(Lsn(179)), Lsn(100));
        assert_eq!(boundaries.flushed(Lsn(180)), Lsn(180));
        assert_eq!(boundaries.flushed(Lsn(399)), Lsn(180));
        assert_eq!(boundaries.flushed(Lsn(400)), Lsn(400));
        assert_eq!(boundaries.flushed(Lsn(500)), Lsn(400));
    }

    #[test]
    fn stays_empty_inside_one_long_record() {
        let mut boundaries = RecordBoundaries::new(Lsn(8));
        for _ in 0..1000 {
            boundaries.received(Lsn(8));
        }
        assert!(boundaries.pending.is_empty());
    }
}
