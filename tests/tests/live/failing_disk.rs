//! This machine's storage fails while WAL comes: a full disk, a failed sync, a directory that cannot be written, another
//! owner. The receiver ends with exit code 8 (2 for another owner), having lost nothing that it acknowledged, and goes on
//! once the cause is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use walstream::Lsn;
use walstream_tests::{
    FakePrimary, Finished, LONG, Mirror, Program, RecordedWal, Recording, SHORT, Workdir, wait_for,
};

/// A server of this WAL, and the highest flush position that it was told.
pub(crate) fn server(wal: RecordedWal) -> Result<(FakePrimary, Arc<Mutex<Lsn>>)> {
    let told = Arc::new(Mutex::new(Lsn::INVALID));
    let heard = Arc::clone(&told);
    let fake = FakePrimary::start(move |_, peer| {
        let from = wal.begin(peer)?;
        wal.send(peer, from..wal.end())?;
        loop {
            let (tag, body) = peer.read_message()?;
            if let (b'd', Some(flush)) = (tag, body.get(9..17)) {
                let lsn = Lsn(u64::from_be_bytes(flush.try_into()?));
                let mut highest = heard.lock().unwrap_or_else(PoisonError::into_inner);
                *highest = lsn.max(*highest);
            }
            if tag == b'c' {
                peer.copy_done()?;
                return peer.done("START_REPLICATION");
            }
        }
    })?;
    Ok((fake, told))
}

/// A run on failing storage ends with code 8 and these words, and the mirror has what it had acknowledged. Then a run on
/// storage that works receives the rest.
fn fails_then_goes_on(
    recording: &Recording,
    mirror: &Mirror,
    run: Program,
    words: &[&str],
    repair: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (fake, told) = server(recording.wal.clone())?;
    let finished = run.args(["--primary", &fake.conninfo()]).run(LONG)?;
    finished.expect_failure(8, words)?;
    ensure!(!finished.stderr.contains("panicked"), "{finished}");
    ensure!(
        !finished.stderr.contains("retry_in_ms"),
        "tried again: {finished}"
    );
    ensure!(fake.accepted() <= 1, "{} connections", fake.accepted());
    let acknowledged = *told.lock().unwrap_or_else(PoisonError::into_inner);
    repair()?;
    let end = recording.ensure_whole(mirror, recording.held)?;
    // The flush position may lie inside the record that was being received.
    let lost = recording.wal.slice(end..acknowledged.max(end))?.len();
    ensure!(
        lost < 20_000,
        "acknowledged {acknowledged}, and found {end}: {finished}"
    );
    let mut running = mirror
        .command("run")?
        .args(["--primary", &fake.conninfo()])
        .start()?;
    wait_for("everything flushed", SHORT, || {
        ensure!(running.is_running()?, "{}", running.stderr());
        Ok(*told.lock().unwrap_or_else(PoisonError::into_inner) >= recording.wal.end())
    })?;
    let finished = running.terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    recording.ensure_whole(mirror, recording.wal.end())?;
    Ok(())
}

#[test]
fn a_file_that_may_not_grow_ends_the_receiver() -> Result<()> {
    let recording = Recording::new()?;
    let mirror = recording.mirror()?;
    // 1 MB segments cannot be made when files may have 512 blocks of 512 bytes; what is there may be written.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"";
    let program = mirror.workdir().join("walreceiver");
    mirror.workdir().program("walreceiver")?;
    let run = mirror.workdir().external(Path::new("/bin/sh"));
    let run = run
        .args(["-c", script])
        .arg(program)
        .args(["run", "-D"])
        .arg(mirror.directory());
    let words = ["could not", "pg_wal/0000000", "0/", "start again"];
    fails_then_goes_on(&recording, &mirror, run, &words, || Ok(()))
}

