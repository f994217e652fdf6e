//! Slots as connections use them.

use walstream::Lsn;

use super::{Invalidation, PhysicalSlots, SlotError, SlotStoreError, SlotView};
use crate::refusal::Refusal;

const ALICE: u32 = 11;
const BOB: u32 = 12;

fn sqlstate<T: std::fmt::Debug>(result: Result<T, SlotError>) -> &'static str {
    Refusal::from(result.unwrap_err()).sqlstate
}

fn restart_lsn(slots: &PhysicalSlots, name: &str) -> Option<Lsn> {
    slots.read(name).unwrap().restart_lsn
}

#[test]
fn a_slot_is_used_by_one_connection_at_a_time() {
    let slots = PhysicalSlots::in_memory(2);
    slots.create("mirror", ALICE, Some(Lsn(8))).unwrap();
    assert_eq!(restart_lsn(&slots, "mirror"), Some(Lsn(8)));
    let held = slots.acquire("mirror", ALICE).unwrap();
    assert_eq!(slots.read("mirror").unwrap().active_pid, Some(ALICE));
    assert_eq!(sqlstate(slots.acquire("mirror", BOB)), "55006");
    assert_eq!(sqlstate(slots.drop_slot("mirror", BOB)), "55006");
    assert_eq!(held.confirm(Lsn(16)), None);
    assert_eq!(
        held.confirm(Lsn(12)),
        Some(Lsn(16)),
        "PostgreSQL's go back, too"
    );
    assert_eq!(held.confirm(Lsn(12)), None);
    drop(held);
    assert_eq!(restart_lsn(&slots, "mirror"), Some(Lsn(12)));
    assert_eq!(slots.retained_from(), Some(Lsn(12)));
    drop(slots.acquire("mirror", BOB).unwrap());
    slots.drop_slot("mirror", BOB).unwrap();
    assert_eq!(slots.read("mirror"), None);
    assert_eq!(slots.retained_from(), None);
    assert_eq!(sqlstate(slots.drop_slot("mirror", BOB)), "42704");
    assert_eq!(sqlstate(slots.acquire("mirror", BOB)), "42704");
}

#[test]
fn a_temporary_slot_ends_with_its_connection() {
    let slots = PhysicalSlots::in_memory(2);
    slots
        .create_temporary("temporary", ALICE, Some(Lsn(8)))
        .unwrap();
    assert_eq!(sqlstate(slots.acquire("temporary", BOB)), "55006");
    assert_eq!(slots.retained_from(), Some(Lsn(8)));
    drop(slots.acquire("temporary", ALICE).unwrap());
    assert_eq!(
        sqlstate(slots.acquire("temporary", BOB)),
        "55006",
        "still its owner's"
    );
    slots.forget_connection(BOB);
    assert!(slots.read("temporary").is_some());
    slots.forget_connection(ALICE);
    assert_eq!(slots.read("temporary"), None);
}

#[test]
fn names_and_count_are_checked() {
    let slots = PhysicalSlots::in_memory(1);
    assert_eq!(sqlstate(slots.create("a-b", ALICE, None)), "42602");
    let refusal = Refusal::from(slots.create("A", ALICE, None).unwrap_err());
    assert!(refusal.hint.is_some());
    slots.create("a", ALICE, None).unwrap();
    assert_eq!(sqlstate(slots.create("a", ALICE, None)), "42710");
    assert_eq!(sqlstate(slots.create("b", ALICE, None)), "53400");
}

