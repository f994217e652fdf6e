//! Steps of standbys that come and go, and a model that recomputes everything from nothing.

use proptest::prelude::*;

use super::*;
use crate::SegmentSize;

type Rep = SyncRep<u32>;

const NOW: PgTimestamp = PgTimestamp(0);

fn names(setting: &str) -> SyncRule {
    StandbyNames::parse(setting).unwrap().into()
}

fn at(write: u64, flush: u64, apply: u64) -> StandbyLsns {
    StandbyLsns {
        write: Lsn(write),
        flush: Lsn(flush),
        apply: Lsn(apply),
    }
}

fn streaming(rep: &mut Rep, name: &str, lsns: StandbyLsns) -> StandbyId {
    let id = rep.join(name);
    rep.handle_state(id, WalSenderState::Streaming);
    rep.handle_reply(id, lsns, NOW, NOW);
    id
}

fn states(rep: &Rep) -> Vec<String> {
    rep.rows()
        .map(|row| {
            format!(
                "{} {} {}",
                row.application_name, row.sync_priority, row.sync_state
            )
        })
        .collect()
}

fn released(rep: &mut Rep) -> Vec<u32> {
    std::iter::from_fn(|| rep.poll_released())
        .map(|(_, token)| token)
        .collect()
}

#[test]
fn a_slot_is_used_again_and_an_old_id_is_not() {
    let mut rep = Rep::new(names("*"), Lsn(100));
    let a = streaming(&mut rep, "a", at(5, 5, 0));
    let b = streaming(&mut rep, "b", at(7, 7, 0));
    assert_eq!(states(&rep), ["a 1 sync", "b 1 potential"]);
    rep.leave(a);
    assert_eq!(states(&rep), ["b 1 sync"]);
    streaming(&mut rep, "c", at(9, 9, 0));
    assert_eq!(states(&rep), ["c 1 sync", "b 1 potential"]);
    rep.handle_state(a, WalSenderState::Startup);
    rep.handle_reply(a, at(50, 50, 50), NOW, NOW);
    rep.leave(a);
    assert_eq!(states(&rep), ["c 1 sync", "b 1 potential"]);
    assert_eq!(rep.released_lsns(), at(9, 9, 0));
    rep.leave(b);
    assert_eq!(states(&rep), ["c 1 sync"]);
}

#[test]
fn each_mode_waits_for_its_position() {
    let mut rep = Rep::new(names("s"), Lsn(10));
    let s = streaming(&mut rep, "s", at(10, 10, 10));
    assert_eq!(
        rep.wait(Lsn(10), WaitMode::RemoteApply, || unreachable!()),
        None
    );
    let modes = [
        WaitMode::Local,
        WaitMode::RemoteWrite,
        WaitMode::RemoteFlush,
        WaitMode::RemoteApply,
    ];
    for (mode, token) in modes.into_iter().zip(0..) {
        assert!(rep.wait(Lsn(20), mode, || token).is_some());
    }
    rep.handle_reply(s, at(19, 19, 19), NOW, NOW);
    assert_eq!(released(&mut rep), []);
    rep.handle_local_flush(Lsn(20));
    assert_eq!(released(&mut rep), [0]);
    rep.handle_reply(s, at(20, 19, 19), NOW, NOW);
    assert_eq!(released(&mut rep), [1]);
    rep.handle_reply(s, at(20, 20, 19), NOW, NOW);
    assert_eq!(released(&mut rep), [2]);
    rep.handle_reply(s, at(20, 20, 20), NOW, NOW);
    assert_eq!(released(&mut rep), [3]);
}

/// Commit 21c1125d66: the waiters of a standby that is required no more were released by nobody's reply.
#[test]
fn a_change_of_the_setting_releases_at_once() {
    for (setting, goes) in [
        ("", true),
        ("b", true),
        ("ANY 1 (a, b)", true),
        ("2 (a, b)", false),
        ("c", false),
    ] {
        let mut rep = Rep::new(names("a"), Lsn(50));
        streaming(&mut rep, "a", at(10, 10, 10));
        streaming(&mut rep, "b", at(50, 50, 50));
        rep.wait(Lsn(50), WaitMode::RemoteFlush, || 1);
        assert_eq!(released(&mut rep), [], "{setting}");
        rep.set_rule(names(setting));
        assert_eq!(!released(&mut rep).is_empty(), goes, "{setting}");
    }
}

