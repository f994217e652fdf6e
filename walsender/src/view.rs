//! [`SenderView`]: what a sender can be asked, for status commands and metrics.

use std::fmt;
use std::sync::Arc;

use walstream::protocol::horizon::XminHorizon;
use walstream::sync::{StandbyLsns, SyncRule};

use crate::sender::Shared;
use crate::slot::SlotView;
use crate::standby::StandbyStatus;

/// What a sender can be asked. Clones ask the same sender; when it has ended, it has no standbys any more.
#[derive(Clone)]
pub struct SenderView(Arc<Shared>);

impl SenderView {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// What it knows of its standbys, by the number of their connections.
    #[must_use]
    pub fn standbys(&self) -> Vec<StandbyStatus> {
        self.0.standbys.list()
    }

    /// Which standbys commits wait for.
    #[must_use]
    pub fn sync_rule(&self) -> SyncRule {
        self.0.standbys.rule()
    }

    /// What the standbys that the rule requires have reached.
    #[must_use]
    pub fn released(&self) -> StandbyLsns {
        *self.0.standbys.released().borrow()
    }

    /// Reads rules, verifiers and certificates again, as [`Sender::reload_access`](crate::Sender::reload_access) does.
    pub fn reload_access(&self) -> bool {
        self.0.access.reload()
    }

    /// The oldest transactions that its standbys need, connected or with a slot.
    #[must_use]
    pub fn horizon(&self) -> XminHorizon {
        let of_standbys = XminHorizon {
            xmin: self.0.standbys.oldest_xmin(),
            catalog_xmin: None,
        };
        self.0.slots.horizon().least(of_standbys)
    }

    /// The slots, by name, with their `wal_status`.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotView> {
        self.0.judged_slots()
    }
}

impl fmt::Debug for SenderView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SenderView")
    }
}
