//! Timeline history: which timeline branched from which, and where.
//!
//! A promotion ends one timeline and begins another; the new one's history file lists all its ancestors, oldest first,
//! one line each: the ancestor's number, the LSN at which it was left, and a reason for people, separated by tabs. A
//! line is skipped when it is empty or begins with `#`. Timeline 1 has no history file.
//!
//! Switch points need not ascend: recovery that follows a timeline but stops before that timeline began names it as the
//! parent all the same. Every look-up here takes that into account.

use std::fmt;

use thiserror::Error;

use crate::lsn::Lsn;
use crate::types::TimelineId;

/// An ancestor in a timeline's history, and where it was left.
///
/// # Source
/// `TimeLineHistoryEntry` in `src/include/access/timeline.h`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimelineSwitch {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The first byte that belongs to the next timeline in the history.
    pub switch_lsn: Lsn,
    /// Why the timeline was left, for people; one line. Bytes that are not UTF-8 are replaced.
    pub reason: String,
}

/// A timeline and all its ancestors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimelineHistory {
    timeline: TimelineId,
    /// Oldest first, numbers strictly increasing and below `timeline`.
    ancestors: Vec<TimelineSwitch>,
}

/// Where a copy of the log stands in another server's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BranchPoint {
    /// On the server's own timeline.
    Same,
    /// On an ancestor, and not beyond the point where the server left it: the copy can follow.
    Ancestor {
        /// Where the server's history leaves the copy's timeline.
        switch_lsn: Lsn,
    },
    /// On an ancestor, but with log that the server never had: the copy cannot follow.
    Diverged {
        /// Where the server's history leaves the copy's timeline.
        switch_lsn: Lsn,
        /// End of the copy's log, beyond `switch_lsn`.
        ours: Lsn,
    },
    /// On a timeline that is not in the server's history.
    NotInHistory,
}

/// A history file that PostgreSQL would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HistoryError {
    /// A line does not begin with a timeline number.
    #[error(
        "history of timeline {timeline}, line {line}: expected a timeline number from 1 at the start of \"{text}\""
    )]
    Timeline {
        /// Whose history it is.
        timeline: TimelineId,
        /// Line number, from 1.
        line: usize,
        /// The line's start, at most 100 characters.
        text: String,
    },
    /// A line has no LSN after the timeline number.
    #[error(
        "history of timeline {timeline}, line {line}: expected an LSN after the timeline number in \"{text}\""
    )]
    SwitchPoint {
        /// Whose history it is.
        timeline: TimelineId,
        /// Line number, from 1.
        line: usize,
        /// The line's start, at most 100 characters.
        text: String,
    },
    /// The numbers do not increase.
    #[error(
        "history of timeline {timeline}, line {line}: timeline {found} does not come after timeline {previous}"
    )]
    NotIncreasing {
        /// Whose history it is.
        timeline: TimelineId,
        /// Line number, from 1.
        line: usize,
        /// The line's timeline.
        found: TimelineId,
        /// The timeline of the line before.
        previous: TimelineId,
    },
    /// An ancestor's number is not below the timeline's own.
    #[error(
        "history of timeline {timeline}, line {line}: ancestor {found} is not below the timeline's own number"
    )]
    NotBelowOwn {
        /// Whose history it is.
        timeline: TimelineId,
        /// Line number, from 1.
        line: usize,
        /// The line's timeline.
        found: TimelineId,
    },
}

