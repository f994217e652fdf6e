//! [`follow`]: waits at the end of WAL for more.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use walstream::wal::decode::WalDecoder;
use walstream::{Lsn, TimelineId};

use super::input::WalInput;
use super::output::Output;
use super::visit::DumpVisitor;
use super::waldump_error::WaldumpError;
use crate::wal_reader::{
    Cancel, Flow, HandingOver, ReadEnd, ReadRequest, SegmentReader, Stopped, VisitorSink as _,
    judge_end,
};

/// How often to look for more.
const POLL: Duration = Duration::from_millis(100);
/// When nothing came for this long, whether it is still the end is looked into. Not earlier: a server writes its pages one
/// after the other, and for a moment a later one may be seen before an earlier one.
const PATIENCE: Duration = Duration::from_secs(2);
/// And again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Goes on from where reading ended, until all that was asked for was read, `cancel` is raised, or WAL proves damaged.
pub(super) fn follow<'p, W: Write>(
    input: &WalInput,
    request: &ReadRequest,
    mut end: ReadEnd,
    visitor: &mut DumpVisitor<'p>,
    output: &mut Output<'p, W>,
    cancel: &Cancel,
) -> Result<ReadEnd, WaldumpError> {
    let mut reader = SegmentReader::new(input);
    let mut look_at = Instant::now() + PATIENCE;
    loop {
        match &end.stopped {
            Stopped::Reached | Stopped::Enough | Stopped::Cancelled => return Ok(end),
            // A record whose checksum is right does not become another one.
            Stopped::Fault(fault) if end.decoder.error() != Some(*fault) => return Ok(end),
            _ => {}
        }
        if Instant::now() >= look_at {
            if judge_end(&mut reader, &end)?.is_err() {
                return Ok(end);
            }
            look_at = Instant::now() + LOOK_AGAIN;
        }
        std::thread::sleep(POLL);
        if cancel.load(Ordering::Relaxed) {
            end.stopped = Stopped::Cancelled;
            return Ok(end);
        }
        let shown_along = input.view().history().timeline();
        input.refresh()?;
        require_same_history(input, shown_along, end.decoder.valid_end())?;
        reader.reopen();
        if end.decoder.error().is_some() {
            end.decoder = taken_up(&end.decoder);
        }
        let before = end.decoder.valid_end();
        let mut visit = HandingOver {
            visitor,
            sink: output,
        };
        end.stopped = reader.advance(&mut end.decoder, request.until, cancel, &mut visit)?;
        if output.take(visitor) == Flow::Stop {
            end.stopped = Stopped::Enough;
        }
        if end.decoder.valid_end() > before {
            look_at = Instant::now() + PATIENCE;
        }
    }
}

/// A decoder that goes on at the end of the last whole record of this one.
pub(super) fn taken_up(decoder: &WalDecoder) -> WalDecoder {
    let mut next = WalDecoder::new(*decoder.dialect(), decoder.valid_end());
    if let Some(system_identifier) = decoder.system_identifier() {
        next = next.expect_system_identifier(system_identifier);
    }
    if let Some(timeline) = decoder.timeline() {
        next = next.expect_timeline_at_least(timeline);
    }
    match decoder.last_record() {
        Some(prev) => next.expect_prev(prev),
        None => next,
    }
}

/// Makes sure that the timeline that is followed now contains what was shown along an earlier one. (Pages do not tell which
/// timeline was shown: the first records of a timeline are often on a page that its ancestor began.)
fn require_same_history(
    input: &WalInput,
    shown_along: TimelineId,
    shown: Lsn,
) -> Result<(), WaldumpError> {
    let view = input.view();
    let history = view.history();
    match history.switch_point(shown_along) {
        Some(switch_lsn) if switch_lsn < shown => Err(WaldumpError::Diverged {
            timeline: history.timeline(),
            switch_lsn,
            shown,
        }),
        _ => Ok(()),
    }
}
