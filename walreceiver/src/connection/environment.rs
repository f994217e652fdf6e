//! [`Environment`]: what a connection string is completed from, as a value, so that it can be given by tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where servers put their socket when nobody says: Debian's choice first, then PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// Where the system's `pg_service.conf` lies when `PGSYSCONFDIR` does not say.
const SYSTEM_CONFIGURATION: &str = "/etc/postgresql-common";

/// Environment variables, the operating system's user and their home directory.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    os_user: Option<String>,
    home: Option<PathBuf>,
    socket_directory: PathBuf,
}

impl Default for Environment {
    /// No variables, no user, no home.
    fn default() -> Self {
        let socket_directory = PathBuf::from("/tmp");
        Self {
            variables: BTreeMap::new(),
            os_user: None,
            home: None,
            socket_directory,
        }
    }
}

impl Environment {
    /// The environment of this process.
    ///
    /// The user is looked up in `/etc/passwd` by the effective user id, then in `$USER`; the home directory is `$HOME`,
    /// or else that of the same entry.
    #[must_use]
    pub fn from_process() -> Self {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                variables.insert(name, value);
            }
        }
        let entry = passwd_entry(rustix::process::geteuid().as_raw());
        let (os_user, passwd_home) =
            entry.map_or((None, None), |(user, home)| (Some(user), Some(home)));
        let given = |name: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let os_user = os_user
            .or_else(|| given("USER"))
            .or_else(|| given("LOGNAME"));
        let home = given("HOME").map(PathBuf::from).or(passwd_home);
        let mut directories = SOCKET_DIRECTORIES.iter().map(PathBuf::from);
        let socket_directory = directories
            .find(|directory| directory.is_dir())
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        Self {
            variables,
            os_user,
            home,
            socket_directory,
        }
    }

    /// The same with one variable set.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same with another operating system user.
    #[must_use]
    pub fn with_os_user(mut self, user: &str) -> Self {
        self.os_user = Some(user.to_owned());
        self
    }

    /// The same with another home directory.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// The same with another directory for unix sockets.
    #[must_use]
    pub fn with_socket_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.socket_directory = directory.into();
        self
    }

    /// The variable, if it is set, be it empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The operating system's name of the user we run as.
    #[must_use]
    pub fn os_user(&self) -> Option<&str> {
        self.os_user.as_deref()
    }

    /// The home directory, where `.pgpass`, `.pg_service.conf` and `.postgresql` lie.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Where the socket of a server without `host` is looked for.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Directory of the system's `pg_service.conf`.
    pub(super) fn system_configuration(&self) -> &Path {
        Path::new(
            self.variable("PGSYSCONFDIR")
                .unwrap_or(SYSTEM_CONFIGURATION),
        )
    }
}

/// Name and home directory of a user id, from `/etc/passwd`.
fn passwd_entry(uid: u32) -> Option<(String, PathBuf)> {
    find_passwd_entry(&std::fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn find_passwd_entry(passwd: &str, uid: u32) -> Option<(String, PathBuf)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        let home = fields.nth(2)?;
        (found == uid && !name.is_empty()).then(|| (name.to_owned(), PathBuf::from(home)))
    })
}

/// The name of a user id, for `requirepeer`.
pub(super) fn user_name(uid: u32) -> Option<String> {
    passwd_entry(uid).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_users_in_passwd() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nme:x:1000:1000:Me,,,:/home/me:/bin/sh\n";
        assert_eq!(
            find_passwd_entry(passwd, 0),
            Some(("root".to_owned(), "/root".into()))
        );
        assert_eq!(
            find_passwd_entry(passwd, 1000),
            Some(("me".to_owned(), "/home/me".into()))
        );
        assert_eq!(find_passwd_entry(passwd, 7), None);
    }
}
