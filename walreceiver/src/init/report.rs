//! [`InitReport`], what was made, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::slot::SlotOrigin;
use walstream::protocol::command::ManifestChecksums;

/// A mirror that was made.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The mirror directory.
    pub directory: PathBuf,
    /// The server it was made from: `host:port`, or a socket.
    pub peer: String,
    /// The mirrored cluster.
    pub system_identifier: SystemIdentifier,
    /// Version of the server, as 150018.
    pub server_version_num: u32,
    /// Timeline of the WAL received.
    pub timeline: TimelineId,
    /// Where replay starts.
    pub start_lsn: Lsn,
    /// Where the mirror becomes consistent; exclusive.
    pub end_lsn: Lsn,
    /// End of the WAL that the mirror has, durably.
    pub flush_lsn: Lsn,
    /// The slot that keeps WAL for it.
    pub slot: Option<String>,
    /// How the init came by the slot.
    pub slot_origin: Option<SlotOrigin>,
    /// Tablespaces outside the directory: OID to directory on this machine.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Files copied.
    pub files: usize,
    /// Bytes of the archives received.
    pub bytes: u64,
    /// Algorithm by which all files were verified; `None` when the server has no manifest.
    pub verified: Option<ManifestChecksums>,
    /// Files of the server that a mirror must not have.
    pub dropped: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl InitReport {
    /// The facts as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let tablespaces: serde_json::Map<_, _> = self
            .tablespaces
            .iter()
            .map(|(oid, directory)| (oid.to_string(), json!(directory.to_string_lossy())))
            .collect();
        json!({
            "status": "created",
            "mirror": self.directory.to_string_lossy(),
            "primary": self.peer,
            "system_identifier": self.system_identifier.to_string(),
            "server_version_num": self.server_version_num,
            "timeline": self.timeline.0,
            "start_lsn": self.start_lsn.to_string(),
            "end_lsn": self.end_lsn.to_string(),
            "flush_lsn": self.flush_lsn.to_string(),
            "slot": self.slot,
            "slot_created": self.slot_origin.map(|origin| origin == SlotOrigin::Created),
            "tablespaces": tablespaces,
            "files": self.files,
            "bytes": self.bytes,
            "verified": self.verified.map(ManifestChecksums::name),
            "dropped_files": self.dropped,
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// What a person reads at the end.
impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes >> 20;
        let seconds = self.elapsed.as_secs_f32();
        write!(f, "{} files, {mib} MiB in {seconds:.1} s", self.files)?;
        match self.verified {
            Some(ManifestChecksums::None) => write!(f, "; names and sizes verified")?,
            Some(algorithm) => write!(f, "; all verified by {algorithm}")?,
            None => write!(f, "; not verified, this server has no backup manifest")?,
        }
        writeln!(f)?;
        let Self {
            timeline,
            start_lsn,
            end_lsn,
            flush_lsn,
            ..
        } = self;
        writeln!(
            f,
            "Write-ahead log from {start_lsn} to {flush_lsn} on timeline {timeline}, consistent from {end_lsn} on"
        )?;
        for name in &self.dropped {
            writeln!(f, "Not taken over from the coordinator: {name}")?;
        }
        write!(
            f,
            "Keep the mirror up to date with: walreceiver run -D {}",
            self.directory.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> InitReport {
        InitReport {
            directory: "/mirror".into(),
            peer: "host:5432".into(),
            system_identifier: SystemIdentifier(u64::MAX),
            server_version_num: 150_018,
            timeline: TimelineId(2),
            start_lsn: Lsn(0x200_0028),
            end_lsn: Lsn(0x200_0100),
            flush_lsn: Lsn(0x300_0000),
            slot: Some("s".into()),
            slot_origin: Some(SlotOrigin::Created),
            tablespaces: BTreeMap::from([(16384, "/ts".into())]),
            files: 10,
            bytes: 5 << 20,
            verified: Some(ManifestChecksums::Crc32c),
            dropped: vec![],
            elapsed: Duration::from_millis(1500),
        }
    }

    #[test]
    fn numbers_beyond_53_bits_are_strings_in_json() {
        let json = report().to_json();
        assert_eq!(json["system_identifier"], "18446744073709551615");
        assert_eq!(
            (&json["end_lsn"], &json["slot_created"]),
            (&json!("0/2000100"), &json!(true))
        );
        assert_eq!(json["tablespaces"]["16384"], "/ts");
    }

    #[test]
    fn people_read_what_was_verified_and_what_comes_next() {
        let text = report().to_string();
        assert!(
            text.starts_with("10 files, 5 MiB in 1.5 s; all verified by CRC32C\n"),
            "{text}"
        );
        assert!(text.ends_with("walreceiver run -D /mirror"), "{text}");
        let unverified = InitReport {
            verified: None,
            ..report()
        }
        .to_string();
        assert!(unverified.contains("not verified"), "{unverified}");
    }
}
