//! [`RedoOracle`]: replays a server's WAL page by page and compares each page with the image that the server logged of it
//! (`wal_consistency_checking = all`).
//!
//! Needs no data directory: a page is first known from an image, and from then on it is ours. Images that only serve the
//! comparison are never taken over for a page that is known, so an error stays and shows.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::redo::{self, Effect, RedoContext, RedoRecord, consistency};
use walstream::storage::page::Page;
use walstream::storage::visibility_map::{self, MapPlace};
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};
use walstream::wal::WalDecoder;
use walstream::wal::record::BlockRef;

use crate::redo_seeds::RedoSeeds;

type PageName = (RelFileLocator, ForkNumber, BlockNumber);

/// How a kind of record did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Blocks that were changed.
    pub redone: u64,
    /// Of these, those whose result was compared.
    pub compared: u64,
    /// Blocks that were restored from images.
    pub restored: u64,
    /// Blocks whose page was not known.
    pub unknown: u64,
    /// The first differences and errors.
    pub problems: Vec<String>,
    /// All of them.
    pub problem_count: u64,
}

/// Pages, and how each kind of record did.
#[derive(Debug)]
pub struct RedoOracle {
    context: RedoContext,
    pages: HashMap<PageName, Vec<u8>>,
    /// By resource manager and operation.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Inputs for the fuzz target.
    pub seeds: RedoSeeds,
}

impl RedoOracle {
    /// Knows no page yet.
    #[must_use]
    pub fn new(context: RedoContext) -> Self {
        Self {
            context,
            pages: HashMap::new(),
            outcomes: BTreeMap::new(),
            seeds: RedoSeeds::default(),
        }
    }

    /// Replays all records of WAL that begins with a segment; gives how many.
    ///
    /// # Errors
    /// When the WAL cannot be read. Differences are no errors: see [`outcomes`](Self::outcomes).
    pub fn replay(&mut self, start: Lsn, wal: &[u8]) -> Result<u64> {
        let mut decoder = WalDecoder::new(self.context.dialect, start);
        let mut feed = decoder.feed(wal);
        let mut count = 0;
        while let Ok(Some(record)) = feed.next_record() {
            let bytes = record.bytes();
            let record = RedoRecord::parse(&record).context("a record")?;
            if record.body.block_refs().next().is_none() {
                self.seeds.take(&self.context.dialect, &record, bytes, None);
            }
            self.redo(&record, bytes)?;
            let context = self.context;
            let mut applied = Ok(());
            let mut take = |effect| {
                if applied.is_ok() {
                    applied = self.apply(&effect);
                }
            };
            let found = redo::effects(&context, &record, &mut take);
            if let Err(error) = found.map_err(anyhow::Error::from).and(applied) {
                self.outcome(&record).problem(error.to_string());
            }
            count += 1;
        }
        ensure!(count > 0, "no records");
        Ok(count)
    }

    fn outcome(&mut self, record: &RedoRecord<'_>) -> &mut Outcome {
        let name = record.header.type_name(&self.context.dialect);
        let name = format!("{}/{name}", record.header.rmgr.name());
        self.outcomes.entry(name).or_default()
    }

    fn redo(&mut self, record: &RedoRecord<'_>, bytes: &[u8]) -> Result<()> {
        for block in record.body.block_refs() {
            let name = (block.locator, block.fork, block.block);
            let block_size = usize::try_from(self.context.dialect.block_size.bytes_u32())?;
            let known = self.pages.remove(&name);
            let is_known = known.is_some();
            let mut page = known.unwrap_or_else(|| vec![0; block_size]);
            let is_image = block.image.is_some_and(|image| image.apply);
            if !is_known && !is_image && !block.will_init {
                self.outcome(record).unknown += 1;
                if let Some(image) = block.image {
                    image.restore_into(&mut page)?;
                    self.pages.insert(name, page);
                }
                continue;
            }
            let seed = Some((block.id, page.as_slice()));
            self.seeds.take(&self.context.dialect, record, bytes, seed);
            let done = redo::redo_block(&self.context, record, &block, &mut page);
            let compared = done
                .map_err(anyhow::Error::from)
                .and_then(|_| self.compare(record, &block, &page));
            let outcome = self.outcome(record);
            if is_image {
                outcome.restored += 1;
            } else {
                outcome.redone += 1;
            }
            match compared {
                Ok(true) => outcome.compared += 1,
                Ok(false) => {}
                Err(error) => {
                    outcome.problem(format!("{} {name:?}: {error}", record.start_lsn));
                    // What follows is about the next record, not about this one again.
                    if let Some(image) = block.image {
                        image.restore_into(&mut page)?;
                    } else {
                        continue;
                    }
                }
            }
            self.pages.insert(name, page);
        }
        Ok(())
    }

    /// Whether the page was compared: there is an image for it. An error where they differ.
    fn compare(&self, record: &RedoRecord<'_>, block: &BlockRef<'_>, page: &[u8]) -> Result<bool> {
        let Some(image) = block.image.filter(|image| !image.apply) else {
            return Ok(false);
        };
        let mut theirs = vec![0; page.len()];
        image.restore_into(&mut theirs)?;
        let mut ours = page.to_vec();
        for page in [&mut ours, &mut theirs] {
            self.mask(record, block, page)?;
        }
        if let Some(at) = consistency::first_difference(&ours, &theirs) {
            let bytes = |page: &[u8]| page.get(at..(at + 16).min(page.len())).map(<[u8]>::to_vec);
            anyhow::bail!(
                "block {} differs at offset {at}: {:02x?}, the server has {:02x?}",
                block.id,
                bytes(&ours).unwrap_or_default(),
                bytes(&theirs).unwrap_or_default()
            );
        }
        Ok(true)
    }

    fn mask(&self, record: &RedoRecord<'_>, block: &BlockRef<'_>, page: &mut [u8]) -> Result<()> {
        // To the server all bits of the map are free space, so it would compare none.
        if block.fork == ForkNumber::VisibilityMap {
            let mut page = Page::new(page)?;
            page.set_lsn(Lsn(0));
            page.set_checksum(0);
            return Ok(());
        }
        let (rmgr, dialect) = (record.header.rmgr, &self.context.dialect);
        let is_masked = consistency::mask(rmgr, page, block.block, dialect)?;
        ensure!(is_masked, "no mask");
        Ok(())
    }

    /// Does what a record does to pages that it does not reference, if they are known.
    fn apply(&mut self, effect: &Effect<'_>) -> Result<()> {
        if let Effect::ClearVisibility {
            locator,
            heap_block,
            flags,
        } = *effect
        {
            let block_size = usize::try_from(self.context.dialect.block_size.bytes_u32())?;
            let map_block = MapPlace::of(heap_block, block_size).block;
            let name = (locator, ForkNumber::VisibilityMap, map_block);
            if let Some(page) = self.pages.get_mut(&name) {
                visibility_map::clear(&mut Page::new(page)?, heap_block, flags)?;
            }
        }
        Ok(())
    }

    /// A line for each kind of record.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (name, outcome) in &self.outcomes {
            let Outcome {
                redone,
                compared,
                restored,
                unknown,
                problem_count,
                ..
            } = outcome;
            text += &format!(
                "{name:<32} redone {redone:>7} compared {compared:>7} restored {restored:>6} unknown {unknown:>5} problems {problem_count}\n"
            );
            for problem in &outcome.problems {
                text += &format!("    {problem}\n");
            }
        }
        text
    }
}

impl Outcome {
    fn problem(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < 5 {
            self.problems.push(problem);
        }
    }
}
