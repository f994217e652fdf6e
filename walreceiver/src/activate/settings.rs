//! What PostgreSQL must be told so that its next start ends recovery on the mirror and opens a new timeline, where it is to recover
//! ([`prepare_recovery`]); and what it must not be told any more where nothing is left to recover ([`prepare_start`]).
//!
//! `recovery.signal` asks for archive recovery, which ends in a promotion. The settings go to the end of
//! `postgresql.auto.conf`, where they win over every other file:
//!
//! - `restore_command` must not be empty for archive recovery. All WAL is in `pg_wal`, so it is a command that finds
//!   nothing.
//! - `recovery_target_timeline` is the one that was proven whole, not whatever PostgreSQL would find.
//! - `hot_standby = off`: a standby with fewer connections than the lost primary had would refuse to recover; a server
//!   that accepts no queries before it is promoted has no such limit.
//! - `recovery_end_command` takes these lines out again, so the new primary's settings are as the old one's were.
//! - `synchronous_standby_names` stays empty from now on, where the copied configuration names standbys: they followed the
//!   old primary, and the first commit would wait for them for ever.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use walstream::TimelineId;

use crate::mirror::durable::{FileError, replace_file, sync_directory};

const AUTO_CONF: &str = "postgresql.auto.conf";
/// Ends each line that recovery takes out again.
const MARK: &str = "# walreceiver activate";

/// What was changed in the mirror's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsReport {
    /// `synchronous_standby_names` was set to the empty list.
    pub cleared_synchronous_standby_names: bool,
}

/// Writes the settings and `recovery.signal`, durably. Doing it again changes nothing more.
///
/// # Errors
/// [`FileError`] naming the file that could not be read, written or synced.
pub fn prepare_recovery(
    mirror: &Path,
    timeline: TimelineId,
    keep_sync_names: bool,
) -> Result<SettingsReport, FileError> {
    let path = mirror.join(AUTO_CONF);
    let old = read_optional(&path)?;
    let main = read_optional(&mirror.join("postgresql.conf"))?;
    let clear = !keep_sync_names && names_synchronous_standbys(&main, &old);
    replace_file(&path, with_recovery_lines(&old, timeline, clear).as_bytes())?;
    match std::fs::remove_file(mirror.join("standby.signal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::of("remove", &mirror.join("standby.signal"))(
                error,
            ));
        }
        _ => {}
    }
    let signal = mirror.join("recovery.signal");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&signal)
        .and_then(|mut file| file.flush().and_then(|()| file.sync_all()))
        .map_err(FileError::of("write", &signal))?;
    sync_directory(mirror)?;
    Ok(SettingsReport {
        cleared_synchronous_standby_names: clear,
    })
}

/// Takes out what an activation by PostgreSQL's recovery may have set before, and clears `synchronous_standby_names`, durably. Doing it
/// again changes nothing more.
///
/// # Errors
/// [`FileError`] naming the file that could not be read, written or synced.
pub fn prepare_start(mirror: &Path, keep_sync_names: bool) -> Result<SettingsReport, FileError> {
    let path = mirror.join(AUTO_CONF);
    let old = read_optional(&path)?;
    let main = read_optional(&mirror.join("postgresql.conf"))?;
    let clear = !keep_sync_names && names_synchronous_standbys(&main, &old);
    let text = without_recovery_lines(&old, clear);
    if text != old {
        replace_file(&path, text.as_bytes())?;
    }
    Ok(SettingsReport {
        cleared_synchronous_standby_names: clear,
    })
}

fn read_optional(path: &Path) -> Result<String, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

fn without_recovery_lines(old: &str, clear_sync_names: bool) -> String {
    let mut text: String = old
        .lines()
        .filter(|line| !line.ends_with(MARK))
        .map(|line| format!("{line}\n"))
        .collect();
    if clear_sync_names {
        text.push_str("synchronous_standby_names = ''\n");
    }
    text
}

fn with_recovery_lines(old: &str, timeline: TimelineId, clear_sync_names: bool) -> String {
    let mut text = without_recovery_lines(old, clear_sync_names);
    for setting in [
        "restore_command = 'false'".to_owned(),
        format!("recovery_target_timeline = '{timeline}'"),
        "recovery_target_action = 'promote'".to_owned(),
        "hot_standby = 'off'".to_owned(),
        format!("recovery_end_command = 'sed -i \"/{MARK}$/d\" {AUTO_CONF}'"),
    ] {
        text.push_str(&format!("{setting} {MARK}\n"));
    }
    text
}

