//! Running a program and measuring it: wall time, CPU time, memory.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wait4::Wait4;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(5);

/// What one run of a program took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From its start to its end, in seconds.
    pub wall_s: f64,
    /// CPU time in user mode, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub system_s: f64,
    /// Resident memory at its greatest, in bytes: the file pages that it maps count too. Of a program with children, that of
    /// the largest process: what they share counts once, what the others have for themselves does not.
    pub peak_rss: u64,
    /// How much more of it there was in the last quarter of the run than in the second, in bytes: near 0 when memory is
    /// flat.
    pub rss_growth: i64,
}

impl Measured {
    /// CPU time in seconds, both kinds.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// A program that is being measured. It is killed when this is dropped before its end.
#[derive(Debug)]
pub struct Measuring {
    child: Option<Child>,
    started: Instant,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    peak: u64,
    samples: Vec<u64>,
}

impl Measuring {
    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let process = child.id();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || watch_memory(process, &stopped));
        Ok(Self {
            child: Some(child),
            started,
            watch: Some(Watch { stop, thread }),
        })
    }

    /// The process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("the program has ended")
    }

    /// Waits for its end. The status is for the caller to judge.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn finish(mut self) -> Result<(ExitStatus, Measured)> {
        let used = self.child()?.wait4()?;
        let wall_s = self.started.elapsed().as_secs_f64();
        self.child = None;
        let memory = self.watch.take().map(Watch::end).unwrap_or_default();
        let measured = Measured {
            wall_s,
            user_s: used.rusage.utime.as_secs_f64(),
            system_s: used.rusage.stime.as_secs_f64(),
            peak_rss: memory.peak,
            rss_growth: memory.growth(),
        };
        Ok((used.status, measured))
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail when it has ended, which is what they are for.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(watch) = self.watch.take() {
            watch.end();
        }
    }
}

impl Watch {
    fn end(self) -> Memory {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Memory {
    fn growth(&self) -> i64 {
        let quarter = self.samples.len() / 4;
        let mean = |from: usize| -> i64 {
            let part = self.samples.get(from..from + quarter).unwrap_or_default();
            let sum: u64 = part.iter().sum();
            i64::try_from(sum / u64::try_from(part.len().max(1)).unwrap_or(1)).unwrap_or(i64::MAX)
        };
        if quarter == 0 {
            return 0;
        }
        mean(self.samples.len() - quarter) - mean(quarter)
    }
}

/// What `wait4` says about memory includes what the parent had when it made the child; the child's own peak is here.
fn watch_memory(process: u32, stop: &AtomicBool) -> Memory {
    let mut memory = Memory::default();
    let children = format!("/proc/{process}/task/{process}/children");
    while !stop.load(Ordering::Relaxed) {
        // Nothing is there once it has ended.
        let Ok(text) = fs::read_to_string(format!("/proc/{process}/status")) else {
            break;
        };
        if let (Some(peak), Some(now)) = (bytes(&text, "VmHWM:"), bytes(&text, "VmRSS:")) {
            memory.peak = memory.peak.max(peak);
            memory.samples.push(now);
        }
        for child in fs::read_to_string(&children)
            .unwrap_or_default()
            .split_whitespace()
        {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let peak = bytes(&status, "VmHWM:").unwrap_or(0);
            memory.peak = memory.peak.max(peak);
        }
        thread::sleep(SAMPLE);
    }
    memory
}

/// A size in a process's `status`, where it is in kB.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_what_a_program_uses() {
        let mut busy = Command::new("sh");
        busy.args([
            "-c",
            "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; exit 3",
        ]);
        let (status, measured) = Measuring::start(&mut busy).unwrap().finish().unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(
            measured.cpu_s() > 0.0 && measured.wall_s > 0.0,
            "{measured:?}"
        );
        assert!(measured.peak_rss > 100 << 10, "{measured:?}");
    }

    #[test]
    fn growth_compares_the_last_quarter_with_the_second() {
        let samples = [0, 0, 10, 10, 10, 10, 30, 30].to_vec();
        assert_eq!(Memory { peak: 30, samples }.growth(), 20);
        assert_eq!(Memory::default().growth(), 0);
    }
}