impl TimelineHistory {
    /// A timeline without ancestors, which is what timeline 1 is, and any other whose history file is not there.
    #[must_use]
    pub const fn without_ancestors(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// Reads the content of `timeline`'s history file.
    ///
    /// Stricter than PostgreSQL in what its own writer never produces: signs, numbers beyond 32 bits and timeline 0 are
    /// refused. What follows an LSN is the reason and may be anything.
    ///
    /// # Errors
    /// [`HistoryError`], which names the line.
    ///
    /// # Source
    /// `readTimeLineHistory` in `src/backend/access/transam/timeline.c`.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<TimelineSwitch> = Vec::new();
        for (line, text) in (1..).zip(content.split(|&b| b == b'\n')) {
            let text = text.trim_ascii_start();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let (found, rest) = leading_number(text, 10)
                .filter(|(found, _)| *found != 0)
                .ok_or_else(|| HistoryError::Timeline {
                    timeline,
                    line,
                    text: start_of(text),
                })?;
            let (switch_lsn, reason) =
                switch_point(rest).ok_or_else(|| HistoryError::SwitchPoint {
                    timeline,
                    line,
                    text: start_of(text),
                })?;
            let found = TimelineId(found);
            if let Some(previous) = ancestors.last().filter(|last| found <= last.timeline) {
                return Err(HistoryError::NotIncreasing {
                    timeline,
                    line,
                    found,
                    previous: previous.timeline,
                });
            }
            if found >= timeline {
                return Err(HistoryError::NotBelowOwn {
                    timeline,
                    line,
                    found,
                });
            }
            ancestors.push(TimelineSwitch {
                timeline: found,
                switch_lsn,
                reason: String::from_utf8_lossy(reason.trim_ascii()).into_owned(),
            });
        }
        Ok(Self {
            timeline,
            ancestors,
        })
    }

    /// The timeline whose history this is.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The timelines it descends from, oldest first.
    #[must_use]
    pub fn ancestors(&self) -> &[TimelineSwitch] {
        &self.ancestors
    }

    /// The timeline it branched from directly, and where; `None` when it has no ancestors.
    #[must_use]
    pub fn parent(&self) -> Option<&TimelineSwitch> {
        self.ancestors.last()
    }

    /// Whether `timeline` is this timeline or one of its ancestors.
    ///
    /// # Source
    /// `tliInHistory` in `src/backend/access/transam/timeline.c`.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.ancestor(timeline).is_some()
    }

    /// The history's line about `timeline`; `None` for the timeline itself and for those that are no ancestors.
    #[must_use]
    pub fn ancestor(&self, timeline: TimelineId) -> Option<&TimelineSwitch> {
        self.ancestors.iter().find(|a| a.timeline == timeline)
    }

    /// The LSN at which the ancestor `timeline` was left, as the file says; `None` when it is no ancestor.
    ///
    /// # Source
    /// `tliSwitchPoint` in `src/backend/access/transam/timeline.c`.
    #[must_use]
    pub fn switch_point(&self, timeline: TimelineId) -> Option<Lsn> {
        self.ancestor(timeline).map(|a| a.switch_lsn)
    }

    /// The timeline that followed the ancestor `timeline`; `None` when it is no ancestor.
    #[must_use]
    pub fn next_timeline(&self, timeline: TimelineId) -> Option<TimelineId> {
        let index = self.ancestors.iter().position(|a| a.timeline == timeline)?;
        Some(
            self.ancestors
                .get(index + 1)
                .map_or(self.timeline, |next| next.timeline),
        )
    }

    /// The timeline that holds the byte at `lsn`.
    ///
    /// # Source
    /// `tliOfPointInHistory` in `src/backend/access/transam/timeline.c`.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        // A timeline begins where its parent was left, so the newest that begins at or before the byte holds it.
        let mut timeline = self.timeline;
        for ancestor in self.ancestors.iter().rev() {
            if ancestor.switch_lsn <= lsn {
                break;
            }
            timeline = ancestor.timeline;
        }
        timeline
    }

    /// Where a copy of the log that ends at `flush_lsn` on `timeline` stands in this history.
    ///
    /// The switch point in the answer is the lowest from the copy's timeline on, since log of an ancestor beyond a later
    /// timeline's own switch point is no part of the history either.
    #[must_use]
    pub fn branch_point_from(&self, timeline: TimelineId, flush_lsn: Lsn) -> BranchPoint {
        if timeline == self.timeline {
            return BranchPoint::Same;
        }
        if !self.contains(timeline) {
            return BranchPoint::NotInHistory;
        }
        let later = self.ancestors.iter().filter(|a| a.timeline >= timeline);
        match later.map(|a| a.switch_lsn).min() {
            None => BranchPoint::NotInHistory,
            Some(switch_lsn) if flush_lsn <= switch_lsn => BranchPoint::Ancestor { switch_lsn },
            Some(switch_lsn) => BranchPoint::Diverged {
                switch_lsn,
                ours: flush_lsn,
            },
        }
    }

    /// The last timeline that both histories share, and the LSN up to which they share it (`None`: without end, as
    /// they are the same timeline). `None` when they share nothing.
    ///
    /// Two servers that were promoted apart from each other may have drawn the same number: timelines are the same only
    /// when they also began at the same LSN of the same parent.
    ///
    /// # Source
    /// `findCommonAncestorTimeline` in `src/bin/pg_rewind/pg_rewind.c`.
    #[must_use]
    pub fn common_ancestor(&self, other: &Self) -> Option<(TimelineId, Option<Lsn>)> {
        let (timeline, ours, theirs) = self
            .spans()
            .zip(other.spans())
            .take_while(|(a, b)| a.0 == b.0 && a.1 == b.1)
            .map(|(a, b)| (a.0, a.2, b.2))
            .last()?;
        Some((timeline, ours.into_iter().chain(theirs).min()))
    }

    /// Every timeline with its begin and its end (none for the timeline itself), oldest first.
    fn spans(&self) -> impl Iterator<Item = (TimelineId, Lsn, Option<Lsn>)> {
        let begins =
            std::iter::once(Lsn::INVALID).chain(self.ancestors.iter().map(|a| a.switch_lsn));
        let timelines = self
            .ancestors
            .iter()
            .map(|a| (a.timeline, Some(a.switch_lsn)));
        timelines
            .chain(std::iter::once((self.timeline, None)))
            .zip(begins)
            .map(|((timeline, end), begin)| (timeline, begin, end))
    }
}