#[test]
fn slots_come_back_from_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let slots = PhysicalSlots::open(dir.path(), 3).unwrap();
    slots.create("kept", ALICE, Some(Lsn(8))).unwrap();
    slots
        .create_temporary("temporary", ALICE, Some(Lsn(4)))
        .unwrap();
    slots.create("dropped", ALICE, None).unwrap();
    slots.acquire("kept", ALICE).unwrap().confirm(Lsn(24));
    slots.acquire("temporary", ALICE).unwrap().confirm(Lsn(16));
    slots.save_dirty().unwrap();
    slots.acquire("kept", ALICE).unwrap().confirm(Lsn(32));
    slots.drop_slot("dropped", BOB).unwrap();
    assert!(matches!(
        PhysicalSlots::open(dir.path(), 3),
        Err(SlotStoreError::Held { .. })
    ));
    drop(slots);
    let slots = PhysicalSlots::open(dir.path(), 3).unwrap();
    let kept = SlotView {
        wal_status: None,
        safe_wal_size: None,
        horizon: walstream::protocol::horizon::XminHorizon::default(),
        name: "kept".to_owned(),
        temporary: false,
        active_pid: None,
        restart_lsn: Some(Lsn(24)),
        invalidated_at: None,
        retained_from: Some(Lsn(24)),
    };
    assert_eq!(slots.list(), [kept]);
    drop(slots);
    let error = PhysicalSlots::open(dir.path(), 0).unwrap_err();
    assert!(
        matches!(
            error,
            SlotStoreError::TooMany {
                found: 1,
                limit: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_written_refuses_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let slots = PhysicalSlots::open(dir.path(), 3).unwrap();
    slots.create("kept", ALICE, Some(Lsn(8))).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    let error = slots.create("new", ALICE, Some(Lsn(4))).unwrap_err();
    assert!(error.to_string().contains("new.slot.tmp"), "{error}");
    assert_eq!(Refusal::from(error).sqlstate, "58P01");
    assert_eq!(slots.read("new"), None);
    assert_eq!(slots.retained_from(), Some(Lsn(4)), "its file may be there");
    slots.create_temporary("new", ALICE, None).unwrap();
    assert_eq!(slots.retained_from(), Some(Lsn(4)));
    assert_eq!(sqlstate(slots.drop_slot("kept", ALICE)), "58P01");
    assert!(slots.read("kept").is_some());
    assert!(slots.save_dirty().is_err());
    // The slot is nobody's, and its file is made anew when that can be.
    std::fs::create_dir(dir.path()).unwrap();
    slots.save_dirty().unwrap();
    assert!(dir.path().join("kept.slot").exists());
    assert_eq!(slots.retained_from(), Some(Lsn(8)));
    slots.drop_slot("kept", BOB).unwrap();
    assert!(!dir.path().join("kept.slot").exists());
}

#[test]
fn obsolete_slots_are_lost_once_nobody_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let slots = PhysicalSlots::open(dir.path(), 9).unwrap();
    for (name, lsn) in [
        ("free", Some(8)),
        ("used", Some(12)),
        ("never", None),
        ("ahead", Some(64)),
    ] {
        slots.create(name, ALICE, lsn.map(Lsn)).unwrap();
    }
    slots.create_temporary("idle", BOB, Some(Lsn(4))).unwrap();
    let used = slots.acquire("used", ALICE).unwrap();
    let revoked = used.revocation();
    let is_revoked = || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(revoked.notified())
            .poll(&mut context)
            .is_ready()
    };
    assert!(!is_revoked());
    let expected = Invalidation {
        invalidated: vec![("free".to_owned(), Lsn(8)), ("idle".to_owned(), Lsn(4))],
        in_use: vec![("used".to_owned(), ALICE)],
    };
    assert_eq!(slots.invalidate_obsolete(Lsn(64)).unwrap(), expected);
    assert!(is_revoked(), "told, also when it was not listening");
    assert_eq!(slots.retained_from(), Some(Lsn(12)));
    drop(used);
    let expected = Invalidation {
        invalidated: vec![("used".to_owned(), Lsn(12))],
        in_use: vec![],
    };
    assert_eq!(slots.invalidate_obsolete(Lsn(64)).unwrap(), expected);
    assert_eq!(
        slots.invalidate_obsolete(Lsn(64)).unwrap(),
        Invalidation::default()
    );
    assert_eq!(slots.retained_from(), Some(Lsn(64)));
    drop(slots);

    let slots = PhysicalSlots::open(dir.path(), 9).unwrap();
    let free = slots.read("free").unwrap();
    assert_eq!(
        (free.restart_lsn, free.invalidated_at),
        (None, Some(Lsn(8)))
    );
    assert!(slots.acquire("free", BOB).unwrap().is_invalidated());
    assert!(!slots.acquire("never", BOB).unwrap().is_invalidated());
    // Its standby has found the WAL elsewhere: it keeps WAL again.
    let free = slots.acquire("free", BOB).unwrap();
    free.confirm(Lsn(70));
    drop(free);
    assert!(!slots.acquire("free", BOB).unwrap().is_invalidated());
    assert_eq!(restart_lsn(&slots, "free"), Some(Lsn(70)));
}

#[test]
fn what_is_kept_counts_from_when_the_position_was_asked() {
    let slots = PhysicalSlots::in_memory(2);
    let other = slots.clone();
    let (asked, heard) = std::sync::mpsc::channel();
    slots
        .create_from("s", 1, || {
            std::thread::spawn(move || asked.send(other.retained_from()));
            Some(Lsn(8))
        })
        .unwrap();
    assert_eq!(heard.recv().unwrap(), Some(Lsn(8)));
}

#[test]
fn who_had_a_slot_that_was_dropped_has_none_of_its_name() {
    let slots = PhysicalSlots::in_memory(2);
    slots.create("s", 1, Some(Lsn(8))).unwrap();
    let gone = slots.acquire("s", 1).unwrap();
    slots.drop_slot("s", 1).unwrap();
    slots.create("s", 2, Some(Lsn(16))).unwrap();
    let _used = slots.acquire("s", 2).unwrap();
    assert_eq!(gone.confirm(Lsn(24)), None);
    assert_eq!(slots.read("s").unwrap().restart_lsn, Some(Lsn(16)));
    drop(gone);
    assert!(matches!(
        slots.acquire("s", 3),
        Err(SlotError::InUse { pid: 2, .. })
    ));
}
