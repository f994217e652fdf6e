//! Slots under failures and loss of power: at each file operation, whatever reached the disk, the slots that were answered
//! for are there, and none needs WAL from before what was kept.
//!
//! PostgreSQL 17 advanced a slot in memory during a checkpoint, removed WAL by that, and after a crash had the slot back at
//! the older position (recovery test 047). Keeping WAL by memory alone, in `SlotEntry::retained_from`, makes these fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use walstream::Lsn;

use super::PhysicalSlots;
use super::faulty_storage::{Fault, FaultyStorage, World};
use super::store::SlotStore;

const PID: u32 = 7;
const DIRECTORY: &str = "/slots";

/// What a client may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Exists,
    IsGone,
}

type Promises = Arc<Mutex<BTreeMap<&'static str, Promise>>>;

struct Run {
    storage: FaultyStorage,
    slots: PhysicalSlots,
    promises: Promises,
}

fn open(storage: &FaultyStorage) -> PhysicalSlots {
    let (store, saved) = SlotStore::open_on(Box::new(storage.clone()), Path::new(DIRECTORY), None)
        .expect("a crash leaves no damaged file");
    PhysicalSlots::on_store(store, saved, 10).unwrap()
}

/// Whatever a loss of power leaves now keeps the promises, and needs no WAL that is not kept now.
fn check(world: &World, slots: &PhysicalSlots, promises: &Promises) {
    let (now, retained) = (&slots.list(), slots.retained_from());
    for outcome in world.after_power_loss() {
        let after = open(&outcome);
        // Of a slot that is being dropped, or could not be made, too.
        let needed = after
            .list()
            .iter()
            .filter_map(|slot| slot.restart_lsn)
            .min();
        assert!(
            needed.is_none_or(|lsn| retained.is_some_and(|kept| kept <= lsn)),
            "{needed:?} of {retained:?}"
        );
        for (name, promise) in promises.lock().unwrap().iter() {
            assert_eq!(
                after.read(name).is_some(),
                *promise == Promise::Exists,
                "{name}: {promise:?}"
            );
        }
        for slot in now {
            let Some(restart_lsn) = after.read(&slot.name).and_then(|after| after.restart_lsn)
            else {
                continue;
            };
            let retained = slot
                .retained_from
                .expect("a slot that needs WAL has it kept");
            assert!(retained <= restart_lsn, "{slot:?} is back at {restart_lsn}");
        }
    }
}

impl Run {
    fn new() -> Self {
        let (storage, promises) = (FaultyStorage::default(), Promises::default());
        let slots = open(&storage);
        let (observed, kept) = (slots.clone(), Arc::clone(&promises));
        storage.observe(move |world| check(world, &observed, &kept));
        Self {
            storage,
            slots,
            promises,
        }
    }

    fn promise(&self, name: &'static str, promise: Option<Promise>) {
        let mut promises = self.promises.lock().unwrap();
        match promise {
            Some(promise) => promises.insert(name, promise),
            None => promises.remove(name),
        };
    }

    fn create(&self, name: &'static str, restart_lsn: Option<u64>) {
        self.promise(name, None);
        let created = self.slots.create(name, PID, restart_lsn.map(Lsn));
        if created.is_ok() {
            self.promise(name, Some(Promise::Exists));
        }
        self.check();
    }

    fn drop_slot(&self, name: &'static str) {
        self.promise(name, None);
        if self.slots.drop_slot(name, PID).is_ok() {
            self.promise(name, Some(Promise::IsGone));
        }
        self.check();
    }

    fn confirm(&self, name: &str, lsn: u64) {
        // It is not there where its creation failed.
        if let Ok(slot) = self.slots.acquire(name, PID) {
            slot.confirm(Lsn(lsn));
        }
        self.check();
    }

    fn save(&self) {
        let saved = self.slots.save_dirty();
        if saved.is_ok() {
            let known = ["a", "b", "c"].into_iter();
            known
                .filter(|name| self.slots.read(name).is_some())
                .for_each(|name| self.promise(name, Some(Promise::Exists)));
        }
        self.check();
    }

