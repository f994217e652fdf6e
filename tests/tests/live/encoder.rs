//! What the encoder writes is WAL: `pg_waldump` of each version reads it without complaint and finds in it what our
//! decoder finds, and servers of each version recover from it. That the WAL of servers, decoded and encoded again, is the
//! same byte by byte is shown in [`crate::every_record`].

#![expect(
    clippy::indexing_slicing,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::fs;

use anyhow::{Context, Result, ensure};
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator, RmgrId};
use walstream::wal::encode::{BodyParts, ImagePacker, NewRecord, WalEncoder, standard_hole};
use walstream::wal::image::ImageCompression;
use walstream::wal::page::header_len_at;
use walstream::wal::{BlockRef, WalDecoder};
use walstream::{Dialect, Lsn, PgMajor, PgTimestamp, SegmentSize, SystemIdentifier, TimelineId};
use walstream_tests::wal_files::{WalFiles, write_segments};
use walstream_tests::waldump::{decode_segments, ensure_equal, normal, pg_waldump};
use walstream_tests::{Cluster, ClusterOptions, MAJORS, StopMode, Workdir, server_version};

const HEAP: RmgrId = RmgrId(10);
const BTREE: RmgrId = RmgrId(11);
const LOGICAL_MESSAGE: RmgrId = RmgrId(21);
const NOOP: u8 = 0x20;
const NEXTOID: u8 = 0x30;
const FPI: u8 = 0xB0;

/// A record of main data alone.
fn simple(rmgr: RmgrId, info: u8, main_data: &[u8]) -> NewRecord<'_> {
    with_blocks(rmgr, info, main_data, &[])
}

fn with_blocks<'a>(
    rmgr: RmgrId,
    info: u8,
    main_data: &'a [u8],
    blocks: &'a [BlockRef<'a>],
) -> NewRecord<'a> {
    NewRecord {
        rmgr,
        info,
        xid: 700,
        body: BodyParts {
            blocks,
            main_data,
            ..BodyParts::default()
        }
        .into(),
    }
}

/// The main data of a message with a text of this many bytes (`xl_logical_message`).
fn message(text: usize) -> Vec<u8> {
    let prefix = b"encoder\0";
    let len = |len: usize| u64::try_from(len).unwrap_or(0).to_le_bytes();
    let head = [
        &5u32.to_le_bytes()[..],
        &[0; 4],
        &len(prefix.len()),
        &len(text),
        prefix,
    ]
    .concat();
    [head, vec![b'm'; text]].concat()
}

const fn block(id: u8, relation: u32, block: BlockNumber) -> BlockRef<'static> {
    BlockRef {
        id,
        locator: RelFileLocator {
            tablespace: 1663,
            database: 5,
            relation,
        },
        fork: ForkNumber::Main,
        block,
        will_init: false,
        image: None,
        data: &[],
    }
}

/// A page of the standard layout with a hole.
fn page(seed: u8, hole: std::ops::Range<u16>) -> Vec<u8> {
    let mut page: Vec<u8> = (0..8192u32)
        .map(|i| seed ^ u8::try_from(i / 11 % 201).unwrap_or(0))
        .collect();
    for (at, value) in [(12, hole.start), (14, hole.end), (16, 8192), (18, 0x2004)] {
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    page[usize::from(hole.start)..usize::from(hole.end)].fill(0);
    page
}

/// The compressions that this version's images can have.
fn methods(major: u32) -> &'static [Option<ImageCompression>] {
    use ImageCompression::{Lz4, Pglz, Zstd};
    if major >= 15 {
        &[None, Some(Pglz), Some(Lz4), Some(Zstd)]
    } else {
        &[None, Some(Pglz)]
    }
}

#[test]
fn pg_waldump_reads_it() -> Result<()> {
    let mut read = Vec::new();
    for major in MAJORS {
        for megabytes in [1, 16, 64] {
            let dialect = Dialect {
                segment_size: SegmentSize::new(megabytes << 20)?,
                ..Dialect::with_default_sizes(PgMajor::from_number(major).context("known")?)
            };
            if is_read(&dialect).with_context(|| format!("version {major}, {megabytes} MB"))? {
                read.push((major, megabytes));
            }
        }
    }
    let expected: Vec<_> = [14, 15, 16, 17, 18]
        .into_iter()
        .flat_map(|major| [1, 16, 64].map(|size| (major, size)))
        .collect();
    ensure!(read == expected, "only {read:?}");
    Ok(())
}

