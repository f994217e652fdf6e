//! Fuzz target of the encoder: what it writes decodes to what it was given.

use crate::dialect::{Dialect, PgMajor};
use crate::lsn::{Lsn, PageSize, SegmentSize};
use crate::pg_time::PgTimestamp;
use crate::read::Reader;
use crate::types::{ForkNumber, RelFileLocator, RmgrId, SystemIdentifier, TimelineId};
use crate::wal::encode::{BodyParts, EncodeError, ImagePacker, NewBody, NewRecord, WalEncoder};
use crate::wal::image::{Image, ImageCompression};
use crate::wal::page::record_can_start;
use crate::wal::record::RecordHeader;
use crate::wal::{BlockRef, Record, WalDecoder};

/// Bytes that a log may have before the script is broken off.
const MOST: usize = 1 << 20;

/// Builds a log after a script, in which every byte has some meaning: the dialect and where the log begins, then records
/// of parts, raw ones, switches, cut records, timelines. Decoding it, whole and in chunks, must give the same records.
pub fn encode(data: &[u8]) {
    let mut script = Script(Reader::new(data));
    let dialect = script.dialect();
    let chunk = script.number(8191) + 1;
    let start = script.start(&dialect);
    let system_identifier = SystemIdentifier(0x0102_0304_0506_0708);
    let prev = Lsn(start.0 - 8);
    let mut encoder =
        WalEncoder::new(dialect, system_identifier, TimelineId(1), start, prev).unwrap();
    let mut log = Vec::new();
    let mut written = Vec::new();
    while !script.0.is_empty() && log.len() < MOST {
        let before = (encoder.position(), log.len());
        match script.step(&mut encoder, &mut log) {
            Ok(Some(record)) => written.push(record),
            Ok(None) => {}
            Err(_) => assert_eq!(
                (encoder.position(), log.len()),
                before,
                "nothing was appended"
            ),
        }
        assert_eq!(
            encoder.position(),
            start + u64::try_from(log.len()).unwrap()
        );
    }
    // Not so small that a long log takes a second.
    for chunk in [usize::MAX, chunk.max(log.len() / 2000)] {
        let mut decoder = WalDecoder::new(dialect, start)
            .expect_prev(prev)
            .expect_system_identifier(system_identifier);
        let mut expected = written.iter();
        let mut pages = Vec::new();
        for piece in log.chunks(chunk) {
            let mut feed = decoder.feed(piece);
            while let Some(record) = feed.next_record().expect("what was encoded decodes") {
                expected
                    .next()
                    .expect("no more records")
                    .check(&record, &mut pages);
            }
        }
        assert_eq!(expected.len(), 0, "every record is decoded");
        assert_eq!(decoder.position(), encoder.position());
        if decoder.unfinished_record().is_none() {
            assert_eq!(decoder.valid_end(), encoder.position());
        }
    }
}

/// A record that was written, and where.
struct Written {
    start: Lsn,
    plan: Plan,
}

/// A record as the script describes it.
struct Plan {
    rmgr: RmgrId,
    info: u8,
    xid: u32,
    body: PlannedBody,
}

enum PlannedBody {
    Raw(Vec<u8>),
    Parts {
        blocks: Vec<PlannedBlock>,
        origin: Option<u16>,
        toplevel_xid: Option<u32>,
        main_data: Vec<u8>,
    },
    /// Start of the record whose rest it replaces.
    Overwrites(Lsn),
}

struct PlannedBlock {
    id: u8,
    locator: RelFileLocator,
    fork: ForkNumber,
    block: u32,
    will_init: bool,
    image: Option<PlannedImage>,
    data: Vec<u8>,
}

struct PlannedImage {
    page: Vec<u8>,
    hole: std::ops::Range<u16>,
    compression: Option<ImageCompression>,
    apply: bool,
}

impl Written {
    fn check(&self, record: &Record<'_>, page: &mut Vec<u8>) {
        assert_eq!(record.start_lsn, self.start);
        let header = &record.header;
        let plan = &self.plan;
        assert_eq!(
            (header.rmgr, header.info, header.xid),
            (plan.rmgr, plan.info, plan.xid)
        );
        match &plan.body {
            PlannedBody::Raw(body) => assert_eq!(&record.bytes()[RecordHeader::LEN..], body),
            PlannedBody::Overwrites(lsn) => {
                let main_data = record.main_data().unwrap();
                assert_eq!(main_data[..8], lsn.0.to_le_bytes());
            }
            PlannedBody::Parts {
                blocks,
                origin,
                toplevel_xid,
                main_data,
            } => {
                let body = record.body().unwrap();
                assert_eq!(body.main_data, main_data);
                assert_eq!((body.origin, body.toplevel_xid), (*origin, *toplevel_xid));
                let found: Vec<BlockRef<'_>> = body.block_refs().collect();
                assert_eq!(found.len(), blocks.len());
                for (found, planned) in found.iter().zip(blocks) {
                    planned.check(found, page);
                }
            }
        }
    }
}

