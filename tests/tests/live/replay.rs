//! `walreceiver replay` does to a data directory what a PostgreSQL standby does: every file is the same, byte for byte, and PostgreSQL
//! goes on from it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::storage::control::DatabaseState;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{
    Cluster, LONG, Program, Random, StopMode, Workdir, ensure_same_lines, every_record,
    wait_until_it_serves,
};

/// A primary that has done its work and is stopped, and a base backup from before.
pub(crate) struct Scene {
    pub(crate) primary: Cluster,
    pub(crate) places: Workdir,
    pub(crate) backup: PathBuf,
    /// Where the primary's last record starts, its shutdown checkpoint.
    end: Lsn,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let places = Workdir::new()?;
        let mut primary = every_record::options(15)?
            .initdb_option("--data-checksums")
            .start()?;
        primary.query("CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000) a")?;
        let backup = places.join("backup");
        let target = backup.to_string_lossy().into_owned();
        let conninfo = primary.conninfo();
        let arguments = [
            "-D",
            &target,
            "--no-sync",
            "-c",
            "fast",
            "-X",
            "stream",
            "-d",
            &conninfo,
        ];
        primary.run("pg_basebackup", &arguments)?;
        primary.pgbench(&["-i", "-s", "2", "-q"])?;
        primary.pgbench(&["-c", "3", "-t", "300"])?;
        // Without prepared transactions, as a logical slot would wait for their end.
        every_record::work(&mut primary, 15)?;
        primary.start()?;
        primary.query("BEGIN; CREATE TABLE prepared (a int); PREPARE TRANSACTION 'old'")?;
        primary.query("CHECKPOINT")?;
        primary.query("BEGIN; CREATE TABLE prepared_too (a int); PREPARE TRANSACTION 'new'")?;
        primary.pgbench(&["-c", "3", "-t", "300"])?;
        primary.stop(StopMode::Fast)?;
        let end = control_file(primary.data_dir())?.checkpoint_lsn;
        Ok(Self {
            primary,
            places,
            backup,
            end,
        })
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.primary.data_dir().join("pg_wal")
    }

    /// A copy of a data directory.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.places.join(name);
        let status = Command::new("cp").arg("-a").args([from, &copy]).status()?;
        ensure!(status.success(), "cp: {status}");
        Ok(copy)
    }

    fn replay(&self, directory: &Path) -> Result<Program> {
        let program = self.places.program("walreceiver")?;
        Ok(program
            .args(["replay", "--json", "-D"])
            .arg(directory)
            .arg("--wal")
            .arg(self.wal()))
    }

    /// What a standby makes of the same WAL. It shuts down by itself.
    fn standby(&self) -> Result<PathBuf> {
        let standby = self.copy(&self.backup, "standby")?;
        let signal = standby.join("standby.signal");
        std::fs::write(&signal, "")?;
        self.places.own(&signal)?;
        let program = self.primary.programs().program("postgres");
        let restore = format!("restore_command=cp {}/%f %p", self.wal().display());
        let sockets = format!("unix_socket_directories={}", self.places.path().display());
        let target = format!("recovery_target_lsn={}", self.end);
        let settings = [
            "hot_standby=off",
            "fsync=off",
            "listen_addresses=",
            "recovery_target_action=shutdown",
            &restore,
            &sockets,
            &target,
        ];
        let mut server = self.places.external(&program).arg("-D").arg(&standby);
        for setting in settings {
            server = server.args(["-c", setting]);
        }
        let ended = server.run(LONG)?;
        let state = control_file(&standby)?.state;
        ensure!(state == DatabaseState::ShutDownInRecovery, "{ended}");
        Ok(standby)
    }

    /// Lets PostgreSQL recover from what was replayed, on a new timeline.
    fn activate(&self, directory: &Path) -> Result<Cluster> {
        let signal = directory.join("recovery.signal");
        std::fs::write(&signal, "")?;
        self.places.own(&signal)?;
        let mut server = Cluster::on_directory(&self.primary, directory)?;
        let restore = format!("cp {}/%f %p", self.wal().display());
        server.configure(&[("restore_command", restore.as_str())])?;
        server.start()?;
        wait_until_it_serves(&server)?;
        Ok(server)
    }
}

#[test]
fn a_replayed_directory_is_that_of_a_standby() -> Result<()> {
    let mut scene = Scene::new()?;
    let standby = scene.standby()?;

    let ours = scene.copy(&scene.backup, "ours")?;
    let replayed = scene.replay(&ours)?.succeed(LONG)?;
    let report = replayed.json()?;
    ensure!(
        report["records"].as_u64() > Some(50_000),
        "too little to prove anything: {replayed}"
    );
    let pages = ensure_same_data(&standby, &ours)?;
    ensure!(pages > 5_000, "only {pages} pages");

    // Nothing of it depends on how much fits into memory.
    let small = scene.copy(&scene.backup, "small")?;
    let small_cache = scene.replay(&small)?.args(["--cache-size", "1MB"]);
    let evicted = small_cache.succeed(LONG)?;
    ensure!(
        evicted.json()?["pages_evicted"].as_u64() > Some(1_000),
        "the cache was large enough: {evicted}"
    );
    ensure_same_data(&standby, &small)?;

    let checksums = scene.primary.programs().program("pg_checksums");
    let check = scene.places.external(&checksums).args(["--check", "-D"]);
    check.arg(&ours).succeed(LONG)?;

    let server = scene.activate(&ours)?;
    scene.primary.start()?;
    let prepared = "SELECT gid FROM pg_prepared_xacts ORDER BY 1";
    assert_eq!(server.query(prepared)?, "new\nold");
    for server in [&scene.primary, &server] {
        server.query("COMMIT PREPARED 'old'")?;
        server.query("ROLLBACK PREPARED 'new'")?;
    }
    assert_eq!(server.query("SELECT count(*) FROM unlogged")?, "0");
    scene.primary.query("TRUNCATE unlogged")?;
    ensure_same_lines(&dump(&scene.primary)?, &dump(&server)?)?;
    server.amcheck()
}

/// A dump without positions of sequences, which are ahead after recovery by what a session had fetched.
pub(crate) fn dump(server: &Cluster) -> Result<String> {
    let dump = server.dump_all()?;
    let kept = |line: &&str| !line.contains("pg_catalog.setval");
    let lines: Vec<_> = dump.lines().filter(kept).collect();
    Ok(lines.join("\n"))
}

#[test]
fn a_killed_replay_resumes_to_the_same_state() -> Result<()> {
    let scene = Scene::new()?;
    let standby = scene.standby()?;
    let mut random = Random::seeded();
    let ours = scene.copy(&scene.backup, "ours")?;
    for kill in 0..10 {
        let replay = scene.replay(&ours)?.args([
            "--restartpoint-interval",
            "0",
            "--cache-size",
            if kill % 2 == 0 { "1MB" } else { "32MB" },
        ]);
        let running = replay.start()?;
        // Any instant will do: nothing is waited for.
        std::thread::sleep(random.duration(Duration::from_millis(1500)));
        drop(running);
    }
    scene
        .replay(&ours)?
        .succeed(LONG)
        .context("after the last kill")?;
    ensure_same_data(&standby, &ours)?;
    Ok(())
}
