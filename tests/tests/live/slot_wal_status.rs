//! `walsender::slot::wal_status` against PostgreSQL: over a run in which slots are made, WAL is written, settings are changed
//! and checkpoints remove WAL, `wal_status` and `safe_wal_size` of each slot, the slots that a checkpoint gives up, and the
//! oldest segment that it leaves are the same.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use walsender::slot::PhysicalSlots;
use walsender::slot::wal_status::{SlotWal, WalExtent, WalKeepSettings, WalStatus};
use walstream::{Lsn, SegmentNumber, SegmentSize};
use walstream_tests::{Cluster, ClusterOptions, LONG, SHORT, wait_for, wait_for_some};

const SIZE: SegmentSize = SegmentSize::MIN;

/// What the server says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    settings: WalKeepSettings,
    write_lsn: Lsn,
    oldest_file: SegmentNumber,
    slots: Vec<SlotRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotRow {
    name: String,
    restart_lsn: Option<Lsn>,
    wal_status: Option<String>,
    safe_wal_size: Option<i64>,
}

impl Sample {
    /// Two looks that see the same, so that nothing has moved while one was taken.
    fn take(cluster: &Cluster) -> Result<Self> {
        wait_for_some("a server at rest", LONG, || {
            let (first, second) = (Self::look(cluster)?, Self::look(cluster)?);
            Ok((first == second).then_some(first))
        })
    }

    fn look(cluster: &Cluster) -> Result<Self> {
        let server = cluster.query(
            "SELECT pg_size_bytes(current_setting('max_wal_size')), pg_size_bytes(current_setting('wal_keep_size')),
                    pg_size_bytes(current_setting('max_slot_wal_keep_size')), pg_current_wal_lsn(),
                    (SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$')",
        )?;
        let fields: Vec<&str> = server.split('|').collect();
        let &[
            max_wal_size,
            wal_keep_size,
            max_slot,
            write_lsn,
            oldest_file,
        ] = fields.as_slice()
        else {
            anyhow::bail!("{server}");
        };
        let number = |name: &str| u64::from_str_radix(name, 16);
        let (log, segment) = oldest_file.get(8..).context("a short name")?.split_at(8);
        let rows = cluster.query(
            "SELECT slot_name, restart_lsn, wal_status, safe_wal_size FROM pg_replication_slots ORDER BY 1",
        )?;
        Ok(Self {
            settings: WalKeepSettings {
                segment_size: SIZE,
                max_wal_size: max_wal_size.parse()?,
                wal_keep_size: wal_keep_size.parse()?,
                max_slot_wal_keep_size: max_slot.parse().ok(),
            },
            write_lsn: write_lsn.parse()?,
            oldest_file: SegmentNumber(number(log)? * SIZE.segments_per_4gib() + number(segment)?),
            slots: rows.lines().map(SlotRow::parse).collect::<Result<_>>()?,
        })
    }

    fn slots_lsn(&self) -> Option<Lsn> {
        self.slots.iter().filter_map(|slot| slot.restart_lsn).min()
    }
}

impl SlotRow {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('|').collect();
        let &[name, restart_lsn, wal_status, safe_wal_size] = fields.as_slice() else {
            anyhow::bail!("{line}");
        };
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            name: name.to_owned(),
            restart_lsn: value(restart_lsn).map(|text| text.parse()).transpose()?,
            wal_status: value(wal_status),
            safe_wal_size: value(safe_wal_size).map(|text| text.parse()).transpose()?,
        })
    }
}

/// The run, and what it has seen.
struct Run {
    cluster: Cluster,
    /// Oldest segment at the start: what was removed before, a server does not know.
    first_file: SegmentNumber,
    seen: BTreeSet<Option<String>>,
}

impl Run {
    fn compare(&mut self, step: &str) -> Result<Sample> {
        let sample = Sample::take(&self.cluster)?;
        let last_removed = if sample.oldest_file == self.first_file {
            0
        } else {
            sample.oldest_file.0 - 1
        };
        let wal = WalExtent {
            write_lsn: sample.write_lsn,
            last_removed: SegmentNumber(last_removed),
            slots_lsn: sample.slots_lsn(),
        };
        for row in &sample.slots {
            let slot = SlotWal {
                restart_lsn: row.restart_lsn,
                // All but this one have reserved WAL.
                is_invalidated: row.restart_lsn.is_none() && row.name != "never",
                is_active: false,
            };
            let status = sample.settings.wal_status(&wal, &slot).map(WalStatus::name);
            ensure!(
                status == row.wal_status.as_deref(),
                "{step}: {status:?} for {row:?}, {sample:?}"
            );
            let safe = sample.settings.safe_wal_size(&wal, &slot);
            ensure!(
                safe == row.safe_wal_size,
                "{step}: safe {safe:?} for {row:?}, {sample:?}"
            );
            self.seen.insert(row.wal_status.clone());
        }
        Ok(sample)
    }