/// Whether there is a `pg_waldump` of this version, and then that it reads a log of all that the encoder can write.
fn is_read(dialect: &Dialect) -> Result<bool> {
    let major = dialect.major.number();
    let programs = server_version(major)?;
    if major < 14 && !programs.program("pg_waldump").exists() {
        return Ok(false);
    }
    let size = dialect.segment_size.bytes();
    let start = Lsn(3 * size);
    let mut wal = Vec::new();
    let system = SystemIdentifier(0x1234_5678_9ABC_DEF0);
    let mut encoder = WalEncoder::new(*dialect, system, TimelineId(2), start, Lsn(3 * size - 64))?;
    write_every_kind(&mut encoder, major, &mut wal)?;
    // A short record over the end of a segment.
    fill_up_to(&mut encoder, start + (size - 72), &mut wal)?;
    encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(200)), &mut wal)?;
    encoder.switch(&mut wal)?;
    if size < 64 << 20 {
        // A long one, and switches whose record ends with a page, with a segment, and is all of a segment.
        fill_up_to(&mut encoder, start + (3 * size - 80_000), &mut wal)?;
        encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(180_000)), &mut wal)?;
        encoder.switch(&mut wal)?;
        let at = encoder.position();
        fill_up_to(&mut encoder, at + (2 * 8192 - 24), &mut wal)?;
        encoder.switch(&mut wal)?;
        let at = encoder.position();
        fill_up_to(&mut encoder, at + (size - 24), &mut wal)?;
        encoder.switch(&mut wal)?;
        ensure!(encoder.position() == at + size);
        encoder.switch(&mut wal)?;
    }
    encoder.switch_timeline(TimelineId(5))?;
    write_every_kind(&mut encoder, major, &mut wal)?;
    let end = encoder.position();

    let workdir = Workdir::new()?;
    let directory = workdir.make_dir("wal")?;
    let timeline = TimelineId(5);
    write_segments(workdir.user(), &directory, &wal, dialect, start, timeline)?;
    let (range, options) = ((start + 40, end), ["--bkp-details"]);
    let Some(theirs) = pg_waldump(&workdir, &programs, &directory, timeline, range, &options)?
    else {
        return Ok(false);
    };
    let ours = decode_segments(&wal, usize::MAX)?;
    ensure!(ours.end.lsn == end, "{:?} is not {end}", ours.end);
    ensure_equal(&ours.lines, &normal(&theirs, dialect)?)?;
    let found: Vec<&str> = ours.images.keys().copied().collect();
    let all = ["lz4", "none", "pglz", "zstd"];
    ensure!(
        found == if major >= 15 { &all[..] } else { &all[1..3] },
        "{found:?}"
    );
    Ok(true)
}

