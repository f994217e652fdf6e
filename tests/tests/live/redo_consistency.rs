//! Every page that our redo makes is the server's, which logs each with its change (`wal_consistency_checking`).

use std::path::Path;

use anyhow::{Result, ensure};
use walstream::redo::RedoContext;
use walstream_tests::every_record;
use walstream_tests::redo_oracle::RedoOracle;
use walstream_tests::wal_files::WalFiles;

fn check(major: u32) -> Result<()> {
    let settings = [("wal_consistency_checking", "all")];
    let cluster = every_record::run_with(major, &settings)?;
    let wal = WalFiles::of(&cluster)?;
    let mut oracle = RedoOracle::new(RedoContext {
        dialect: wal.dialect,
        logs_hints: true,
    });
    oracle.replay(wal.start, &wal.bytes)?;
    println!("{}", oracle.report());
    let wrong = oracle
        .outcomes
        .values()
        .filter(|kind| kind.problem_count > 0);
    ensure!(wrong.count() == 0, "pages differ:\n{}", oracle.report());
    let kinds = oracle.outcomes.values().filter(|kind| kind.compared > 0);
    ensure!(
        kinds.count() > 50,
        "too little was compared:\n{}",
        oracle.report()
    );
    Ok(())
}

#[test]
fn postgresql_15() -> Result<()> {
    check(15)
}

#[test]
#[ignore = "writes the seeds of the fuzz target, which are committed"]
fn seeds_of_the_fuzz_target() -> Result<()> {
    let settings = [("wal_consistency_checking", "")];
    let cluster = every_record::run_with(15, &settings)?;
    let wal = WalFiles::of(&cluster)?;
    let mut oracle = RedoOracle::new(RedoContext {
        dialect: wal.dialect,
        logs_hints: true,
    });
    oracle.replay(wal.start, &wal.bytes)?;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/redo");
    std::fs::create_dir_all(&corpus)?;
    for (name, input) in &oracle.seeds.inputs {
        std::fs::write(corpus.join(name), input)?;
    }
    ensure!(oracle.seeds.inputs.len() > 100);
    Ok(())
}
