//! Memory of archive reading is bounded by the segment, never by what a compressed file holds. The kernel is the judge, as
//! one of the decompressors does not use Rust's allocator; so this is a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;
use walsender::source::archive::{Archive, ArchiveLocation, ArchiveOptions, OpenSegment};
use walstream::SegmentSize;

const MIB: usize = 1 << 20;
/// What each file decompresses to, in MiB: far more than the bound.
const BOMB: usize = 512;
/// What reading may add to the process, in MiB. Of this, zstd's window may take 16.
const BOUND: usize = 48;

/// The most memory that this process ever had, in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<usize>().unwrap() / 1024
}

fn write_zeros(mut out: impl Write) {
    let zeros = vec![0; MIB];
    for _ in 0..BOMB {
        out.write_all(&zeros).unwrap();
    }
}

fn write_bombs(directory: &Path) {
    let create = |name: &str| File::create(directory.join(name)).unwrap();
    let mut gzip = GzEncoder::new(
        create("000000010000000000000010.gz.partial"),
        Compression::fast(),
    );
    write_zeros(&mut gzip);
    gzip.finish().unwrap();
    let mut lz4 = FrameEncoder::new(create("000000010000000000000011.lz4.partial"));
    write_zeros(&mut lz4);
    lz4.finish().unwrap();
    let mut zstd = zstd::Encoder::new(create("000000010000000000000012.zst.partial"), 1).unwrap();
    // The largest window that a segment of this size justifies.
    zstd.window_log(24).unwrap();
    write_zeros(&mut zstd);
    zstd.finish().unwrap();
}

/// Reads on until an error, which there must be; gives the bytes that came before.
fn read_to_error(segment: &mut OpenSegment) -> (usize, String) {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match segment.read(&mut buffer) {
            Ok(0) => panic!("{} ended after {total} bytes", segment.name()),
            Ok(count) => total += count,
            Err(error) => return (total, error.to_string()),
        }
    }
}

#[test]
fn a_small_file_that_decompresses_to_much_takes_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    write_bombs(directory.path());
    let segment_size = SegmentSize::DEFAULT;
    let archive = Archive::open(
        &ArchiveLocation::Directory(directory.path().to_owned()),
        &ArchiveOptions {
            segment_size: Some(segment_size),
            ..ArchiveOptions::default()
        },
    )
    .unwrap();
    let before = peak();
    for name in [
        "000000010000000000000010.gz.partial",
        "000000010000000000000011.lz4.partial",
        "000000010000000000000012.zst.partial",
    ] {
        let mut segment = archive.open_file(name).unwrap().unwrap();
        let (given, error) = read_to_error(&mut segment);
        assert!(
            given <= usize::try_from(segment_size.bytes()).unwrap(),
            "{name}: {given}"
        );
        assert!(error.contains(name), "{error}");
        let added = peak() - before;
        assert!(added <= BOUND, "{name}: {added} MiB more than before");
    }
}