/// Whether the last of these settings that counts names any standby. Included files are not followed.
fn names_synchronous_standbys(main: &str, auto: &str) -> bool {
    let last = main
        .lines()
        .chain(auto.lines())
        .rev()
        .find_map(synchronous_standby_names);
    last.is_some_and(|value| !value.is_empty())
}

/// The value when this line of a configuration file sets `synchronous_standby_names`.
fn synchronous_standby_names(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let name = line.get(.."synchronous_standby_names".len())?;
    if !name.eq_ignore_ascii_case("synchronous_standby_names") {
        return None;
    }
    let rest = line.get(name.len()..)?;
    if !rest.starts_with(|c: char| c == '=' || c.is_whitespace()) {
        return None;
    }
    let value = rest.trim_start().trim_start_matches('=').trim_start();
    Some(match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next().unwrap_or_default().trim(),
        None => value.split('#').next().unwrap_or_default().trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_signals_once_however_often_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(AUTO_CONF), "# by hand\nwork_mem = '4MB'\n").unwrap();
        std::fs::write(dir.path().join("standby.signal"), "").unwrap();
        let report = prepare_recovery(dir.path(), TimelineId(1), false).unwrap();
        assert!(!report.cleared_synchronous_standby_names);
        prepare_recovery(dir.path(), TimelineId(2), false).unwrap();
        let text = std::fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap();
        assert!(text.starts_with("# by hand\nwork_mem = '4MB'\n"), "{text}");
        assert_eq!(
            text.matches("recovery_target_timeline").count(),
            1,
            "{text}"
        );
        assert!(text.contains("recovery_target_timeline = '2'"), "{text}");
        assert!(dir.path().join("recovery.signal").exists());
        assert!(!dir.path().join("standby.signal").exists());
    }

    #[test]
    fn nothing_of_recovery_stays_where_nothing_is_to_recover() {
        let dir = tempfile::tempdir().unwrap();
        let auto = "work_mem = '4MB'\nsynchronous_standby_names = 'a'\n";
        std::fs::write(dir.path().join(AUTO_CONF), auto).unwrap();
        prepare_recovery(dir.path(), TimelineId(1), true).unwrap();
        for cleared in [true, false] {
            let report = prepare_start(dir.path(), false).unwrap();
            assert_eq!(report.cleared_synchronous_standby_names, cleared);
            let text = std::fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap();
            assert_eq!(text, format!("{auto}synchronous_standby_names = ''\n"));
        }
    }

    #[test]
    fn the_last_setting_of_standby_names_counts() {
        for (main, auto, names) in [
            ("", "", false),
            ("#synchronous_standby_names = 'a'\n", "", false),
            ("synchronous_standby_names = 'a'\n", "", true),
            ("  Synchronous_Standby_Names 'a' # why\n", "", true),
            ("synchronous_standby_names=*\n", "", true),
            ("synchronous_standby_names = '' # none\n", "", false),
            (
                "synchronous_standby_names = 'a'\n",
                "synchronous_standby_names = ''\n",
                false,
            ),
            (
                "synchronous_standby_names = ''\n",
                "synchronous_standby_names = 'FIRST 1 (a)'\n",
                true,
            ),
            ("synchronous_standby_names_x = 'a'\n", "", false),
        ] {
            assert_eq!(
                names_synchronous_standbys(main, auto),
                names,
                "{main:?} {auto:?}"
            );
        }
    }

    #[test]
    fn names_are_cleared_unless_kept() {
        for (keep, cleared) in [(false, true), (true, false)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(
                dir.path().join("postgresql.conf"),
                "synchronous_standby_names = '*'\n",
            )
            .unwrap();
            let report = prepare_recovery(dir.path(), TimelineId(1), keep).unwrap();
            assert_eq!(report.cleared_synchronous_standby_names, cleared);
            let text = std::fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap();
            assert_eq!(
                text.contains("synchronous_standby_names = ''"),
                cleared,
                "{text}"
            );
        }
    }
}
