//! Decoding and checking WAL, by record size, beside a bare CRC-32C pass over the same bytes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use walstream::fuzzing::WalBuilder;
use walstream::wal::WalDecoder;
use walstream::{Dialect, Lsn, PgMajor};

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
    let mut feed = decoder.feed(bytes);
    let mut total = 0;
    while let Ok(Some(record)) = feed.next_record() {
        total += u64::from(record.header.total_len);
    }
    total
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
                    .fold(0, |sum, piece| sum ^ crc32c::crc32c(piece))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
