//! What followers cost their sender: a hub (`walreceiver run --serve`) and a PostgreSQL standby, each with 1 and with 50.
//!
//! Both follow one primary all the time, and one of them has the followers. These are in this process, throw the WAL away and
//! answer only when asked, so the two cores are left to the senders as far as can be. There are two scenes:
//!
//! - *keeping up*: the primary writes some megabytes, and writes on when every follower has them. A hub sends them from its
//!   memory, which has been filled before.
//! - *from the past*: the followers begin with WAL that the hub's memory has lost but for its last 16 MB, and catch up.
//!
//! A hub is one process that also receives, checks and writes the WAL. What that takes is measured with no followers at all
//! and taken off in the column "of it sending". A standby's senders are processes of their own, and only they count.

use anyhow::{Context, Result};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, Running, SHORT, StopMode, server_version, wait_for,
};

use super::processes::{Held, Usage, Watch, walsenders};
use super::wire::{Follower, TRUST, port_of, wait_for_wal};
use super::{Effort, Report, Target, gigabytes, megabytes};
use crate::table::{Spread, Table};

const MANY: u32 = 50;
/// Bytes of WAL that followers get before the primary writes on. Less than a hub keeps in memory.
const PIECE: u64 = 4 << 20;
/// Bytes of WAL that fill a hub's memory.
const WARM_UP: u64 = 24 << 20;
/// Length of a message in WAL, and about what its record takes.
const MESSAGE: u64 = 960;
const RECORD: u64 = 1_024;

/// Most memory for a further follower, in kB.
const MEMORY_KB: f64 = 256.0;
/// Most CPU time for a gigabyte sent to many, as a multiple of that to one. A tenth is for noise.
const CPU: f64 = 1.1;
/// Most CPU time for sending to many, as a multiple of PostgreSQL's.
const PEER_CPU: f64 = 1.0;
/// Most segments open at a time for many. They share what is open; a whole scene from the past is 17.
const SEGMENTS: f64 = 24.0;
/// Most that is read for many and not for one, in MB, for what is beside the WAL.
const READ_MB: f64 = 1.0;

/// Whose followers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Standby,
    Hub,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    KeepingUp,
    FromThePast,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    sender: Sender,
    scene: Scene,
    followers: u32,
}

impl Setting {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for sender in [Sender::Standby, Sender::Hub] {
            // Those from the past read what was written for those before them.
            for (followers, scene) in [
                (0, Scene::KeepingUp),
                (1, Scene::KeepingUp),
                (1, Scene::FromThePast),
                (MANY, Scene::KeepingUp),
                (MANY, Scene::FromThePast),
            ] {
                all.push(Self {
                    sender,
                    scene,
                    followers,
                });
            }
        }
        // Its senders are none without followers.
        all.retain(|setting| setting.followers > 0 || setting.sender == Sender::Hub);
        all
    }

    fn name(self) -> String {
        let sender = match self.sender {
            Sender::Standby => "PostgreSQL standby",
            Sender::Hub => "walreceiver run --serve",
        };
        let scene = match self.scene {
            Scene::KeepingUp => "keeping up",
            Scene::FromThePast => "from the past",
        };
        let count = match self.followers {
            0 => "no follower".to_owned(),
            1 => "1 follower".to_owned(),
            many => format!("{many} followers"),
        };
        format!("{sender}, {count} {scene}")
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Bytes of WAL, and of that to all followers.
    wal: u64,
    sent: u64,
    used: Usage,
    held: Held,
}

impl Run {
    fn cpu_per_gb(&self) -> f64 {
        self.used.cpu_s / gigabytes(self.sent)
    }

    /// CPU time for a gigabyte sent, without what it takes to have the WAL.
    fn sending_per_gb(&self, idle: Option<&Self>) -> f64 {
        let having = idle.map_or(0.0, |idle| {
            idle.used.cpu_s * gigabytes(self.wal) / gigabytes(idle.wal)
        });
        (self.used.cpu_s - having) / gigabytes(self.sent)
    }
}