impl PlannedBlock {
    fn check(&self, found: &BlockRef<'_>, restored: &mut Vec<u8>) {
        assert_eq!(
            (found.id, found.locator, found.fork, found.block),
            (self.id, self.locator, self.fork, self.block)
        );
        assert_eq!(
            (found.will_init, found.data),
            (self.will_init, &self.data[..])
        );
        assert_eq!(found.image.is_some(), self.image.is_some());
        if let (Some(found), Some(planned)) = (found.image, &self.image) {
            assert_eq!(found.apply, planned.apply);
            restored.clear();
            restored.resize(planned.page.len(), 0xEE);
            found.restore_into(restored).unwrap();
            assert!(*restored == planned.page, "the page is restored");
        }
    }
}

/// The rest of a script. What it does not say is zero.
struct Script<'a>(Reader<'a>);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        self.0.u8().unwrap_or(0)
    }

    /// A number from 0 to `most`; small ones are as likely as large ones.
    fn number(&mut self, most: usize) -> usize {
        let scale = self.byte();
        let value = usize::from(self.byte()) << 8 | usize::from(self.byte());
        ((value << (scale & 3)) % (most + 1)) >> (scale >> 4)
    }

    fn dialect(&mut self) -> Dialect {
        let choice = self.byte();
        let page_size = |bits: u8| PageSize::new(1 << (10 + bits)).unwrap();
        Dialect {
            major: PgMajor::ALL[usize::from(choice) % PgMajor::ALL.len()],
            wal_page_size: page_size(self.byte() % 7),
            segment_size: SegmentSize::new(1 << (20 + (choice >> 7))).unwrap(),
            block_size: page_size(self.byte() % 6),
        }
    }

    /// Some pages before a segment's end, or in the middle of a page.
    fn start(&mut self, dialect: &Dialect) -> Lsn {
        let page = dialect.wal_page_size.bytes();
        let pages = u64::from(self.byte() % 4);
        let within = u64::from(self.byte()) * 8;
        let page_start = Lsn(dialect.segment_size.bytes() * 5 - pages * page);
        let start = page_start + within % page;
        if record_can_start(start, dialect) {
            start
        } else {
            page_start
        }
    }

    /// Carries out one step; `None` when it writes no record that decodes.
    fn step(
        &mut self,
        encoder: &mut WalEncoder,
        log: &mut Vec<u8>,
    ) -> Result<Option<Written>, EncodeError> {
        let written = |start, plan| Ok(Some(Written { start, plan }));
        match self.byte() % 16 {
            0 => {
                let start = encoder.switch(log)?;
                written(
                    start,
                    Plan::of_log(RecordHeader::SWITCH, PlannedBody::Raw(vec![])),
                )
            }
            1 => {
                let timeline = encoder.timeline().0 + u32::from(self.byte() % 4);
                encoder.switch_timeline(TimelineId(timeline))?;
                Ok(None)
            }
            2 => {
                encoder.set_backup_running(self.byte() & 1 != 0);
                Ok(None)
            }
            3 | 4 => {
                let plan = self.plan(encoder.dialect());
                let page_size = encoder.dialect().wal_page_size;
                let pages = u64::from(self.byte() % 4);
                let cut = (encoder.position() + 8).next_page_start(page_size).unwrap()
                    + pages * page_size.bytes();
                let dialect = *encoder.dialect();
                let torn = plan.lend(&dialect, |record| encoder.torn_record(record, cut, log))?;
                let start = encoder.overwrite_contrecord(PgTimestamp(8), log)?;
                let body = PlannedBody::Overwrites(torn);
                written(
                    start,
                    Plan::of_log(RecordHeader::OVERWRITE_CONTRECORD, body),
                )
            }
            _ => {
                let plan = self.plan(encoder.dialect());
                let dialect = *encoder.dialect();
                let start = plan.lend(&dialect, |record| encoder.record(record, log))?;
                written(start, plan)
            }
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.number(most);
        let (first, step) = (usize::from(self.byte()), usize::from(self.byte()));
        let byte = |i: usize| u8::try_from((first + i * step / 16) % 251).unwrap();
        (0..length).map(byte).collect()
    }

    fn plan(&mut self, dialect: &Dialect) -> Plan {
        let choice = self.byte();
        let (info, mut rmgr) = (self.byte(), RmgrId(self.byte() % 24));
        let xid = u32::from(self.byte());
        if rmgr == RmgrId::XLOG {
            // Switches and overwriting records have steps of their own.
            rmgr = RmgrId(21);
        }
        let body = if choice & 3 == 3 {
            PlannedBody::Raw(self.bytes(100_000))
        } else {
            let mut next_id = 0;
            let count = choice >> 2 & 3;
            let blocks = (0..count)
                .map(|_| self.block(&mut next_id, dialect))
                .collect();
            PlannedBody::Parts {
                blocks,
                origin: (choice & 0x10 != 0).then(|| u16::from(self.byte())),
                toplevel_xid: (choice & 0x20 != 0).then(|| u32::from(self.byte())),
                main_data: self.bytes(if choice & 0x40 != 0 { 150_000 } else { 300 }),
            }
        };
        Plan {
            rmgr,
            info,
            xid,
            body,
        }
    }

    fn block(&mut self, next_id: &mut u8, dialect: &Dialect) -> PlannedBlock {
        let choice = self.byte();
        let id = match self.byte() {
            any @ 248.. => any - 240,
            step => *next_id + step % 4,
        };
        *next_id = id + 1;
        PlannedBlock {
            id,
            locator: RelFileLocator {
                tablespace: 1663,
                database: 5,
                relation: u32::from(self.byte() & 1),
            },
            fork: ForkNumber::from_number(choice & 3).unwrap(),
            block: u32::from(self.byte()),
            will_init: choice & 4 != 0,
            image: (choice & 8 != 0).then(|| self.image(dialect)),
            data: if choice & 0x10 != 0 {
                self.bytes(66_000)
            } else {
                Vec::new()
            },
        }
    }

    fn image(&mut self, dialect: &Dialect) -> PlannedImage {
        let choice = self.byte();
        let size = dialect.block_size.bytes_u32();
        let mut page = self.bytes(usize::try_from(size).unwrap());
        page.resize(usize::try_from(size).unwrap(), 0);
        let most = u16::try_from(size - 1).unwrap();
        let mut edge = || u16::try_from(self.number(most.into())).unwrap();
        let (a, b) = (edge(), edge());
        // One that begins with the page itself cannot be told from none.
        let hole = if choice & 0xF0 == 0 {
            0..0
        } else {
            a.min(b).max(u16::from(choice >> 5))..a.max(b).max(8)
        };
        page[usize::from(hole.start)..usize::from(hole.end)].fill(0);
        let methods = [
            ImageCompression::Pglz,
            ImageCompression::Lz4,
            ImageCompression::Zstd,
        ];
        PlannedImage {
            page,
            hole,
            compression: methods.get(usize::from(choice & 3)).copied(),
            apply: choice & 4 != 0,
        }
    }
}

