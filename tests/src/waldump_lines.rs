//! Comparing the lines of `walreceiver waldump` with those of `pg_waldump`.

use anyhow::{Context, Result, ensure};

/// Resource managers whose records are not described yet: of their lines the part between the name of the record's type and the
/// first block reference is not compared.
const NOT_DESCRIBED: [&str; 8] = [
    "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN",
];

/// Makes sure that our lines are those of `pg_waldump`, record by record.
///
/// # Errors
/// With the first two lines that differ.
pub fn ensure_same_records(ours: &str, theirs: &str) -> Result<()> {
    for (number, (our, their)) in ours.lines().zip(theirs.lines()).enumerate() {
        ensure!(
            is_same(our, their).unwrap_or(false),
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

fn is_same(our: &str, their: &str) -> Result<bool> {
    const BLOCK: &str = ", blkref #";
    let rmgr = our
        .strip_prefix("rmgr: ")
        .and_then(|rest| rest.split_whitespace().next());
    if !rmgr.is_some_and(|rmgr| NOT_DESCRIBED.contains(&rmgr)) {
        return Ok(our == their);
    }
    let (our_head, our_blocks) = match our.split_once(BLOCK) {
        Some((head, blocks)) => (head, Some(blocks)),
        None => (our, None),
    };
    let rest = their
        .strip_prefix(our_head)
        .context("another record or name")?;
    Ok(match (our_blocks, rest.split_once(BLOCK)) {
        (Some(ours), Some((_, theirs))) => ours == theirs,
        (None, None) => true,
        _ => false,
    })
}