/// The servers, all running.
struct Servers {
    primary: Cluster,
    standby: Cluster,
    hub: Running,
    hub_port: u16,
    _mirror: Mirror,
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let length = if effort.tiny { 24 << 20 } else { 256 << 20 };
    let servers = Servers::start()?;
    servers.write(WARM_UP)?;
    let mut results: Vec<(Setting, Vec<Run>)> = Setting::all()
        .into_iter()
        .map(|setting| (setting, Vec::new()))
        .collect();
    for _ in 0..effort.rounds {
        let mut written = Lsn::INVALID..Lsn::INVALID;
        for (setting, runs) in &mut results {
            runs.push(match setting.scene {
                Scene::KeepingUp => {
                    let (run, range) = servers.keeping_up(*setting, length)?;
                    written = range;
                    run
                }
                Scene::FromThePast => servers.catching_up(*setting, written.start, written.end)?,
            });
        }
    }
    servers.stop()?;
    report(&results)
}

impl Servers {
    fn start() -> Result<Self> {
        let mut options = ClusterOptions::default()
            .programs(&server_version(15)?)
            .set("wal_keep_size", "2GB")
            .set("max_wal_senders", "70");
        for line in TRUST {
            options = options.hba(line);
        }
        let primary = options.start()?;
        let mirror = Mirror::init(&primary)?;
        let mut standby = primary.standby(&[])?;
        standby.start()?;
        let mut hub = mirror.run(&["--serve", "127.0.0.1:0"])?;
        let hub_port = port_of(&mut hub)?;
        Ok(Self {
            primary,
            standby,
            hub,
            hub_port,
            _mirror: mirror,
        })
    }

    fn stop(mut self) -> Result<()> {
        self.hub.terminate(SHORT)?;
        self.standby.stop(StopMode::Fast)?;
        self.primary.stop(StopMode::Fast)?;
        Ok(())
    }

    fn port(&self, sender: Sender) -> u16 {
        match sender {
            Sender::Standby => self.standby.port(),
            Sender::Hub => self.hub_port,
        }
    }

    /// Writes about so many bytes of WAL, waits until both senders have them, and gives their end.
    fn write(&self, bytes: u64) -> Result<Lsn> {
        // One transaction, whose commit flushes.
        self.primary.query(&format!(
            "SELECT count(pg_logical_emit_message(true, 'w', repeat('w', {MESSAGE})))
             FROM generate_series(1, {})",
            bytes / RECORD
        ))?;
        let end = self.primary.flush_lsn()?;
        wait_for_wal(self.standby.port(), end)?;
        wait_for_wal(self.hub_port, end)?;
        Ok(end)
    }

    /// Processes that send to this many followers.
    fn senders(&self, setting: Setting) -> Result<Vec<u32>> {
        match setting.sender {
            Sender::Hub => Ok(vec![u32::try_from(self.hub.pid().as_raw_nonzero().get())?]),
            Sender::Standby => {
                let count = usize::try_from(setting.followers)?;
                let mut found = Vec::new();
                // Those of earlier clients may not have ended yet.
                wait_for("PostgreSQL's senders", LONG, || {
                    found = walsenders(&self.standby)?;
                    Ok(found.len() == count)
                })?;
                Ok(found)
            }
        }
    }

    fn follow(&self, setting: Setting, from: Lsn) -> Result<Vec<Follower>> {
        let port = self.port(setting.sender);
        let start = |number| Follower::start(port, &format!("f{number}"), from, false);
        (0..setting.followers).map(start).collect()
    }

    /// Measures, and says which WAL it was.
    fn keeping_up(&self, setting: Setting, length: u64) -> Result<(Run, std::ops::Range<Lsn>)> {
        let start = self.write(PIECE)?;
        let followers = self.follow(setting, start)?;
        let senders = self.senders(setting)?;
        let before = Usage::of(&senders)?;
        let watch = Watch::start(&senders);
        let mut end = start;
        while end.saturating_sub(start) < length {
            end = self.write(PIECE)?;
            for follower in &followers {
                follower.wait_for(end)?;
            }
        }
        let run = finish(setting, (start, end), &senders, &before, watch)?;
        for follower in followers {
            follower.end()?;
        }
        Ok((run, start..end))
    }

