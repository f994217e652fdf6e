//! [`ServerUser`], the user that PostgreSQL's programs run as: PostgreSQL refuses to run as root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The user that servers, their clients and programs that share files with them run as.
///
/// This is the user we run as, except for root: then `postgres` where that user exists, else `nobody`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUser {
    /// User and group to change to; `None` means to stay who we are.
    ids: Option<(u32, u32)>,
}

impl ServerUser {
    /// Chooses the user. `None` when we are root and the machine has neither `postgres` nor `nobody`.
    #[must_use]
    pub fn choose() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return Some(Self { ids: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = ["postgres", "nobody"]
            .iter()
            .find_map(|name| lookup(&passwd, name))?;
        Some(Self { ids: Some(ids) })
    }

    /// User and group id of this user where it is not the one we run as.
    #[must_use]
    pub const fn ids(&self) -> Option<(u32, u32)> {
        self.ids
    }

    /// A command run as this user, with no supplementary groups, no `PG*` variables and messages in English.
    ///
    /// Standard input is empty. It runs in `directory`, which should be one that the user may enter.
    pub fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).current_dir(directory);
        if let Some((uid, gid)) = self.ids {
            // The standard library clears the supplementary groups whenever root changes the user.
            command.gid(gid).uid(uid).env("HOME", directory);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(&name);
            }
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Gives `path`, and everything below it, to this user. Symbolic links are changed, not followed.
    ///
    /// # Errors
    /// What the file system answers; the error names the path.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        let Some((uid, gid)) = self.ids else {
            return Ok(());
        };
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot give \"{}\" to the server's user: {error}",
                    path.display()
                ),
            )
        };
        lchown(path, Some(uid), Some(gid)).map_err(named)?;
        if fs::symlink_metadata(path).map_err(named)?.is_dir() {
            for entry in fs::read_dir(path).map_err(named)? {
                self.own(&entry.map_err(named)?.path())?;
            }
        }
        Ok(())
    }
}

/// User and group id of `name` in the text of `/etc/passwd`.
fn lookup(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_users_up_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:106:110:,,,:/var:/bin/bash\n";
        assert_eq!(lookup(passwd, "postgres"), Some((106, 110)));
        assert_eq!(lookup(passwd, "nobody"), None);
        assert_eq!(lookup("postgres:x:a:b::/:", "postgres"), None);
    }

    #[test]
    fn commands_do_not_run_as_root() {
        let user = ServerUser::choose().unwrap();
        let output = user
            .command("id", Path::new("/"))
            .arg("-u")
            .output()
            .unwrap();
        assert!(output.status.success());
        assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "0");
    }
}
