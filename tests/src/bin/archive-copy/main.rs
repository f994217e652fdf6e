//! Puts files into an archive, or prints what an archive holds: for tests that need a process of its own, with its own
//! environment.
//!
//! ```text
//! archive-copy to LOCATION FILE...
//! archive-copy list LOCATION
//! ```
//!
//! `to` prints a line for each file: its object, `stored` or `was there`, and the number of attempts. `list` prints one for
//! each segment of the newest timeline: its file, the number of its bytes, and their CRC-32C.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use walsender::source::archive::objects::{ObjectPrefix, RetryPolicy};
use walsender::source::archive::{
    Archive, ArchiveLocation, ArchiveOptions, TimelineChoice, UploadOptions, Uploader,
};
use walstream::SegmentSize;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (command, location) = (arguments.next(), arguments.next());
    let location: ArchiveLocation = location.context("no location")?.parse()?;
    match command.as_deref() {
        Some("to") => put(&location, &arguments.map(PathBuf::from).collect::<Vec<_>>()),
        Some("list") => list(&location),
        _ => bail!("to or list?"),
    }
}

fn put(location: &ArchiveLocation, files: &[PathBuf]) -> Result<()> {
    let mut options = UploadOptions::new(SegmentSize::DEFAULT);
    options.retry = RetryPolicy {
        attempts: 8,
        max_delay: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    let uploader = Uploader::new(ObjectPrefix::open(location)?, options);
    let runtime = tokio::runtime::Runtime::new()?;
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} has no name", file.display()))?;
        let uploaded = runtime.block_on(uploader.upload(Path::new(file), name))?;
        let how = if uploaded.was_there {
            "was there"
        } else {
            "stored"
        };
        println!("{} {how} {}", uploaded.object, uploaded.attempts);
    }
    Ok(())
}

fn list(location: &ArchiveLocation) -> Result<()> {
    let archive = Archive::open(location, &ArchiveOptions::default())?;
    let view = archive.timeline(TimelineChoice::Newest)?;
    for number in view.numbers() {
        let mut segment = view.require(number)?;
        let mut bytes = vec![0; usize::try_from(archive.segment_size().bytes())?];
        let count = segment.read_full(&mut bytes)?;
        bytes.truncate(count);
        println!("{} {count} {:08x}", segment.name(), crc32c::crc32c(&bytes));
    }
    Ok(())
}