    fn catching_up(&self, setting: Setting, start: Lsn, end: Lsn) -> Result<Run> {
        // PostgreSQL's processes begin with the followers, and with nothing used.
        let before = match setting.sender {
            Sender::Hub => Usage::of(&self.senders(setting)?)?,
            Sender::Standby => Usage::default(),
        };
        let followers = self.follow(setting, start)?;
        let senders = self.senders(setting)?;
        let watch = Watch::start(&senders);
        for follower in &followers {
            follower.wait_for(end)?;
        }
        let run = finish(setting, (start, end), &senders, &before, watch)?;
        for follower in followers {
            follower.end()?;
        }
        Ok(run)
    }
}

fn finish(
    setting: Setting,
    (start, end): (Lsn, Lsn),
    senders: &[u32],
    before: &Usage,
    watch: Watch,
) -> Result<Run> {
    let used = Usage::of(senders)?.since(before);
    let wal = end.saturating_sub(start);
    Ok(Run {
        wal,
        sent: wal * u64::from(setting.followers),
        used,
        held: watch.end()?,
    })
}

/// What one setting gave, round by round.
struct Results<'a>(&'a [(Setting, Vec<Run>)]);

impl Results<'_> {
    fn of(&self, sender: Sender, scene: Scene, followers: u32) -> Result<&[Run]> {
        let wanted = Setting {
            sender,
            scene,
            followers,
        };
        let found = self.0.iter().find(|(setting, _)| *setting == wanted);
        Ok(&found.context("nothing was measured")?.1)
    }

    /// What a hub took without followers in each round; nothing for a standby, whose senders do nothing else, and where no
    /// WAL came in.
    fn idle(&self, setting: Setting) -> Vec<Option<&Run>> {
        let is_receiving = setting.sender == Sender::Hub && setting.scene == Scene::KeepingUp;
        let idle = self.of(Sender::Hub, Scene::KeepingUp, 0).unwrap_or(&[]);
        idle.iter().map(|run| is_receiving.then_some(run)).collect()
    }

    /// CPU time of sending a gigabyte in each round.
    fn sending(&self, setting: Setting) -> Result<Vec<f64>> {
        let runs = self.of(setting.sender, setting.scene, setting.followers)?;
        let pairs = runs.iter().zip(self.idle(setting));
        Ok(pairs.map(|(run, idle)| run.sending_per_gb(idle)).collect())
    }

    /// What `of` makes, over the rounds, of the runs with many followers and with one.
    fn many_to_one(
        &self,
        sender: Sender,
        scene: Scene,
        of: impl Fn(&Run, &Run) -> f64,
    ) -> Result<Spread> {
        let many = self.of(sender, scene, MANY)?;
        let one = self.of(sender, scene, 1)?;
        Spread::of(many.iter().zip(one).map(|(many, one)| of(many, one)))
    }
}

/// Memory for a further follower, in kB. A hub lives through all rounds and may keep for the next what it had for many, so
/// the greatest of the rounds tells, which tends to be the first.
fn memory_each(many: &Run, one: &Run) -> f64 {
    // From kB to bytes and back: both are far below what a float holds.
    let growth = megabytes(many.held.memory_kb * 1_000) - megabytes(one.held.memory_kb * 1_000);
    growth * 1_000.0 / f64::from(MANY - 1)
}