#[test]
fn off_releases_what_is_flushed_here_and_on_again_waits() {
    let mut rep = Rep::new(names("a"), Lsn(10));
    rep.wait(Lsn(10), WaitMode::RemoteApply, || 1);
    rep.wait(Lsn(20), WaitMode::RemoteFlush, || 2);
    assert!(rep.standbys_required());
    rep.set_rule(SyncRule::Off);
    assert_eq!(released(&mut rep), [1]);
    assert!(!rep.standbys_required());
    rep.handle_local_flush(Lsn(20));
    assert_eq!(released(&mut rep), [2]);
    rep.set_rule(names("a"));
    assert!(rep.wait(Lsn(20), WaitMode::RemoteWrite, || 3).is_some());
    assert_eq!(rep.released_lsns(), at(0, 0, 0));
}

/// Commit 4c703369af: a sender that stops still releases.
#[test]
fn a_sender_that_stops_still_releases() {
    let mut rep = Rep::new(names("a"), Lsn(50));
    let a = streaming(&mut rep, "a", at(10, 10, 10));
    rep.wait(Lsn(50), WaitMode::RemoteFlush, || 1);
    rep.handle_state(a, WalSenderState::Stopping);
    rep.handle_reply(a, at(50, 50, 50), NOW, NOW);
    assert_eq!(released(&mut rep), [1]);
}

#[test]
fn who_takes_over_releases_with_what_it_has() {
    let mut rep = Rep::new(names("a, b"), Lsn(50));
    let a = streaming(&mut rep, "a", at(10, 10, 10));
    streaming(&mut rep, "b", at(40, 40, 0));
    rep.wait(Lsn(40), WaitMode::RemoteFlush, || 1);
    rep.wait(Lsn(50), WaitMode::RemoteFlush, || 2);
    assert_eq!(states(&rep), ["a 1 sync", "b 2 potential"]);
    rep.leave(a);
    assert_eq!(states(&rep), ["b 2 sync"]);
    assert_eq!(released(&mut rep), [1]);
}

#[test]
fn a_liar_releases_nothing_that_is_not_here() {
    let mut rep = Rep::new(names("a"), Lsn(10));
    let a = streaming(&mut rep, "a", at(u64::MAX, u64::MAX, u64::MAX));
    assert_eq!(rep.released_lsns(), at(10, 10, 10));
    rep.handle_reply(a, at(10, 10, 10), NOW, NOW);
    rep.handle_local_flush(Lsn(20));
    assert!(rep.wait(Lsn(20), WaitMode::RemoteFlush, || 1).is_some());
}

#[test]
fn a_released_position_never_goes_back() {
    let mut rep = Rep::new(names("a"), Lsn(50));
    let a = streaming(&mut rep, "a", at(50, 50, 50));
    rep.handle_reply(a, at(5, 5, 5), NOW, NOW);
    assert_eq!(rep.released_lsns(), at(50, 50, 50));
    rep.leave(a);
    rep.set_rule(names("2 (x, y)"));
    assert_eq!(rep.wait(Lsn(50), WaitMode::RemoteApply, || 1), None);
}

#[test]
fn a_cancelled_wait_is_not_released() {
    let mut rep = Rep::new(names("a"), Lsn(50));
    let id = rep.wait(Lsn(50), WaitMode::RemoteFlush, || 1).unwrap();
    assert_eq!(rep.waiting(WaitMode::RemoteFlush), 1);
    assert_eq!(rep.cancel(id), Some(1));
    rep.set_rule(SyncRule::Off);
    assert_eq!(released(&mut rep), []);
}