/// A file system in memory; unmounted when dropped.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Puts one of that size over a directory, with what is in that; `None` where it may not be mounted, as only root may.
    pub(crate) fn over(directory: &Path, size: &str) -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let kept = directory.with_extension("kept");
        fs::rename(directory, &kept)?;
        fs::create_dir(directory)?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=700"),
                "walstream-test",
            ])
            .arg(directory)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            fs::remove_dir(directory)?;
            fs::rename(&kept, directory)?;
            return Ok(None);
        }
        let mounted = Self(directory.to_owned());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(kept.join("."))
            .arg(directory)
            .status()?;
        ensure!(copied.success(), "cp: {copied}");
        fs::remove_dir_all(&kept)?;
        Ok(Some(mounted))
    }

    /// Takes all space but so many bytes, until the file that is named is removed.
    pub(crate) fn fill(&self, but: u64) -> Result<PathBuf> {
        let ballast = self.0.join("ballast");
        let size = free_bytes(&self.0)?.saturating_sub(but);
        fs::write(&ballast, vec![1; usize::try_from(size)?])?;
        Ok(ballast)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_receiver() -> Result<()> {
    // Only root may mount. The test with the limit above shows the same path to everybody.
    let recording = Recording::new()?;
    let mirror = recording.mirror()?;
    let pg_wal = mirror.directory().join("pg_wal");
    let Some(tmpfs) = Tmpfs::over(&pg_wal, "64m")? else {
        return Ok(());
    };
    mirror.workdir().own(&pg_wal)?;
    // All but room for one segment more is taken.
    let ballast = tmpfs.fill(1_500_000)?;
    let words = [
        "could not",
        "pg_wal/0000000",
        "0/",
        "No space left",
        "free space",
        "start again",
    ];
    let run = mirror.command("run")?;
    fails_then_goes_on(&recording, &mirror, run, &words, || {
        Ok(fs::remove_file(&ballast)?)
    })
}

fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail * found.f_frsize)
}

/// Fails the sync of every WAL file from a certain one on, and counts the syncs of those that fail.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    static int count;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    if (!name || strncmp(name + 1, "0000", 4)) return 0;
    return __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) > atoi(getenv("GOOD_SYNCS"));
}

#define SHIM(name)                                        \
    int name(int fd) {                                    \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        if (fails(fd)) { errno = EIO; return -1; }        \
        return real(fd);                                  \
    }
SHIM(fsync)
SHIM(fdatasync)
"#;

/// The library with [`SHIM`], for `LD_PRELOAD`; how many syncs are good is in `GOOD_SYNCS`.
pub(crate) fn build_shim(workdir: &Workdir) -> Result<PathBuf> {
    let source = workdir.join("shim.c");
    let library = workdir.join("shim.so");
    fs::write(&source, SHIM)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl");
    let built = cc
        .status()
        .context("cc is needed to build a library that fails syncs")?;
    ensure!(built.success(), "cc cannot build a library");
    fs::set_permissions(&library, fs::Permissions::from_mode(0o755))?;
    Ok(library)
}

#[test]
fn a_failed_sync_is_fatal_and_nothing_after_it_is_acknowledged() -> Result<()> {
    let recording = Recording::new()?;
    for good_syncs in ["0", "4"] {
        let mirror = recording.mirror()?;
        let library = build_shim(mirror.workdir())?;
        let run = mirror.command("run")?.env("LD_PRELOAD", &library);
        let run = run.env("GOOD_SYNCS", good_syncs);
        let words = [
            "could not sync",
            "pg_wal/0000000",
            "0/",
            "check the disk",
            "start again",
        ];
        fails_then_goes_on(&recording, &mirror, run, &words, || Ok(()))
            .with_context(|| format!("{good_syncs} good syncs"))?;
    }
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_written_ends_the_receiver() -> Result<()> {
    let recording = Recording::new()?;
    let mirror = recording.mirror()?;
    let pg_wal = mirror.directory().join("pg_wal");
    fs::set_permissions(&pg_wal, fs::Permissions::from_mode(0o500))?;
    let words = ["pg_wal", "Permission denied", "write access", "start again"];
    let run = mirror.command("run")?;
    fails_then_goes_on(&recording, &mirror, run, &words, || {
        Ok(fs::set_permissions(
            &pg_wal,
            fs::Permissions::from_mode(0o700),
        )?)
    })
}

#[test]
fn another_owner_is_refused() -> Result<()> {
    // Only root may give a directory away.
    if !geteuid().is_root() {
        return Ok(());
    }
    let recording = Recording::new()?;
    let mirror = recording.mirror()?;
    std::os::unix::fs::chown(mirror.directory(), Some(0), Some(0))?;
    fs::set_permissions(mirror.directory(), fs::Permissions::from_mode(0o777))?;
    let nobody = "host=/nonexistent user=postgres connect_timeout=1";
    for command in ["run", "activate"] {
        let program = mirror.command(command)?.args(["--primary", nobody]);
        let finished: Finished = program.run(LONG)?;
        finished.expect_failure(2, &["belongs to user 0", "directory's owner"])?;
    }
    Ok(())
}
