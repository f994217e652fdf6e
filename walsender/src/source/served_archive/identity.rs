//! What a sender that has nothing but WAL says of the server that wrote it.

use std::collections::BTreeMap;

use walstream::dialect::PgMajor;
use walstream::wal::page::LongPageHeader;
use walstream::{Dialect, SegmentSize};

use crate::source::SourceIdentity;

/// The newest minor version of each major one: WAL says which major version wrote it, and no more.
const fn newest_minor(major: PgMajor) -> u32 {
    match major {
        PgMajor::V12 => 22,
        PgMajor::V13 => 23,
        PgMajor::V14 => 23,
        PgMajor::V15 => 18,
        PgMajor::V16 => 14,
        PgMajor::V17 => 10,
        PgMajor::V18 => 4,
        _ => 0,
    }
}

/// First version that reports `in_hot_standby` and `default_transaction_read_only`.
const REPORTS_READ_ONLY_SINCE: u32 = 14;
/// First version that reports `search_path`.
const REPORTS_SEARCH_PATH_SINCE: u32 = 18;

/// The server whose WAL begins with this page.
pub(super) fn identity(header: &LongPageHeader, dialect: &Dialect) -> SourceIdentity {
    let (major, minor) = (dialect.major.number(), newest_minor(dialect.major));
    let server_version_num = major * 10_000 + minor;
    let server_version = format!("{major}.{minor}");
    let mut parameter_status = vec![("application_name", ""), ("client_encoding", "SQL_ASCII")];
    parameter_status.push(("DateStyle", "ISO, MDY"));
    if major >= REPORTS_READ_ONLY_SINCE {
        parameter_status.push(("default_transaction_read_only", "off"));
        parameter_status.push(("in_hot_standby", "off"));
    }
    parameter_status.extend([
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "on"),
    ]);
    if major >= REPORTS_SEARCH_PATH_SINCE {
        parameter_status.push(("search_path", "\"$user\", public"));
    }
    parameter_status.extend([
        ("server_encoding", "SQL_ASCII"),
        ("server_version", &server_version),
        ("session_authorization", ""),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "Etc/UTC"),
    ]);
    let settings = [
        ("block_size", dialect.block_size.bytes().to_string()),
        ("data_directory_mode", "0700".to_owned()),
        ("server_version", server_version.clone()),
        ("server_version_num", server_version_num.to_string()),
        ("wal_block_size", dialect.wal_page_size.bytes().to_string()),
        ("wal_level", "replica".to_owned()),
        ("wal_segment_size", with_unit(dialect.segment_size)),
    ];
    SourceIdentity {
        system_identifier: header.system_identifier,
        server_version_num,
        segment_size: dialect.segment_size,
        parameter_status: parameter_status
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        settings: BTreeMap::from(settings.map(|(name, value)| (name.to_owned(), value))),
    }
}

/// # Source
/// `convert_int_from_base_unit` in `src/backend/utils/misc/guc.c`.
fn with_unit(size: SegmentSize) -> String {
    let megabytes = size.bytes() >> 20;
    if megabytes.is_multiple_of(1024) {
        format!("{}GB", megabytes / 1024)
    } else {
        format!("{megabytes}MB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_servers_show_them() {
        for (size, shown) in [(1 << 20, "1MB"), (16 << 20, "16MB"), (1 << 30, "1GB")] {
            assert_eq!(with_unit(SegmentSize::new(size).unwrap()), shown);
        }
    }
}
