//! How much WAL a server keeps, and what that means for a slot: `wal_status` and `safe_wal_size` of
//! `pg_replication_slots`.
//!
//! Whoever removes WAL goes through these steps, as a checkpoint of PostgreSQL does:
//! 1. [`save_dirty`](super::PhysicalSlots::save_dirty), then [`retained_from`](super::PhysicalSlots::retained_from);
//! 2. [`WalKeepSettings::oldest_kept_segment`] gives the oldest segment that stays;
//! 3. [`invalidate_obsolete`](super::PhysicalSlots::invalidate_obsolete) gives up the slots that need older ones, until
//!    none that needs them is in use;
//! 4. if a slot was given up, steps 1 and 2 again; then the older segments are removed.

use std::fmt;

use walstream::{Lsn, SegmentNumber, SegmentSize};

/// The settings that say how much WAL is kept. Sizes are in bytes, and are rounded down to whole segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalKeepSettings {
    /// Size of a segment.
    pub segment_size: SegmentSize,
    /// `max_wal_size`: what WAL takes without slots. A slot that keeps no more than this is `reserved`.
    pub max_wal_size: u64,
    /// `wal_keep_size`: what is kept for standbys without slots.
    pub wal_keep_size: u64,
    /// `max_slot_wal_keep_size`: most that slots may keep; `None`: any amount (-1).
    pub max_slot_wal_keep_size: Option<u64>,
}

/// The WAL that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalExtent {
    /// Up to where WAL is written.
    pub write_lsn: Lsn,
    /// Newest segment that was removed; 0 while none was.
    pub last_removed: SegmentNumber,
    /// Least restart LSN of all slots.
    pub slots_lsn: Option<Lsn>,
}

/// What a source keeps of its WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptWal {
    /// How much is kept.
    pub settings: WalKeepSettings,
    /// Newest segment that was removed; 0 while none was.
    pub last_removed: SegmentNumber,
    /// Where someone else keeps the WAL for all our slots: from here on; `None` where it is kept by our slots themselves.
    pub kept_from: Option<Lsn>,
}

/// The part of a slot that its status depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotWal {
    /// WAL from here on is needed.
    pub restart_lsn: Option<Lsn>,
    /// Whether the slot's WAL was given up. It no longer counts once the slot has a restart LSN again.
    pub is_invalidated: bool,
    /// Whether somebody uses the slot.
    pub is_active: bool,
}

/// Whether the WAL that a slot needs is there: `pg_replication_slots.wal_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// It is within `max_wal_size`.
    Reserved,
    /// It is more than `max_wal_size`, and is kept.
    Extended,
    /// It is no longer kept and still there: the next checkpoint may remove it.
    Unreserved,
    /// Some of it was removed: the slot is of no use.
    Lost,
}

impl WalStatus {
    /// The name in `pg_replication_slots.wal_status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for WalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KeptWal {
    /// The WAL that there is, when it is written up to `write_lsn` and our slots need it from `slots_lsn` on.
    #[must_use]
    pub fn extent(&self, write_lsn: Lsn, slots_lsn: Option<Lsn>) -> WalExtent {
        WalExtent {
            write_lsn,
            last_removed: self.last_removed,
            slots_lsn: slots_lsn.max(self.kept_from),
        }
    }
}

impl WalKeepSettings {
    /// PostgreSQL's defaults.
    #[must_use]
    pub const fn new(segment_size: SegmentSize) -> Self {
        Self {
            segment_size,
            max_wal_size: 1 << 30,
            wal_keep_size: 0,
            max_slot_wal_keep_size: None,
        }
    }

    /// The oldest segment that a server keeps which has written up to `write_lsn`, would replay from `redo_lsn` after a
    /// crash, and has slots of which the least restart LSN is `slots_lsn`. Older ones may be removed, once no slot needs
    /// them.
    ///
    /// # Source
    /// `CreateCheckPoint` in `src/backend/access/transam/xlog.c`.
    #[must_use]
    pub fn oldest_kept_segment(
        &self,
        write_lsn: Lsn,
        redo_lsn: Lsn,
        slots_lsn: Option<Lsn>,
    ) -> SegmentNumber {
        self.kept_for_standbys(write_lsn, slots_lsn)
            .min(redo_lsn.segment_number(self.segment_size))
    }