/// One record of each form, in bodies that the descriptions of `pg_waldump` can read.
fn write_every_kind(encoder: &mut WalEncoder, major: u32, wal: &mut Vec<u8>) -> Result<()> {
    encoder.record(&simple(RmgrId::XLOG, NOOP, &[]), wal)?;
    let next_oid = 24_576u32.to_le_bytes();
    let mut parts = BodyParts {
        main_data: &next_oid,
        origin: Some(3),
        ..BodyParts::default()
    };
    if major >= 14 {
        parts.toplevel_xid = Some(699);
    }
    let next_oid = NewRecord {
        body: parts.into(),
        ..simple(RmgrId::XLOG, NEXTOID, &[])
    };
    encoder.record(&next_oid, wal)?;
    encoder.record(&simple(RmgrId::TRANSACTION, 0, &1i64.to_le_bytes()), wal)?;

    // Rows of a heap, and an index: data, the same relation twice, pages that redo builds.
    let row = vec![b'r'; 300];
    let mut inserted = [block(0, 16_384, 7)];
    inserted[0].data = &row;
    encoder.record(&with_blocks(HEAP, 0x00, &[1, 0, 0], &inserted), wal)?;
    inserted[0].will_init = true;
    encoder.record(&with_blocks(HEAP, 0x80, &[1, 0, 0], &inserted), wal)?;
    let updated = [inserted[0], block(1, 16_384, 6)];
    encoder.record(&with_blocks(HEAP, 0x20, &[0; 14], &updated), wal)?;
    inserted[0].will_init = false;
    encoder.record(&with_blocks(BTREE, 0x00, &[2, 0], &inserted), wal)?;

    // Images, of which one is there to check redo against only.
    let pages = [page(1, 0..0), page(2, 40..8000), page(3, 24..8192)];
    let methods = methods(major);
    let mut packers: Vec<ImagePacker> = Vec::new();
    packers.resize_with(pages.len() * methods.len(), ImagePacker::default);
    let mut images = Vec::new();
    for (number, packer) in packers.iter_mut().enumerate() {
        let (page, method) = (&pages[number % pages.len()], methods[number / pages.len()]);
        images.push(packer.pack(page, standard_hole(page), method, encoder.dialect())?);
    }
    let forks = [
        ForkNumber::Main,
        ForkNumber::FreeSpaceMap,
        ForkNumber::VisibilityMap,
        ForkNumber::Init,
    ];
    let mut blocks = Vec::new();
    for (id, image) in (0u8..).zip(&images) {
        let mut block = block(id * 2, 16_384 + u32::from(id) / 3, 100 + u32::from(id));
        block.image = Some(*image);
        block.fork = forks[usize::from(id) % 4];
        blocks.push(block);
    }
    encoder.record(&with_blocks(RmgrId::XLOG, FPI, &[], &blocks), wal)?;
    let mut checked = images[1];
    checked.apply = false;
    inserted[0].image = Some(checked);
    encoder.record(&with_blocks(HEAP, 0x02, &[1, 0, 0], &inserted), wal)?;

    // Lengths on both sides of each form, and over page after page.
    for len in [0, 1, 190, 230, 231, 8000, 8192, 30_000] {
        encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(len)), wal)?;
    }
    // A crash in the middle of a record, of which some pages were written.
    for pages in [0, 2] {
        let cut = (encoder
            .position()
            .page_start(encoder.dialect().wal_page_size))
            + (pages + 1) * 8192;
        encoder.torn_record(&simple(LOGICAL_MESSAGE, 0, &message(40_000)), cut, wal)?;
        encoder.overwrite_contrecord(PgTimestamp(1_000_000), wal)?;
    }
    Ok(())
}

/// Appends records that do nothing so that the last one ends exactly at this position.
fn fill_up_to(encoder: &mut WalEncoder, target: Lsn, wal: &mut Vec<u8>) -> Result<()> {
    loop {
        let room = room(encoder.position(), target, encoder.dialect());
        let len = if room > 120_000 { 60_000 } else { room };
        // The header, and the long form of a length.
        let data = usize::try_from(len)?
            .checked_sub(24 + 5)
            .context("no room to fill")?;
        encoder.record(&simple(RmgrId::XLOG, NOOP, &vec![b'n'; data]), wal)?;
        if len == room {
            ensure!(
                encoder.position() == target,
                "{} is not {target}",
                encoder.position()
            );
            return Ok(());
        }
    }
}

/// Bytes of records that fit between two positions, page headers left out.
fn room(from: Lsn, to: Lsn, dialect: &Dialect) -> u64 {
    let mut room = 0;
    let mut at = from;
    while at < to {
        if at.page_offset(dialect.wal_page_size) == 0 {
            at = at + u64::try_from(header_len_at(at, dialect)).unwrap_or(0);
        }
        let page_end = at.page_start(dialect.wal_page_size) + dialect.wal_page_size.bytes();
        let until = page_end.min(to);
        room += until.saturating_sub(at);
        at = until;
    }
    room
}

/// Servers apply our images of every compression, follow our records over segments, a switch and a record that a crash
/// had cut, and go on after the last.
#[test]
fn servers_recover_from_it() -> Result<()> {
    for major in MAJORS {
        a_server_recovers(major).with_context(|| format!("version {major}"))?;
    }
    Ok(())
}

