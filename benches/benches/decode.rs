//! Decoding and checking WAL, beside a bare CRC-32C pass over the same bytes: records of one size, made in memory, and
//! the small form of the corpus that a real server wrote. The share of a bare pass is the quotient of the two figures.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use walstream::fuzzing::WalBuilder;
use walstream::wal::WalDecoder;
use walstream::{Dialect, Lsn, PgMajor, ReadBuffer};
use walstream_benches::corpus::{Corpus, CorpusSize};

/// Sizes of record bodies in bytes: a commit, a small insert, the mean of a real mix, a page image.
const BODIES: [usize; 4] = [34, 130, 576, 8200];
const START: Lsn = Lsn(0x0100_0000);

/// Some 4 MiB of records of one size, each with main data only.
fn wal(body: usize) -> WalBuilder {
    let mut wal = WalBuilder::new(Dialect::with_default_sizes(PgMajor::V15), START);
    let data = vec![b'x'; body.saturating_sub(5)];
    let len = u32::try_from(data.len()).unwrap_or(0);
    let body = [&[254][..], &len.to_le_bytes(), &data].concat();
    while wal.bytes().len() < 4 << 20 {
        wal.record(10, 0, &body);
    }
    wal
}

fn decode(bytes: &[u8]) -> u64 {
    let mut decoder = WalDecoder::new(Dialect::with_default_sizes(PgMajor::V15), START);
    let mut total = 0;
    for piece in bytes.chunks(ReadBuffer::LEN) {
        let mut feed = decoder.feed(piece);
        while let Ok(Some(record)) = feed.next_record() {
            total += u64::from(record.header.total_len);
        }
    }
    total
}

/// Three segments of schema changes, loads and `pgbench`, in pieces as `waldump` reads them.
fn corpus(criterion: &mut Criterion) {
    let corpus = Corpus::cached(CorpusSize::TINY).unwrap_or_else(|error| die(&error));
    let mut segments = corpus.segments().iter();
    let wal: Vec<u8> = segments
        .try_fold(Vec::new(), |mut wal, path| {
            wal.extend(std::fs::read(path)?);
            Ok(wal)
        })
        .unwrap_or_else(|error: std::io::Error| die(&error.into()));
    let mut group = criterion.benchmark_group("corpus");
    group.throughput(Throughput::Bytes(u64::try_from(wal.len()).unwrap_or(0)));
    let mut decoder = WalDecoder::new(Dialect::with_default_sizes(PgMajor::V15), START);
    let mut feed = decoder.feed(&wal);
    while feed
        .next_record()
        .unwrap_or_else(|error| die(&error.into()))
        .is_some()
    {}
    let end = START.0 + u64::try_from(wal.len()).unwrap_or(0);
    // One that goes on behind the last segment is not whole here.
    assert!(
        decoder.valid_end().0 > end - (1 << 20),
        "every record is decoded"
    );
    group.bench_function("records", |b| b.iter(|| decode(black_box(&wal))));
    group.bench_function("bare CRC-32C", |b| {
        b.iter(|| {
            black_box(&wal)
                .chunks(ReadBuffer::LEN)
                .fold(0, |sum, piece| sum ^ crc_fast::crc32_iscsi(piece))
        });
    });
    group.finish();
}

/// A bench has no way to fail but this.
fn die(error: &anyhow::Error) -> ! {
    eprintln!("decode: {error:#}");
    std::process::exit(1)
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for body in BODIES {
        let wal = wal(body);
        let bytes = wal.bytes();
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        assert!(decode(bytes) > len * 9 / 10, "every record is decoded");
        group.throughput(Throughput::Bytes(len));
        group.bench_function(BenchmarkId::new("records", body + 24), |b| {
            b.iter(|| decode(black_box(bytes)));
        });
        // The same number of checksums of the same length, without looking for the records.
        group.bench_function(BenchmarkId::new("bare CRC-32C", body + 24), |b| {
            b.iter(|| {
                black_box(bytes)
                    .chunks(body + 24)
                    .fold(0, |sum, piece| sum ^ crc_fast::crc32_iscsi(piece))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench, corpus);
criterion_main!(benches);
