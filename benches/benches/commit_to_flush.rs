//! Time from a commit on the primary to its acknowledged flush at a synchronous standby, as `pgbench` sees it: the
//! comparison `sync` of the program `compare`, as a bench.
//!
//! `cargo bench -p walstream-benches --bench commit_to_flush`. Under `cargo test` a short form only shows that it works.

use anyhow::Result;
use walstream_benches::compare::{Effort, sync};

fn main() -> Result<()> {
    // Cargo says so when it is to measure.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let effort = Effort {
        rounds: if is_bench { 5 } else { 1 },
        tiny: !is_bench,
    };
    println!("{}", sync::compare(effort)?);
    Ok(())
}
