//! Which cores programs run on.

use anyhow::{Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs `work` with this thread, and the programs it starts, on `count` of the cores it may use.
///
/// # Errors
/// When there are fewer cores, and as `work` does.
pub fn on_cores<T>(count: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = sched_getaffinity(None)?;
    let mut some = CpuSet::new();
    // The last ones: interrupts tend to be handled by the first.
    let usable = (0..CpuSet::MAX_CPU).rev().filter(|core| all.is_set(*core));
    usable.take(count).for_each(|core| some.set(core));
    ensure!(
        some.count() == u32::try_from(count)?,
        "this machine lets us use fewer than {count} cores"
    );
    sched_setaffinity(None, &some)?;
    let result = work();
    sched_setaffinity(None, &all)?;
    result
}
