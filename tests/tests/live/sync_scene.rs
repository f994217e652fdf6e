//! [`Scene`]: a primary whose standbys come and go, what PostgreSQL says of them, and what `walstream::sync` makes of it.

use anyhow::{Context, Result, bail, ensure};
use walstream::sync::{StandbyLsns, StandbyNames, SyncRep, SyncRule, WalSenderState};
use walstream::{Lsn, PgTimestamp};
use walstream_tests::{Cluster, ClusterOptions, Running, SHORT, Workdir, wait_for, wait_for_some};

/// A sender's row in PostgreSQL's own order, which decides between equal priorities.
const SENDERS: &str = "SELECT application_name, w.state, w.sent_lsn, w.write_lsn, w.flush_lsn, w.replay_lsn,
        w.sync_priority, w.sync_state
    FROM pg_stat_get_wal_senders() WITH ORDINALITY AS w(pid, state, sent_lsn, write_lsn, flush_lsn, replay_lsn,
        write_lag, flush_lag, replay_lag, sync_priority, sync_state, reply_time, place)
    JOIN pg_stat_activity USING (pid) ORDER BY place";

/// A sender as PostgreSQL sees it.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) state: WalSenderState,
    sent: Lsn,
    pub(super) lsns: StandbyLsns,
    /// `sync_priority` and `sync_state`.
    sync: String,
}

pub(super) fn senders(primary: &Cluster) -> Result<Vec<Sender>> {
    let rows = primary.query(SENDERS)?;
    rows.lines()
        .map(|row| {
            let columns: Vec<&str> = row.split('|').collect();
            let [name, state, sent, write, flush, apply, priority, sync_state] = columns[..] else {
                bail!("not the columns that were asked for: {row}");
            };
            let lsn = |text: &str| {
                if text.is_empty() {
                    Ok(Lsn::INVALID)
                } else {
                    text.parse()
                }
            };
            Ok(Sender {
                name: name.to_owned(),
                state: WalSenderState::from_name(state).context("an unknown state")?,
                sent: lsn(sent)?,
                lsns: StandbyLsns {
                    write: lsn(write)?,
                    flush: lsn(flush)?,
                    apply: lsn(apply)?,
                },
                sync: format!("{priority} {sync_state}"),
            })
        })
        .collect()
}

/// Ours, told what PostgreSQL knows of these senders.
pub(super) fn ours(setting: &str, senders: &[Sender], flushed: Lsn) -> Result<SyncRep<()>> {
    let mut rep = SyncRep::new(SyncRule::from(StandbyNames::parse(setting)?), flushed);
    let now = PgTimestamp(0);
    for sender in senders {
        let id = rep.join(&sender.name);
        rep.handle_state(id, sender.state);
        rep.handle_sent(id, sender.sent);
        rep.handle_reply(id, sender.lsns, now, now);
    }
    Ok(rep)
}

/// A primary and the standbys that were started.
pub(super) struct Scene {
    pub(super) primary: Cluster,
    pub(super) workdir: Workdir,
    pub(super) standbys: Vec<(&'static str, Running)>,
    started: usize,
    pub(super) setting: &'static str,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            primary: ClusterOptions::default()
                .set("wal_keep_size", "1GB")
                .start()?,
            workdir: Workdir::new()?,
            standbys: Vec::new(),
            started: 0,
            setting: "",
        })
    }

    /// Starts a program of PostgreSQL that connects under this name.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        program: &str,
        options: &[&str],
    ) -> Result<()> {
        self.started += 1;
        let there = senders(&self.primary)?.len() + 1;
        let directory = self.workdir.make_dir(&format!("standby{}", self.started))?;
        let program = self
            .workdir
            .external(&self.primary.programs().program(program));
        let conninfo = format!("{} application_name='{name}'", self.primary.conninfo());
        let running = program
            .args(options)
            .arg("-D")
            .arg(directory)
            .arg("-d")
            .arg(conninfo)
            .start()?;
        self.standbys.push((name, running));
        wait_for(&format!("the sender of {name}"), SHORT, || {
            let senders = senders(&self.primary)?;
            Ok(
                senders.len() == there
                    && senders.iter().all(|s| s.state != WalSenderState::Startup),
            )
        })
    }

    /// A standby that reports what it has flushed at once.
    pub(super) fn come(&mut self, name: &'static str) -> Result<()> {
        self.start(
            name,
            "pg_receivewal",
            &["--synchronous", "--no-loop", "-s", "1"],
        )?;
        wait_for(&format!("a flush of {name}"), SHORT, || {
            let senders = senders(&self.primary)?;
            let mut of_this_name = senders.iter().filter(|s| s.name == name).peekable();
            Ok(of_this_name.peek().is_some() && of_this_name.all(|s| s.lsns.flush.is_valid()))
        })
    }

    /// Kills the standby of this name that came first.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        let index = self
            .standbys
            .iter()
            .position(|(known, _)| *known == name)
            .context("no such standby")?;
        let (_, running) = self.standbys.remove(index);
        let left = senders(&self.primary)?.len() - 1;
        running.kill_9()?;
        wait_for("the end of a sender", SHORT, || {
            Ok(senders(&self.primary)?.len() == left)
        })
    }

    /// Changes `synchronous_standby_names`.
    pub(super) fn set(&mut self, setting: &'static str) -> Result<()> {
        self.setting = setting;
        self.primary
            .alter_system("synchronous_standby_names", setting)?;
        wait_for("the setting", SHORT, || {
            Ok(self.primary.query("SHOW synchronous_standby_names")? == setting)
        })
    }

    /// Waits until PostgreSQL calls its standbys as expected, and compares with what ours calls them.
    pub(super) fn expect(&self, expected: &[&str]) -> Result<()> {
        let mut last = Vec::new();
        let found = wait_for_some("the expected states", SHORT, || {
            let senders = senders(&self.primary)?;
            last = senders
                .iter()
                .map(|s| format!("{} {}", s.name, s.sync))
                .collect();
            Ok((last == expected).then_some(senders))
        });
        let senders = found.with_context(|| {
            let said: Vec<String> = self.standbys.iter().map(|(_, s)| s.stderr()).collect();
            format!(
                "\"{}\": PostgreSQL says {last:?}, the standbys said {said:?}",
                self.setting
            )
        })?;
        let rows = ours(self.setting, &senders, Lsn::MAX)?;
        let rows = rows.rows().map(|r| {
            format!(
                "{} {} {}",
                r.application_name, r.sync_priority, r.sync_state
            )
        });
        let rows: Vec<String> = rows.collect();
        ensure!(
            rows == expected,
            "\"{}\": ours says {rows:?}, PostgreSQL {expected:?}",
            self.setting
        );
        Ok(())
    }
}
