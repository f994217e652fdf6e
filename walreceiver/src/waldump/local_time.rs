//! [`LocalZone`]: the time zone in which times are shown, as `pg_waldump` shows them.

use std::borrow::Cow;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone as SystemZone;
use walstream::pg_time::{TimeZone, Utc};

/// The machine's time zone: the variable `TZ`, else `/etc/localtime`, else UTC.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LocalZone;

impl TimeZone for LocalZone {
    fn at(&self, unix_s: i64) -> (i32, Cow<'_, str>) {
        // Once for all threads: it reads files.
        static ZONE: OnceLock<SystemZone> = OnceLock::new();
        let zone = ZONE.get_or_init(SystemZone::system);
        match Timestamp::from_second(unix_s) {
            Ok(time) if !zone.is_unknown() => {
                let then = zone.to_offset_info(time);
                (
                    then.offset().seconds(),
                    Cow::Owned(then.abbreviation().to_owned()),
                )
            }
            _ => Utc.at(unix_s),
        }
    }
}
