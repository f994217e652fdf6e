//! Options of `walreceiver status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::run::options::seconds;

/// Show how a mirror stands: whether it is current, and what the primary says of it.
///
/// Asks the receiver that runs on the mirror and the primary, and shows what each of them says. Without a receiver it shows
/// what the mirror holds. The first line answers the question: Synchronized, Not Synchronized, or Status could not be
/// determined, and why.
///
/// Nothing is changed. To see the sender's and the sync state, the role needs pg_read_all_stats (pg_monitor has it) and a
/// line in pg_hba.conf for a database, not only for replication.
#[derive(Debug, Args)]
#[command(name = "status")]
pub struct StatusArgs {
    /// The mirror directory.
    #[arg(short = 'D', long, value_name = "DIR")]
    pub pgdata: PathBuf,

    /// The primary to ask. Default: the one that `init` was given.
    #[arg(long, value_name = "CONNINFO")]
    pub primary: Option<String>,

    /// How long the primary may take to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub primary_timeout: Duration,

    /// For monitoring: end with exit code 1 unless the mirror is Synchronized.
    #[arg(long)]
    pub check: bool,

    /// How many bytes of WAL a Synchronized mirror may be behind; kB, MB and GB may follow the number. Default: one
    /// WAL segment.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_lag: Option<u64>,

    /// Print the facts as a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Parses a number of bytes, with PostgreSQL's units.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.strip_prefix(digits) {
        Some("" | "B") => Some(1),
        Some("kB") => Some(1 << 10),
        Some("MB") => Some(1 << 20),
        Some("GB") => Some(1 << 30),
        _ => None,
    };
    factor
        .and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor))
        .ok_or_else(|| {
            "expected a number of bytes, or a number followed by kB, MB or GB".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_postgresqls_units() {
        for (text, size) in [
            ("0", 0),
            ("8192", 8192),
            ("7B", 7),
            ("1kB", 1024),
            ("16MB", 16 << 20),
            ("2GB", 2 << 30),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in [
            "",
            "MB",
            "1KB",
            "1 MB",
            "-1",
            "1.5MB",
            "18446744073709551615kB",
            "1MBx",
        ] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }
}