    /// Whether the slot's WAL is there; `None` for a slot that needs none.
    ///
    /// # Source
    /// `GetWALAvailability` in `src/backend/access/transam/xlog.c`, `pg_get_replication_slots` in
    /// `src/backend/replication/slotfuncs.c`.
    #[must_use]
    pub fn wal_status(&self, wal: &WalExtent, slot: &SlotWal) -> Option<WalStatus> {
        let Some(restart_lsn) = slot.restart_lsn else {
            return slot.is_invalidated.then_some(WalStatus::Lost);
        };
        let needed = restart_lsn.segment_number(self.segment_size);
        let status = if needed >= self.kept_for_standbys(wal.write_lsn, wal.slots_lsn) {
            let current = wal.write_lsn.segment_number(self.segment_size);
            // The segment that is being written is not counted.
            let within = self.segments(self.max_wal_size).saturating_add(1);
            if needed >= before(current, within) {
                WalStatus::Reserved
            } else {
                WalStatus::Extended
            }
        } else if needed > wal.last_removed || slot.is_active {
            // Of one that is in use, the restart LSN may have moved on since.
            WalStatus::Unreserved
        } else {
            WalStatus::Lost
        };
        Some(status)
    }

    /// How many bytes of WAL can be written before the slot is in danger of being lost. Negative when it already is;
    /// `None` when it is lost, or slots may keep any amount.
    ///
    /// # Source
    /// `pg_get_replication_slots` in `src/backend/replication/slotfuncs.c`.
    #[must_use]
    pub fn safe_wal_size(&self, wal: &WalExtent, slot: &SlotWal) -> Option<i64> {
        let slots_keep = self.segments(self.max_slot_wal_keep_size?);
        if self.wal_status(wal, slot) == Some(WalStatus::Lost) {
            return None;
        }
        // A slot that needs no WAL counts as one that needs the first.
        let needed = slot
            .restart_lsn
            .unwrap_or(Lsn::INVALID)
            .segment_number(self.segment_size);
        let kept = slots_keep.max(self.segments(self.wal_keep_size));
        let fails_at = i128::from(needed.0) + i128::from(kept) + 1;
        let safe = fails_at * i128::from(self.segment_size.bytes()) - i128::from(wal.write_lsn.0);
        Some(i64::try_from(safe).unwrap_or(if safe < 0 { i64::MIN } else { i64::MAX }))
    }

    /// The oldest segment that slots and `wal_keep_size` keep.
    ///
    /// # Source
    /// `KeepLogSeg` in `src/backend/access/transam/xlog.c`.
    fn kept_for_standbys(&self, write_lsn: Lsn, slots_lsn: Option<Lsn>) -> SegmentNumber {
        let current = write_lsn.segment_number(self.segment_size);
        let mut oldest = current;
        if let Some(slots_lsn) = slots_lsn.filter(|&lsn| lsn < write_lsn) {
            oldest = slots_lsn.segment_number(self.segment_size);
            if let Some(limit) = self.max_slot_wal_keep_size {
                oldest = oldest.max(SegmentNumber(
                    current.0.saturating_sub(self.segments(limit)),
                ));
            }
        }
        match self.segments(self.wal_keep_size) {
            0 => oldest,
            kept => oldest.min(before(current, kept)),
        }
    }

    /// Bytes in whole segments.
    ///
    /// # Source
    /// `XLogMBVarToSegs` in `src/include/access/xlog_internal.h`.
    const fn segments(&self, bytes: u64) -> u64 {
        bytes / self.segment_size.bytes()
    }
}

/// The segment this many before one, and at least the first that there is.
fn before(segment: SegmentNumber, count: u64) -> SegmentNumber {
    SegmentNumber(segment.0.saturating_sub(count).max(1))
}

#[cfg(test)]
mod tests {
    use super::WalStatus::{Extended, Lost, Reserved, Unreserved};
    use super::*;

    const MB: u64 = 1 << 20;

