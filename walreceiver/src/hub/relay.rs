//! [`Relay`]: what a hub reports upstream, which is what its synchronous followers have.

use tokio::sync::watch;
use walsender::{Sender, SenderView};
use walstream::sync::{StandbyLsns, SyncRule, WalSenderState};

/// What the synchronous followers have, and whether there are any. Clones follow the same hub.
#[derive(Clone, Debug)]
pub struct Relay {
    released: watch::Receiver<StandbyLsns>,
    required: watch::Receiver<bool>,
    sender: SenderView,
}

impl Relay {
    pub(super) fn of(sender: &Sender) -> Self {
        Self {
            released: sender.released(),
            required: sender.standbys_required(),
            sender: sender.view(),
        }
    }

    /// What they have. `None` while the rule waits for nobody, as that of Greenplum does when no standby is near enough; where
    /// no standby is named, what they have stays nothing.
    pub fn lsns(&mut self) -> Option<StandbyLsns> {
        let is_required = *self.required.borrow_and_update();
        let lsns = *self.released.borrow_and_update();
        let waits = is_required || !matches!(self.sender.sync_rule(), SyncRule::Greenplum(_));
        waits.then_some(lsns)
    }

    /// Waits until they have more than when they were asked last, or are waited for and were not, or no longer; for ever once
    /// the hub has ended.
    pub async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.released.changed() => changed,
            changed = self.required.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether as many of them are connected as the rule requires. With fewer nothing advances.
    #[must_use]
    pub fn has_enough_followers(&self) -> bool {
        let required = match self.sender.sync_rule() {
            SyncRule::Names(names) => usize::try_from(names.num_sync()).unwrap_or(usize::MAX),
            // There is nobody to wait for, so nothing that comes later could help.
            SyncRule::Off => return false,
            SyncRule::Greenplum(_) => 1,
        };
        let followers = self.sender.standbys();
        let may_confirm = followers.iter().filter(|follower| {
            let follows = !matches!(
                follower.state,
                WalSenderState::Startup | WalSenderState::Backup
            );
            follows && follower.sync_priority > 0
        });
        may_confirm.count() >= required
    }
}
