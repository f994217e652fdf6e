//! What a hub says of itself: the mirrored server, in recovery, as a cascading standby of it would be.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walsender::source::SourceIdentity;
use walstream::storage::control::{ControlFile, WalLevel};

use crate::mirror::state::MirrorFacts;

/// The server that the mirror is of. What its `pg_control` and the state file do not say has the server's default.
pub(super) fn identity(mirror: &Path, facts: &MirrorFacts) -> SourceIdentity {
    let mut identity = SourceIdentity::of_version(
        facts.system_identifier,
        &facts.dialect,
        facts.server_version_num,
    );
    for (name, value) in &mut identity.parameter_status {
        if name == "in_hot_standby" {
            "on".clone_into(value);
        }
    }
    let mut set = |name: &str, value: String| {
        identity.settings.insert(name.to_owned(), value);
    };
    set("transaction_read_only", "on".to_owned());
    set("in_hot_standby", "on".to_owned());
    if let Ok(metadata) = std::fs::metadata(mirror) {
        let mode = metadata.permissions().mode() & 0o777;
        set("data_directory_mode", format!("{mode:04o}"));
    }
    // A control file that cannot be read is no reason to serve nothing: activation will say what is wrong with it.
    let control = std::fs::read(mirror.join("global/pg_control")).ok();
    if let Some(control) = control.and_then(|file| ControlFile::parse(&file).ok()) {
        let settings = &control.settings;
        let level = match settings.wal_level {
            WalLevel::Minimal => "minimal",
            WalLevel::Replica => "replica",
            WalLevel::Logical => "logical",
        };
        set("wal_level", level.to_owned());
        set("max_connections", settings.max_connections.to_string());
    }
    identity
}
