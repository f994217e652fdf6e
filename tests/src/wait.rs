//! Waiting for a condition with a deadline, the only kind of waiting that the tests do.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Deadline for what takes well under a second on an idle machine.
pub const SHORT: Duration = Duration::from_secs(20);
/// Deadline for what takes seconds on an idle machine.
pub const LONG: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Errors
/// At once when `condition` fails; after `deadline` with `what`, the thing that did not come to be.
pub fn wait_for(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for_some(what, deadline, || Ok(condition()?.then_some(())))
}

/// Waits until `look` finds a value.
///
/// # Errors
/// At once when `look` fails; after `deadline` with `what`, the thing that did not come to be.
pub fn wait_for_some<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if started.elapsed() > deadline {
            bail!("{what}: not within {} s", deadline.as_secs());
        }
        thread::sleep(POLL);
    }
}
