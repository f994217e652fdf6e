//! [`SenderView`]: what a sender can be asked, for status commands and metrics.

use std::fmt;
use std::sync::Arc;

use walstream::Lsn;
use walstream::protocol::horizon::XminHorizon;
use walstream::sync::{StandbyLsns, SyncRule};

use crate::config::ListenAddress;
use crate::sender::Shared;
use crate::slot::SlotView;
use crate::standby::StandbyStatus;
use crate::status::{SenderStatus, sender_status};

/// What a sender can be asked. Clones ask the same sender; when it has ended, it has no standbys any more.
#[derive(Clone)]
pub struct SenderView {
    shared: Arc<Shared>,
    address: ListenAddress,
}

impl SenderView {
    pub(crate) const fn new(shared: Arc<Shared>, address: ListenAddress) -> Self {
        Self { shared, address }
    }

    /// What it knows of its standbys, by the number of their connections.
    #[must_use]
    pub fn standbys(&self) -> Vec<StandbyStatus> {
        self.shared.standbys.list()
    }

    /// Which standbys commits wait for.
    #[must_use]
    pub fn sync_rule(&self) -> SyncRule {
        self.shared.standbys.rule()
    }

    /// What the standbys that the rule requires have reached.
    #[must_use]
    pub fn released(&self) -> StandbyLsns {
        *self.shared.standbys.released().borrow()
    }

    /// Reads rules, verifiers and certificates again, as [`Sender::reload_access`](crate::Sender::reload_access) does.
    pub fn reload_access(&self) -> bool {
        self.shared.access.reload()
    }

    /// As [`Sender::reload`](crate::Sender::reload).
    pub fn reload(&self) -> bool {
        self.shared.reload()
    }

    /// All that it says of itself. It may list a directory.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        sender_status::gather(&self.shared, &self.address)
    }

    /// The oldest transactions that its standbys need, connected or with a slot.
    #[must_use]
    pub fn horizon(&self) -> XminHorizon {
        let of_standbys = XminHorizon {
            xmin: self.shared.standbys.oldest_xmin(),
            catalog_xmin: None,
        };
        self.shared.slots.horizon().least(of_standbys)
    }

    /// WAL from here on must be kept for some slot; `None` when none needs any.
    #[must_use]
    pub fn retained_from(&self) -> Option<Lsn> {
        self.shared.slots.retained_from()
    }

    /// The slots, by name, with their `wal_status`.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotView> {
        self.shared.judged_slots()
    }
}

impl fmt::Debug for SenderView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SenderView")
    }
}
