//! Appending to a log of one's own: how many bytes and commits a second, against what the disk syncs.
//!
//! `sync` is what the disk does alone: 8 KiB written in place and synced. `commit` waits for a flush after each record,
//! from so many tasks at once; they share flushes, so a hundred take little longer than one. `append` waits for nothing but
//! for room in the buffers.

#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use walsender::writer::{LogControl, LogicalMessage, WalWriter, WriterOptions};
use walstream::PgMajor;

/// Bytes of a record's payload.
const PAYLOAD: usize = 200;

struct Log {
    log: WalWriter,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Log {
    fn new() -> anyhow::Result<Self> {
        // Beside what is built: a memory file system has no disk to sync.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let log = WalWriter::create(
            directory.path(),
            &LogControl::new(PgMajor::V15),
            WriterOptions::default(),
        )?;
        Ok(Self {
            log,
            runtime: Runtime::new()?,
            _directory: directory,
        })
    }

    /// Each of `tasks` appends `count` records and waits for each; gives how long all took.
    fn commits(&self, tasks: u64, count: u64) -> Duration {
        self.runtime.block_on(async {
            let began = Instant::now();
            let running: Vec<_> = (0..tasks)
                .map(|_| {
                    let log = self.log.clone();
                    tokio::spawn(async move {
                        let message = LogicalMessage::new("bench", &[7; PAYLOAD]);
                        for _ in 0..count {
                            let record = log.append_message(&message).await?;
                            log.flush(record.end_lsn).await?;
                        }
                        // What standbys do not need is recycled.
                        log.release(log.flushed_lsn());
                        anyhow::Ok(())
                    })
                })
                .collect();
            for task in running {
                task.await
                    .map_err(anyhow::Error::from)
                    .flatten()
                    .unwrap_or_else(|error| die(&error));
            }
            began.elapsed()
        })
    }
}

fn append(c: &mut Criterion) {
    let log = Log::new().unwrap_or_else(|error| die(&error));
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Bytes(u64::try_from(PAYLOAD).unwrap_or(0)));
    group.bench_function("append", |b| {
        b.iter_custom(|count| {
            log.runtime.block_on(async {
                let message = LogicalMessage::new("bench", &[7; PAYLOAD]);
                let began = Instant::now();
                for _ in 0..count {
                    let appended = log.log.append_message(&message).await;
                    black_box(appended.unwrap_or_else(|error| die(&error.into())));
                }
                log.log.release(log.log.flushed_lsn());
                began.elapsed()
            })
        });
    });
    group.finish();

    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sync");
    let file = std::fs::File::create(&path).and_then(|file| {
        file.write_all_at(&vec![0; 1 << 20], 0)?;
        file.sync_all()?;
        Ok(file)
    });
    let file = file.unwrap_or_else(|error| die(&error.into()));
    group.bench_function("sync", |b| {
        b.iter(|| {
            file.write_all_at(&[1; 8192], 8192)
                .and_then(|()| file.sync_data())
                .unwrap_or_else(|error| die(&error.into()));
        });
    });
    let _ = std::fs::remove_file(&path);
    for tasks in [1, 10, 100] {
        group.throughput(Throughput::Elements(tasks));
        group.bench_with_input(BenchmarkId::new("tasks", tasks), &tasks, |b, &tasks| {
            b.iter_custom(|count| log.commits(tasks, count));
        });
    }
    group.finish();
}

/// A bench has no way to fail but this.
fn die(error: &anyhow::Error) -> ! {
    eprintln!("append: {error:#}");
    std::process::exit(1)
}

criterion_group!(benches, append);
criterion_main!(benches);