    fn create(&mut self, name: &str, reserve: bool) -> Result<()> {
        let sql = format!("SELECT pg_create_physical_replication_slot('{name}', {reserve})");
        self.cluster.query(&sql)?;
        self.compare(&format!("{name} created")).map(drop)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.cluster.alter_system(name, value)?;
        wait_for(name, SHORT, || {
            Ok(self.cluster.query(&format!("SHOW {name}"))? == value)
        })?;
        self.compare(&format!("{name} = {value}")).map(drop)
    }

    /// Writes about this many times 300 kB of WAL, with a look after each.
    fn write(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let sql = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 300000))";
            self.cluster.query(sql)?;
            self.compare("WAL written")?;
        }
        Ok(())
    }

    /// A checkpoint, done by the server, and by our slots as the module's documentation says; gives the slots lost by it.
    fn checkpoint(&mut self) -> Result<Vec<String>> {
        let before = self.compare("before the checkpoint")?;
        self.cluster.query("CHECKPOINT")?;
        let after = self.compare("after the checkpoint")?;
        let redo_lsn = self
            .cluster
            .lsn("SELECT redo_lsn FROM pg_control_checkpoint()")?;
        let checkpoint_lsn = self
            .cluster
            .lsn("SELECT checkpoint_lsn FROM pg_control_checkpoint()")?;

        let slots = PhysicalSlots::in_memory(10);
        for row in &before.slots {
            slots.create(&row.name, 1, row.restart_lsn)?;
        }
        let oldest = || {
            before
                .settings
                .oldest_kept_segment(checkpoint_lsn, redo_lsn, slots.retained_from())
        };
        let start = oldest().start_lsn(SIZE).context("beyond all LSNs")?;
        let done = slots.invalidate_obsolete(start)?;
        assert_eq!(done.in_use, []);
        let lost: Vec<_> = done.invalidated.into_iter().map(|(name, _)| name).collect();
        for (row, ours) in after.slots.iter().zip(slots.list()) {
            ensure!(
                row.restart_lsn == ours.restart_lsn,
                "{row:?} is ours {ours:?}"
            );
        }
        ensure!(
            after.oldest_file == oldest().max(before.oldest_file),
            "{:?} is left, not {:?}",
            after.oldest_file,
            oldest()
        );
        Ok(lost)
    }
}

#[test]
fn status_and_safe_size_are_postgresqls() -> Result<()> {
    let cluster = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "1GB")
        .set("checkpoint_timeout", "1h")
        .start()?;
    ensure!(
        cluster.programs().major() == 15,
        "the functions are those of PostgreSQL 15"
    );
    let first_file = Sample::take(&cluster)?.oldest_file;
    let mut run = Run {
        cluster,
        first_file,
        seen: BTreeSet::new(),
    };
    run.create("never", false)?;
    run.create("old", true)?;
    run.write(4)?;
    // Smaller than what is kept; checkpoints of the server's own would come in between otherwise.
    run.set("max_wal_size", "2MB")?;
    run.set("max_wal_size", "1GB")?;
    run.write(8)?;
    run.set("max_slot_wal_keep_size", "5MB")?;
    assert_eq!(run.checkpoint()?, [] as [&str; 0], "3 of 5 MB");
    run.create("young", true)?;
    run.write(8)?;
    for (name, value) in [
        ("max_slot_wal_keep_size", "4MB"),
        ("wal_keep_size", "7MB"),
        ("wal_keep_size", "0"),
        ("max_slot_wal_keep_size", "-1"),
        ("max_slot_wal_keep_size", "0"),
        ("max_slot_wal_keep_size", "4MB"),
    ] {
        run.set(name, value)?;
    }
    assert_eq!(run.checkpoint()?, ["old"]);
    run.write(8)?;
    run.set("wal_keep_size", "8MB")?;
    assert_eq!(run.checkpoint()?, [] as [&str; 0]);
    run.set("wal_keep_size", "0")?;
    run.write(4)?;
    assert_eq!(run.checkpoint()?, ["young"]);
    run.create("last", true)?;
    run.set("max_slot_wal_keep_size", "-1")?;
    run.write(4)?;
    run.set("max_wal_size", "2MB")?;
    run.write(12)?;
    run.checkpoint()?;
    let expected = ["extended", "lost", "reserved", "unreserved"].map(|name| Some(name.to_owned()));
    let expected: BTreeSet<_> = expected.into_iter().chain([None]).collect();
    assert_eq!(run.seen, expected, "the run has shown each");
    Ok(())
}