    fn invalidate(&self, oldest_lsn: u64) {
        if let Ok(done) = self.slots.invalidate_obsolete(Lsn(oldest_lsn)) {
            assert_eq!(done.in_use, []);
            // The WAL is removed now, so nothing may come back that needs it.
            for outcome in self.storage.world().after_power_loss() {
                for slot in open(&outcome)
                    .list()
                    .iter()
                    .filter(|slot| self.slots.read(&slot.name).is_some())
                {
                    assert!(
                        slot.restart_lsn.is_none_or(|lsn| lsn >= Lsn(oldest_lsn)),
                        "{slot:?}"
                    );
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        check(&self.storage.world(), &self.slots, &self.promises);
    }

    /// A life of three slots.
    fn script(&self) {
        self.create("a", Some(0x100));
        self.create("b", None);
        self.confirm("a", 0x200);
        self.save();
        self.confirm("a", 0x300);
        self.confirm("b", 0x280);
        self.confirm("a", 0x400);
        self.save();
        self.confirm("b", 0x260);
        self.save();
        self.drop_slot("a");
        self.create("a", Some(0x500));
        self.create("c", Some(0x180));
        self.confirm("a", 0x600);
        self.invalidate(0x300);
        self.confirm("c", 0x700);
        self.drop_slot("b");
        self.save();
    }
}

#[test]
fn slots_survive_a_loss_of_power_at_any_moment() {
    let run = Run::new();
    run.script();
    let lsns: Vec<_> = run
        .slots
        .list()
        .into_iter()
        .map(|slot| (slot.name, slot.restart_lsn))
        .collect();
    assert_eq!(
        lsns,
        [
            ("a".to_owned(), Some(Lsn(0x600))),
            ("c".to_owned(), Some(Lsn(0x700)))
        ]
    );
    assert_eq!(run.slots.retained_from(), Some(Lsn(0x600)));
}

#[test]
fn slots_survive_each_failing_operation_and_a_loss_of_power_after_it() {
    let whole = Run::new();
    whole.script();
    let calls = whole.storage.calls();
    assert!(calls > 25, "{calls} operations");
    for fault in [Fault::Refused, Fault::NotSynced, Fault::PowerLost] {
        for call in 1..calls {
            let run = Run::new();
            run.storage.inject(call, fault);
            run.script();
            if fault == Fault::PowerLost {
                continue;
            }
            // The next time it succeeds, and what is on disk is what is in memory.
            run.save();
            let now = run.slots.list();
            for outcome in run.storage.world().after_power_loss() {
                let after = open(&outcome);
                for slot in &now {
                    let after = after.read(&slot.name).expect("it was saved");
                    assert_eq!(
                        after.restart_lsn, slot.restart_lsn,
                        "{fault:?} of call {call}: {slot:?}"
                    );
                    assert_eq!(
                        after.retained_from, slot.retained_from,
                        "{fault:?} of call {call}: {slot:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_kept_goes_by_what_was_saved() {
    let run = Run::new();
    run.create("a", Some(0x100));
    run.confirm("a", 0x900);
    assert_eq!(
        run.slots.retained_from(),
        Some(Lsn(0x100)),
        "a crash would bring it back"
    );
    run.save();
    assert_eq!(run.slots.retained_from(), Some(Lsn(0x900)));
    // Going back counts at once.
    run.confirm("a", 0x800);
    assert_eq!(run.slots.retained_from(), Some(Lsn(0x800)));
    run.confirm("a", 0xA00);
    assert_eq!(run.slots.retained_from(), Some(Lsn(0x900)));
    // A save that fails may have reached the disk, or not.
    run.storage
        .inject(run.storage.calls() + 2, Fault::NotSynced);
    run.save();
    assert_eq!(run.slots.retained_from(), Some(Lsn(0x900)));
    run.save();
    assert_eq!(run.slots.retained_from(), Some(Lsn(0xA00)));
}
