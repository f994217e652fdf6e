//! Comparing the lines of `walreceiver waldump` with those of `pg_waldump`.

use anyhow::{Result, ensure};

/// Makes sure that our lines are those of `pg_waldump`, record by record.
///
/// # Errors
/// With the first two lines that differ.
pub fn ensure_same_records(ours: &str, theirs: &str) -> Result<()> {
    for (number, (our, their)) in ours.lines().zip(theirs.lines()).enumerate() {
        ensure!(
            our == their,
            "line {number}:\nours  {our:?}\ntheir {their:?}"
        );
    }
    let (count, wanted) = (ours.lines().count(), theirs.lines().count());
    ensure!(
        count == wanted,
        "{count} lines instead of {wanted}; the last of ours is {:?}, of theirs {:?}",
        ours.lines().last(),
        theirs.lines().last()
    );
    Ok(())
}