impl Plan {
    const fn of_log(info: u8, body: PlannedBody) -> Self {
        Self {
            rmgr: RmgrId::XLOG,
            info,
            xid: 0,
            body,
        }
    }

    /// Lends the record that is planned here.
    fn lend<T>(
        &self,
        dialect: &Dialect,
        run: impl FnOnce(&NewRecord<'_>) -> Result<T, EncodeError>,
    ) -> Result<T, EncodeError> {
        let record = |body| NewRecord {
            rmgr: self.rmgr,
            info: self.info,
            xid: self.xid,
            body,
        };
        let PlannedBody::Parts {
            blocks,
            origin,
            toplevel_xid,
            main_data,
        } = &self.body
        else {
            let raw: &[u8] = match &self.body {
                PlannedBody::Raw(raw) => raw,
                _ => &[],
            };
            return run(&record(NewBody::Raw(raw)));
        };
        let mut packers: Vec<ImagePacker> = blocks.iter().map(|_| ImagePacker::default()).collect();
        let mut refs = Vec::new();
        for (block, packer) in blocks.iter().zip(&mut packers) {
            let image: Option<Image<'_>> = match &block.image {
                Some(planned) => {
                    let (hole, compression) = (planned.hole.clone(), planned.compression);
                    let mut image = packer.pack(&planned.page, hole, compression, dialect)?;
                    image.apply = planned.apply;
                    Some(image)
                }
                None => None,
            };
            refs.push(BlockRef {
                id: block.id,
                locator: block.locator,
                fork: block.fork,
                block: block.block,
                will_init: block.will_init,
                image,
                data: &block.data,
            });
        }
        run(&record(NewBody::Parts(BodyParts {
            blocks: &refs,
            origin: *origin,
            toplevel_xid: *toplevel_xid,
            main_data,
        })))
    }
}