#[test]
fn greenplum_waits_only_for_who_is_near() {
    let segment = SegmentSize::MIN.bytes();
    let end = Lsn(10 * segment);
    let mut rep = Rep::new(
        SyncRule::Greenplum(GreenplumRule::new(SegmentSize::MIN)),
        end,
    );
    // Nobody there, or another program: no wait.
    assert_eq!(rep.wait(end, WaitMode::RemoteFlush, || 0), None);
    streaming(&mut rep, "pg_basebackup", at(1, 1, 0));
    assert_eq!(states(&rep), ["pg_basebackup 0 async"]);
    assert!(!rep.standbys_required());
    // Far behind: no wait.
    let mirror = rep.join("gp_walreceiver");
    rep.handle_state(mirror, WalSenderState::Catchup);
    rep.handle_sent(mirror, Lsn(8 * segment));
    rep.handle_reply(mirror, at(7 * segment, 7 * segment, 7 * segment), NOW, NOW);
    assert!(!rep.standbys_required());
    assert_eq!(states(&rep)[1], "gp_walreceiver 1 potential");
    // Near: commits wait, also when it falls behind again while it catches up.
    rep.handle_sent(mirror, Lsn(9 * segment));
    assert!(rep.standbys_required());
    assert_eq!(states(&rep)[1], "gp_walreceiver 1 sync");
    rep.handle_local_flush(Lsn(20 * segment));
    assert!(rep.standbys_required());
    assert!(
        rep.wait(Lsn(20 * segment), WaitMode::RemoteFlush, || 1)
            .is_some()
    );
    rep.handle_state(mirror, WalSenderState::Streaming);
    rep.handle_reply(mirror, at(20 * segment, 20 * segment - 1, 0), NOW, NOW);
    assert_eq!(released(&mut rep), []);
    // Gone: no commit waits.
    rep.leave(mirror);
    assert_eq!(released(&mut rep), [1]);
    assert!(!rep.standbys_required());
    assert_eq!(
        rep.wait(Lsn(20 * segment), WaitMode::RemoteFlush, || 2),
        None
    );
}

#[test]
fn greenplum_counts_a_new_stream_anew() {
    let segment = SegmentSize::MIN.bytes();
    let mut rep = Rep::new(
        SyncRule::Greenplum(GreenplumRule::new(SegmentSize::MIN)),
        Lsn(10 * segment),
    );
    let mirror = streaming(&mut rep, "gp_walreceiver", at(1, 1, 1));
    assert!(rep.standbys_required());
    rep.handle_state(mirror, WalSenderState::Startup);
    rep.handle_state(mirror, WalSenderState::Catchup);
    assert!(!rep.standbys_required());
}

#[test]
fn a_row_tells_all_that_is_known() {
    let mut rep = Rep::new(names("ANY 1 (A)"), Lsn(50));
    let id = rep.join("a");
    let row = |rep: &Rep| rep.rows().next().unwrap();
    assert_eq!(
        (
            row(&rep).sync_priority,
            row(&rep).sync_state,
            row(&rep).replied_at
        ),
        (0, SyncState::Async, None)
    );
    rep.handle_state(id, WalSenderState::Streaming);
    rep.handle_send(id, Lsn(50), PgTimestamp(1_000));
    rep.handle_sent(id, Lsn(50));
    rep.handle_reply(id, at(50, 40, 0), PgTimestamp(7), PgTimestamp(1_500));
    let row = row(&rep);
    assert_eq!(
        (row.id, row.application_name.as_str(), row.state),
        (id, "a", WalSenderState::Streaming)
    );
    assert_eq!(
        (row.sent_lsn, row.lsns, row.replied_at),
        (Lsn(50), at(50, 40, 0), Some(PgTimestamp(7)))
    );
    assert_eq!((row.sync_priority, row.sync_state), (1, SyncState::Quorum));
    assert_eq!(row.lag.write, Some(std::time::Duration::from_micros(500)));
}

const SETTINGS: [&str; 8] = [
    "",
    "a",
    "b, a",
    "2 (a, b, c)",
    "ANY 2 (a, b, c)",
    "*",
    "ANY 1 (*)",
    "3 (c, *)",
];
const NAMES: [&str; 4] = ["a", "B", "c", "d"];
const STATES: [WalSenderState; 3] = [
    WalSenderState::Catchup,
    WalSenderState::Streaming,
    WalSenderState::Stopping,
];

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(prop::sample::Index),
    State(prop::sample::Index, usize),
    Reply(prop::sample::Index, [u64; 3]),
    Rule(usize),
    Flush(u64),
    Wait(u64, usize),
    Cancel(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..NAMES.len()).prop_map(Step::Join),
        1 => index().prop_map(Step::Leave),
        4 => (index(), 0..STATES.len()).prop_map(|(id, state)| Step::State(id, state)),
        8 => (index(), prop::array::uniform3(0u64..10)).prop_map(|(id, lsns)| Step::Reply(id, lsns)),
        1 => (0..SETTINGS.len()).prop_map(Step::Rule),
        2 => (0u64..10).prop_map(Step::Flush),
        5 => (0u64..10, 0usize..4).prop_map(|(lsn, mode)| Step::Wait(lsn, mode)),
        1 => index().prop_map(Step::Cancel),
    ]
}

