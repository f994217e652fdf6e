//! Options of `walreceiver waldump`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator, TransactionId};
use walstream::{Lsn, TimelineId};

use super::filter::{RmgrChoice, block, fork, relation};

/// Show the records of write-ahead log.
///
/// Takes the options of pg_waldump, with the same meaning, and prints the same lines. What pg_waldump prints after the name
/// of a record's type (its fields) is not there yet; the lengths, transaction, LSNs, type and block references are.
///
/// WAL is read from segment files: plain, gzip (.gz), LZ4 (.lz4), zstd (.zst) and .partial, mixed as they may be, along the
/// history of a timeline. Every record is checked. Format and segment size are found from the files: PostgreSQL 12 to 18.
#[derive(Debug, Args)]
#[command(name = "waldump", after_help = AFTER_HELP)]
pub struct WaldumpArgs {
    /// Where to begin: a segment's file, which alone is then shown; or a directory (an archive, a pg_wal, a data directory)
    /// or URL (file://, s3://, gs://, az://), of which all is shown from its first segment on.
    #[arg(value_name = "STARTSEG|DIR|URL", conflicts_with = "primary")]
    pub first: Option<String>,

    /// The segment's file to end with.
    #[arg(value_name = "ENDSEG")]
    pub last: Option<String>,

    /// Directory or URL that holds the segments, or a directory with a pg_wal that does. Default: that of STARTSEG, or the
    /// current directory, ./pg_wal or $PGDATA/pg_wal.
    #[arg(short = 'p', long, value_name = "PATH", conflicts_with = "primary")]
    pub path: Option<String>,

    /// Timeline whose history to follow. Default: that of the files named, or else the newest there is.
    #[arg(short = 't', long, value_name = "TLI", value_parser = timeline)]
    pub timeline: Option<TimelineId>,

    /// Begin with the first record at or after this LSN.
    #[arg(short = 's', long, value_name = "LSN")]
    pub start: Option<Lsn>,

    /// End with the last record that ends at or before this LSN.
    #[arg(short = 'e', long, value_name = "LSN")]
    pub end: Option<Lsn>,

    /// End after this number of records; 0 for no limit.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,

    /// At the end of WAL, wait for more, also in later segments and on later timelines. SIGINT or SIGTERM ends it.
    #[arg(short = 'f', long)]
    pub follow: bool,

    /// Only records of this resource manager; may be given more than once. `list` prints the names.
    #[arg(short = 'r', long, value_name = "RMGR")]
    pub rmgr: Vec<RmgrChoice>,

    /// Only records with a block of this relation: tablespace OID/database OID/filenode.
    #[arg(short = 'R', long, value_name = "T/D/R", value_parser = relation)]
    pub relation: Option<RelFileLocator>,

    /// Only records with this block of the relation.
    #[arg(short = 'B', long, value_name = "N", value_parser = block, requires = "relation")]
    pub block: Option<BlockNumber>,

    /// Only records with a block of this fork: main, fsm, vm or init.
    #[arg(short = 'F', long, value_name = "FORK", value_parser = fork)]
    pub fork: Option<ForkNumber>,

    /// Only records with a full-page image.
    #[arg(short = 'w', long)]
    pub fullpage: bool,

    /// Only records of this transaction.
    #[arg(short = 'x', long, value_name = "XID")]
    pub xid: Option<TransactionId>,

    /// Print a table of counts and sizes instead of records: by resource manager, or by record type.
    #[arg(
        short = 'z',
        long,
        value_name = "BY",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "rmgr"
    )]
    pub stats: Option<StatsBy>,

    /// Print each block reference on a line of its own, with its fork and what its image leaves out.
    #[arg(short = 'b', long)]
    pub bkp_details: bool,

    /// Print no records: only check them.
    #[arg(short = 'q', long)]
    pub quiet: bool,

    /// Print each record as a JSON object on a line, or the statistics as one object.
    #[arg(long, conflicts_with = "bkp_details")]
    pub json: bool,

    /// Threads that decode. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Show records as this server sends them: a live stream, of which nothing is kept and nothing is acknowledged. A libpq
    /// connection string or URI; PG* variables and ~/.pgpass apply. Begins at --start, or with what is written from now on.
    #[arg(long, value_name = "CONNINFO", conflicts_with_all = ["follow", "timeline", "threads"])]
    pub primary: Option<String>,

    /// Replication slot to stream with, for a --start that the server would have removed without it. It is not advanced.
    #[arg(short = 'S', long, value_name = "NAME", requires = "primary")]
    pub slot: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  walreceiver waldump $PGDATA/pg_wal/000000010000000000000002
  walreceiver waldump --stats=record /srv/archive
  walreceiver waldump -p $PGDATA -s 0/2A00028 -n 10 --json
  walreceiver waldump --follow --rmgr=Transaction $PGDATA
  walreceiver waldump --primary 'host=coordinator user=replicator' -R 1663/5/1259

JSON, a record a line (LSNs as PostgreSQL prints them; image is missing where there is none):
  {\"lsn\":\"0/1A5B2F8\",\"prev\":\"0/1A5B2B8\",\"end\":\"0/1A5D338\",\"rmgr\":\"Heap\",\"type\":\"INSERT\",
   \"rec_len\":59,\"total_len\":8251,\"xid\":735,\"blocks\":[{\"id\":0,\"rel\":\"1663/5/1259\",\"fork\":\"main\",
   \"block\":0,\"image\":{\"apply\":true,\"len\":8192,\"hole_offset\":0,\"hole_length\":0,\"compression\":null}}]}

Where it differs from pg_waldump:
  - The end of WAL is no error. When it comes before the last segment's end, a message on standard error says where it
    is, and the exit code is 0; with --end beyond it, 1. pg_waldump says \"error in WAL record\" and exits with 1.
  - Damage is told from the end of WAL: when WAL goes on behind what cannot be read, the message names the LSN, the file
    and the offset, and the exit code is 7. The records before it are printed.
  - Without a start, all WAL that is there is shown; the newest timeline's history is followed, not timeline 1 alone.
  - Wrong usage ends with exit code 2, not 1.";

/// Rows of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsBy {
    /// Resource managers.
    Rmgr,
    /// Record types.
    Record,
}

fn timeline(text: &str) -> Result<TimelineId, String> {
    text.parse()
        .ok()
        .filter(|timeline: &TimelineId| timeline.0 > 0)
        .ok_or_else(|| "expected a number from 1 on".to_owned())
}
