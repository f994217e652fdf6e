//! [`RedoSeeds`]: the smallest record of each kind that a server wrote, with the page that it changes, as inputs of the fuzz target
//! `redo`.

use std::collections::BTreeMap;

use walstream::Dialect;
use walstream::dialect::PgMajor;
use walstream::redo::RedoRecord;
use walstream::storage::page::Page;
use walstream::wal::record::RecordHeader;

/// Longer ones are left out.
const MOST_BYTES: usize = 4096;

/// Inputs by kind of record and number of the block.
#[derive(Clone, Debug, Default)]
pub struct RedoSeeds {
    /// The smallest of each.
    pub inputs: BTreeMap<String, Vec<u8>>,
}

impl RedoSeeds {
    /// Takes a record, all its bytes, and the page before it is changed (for a record without blocks, none).
    pub fn take(
        &mut self,
        dialect: &Dialect,
        record: &RedoRecord<'_>,
        bytes: &[u8],
        block: Option<(u8, &[u8])>,
    ) {
        let Some(input) = input(dialect, record, bytes, block.map_or(&[], |(_, page)| page)) else {
            return;
        };
        let operation = record.header.type_name(dialect).to_string();
        let rmgr = record.header.rmgr.name().to_string();
        let mut name = format!("{rmgr}-{operation}-{:?}", dialect.major)
            .to_lowercase()
            .replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        if let Some((id, _)) = block {
            name += &format!("-{id}");
        }
        let kept = self.inputs.entry(name).or_insert_with(|| input.clone());
        if input.len() < kept.len() {
            *kept = input;
        }
    }
}

/// The bytes as `walstream::fuzzing::redo` takes them.
fn input(dialect: &Dialect, record: &RedoRecord<'_>, bytes: &[u8], page: &[u8]) -> Option<Vec<u8>> {
    let version = PgMajor::ALL
        .iter()
        .position(|major| *major == dialect.major)?;
    let body = bytes.get(RecordHeader::LEN..)?;
    let bounds = Page::new(page).ok().and_then(|page| page.bounds().ok());
    let (front, back) = match bounds {
        Some(bounds) => (page.get(..bounds.lower)?, page.get(bounds.upper..)?),
        None => (page.get(..0)?, page.get(..0)?),
    };
    let header = record.header;
    let mut input = vec![u8::try_from(version).ok()?, header.rmgr.0, header.info, 3];
    input.extend(u16::try_from(body.len()).ok()?.to_le_bytes());
    input.extend(u16::try_from(front.len()).ok()?.to_le_bytes());
    input.extend(body);
    input.extend(front);
    input.extend(back);
    (input.len() <= MOST_BYTES).then_some(input)
}