    const fn settings(
        max_wal_size: u64,
        wal_keep_size: u64,
        max_slot: Option<u64>,
    ) -> WalKeepSettings {
        WalKeepSettings {
            segment_size: SegmentSize::MIN,
            max_wal_size,
            wal_keep_size,
            max_slot_wal_keep_size: max_slot,
        }
    }

    /// A slot in use by nobody that is the only one.
    fn of_one(
        settings: &WalKeepSettings,
        write_lsn: u64,
        restart_lsn: u64,
        last_removed: u64,
    ) -> (Option<WalStatus>, Option<i64>) {
        let slot = SlotWal {
            restart_lsn: Some(Lsn(restart_lsn)),
            ..SlotWal::default()
        };
        let wal = WalExtent {
            write_lsn: Lsn(write_lsn),
            last_removed: SegmentNumber(last_removed),
            slots_lsn: slot.restart_lsn,
        };
        (
            settings.wal_status(&wal, &slot),
            settings.safe_wal_size(&wal, &slot),
        )
    }

    #[test]
    fn status_and_safe_size_at_each_boundary() {
        let unlimited = settings(4 * MB, 0, None);
        let limited = settings(4 * MB, 0, Some(8 * MB));
        let small = settings(4 * MB, 0, Some(MB));
        let kept = settings(4 * MB, 3 * MB, Some(MB));
        let nothing = settings(4 * MB, 0, Some(0));
        #[rustfmt::skip]
        type Line<'a> = (&'a WalKeepSettings, u64, u64, u64, WalStatus, Option<i64>);
        let table: &[Line<'_>] = &[
            // settings, written, restart, last removed
            // max_wal_size and the segment before it are reserved: 20 - (4 + 1).
            (&unlimited, 20 * MB, 15 * MB, 14, Reserved, None),
            (&unlimited, 20 * MB, 15 * MB - 1, 13, Extended, None),
            (&unlimited, 21 * MB - 1, 15 * MB, 14, Reserved, None),
            (&unlimited, 21 * MB, 15 * MB, 14, Extended, None),
            (&unlimited, 21 * MB, MB, 0, Extended, None),
            (
                &limited,
                20 * MB,
                15 * MB,
                14,
                Reserved,
                Some(4 * (1 << 20)),
            ),
            (
                &limited,
                20 * MB + 5,
                15 * MB + 9,
                14,
                Reserved,
                Some(4 * (1 << 20) - 5),
            ),
            (&limited, 23 * MB, 15 * MB, 14, Extended, Some(1 << 20)),
            (&limited, 24 * MB - 1, 15 * MB, 14, Extended, Some(1)),
            (&limited, 24 * MB, 15 * MB, 14, Unreserved, Some(0)),
            (
                &limited,
                30 * MB,
                15 * MB,
                14,
                Unreserved,
                Some(-6 * (1 << 20)),
            ),
            (&limited, 30 * MB, 15 * MB, 15, Lost, None),
            // Below max_wal_size, and given up all the same.
            (&small, 17 * MB - 1, 15 * MB, 14, Reserved, Some(1)),
            (&small, 17 * MB, 15 * MB, 14, Unreserved, Some(0)),
            // wal_keep_size keeps more than slots may.
            (&kept, 18 * MB, 15 * MB, 14, Reserved, Some(1 << 20)),
            (&kept, 19 * MB, 15 * MB, 14, Unreserved, Some(0)),
            (&nothing, 16 * MB - 1, 15 * MB, 14, Reserved, Some(1)),
            (&nothing, 16 * MB, 15 * MB, 14, Unreserved, Some(0)),
            // Ahead of what is written, as after a standby's odd reply.
            (&small, 16 * MB, 40 * MB, 14, Reserved, Some(26 * (1 << 20))),
        ];
        for &(settings, written, restart, removed, status, safe) in table {
            let found = of_one(settings, written, restart, removed);
            assert_eq!(
                found,
                (Some(status), safe),
                "{settings:?}, {written} written, restart at {restart}"
            );
        }
    }

    #[test]
    fn a_slot_that_needs_nothing_a_lost_one_and_one_in_use() {
        let limited = settings(4 * MB, 0, Some(8 * MB));
        let wal = WalExtent {
            write_lsn: Lsn(30 * MB),
            last_removed: SegmentNumber(20),
            slots_lsn: Some(Lsn(15 * MB)),
        };
        let mut slot = SlotWal::default();
        assert_eq!(limited.wal_status(&wal, &slot), None);
        assert_eq!(
            limited.safe_wal_size(&wal, &slot),
            Some(-21 * (1 << 20)),
            "PostgreSQL's odd answer"
        );
        slot.is_invalidated = true;
        assert_eq!(limited.wal_status(&wal, &slot), Some(Lost));
        assert_eq!(limited.safe_wal_size(&wal, &slot), None);
        // It lives again when its standby has found the WAL elsewhere.
        slot.restart_lsn = Some(Lsn(29 * MB));
        assert_eq!(limited.wal_status(&wal, &slot), Some(Reserved));
        slot = SlotWal {
            restart_lsn: Some(Lsn(15 * MB)),
            is_invalidated: false,
            is_active: true,
        };
        assert_eq!(limited.wal_status(&wal, &slot), Some(Unreserved));
        slot.is_active = false;
        assert_eq!(limited.wal_status(&wal, &slot), Some(Lost));
    }

    #[test]
    fn the_slot_that_is_furthest_back_decides_for_all() {
        // Without a limit, what one slot keeps is there for the others.
        let unlimited = settings(MB, 0, None);
        let wal = WalExtent {
            write_lsn: Lsn(30 * MB),
            last_removed: SegmentNumber(4),
            slots_lsn: Some(Lsn(5 * MB)),
        };
        let slot = SlotWal {
            restart_lsn: Some(Lsn(12 * MB)),
            ..SlotWal::default()
        };
        assert_eq!(unlimited.wal_status(&wal, &slot), Some(Extended));
        // And one whose WAL nobody keeps is unreserved before any limit: another slot's position was read later.
        let wal = WalExtent {
            slots_lsn: Some(Lsn(20 * MB)),
            ..wal
        };
        assert_eq!(unlimited.wal_status(&wal, &slot), Some(Unreserved));
    }

    #[test]
    fn what_stays_is_the_oldest_that_anything_needs() {
        let segment = |settings: &WalKeepSettings, write, redo, slots: Option<u64>| {
            settings
                .oldest_kept_segment(
                    Lsn(write * MB),
                    Lsn(redo * MB),
                    slots.map(|lsn| Lsn(lsn * MB)),
                )
                .0
        };
        let unlimited = settings(4 * MB, 0, None);
        assert_eq!(segment(&unlimited, 20, 18, None), 18);
        assert_eq!(segment(&unlimited, 20, 18, Some(12)), 12);
        assert_eq!(
            segment(&unlimited, 20, 18, Some(19)),
            18,
            "a crash needs it"
        );
        assert_eq!(
            segment(&unlimited, 20, 18, Some(25)),
            18,
            "ahead of all WAL"
        );
        assert_eq!(
            segment(&settings(MB, 0, Some(3 * MB)), 20, 18, Some(12)),
            17
        );
        assert_eq!(
            segment(&settings(MB, 6 * MB, Some(3 * MB)), 20, 18, Some(12)),
            14
        );
        assert_eq!(segment(&settings(MB, 6 * MB, None), 20, 18, Some(12)), 12);
        assert_eq!(segment(&settings(MB, 60 * MB, None), 20, 18, None), 1);
        assert_eq!(
            segment(&settings(MB, MB - 1, None), 20, 20, None),
            20,
            "less than a segment is nothing"
        );
        assert_eq!(
            segment(&settings(MB, 0, Some(60 * MB)), 20, 18, Some(12)),
            12
        );
    }

    #[test]
    fn extremes_do_not_overflow() {
        for max_slot in [Some(0), Some(u64::MAX), None] {
            let settings = settings(u64::MAX, u64::MAX, max_slot);
            for (write, restart) in [(0, 0), (u64::MAX, 1), (1, u64::MAX)] {
                let _ = of_one(&settings, write, restart, u64::MAX);
            }
        }
    }
}