fn report(results: &[(Setting, Vec<Run>)]) -> Result<Report> {
    let found = Results(results);
    let mut table = Table::new(&[
        "",
        "GB sent",
        "CPU s/GB",
        "of it sending",
        "MB read from files",
        "of it from disk",
        "segments open",
        "peak MB",
        "kB per follower",
    ]);
    for (setting, runs) in results {
        let spread = |of: &dyn Fn(&Run) -> f64| -> Result<String> {
            Ok(Spread::of(runs.iter().map(of))?.to_string())
        };
        let for_each = |text: Result<String>| match setting.followers {
            0 => Ok("-".to_owned()),
            _ => text,
        };
        table.row([
            setting.name(),
            Spread::of(runs.iter().map(|run| gigabytes(run.sent)))
                .map(|sent| format!("{:.3}", sent.median))?,
            for_each(spread(&Run::cpu_per_gb))?,
            for_each(Spread::of(found.sending(*setting)?).map(|sending| sending.to_string()))?,
            spread(&|run| megabytes(run.used.read_bytes))?,
            spread(&|run| megabytes(run.used.disk_bytes))?,
            spread(&|run| f64::from(run.held.segments))?,
            spread(&|run| megabytes(run.held.memory_kb << 10))?,
            match setting.followers {
                MANY => {
                    let each = found.many_to_one(setting.sender, setting.scene, memory_each)?;
                    format!("{:.0}", each.greatest)
                }
                _ => "-".to_owned(),
            },
        ]);
    }
    Ok(Report {
        title: "Followers of a hub and of a PostgreSQL standby; less is better".to_owned(),
        table,
        targets: targets(&found)?,
    })
}

fn targets(found: &Results<'_>) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for (scene, name) in [
        (Scene::KeepingUp, "keeping up"),
        (Scene::FromThePast, "from the past"),
    ] {
        let hub = |of: &dyn Fn(&Run, &Run) -> f64| found.many_to_one(Sender::Hub, scene, of);
        targets.push(Target::at_most(
            format!("hub, {name}: memory per follower in kB"),
            hub(&memory_each)?.greatest,
            MEMORY_KB,
        ));
        targets.push(Target::at_most(
            format!("hub, {name}: CPU time per GB sent to {MANY} against that to 1"),
            hub(&|many, one| many.cpu_per_gb() / one.cpu_per_gb())?.median,
            CPU,
        ));
        let setting = |sender| Setting {
            sender,
            scene,
            followers: MANY,
        };
        let own = found.sending(setting(Sender::Hub))?;
        let peer = found.sending(setting(Sender::Standby))?;
        targets.push(Target::at_most(
            format!("hub, {name}: CPU time of sending to {MANY} against PostgreSQL's"),
            Spread::of(own.iter().zip(peer).map(|(own, peer)| own / peer))?.median,
            PEER_CPU,
        ));
        // Those from the past are sent from files: what the process reads is what it sends, whatever is in memory.
        let (kind, read): (&str, fn(&Usage) -> u64) = match scene {
            Scene::KeepingUp => ("files", |used| used.read_bytes),
            Scene::FromThePast => ("the disk", |used| used.disk_bytes),
        };
        targets.push(Target::at_most(
            format!("hub, {name}: MB read from {kind} for {MANY} and not for 1"),
            hub(&|many, one| megabytes(read(&many.used)) - megabytes(read(&one.used)))?.greatest,
            READ_MB,
        ));
        targets.push(Target::at_most(
            format!("hub, {name}: segments open for {MANY}"),
            hub(&|many, _| f64::from(many.held.segments))?.greatest,
            SEGMENTS,
        ));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wal: u64, followers: u64, cpu_s: f64, memory_kb: u64) -> Run {
        Run {
            wal,
            sent: wal * followers,
            used: Usage {
                cpu_s,
                ..Usage::default()
            },
            held: Held {
                memory_kb,
                segments: 1,
            },
        }
    }

    #[test]
    fn receiving_is_taken_off_in_proportion() {
        let idle = run(500_000_000, 0, 1.0, 0);
        let many = run(1_000_000_000, 50, 7.0, 0);
        assert!((many.cpu_per_gb() - 0.14).abs() < 1e-9);
        assert!((many.sending_per_gb(Some(&idle)) - 0.1).abs() < 1e-9);
        assert!((many.sending_per_gb(None) - 0.14).abs() < 1e-9);
    }

    #[test]
    fn memory_is_that_of_the_further_followers() {
        let (many, one) = (run(1, 50, 0.0, 14_900), run(1, 1, 0.0, 10_000));
        assert!((memory_each(&many, &one) - 100.0).abs() < 1e-9);
    }
}
