//! Temporary directories that the server's user owns and can reach.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::LocalPostgresError;
use super::server_user::ServerUser;

/// A directory that the server's user owns and can reach: under `TMPDIR` where others may pass through, else `/tmp`.
///
/// # Errors
/// When it cannot be made or given away.
pub fn scratch_dir(user: &ServerUser) -> Result<TempDir, LocalPostgresError> {
    let mut parent = std::env::temp_dir();
    // A unix socket's path has at most 107 bytes, and some of them are the socket's own name.
    let reachable = |dir: &Path| {
        dir.as_os_str().len() < 60
            && user
                .command("test", Path::new("/"))
                .arg("-x")
                .arg(dir)
                .status()
                .is_ok_and(|s| s.success())
    };
    if !reachable(&parent) {
        parent = PathBuf::from("/tmp");
    }
    scratch_dir_in(&parent, user)
}

/// A directory in `parent` that the server's user owns.
///
/// # Errors
/// When it cannot be made or given away.
pub fn scratch_dir_in(parent: &Path, user: &ServerUser) -> Result<TempDir, LocalPostgresError> {
    let made = tempfile::Builder::new()
        .prefix("walstream-")
        .tempdir_in(parent);
    let scratch =
        made.map_err(|source| LocalPostgresError::io("make a directory in", parent, source))?;
    user.own(scratch.path())
        .map_err(|source| LocalPostgresError::io("own", scratch.path(), source))?;
    Ok(scratch)
}

/// Makes a directory with mode 0700 that belongs to the server's user.
///
/// # Errors
/// When it cannot be made or given away.
pub fn private_dir(path: &Path, user: &ServerUser) -> Result<(), LocalPostgresError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| LocalPostgresError::io("make", path, source))?;
    user.own(path)
        .map_err(|source| LocalPostgresError::io("own", path, source))
}