fn a_server_recovers(major: u32) -> Result<()> {
    let mut cluster = ClusterOptions::default()
        .programs(&server_version(major)?)
        .initdb_option("--wal-segsize=1")
        .start()?;
    let mut replaced = Vec::new();
    for (number, method) in (0u32..).zip(methods(major)) {
        cluster.query(&format!("CREATE TABLE old_{number} AS SELECT 'old' AS t"))?;
        cluster.query(&format!(
            "CREATE TABLE new_{number} AS SELECT 'new' AS t FROM generate_series(1, {})",
            30 + number
        ))?;
        replaced.push((number, *method));
    }
    cluster.query("CHECKPOINT")?;
    let mut images = Vec::new();
    for (number, method) in replaced {
        let (target, _) = table(&cluster, &format!("old_{number}"))?;
        let (_, source) = table(&cluster, &format!("new_{number}"))?;
        let page = fs::read(source)?;
        ensure!(page.len() == 8192, "one page");
        images.push((target, page, method));
    }
    cluster.kill_9()?;

    let wal = WalFiles::of(&cluster)?;
    let mut decoder = WalDecoder::new(wal.dialect, wal.start);
    let mut feed = decoder.feed(&wal.bytes);
    while let Ok(Some(_)) = feed.next_record() {}
    let start = decoder.valid_end();
    let system = decoder.system_identifier().context("a system identifier")?;
    let prev = decoder.last_record().context("a record")?;
    let mut encoder = WalEncoder::new(wal.dialect, system, TimelineId(1), start, prev)?;
    let mut ours = Vec::new();
    for (locator, page, method) in &images {
        let mut packer = ImagePacker::default();
        let image = packer.pack(page, standard_hole(page), *method, &wal.dialect)?;
        ensure!(image.compression == *method && image.hole_length > 0);
        let block = BlockRef {
            locator: *locator,
            image: Some(image),
            ..block(0, 0, 0)
        };
        encoder.record(&with_blocks(RmgrId::XLOG, FPI, &[], &[block]), &mut ours)?;
    }
    encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(2_500_000)), &mut ours)?;
    encoder.switch(&mut ours)?;
    encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(500)), &mut ours)?;
    let cut = encoder.position().page_start(wal.dialect.wal_page_size) + 2 * 8192;
    encoder.torn_record(
        &simple(LOGICAL_MESSAGE, 0, &message(30_000)),
        cut,
        &mut ours,
    )?;
    encoder.overwrite_contrecord(PgTimestamp(1_000_000), &mut ours)?;
    let last = encoder.record(&simple(LOGICAL_MESSAGE, 0, &message(9000)), &mut ours)?;
    write_segments(
        cluster.user(),
        &wal.directory,
        &ours,
        &wal.dialect,
        start,
        TimelineId(1),
    )?;

    cluster.start()?;
    let (log, (high, low)) = (cluster.log(), last.halves());
    let done = [
        format!("redo done at {high:X}/{low:X}"),
        format!("redo done at {high:X}/{low:08X}"),
    ];
    ensure!(
        done.iter().any(|done| log.contains(done)),
        "no {done:?} in {log}"
    );
    ensure!(
        log.contains("successfully skipped missing contrecord"),
        "{log}"
    );
    for (number, _) in images.iter().enumerate() {
        let rows = cluster.query(&format!("SELECT t, count(*) FROM old_{number} GROUP BY t"))?;
        ensure!(
            rows == format!("new|{}", 30 + number),
            "image {number} was not applied: {rows}"
        );
    }
    cluster.query("CREATE TABLE after_it AS SELECT 1 AS i")?;
    cluster.stop(StopMode::Fast)?;
    Ok(())
}

/// The files of a table: as WAL names them, and where they are.
fn table(cluster: &Cluster, name: &str) -> Result<(RelFileLocator, std::path::PathBuf)> {
    let path = cluster.query(&format!("SELECT pg_relation_filepath('{name}')"))?;
    let parts: Vec<&str> = path.split('/').collect();
    let [_, database, relation] = parts[..] else {
        anyhow::bail!("{path} is not in the default tablespace");
    };
    let locator = RelFileLocator {
        tablespace: 1663,
        database: database.parse()?,
        relation: relation.parse()?,
    };
    Ok((locator, cluster.data_dir().join(path)))
}
