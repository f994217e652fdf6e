//! `--help` and `--version`.

use walstream::PgMajor;

/// The help text for a program of this name.
#[must_use]
pub fn help(program: &str, exit_codes: &str) -> String {
    format!(
        "\
{program} archives the write-ahead log of a PostgreSQL server, segment by segment, as it is written.

Usage:
  {program} [OPTION]...

Options:
  -D, --directory=DIR    where the archive is; the directory must exist
  -E, --endpos=LSN       end once WAL behind this position has come
      --if-not-exists    with --create-slot: a slot that exists already is no error
  -n, --no-loop          end when the connection is lost, instead of connecting again
      --no-sync          leave it to the system when files reach the disk
  -s, --status-interval=SECS
                         longest time between two reports to the server (default: 10)
  -S, --slot=SLOTNAME    replication slot that keeps the WAL on the server
      --synchronous      flush and report at once whatever has come, as a synchronous standby
      --to=URL           put finished files there and remove them from DIR: s3://BUCKET/PREFIX, gs://, az:// or
                         file:///DIR
  -v, --verbose          tell about each segment and each start and stop
  -V, --version          show the version, then exit
  -Z, --compress=METHOD[:DETAIL]
                         none, gzip[:1-9], lz4[:1-12] or zstd[:LEVEL]; a bare number is a level of gzip
  -?, --help             show this help, then exit

Connection options:
  -d, --dbname=CONNSTR   connection string or URI; a database in it is ignored
  -h, --host=HOSTNAME    host, or directory of the server's socket
  -p, --port=PORT        port
  -U, --username=NAME    role, which needs the right to replicate
  -w, --no-password      never ask for a password
  -W, --password         ask for a password first

Instead of receiving:
      --create-slot      make the slot that --slot names
      --drop-slot        drop the slot that --slot names

A segment is DIR/NAME.partial until it is complete (with compression, NAME.gz.partial and so on), then DIR/NAME; files
NAME.history tell how timelines follow each other. Receiving begins behind the last complete segment in DIR, else where
the slot holds WAL, else where the server is. Every record's checksum is verified before it is written; WAL that fails
is not archived. Stop it with SIGINT or SIGTERM. With --slot or --synchronous the server is told what is on disk;
without them it is not, and never counts this as a synchronous standby.

With --to each finished file is put there while receiving goes on, read back, and then removed from DIR. Files .partial
stay in DIR. A start looks in both places, so give --to in every run. Stores are configured by AWS_*, GOOGLE_* and
AZURE_* in the environment. While the store takes no files they wait in DIR, which needs the room; each failure is told,
and tried again after 1 to 60 seconds. Nothing in the store is overwritten: another file of the same name ends the
program. The flush position that the server is told is that of DIR's disk. At the end files on their way are waited for,
up to 60 seconds or until another signal; with --endpos for as long as the store takes them, and a file that is left
makes it fail.
{exit_codes}"
    )
}

/// The version line: the newest server whose WAL can be received, and who says so.
#[must_use]
pub fn version(program: &str) -> String {
    format!(
        "{program} (PostgreSQL) {} (walstream {})\n",
        newest_server(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Version of the newest server whose WAL can be received.
#[must_use]
pub fn newest_server() -> String {
    let newest = PgMajor::ALL.last().map_or(0, |major| major.number());
    format!("{newest}.0")
}
