//! What running processes have used and hold, by what `/proc` says of them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use walstream_tests::Cluster;

/// How often processes are looked at.
const SAMPLE: Duration = Duration::from_millis(50);

/// What some processes have used since they began, together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of both kinds, in seconds.
    pub(crate) cpu_s: f64,
    /// Bytes read from files, whether from the page cache or a disk. What comes over a socket does not count.
    pub(crate) read_bytes: u64,
    /// Bytes that a disk had to read for them.
    pub(crate) disk_bytes: u64,
}

impl Usage {
    /// Of these processes.
    ///
    /// # Errors
    /// When one has ended.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            sum.cpu_s += cpu_s(pid)?;
            sum.read_bytes += figure(pid, "io", "rchar:")?;
            sum.disk_bytes += figure(pid, "io", "read_bytes:")?;
        }
        Ok(sum)
    }

    /// What was used after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(before.disk_bytes),
        }
    }
}

/// CPU time of a process and all of its threads, in seconds.
///
/// Of one thread the kernel tells nanoseconds, of a process with threads that may have ended only ticks of 10 ms: fifty
/// processes counted in these would lose up to half a second.
///
/// # Source
/// `proc_pid_stat(5)`: fields 14 and 15; `Documentation/scheduler/sched-stats.rst` of Linux.
fn cpu_s(pid: u32) -> Result<f64> {
    if fs::read_dir(format!("/proc/{pid}/task"))?.count() == 1 {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        let on_cpu_ns = text.split_whitespace().next().context("no CPU time")?;
        return Ok(Duration::from_nanos(on_cpu_ns.parse()?).as_secs_f64());
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no process")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let mut next = || -> Result<u32> { Ok(times.next().context("too few fields")??) };
    let ticks = next()? + next()?;
    Ok(f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?))
}

/// A number of a process: `Name: number` in a file of its directory.
fn figure(pid: u32, file: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("no \"{name}\" in {path}"))?;
    Ok(number.parse()?)
}

/// WAL segments that these processes have open, by their descriptors.
fn open_segments(pids: &[u32]) -> Result<u32> {
    let mut open = 0;
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            // It may have been closed meanwhile.
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            let is_segment = target.file_name().is_some_and(|name| name.len() == 24);
            let in_wal = target
                .parent()
                .is_some_and(|parent| parent.ends_with("pg_wal"));
            open += u32::from(in_wal && is_segment);
        }
    }
    Ok(open)
}

/// Watches what processes hold.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Held>>,
}

/// What processes held together, each at its greatest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Memory that each has written to and shares with no other, in kB. So PostgreSQL's shared buffers, and what a process
    /// has from the one that forked it, do not count.
    pub(crate) memory_kb: u64,
    /// Descriptors of WAL segments.
    pub(crate) segments: u32,
}

impl Watch {
    /// Begins.
    pub(crate) fn start(pids: &[u32]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (pids, stopped) = (pids.to_vec(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut peak = Held::default();
            loop {
                // One look more after the end: there is one in any case.
                let is_last = stopped.load(Ordering::Relaxed);
                let mut memory_kb = 0;
                for &pid in &pids {
                    memory_kb += figure(pid, "smaps_rollup", "Private_Dirty:")?;
                }
                peak.memory_kb = peak.memory_kb.max(memory_kb);
                peak.segments = peak.segments.max(open_segments(&pids)?);
                if is_last {
                    return Ok(peak);
                }
                thread::sleep(SAMPLE);
            }
        });
        Self { stop, thread }
    }

    /// Ends.
    ///
    /// # Errors
    /// When a process ended before.
    pub(crate) fn end(self) -> Result<Held> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .ok()
            .context("the watch of processes failed")?
    }
}

/// Process ID of a server's first process.
///
/// # Errors
/// When it does not run.
pub(crate) fn postmaster(server: &Cluster) -> Result<u32> {
    let text = fs::read_to_string(server.data_dir().join("postmaster.pid"))?;
    Ok(text.lines().next().context("an empty file")?.parse()?)
}

/// Process IDs of a server's senders.
///
/// # Errors
/// When it does not run.
pub(crate) fn walsenders(server: &Cluster) -> Result<Vec<u32>> {
    let parent = postmaster(server)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A process may end while we look.
        let is_child = figure(pid, "status", "PPid:").is_ok_and(|ppid| ppid == u64::from(parent));
        if is_child && title.starts_with(b"postgres: walsender ") {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_this_process_reads_and_uses() {
        let own = [std::process::id()];
        let watch = Watch::start(&own);
        let before = Usage::of(&own).unwrap();
        let file = std::env::current_exe().unwrap();
        let length = fs::read(file).unwrap().len();
        let used = Usage::of(&own).unwrap().since(&before);
        assert!(used.read_bytes >= u64::try_from(length).unwrap());
        let held = watch.end().unwrap();
        assert!(held.memory_kb > 0 && held.segments == 0, "{held:?}");
    }
}