impl fmt::Display for TimelineHistory {
    /// The content of a history file with the same ancestors, as PostgreSQL writes each line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for TimelineSwitch {
            timeline,
            switch_lsn,
            reason,
        } in &self.ancestors
        {
            writeln!(f, "{timeline}\t{switch_lsn}\t{reason}")?;
        }
        Ok(())
    }
}

/// The content of a new timeline's history file, byte for byte as a promotion writes it.
///
/// `parent_content` is the content of the parent's history file, `None` when it has none. The new timeline's number is
/// only in the file's name. `reason` must be one line, which may have its end.
///
/// # Source
/// `writeTimeLineHistory` in `src/backend/access/transam/timeline.c`.
#[must_use]
pub fn history_after_switch(
    parent_content: Option<&[u8]>,
    parent: TimelineId,
    switch_lsn: Lsn,
    reason: &str,
) -> Vec<u8> {
    let mut content = Vec::new();
    if let Some(parent_content) = parent_content {
        content.extend_from_slice(parent_content);
        content.push(b'\n');
    }
    content.extend_from_slice(format!("{parent}\t{switch_lsn}\t{reason}\n").as_bytes());
    content
}

/// The LSN after a line's timeline number, and what follows it.
fn switch_point(after_timeline: &[u8]) -> Option<(Lsn, &[u8])> {
    let text = after_timeline.trim_ascii_start();
    if text.len() == after_timeline.len() {
        return None;
    }
    let (high, text) = leading_number(text, 16)?;
    let (low, rest) = leading_number(text.strip_prefix(b"/")?, 16)?;
    Some((Lsn(u64::from(high) << 32 | u64::from(low)), rest))
}

/// The number at the start of the text, and what follows its digits; `None` without digits or beyond 32 bits.
fn leading_number(text: &[u8], radix: u32) -> Option<(u32, &[u8])> {
    let digit = |b: u8| char::from(b).to_digit(radix);
    let count = text.iter().take_while(|&&b| digit(b).is_some()).count();
    let (digits, rest) = text.split_at_checked(count)?;
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u32, |number, &b| {
        number.checked_mul(radix)?.checked_add(digit(b)?)
    })?;
    Some((number, rest))
}

/// At most 100 characters of a line, for an error.
fn start_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .trim_end()
        .chars()
        .take(100)
        .collect()
}

#[cfg(test)]
mod tests;
