//! A record as a line of JSON.
//!
//! ```json
//! {"lsn":"0/1A5B2F8","prev":"0/1A5B2B8","end":"0/1A5B338","rmgr":"Heap","type":"INSERT","desc":"off 3 flags 0x00",
//!  "rec_len":59,"total_len":8251,"xid":735,"blocks":[{"id":0,"rel":"1663/5/1259","fork":"main","block":0,
//!  "image":{"apply":true,"len":8192,"hole_offset":0,"hole_length":0,"compression":null}}]}
//! ```
//!
//! `end` is where the next record may start. `desc` is what `pg_waldump` prints after the type, left out where that is nothing. A
//! block without `image` has none; `will_init`, `origin` and `toplevel_xid` are there when the record has them. No text but `desc`
//! can need escaping.

use walstream::Dialect;
use walstream::wal::record::{BlockSummary, ImageSummary, Record, RecordSummary};

use super::number::{decimal, lsn};

/// Appends the object of a record, and a line feed.
pub(super) fn append(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    summary: &RecordSummary,
    description: &str,
    dialect: &Dialect,
) {
    let header = &record.header;
    out.extend_from_slice(b"{\"lsn\":\"");
    lsn(out, record.start_lsn);
    out.extend_from_slice(b"\",\"prev\":\"");
    lsn(out, header.prev);
    out.extend_from_slice(b"\",\"end\":\"");
    lsn(out, record.end_lsn);
    out.extend_from_slice(b"\",\"rmgr\":\"");
    let name = header.rmgr.name();
    match name.built_in() {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => out.extend_from_slice(name.to_string().as_bytes()),
    }
    out.extend_from_slice(b"\",\"type\":\"");
    out.extend_from_slice(header.type_name(dialect).as_str().as_bytes());
    out.push(b'"');
    if !description.is_empty() {
        out.extend_from_slice(b",\"desc\":");
        // Into memory, and text always is text to JSON.
        let _ = serde_json::to_writer(&mut *out, description);
    }
    let rec_len = header.total_len.saturating_sub(summary.lengths.image_len);
    number(out, "rec_len", rec_len.into());
    number(out, "total_len", header.total_len.into());
    number(out, "xid", header.xid.into());
    if let Some(xid) = summary.toplevel_xid {
        number(out, "toplevel_xid", xid.into());
    }
    if let Some(origin) = summary.origin {
        number(out, "origin", origin.into());
    }
    out.extend_from_slice(b",\"blocks\":[");
    let mut separator: &[u8] = b"{\"id\":";
    for block in summary.blocks() {
        out.extend_from_slice(separator);
        separator = b",{\"id\":";
        append_block(out, block);
    }
    out.extend_from_slice(b"]}\n");
}

fn append_block(out: &mut Vec<u8>, block: &BlockSummary) {
    decimal(out, block.id.into());
    out.extend_from_slice(b",\"rel\":\"");
    decimal(out, block.locator.tablespace.into());
    out.push(b'/');
    decimal(out, block.locator.database.into());
    out.push(b'/');
    decimal(out, block.locator.relation.into());
    out.extend_from_slice(b"\",\"fork\":\"");
    out.extend_from_slice(block.fork.name().as_bytes());
    out.push(b'"');
    number(out, "block", block.block.into());
    if block.will_init {
        out.extend_from_slice(b",\"will_init\":true");
    }
    if let Some(image) = &block.image {
        append_image(out, image);
    }
    out.push(b'}');
}

fn append_image(out: &mut Vec<u8>, image: &ImageSummary) {
    out.extend_from_slice(if image.apply {
        b",\"image\":{\"apply\":true".as_slice()
    } else {
        b",\"image\":{\"apply\":false"
    });
    number(out, "len", image.len.into());
    number(out, "hole_offset", image.hole_offset.into());
    number(out, "hole_length", image.hole_length.into());
    out.extend_from_slice(b",\"compression\":");
    match image.compression {
        Some(compression) => {
            out.push(b'"');
            out.extend_from_slice(compression.name().as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    decimal(out, value);
}