/// A standby of the model: slot, name, whether its sender sends new WAL, positions.
struct Known {
    slot: usize,
    name: &'static str,
    sends: bool,
    lsns: [u64; 3],
    id: StandbyId,
}

/// Whether the standbys required by the setting have all reached `lsn` with position `which`, by the words of the manual.
fn reached(setting: &str, standbys: &[Known], which: usize, lsn: u64) -> bool {
    let list = setting
        .trim_start_matches(|c: char| !c.is_ascii_lowercase() && c != '*')
        .trim_end_matches(')');
    let count: usize = setting.chars().find_map(|c| c.to_digit(10)).unwrap_or(1) as usize;
    let place = |s: &Known| {
        list.split(", ")
            .position(|name| name == "*" || name == s.name.to_lowercase())
    };
    let mut listed: Vec<&Known> = standbys
        .iter()
        .filter(|s| place(s).is_some() && s.sends && s.lsns[1] > 0)
        .collect();
    if !setting.starts_with("ANY") {
        listed.sort_by_key(|s| (place(s), s.slot));
        listed.truncate(count);
    }
    listed.iter().filter(|s| s.lsns[which] >= lsn).count() >= count
}

proptest! {
    #[test]
    fn as_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let mut rep = Rep::new(SyncRule::Off, Lsn(0));
        let (mut setting, mut flushed, mut best) = ("", 0, [0; 3]);
        let mut standbys: Vec<Known> = Vec::new();
        let mut waiting: Vec<(u32, u64, usize, WaiterId)> = Vec::new();
        for (token, step) in (0..).zip(steps) {
            let pick = |index: prop::sample::Index, len: usize| (len > 0).then(|| index.index(len));
            match step {
                Step::Join(name) => {
                    let slot = (0..).find(|slot| standbys.iter().all(|s| s.slot != *slot)).unwrap();
                    let id = rep.join(NAMES[name]);
                    standbys.push(Known { slot, name: NAMES[name], sends: false, lsns: [0; 3], id });
                }
                Step::Leave(index) => if let Some(index) = pick(index, standbys.len()) {
                    rep.leave(standbys.remove(index).id);
                },
                Step::State(index, state) => if let Some(index) = pick(index, standbys.len()) {
                    standbys[index].sends = state > 0;
                    rep.handle_state(standbys[index].id, STATES[state]);
                },
                Step::Reply(index, lsns) => if let Some(index) = pick(index, standbys.len()) {
                    standbys[index].lsns = lsns;
                    rep.handle_reply(standbys[index].id, at(lsns[0], lsns[1], lsns[2]), NOW, NOW);
                },
                Step::Rule(index) => {
                    setting = SETTINGS[index];
                    rep.set_rule(names(setting));
                }
                Step::Flush(lsn) => {
                    flushed = flushed.max(lsn);
                    rep.handle_local_flush(Lsn(lsn));
                }
                Step::Cancel(index) => if let Some(index) = pick(index, waiting.len()) {
                    let (token, _, _, id) = waiting.remove(index);
                    prop_assert_eq!(rep.cancel(id), Some(token));
                },
                Step::Wait(..) => {}
            }
            for (which, best) in best.iter_mut().enumerate() {
                if !setting.is_empty() {
                    *best = (*best..=flushed).filter(|lsn| reached(setting, &standbys, which, *lsn)).max().unwrap_or(*best);
                }
            }
            let done = |lsn: u64, mode: usize| {
                lsn <= if mode == 0 || setting.is_empty() { flushed } else { best[mode - 1] }
            };
            if let Step::Wait(lsn, mode) = step {
                let id = rep.wait(Lsn(lsn), WaitMode::ALL[mode], || token);
                prop_assert_eq!(id.is_none(), done(lsn, mode));
                waiting.extend(id.map(|id| (token, lsn, mode, id)));
            }
            let mut expected: Vec<(usize, u64, u32)> = waiting
                .iter()
                .filter(|(_, lsn, mode, _)| done(*lsn, *mode))
                .map(|(token, lsn, mode, _)| (*mode, *lsn, *token))
                .collect();
            expected.sort_unstable();
            waiting.retain(|(_, lsn, mode, _)| !done(*lsn, *mode));
            prop_assert_eq!(released(&mut rep), expected.iter().map(|(_, _, token)| *token).collect::<Vec<_>>());
            prop_assert_eq!(rep.released_lsns(), at(best[0], best[1], best[2]));
        }
    }
}
