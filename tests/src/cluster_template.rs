//! Clusters are copied from a template, one for each version and set of `initdb` options, that all test processes
//! share: `initdb` takes a second or more, a copy a few hundredths.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walreceiver::demo::local_postgres_clients::checked;
use walreceiver::demo::scratch_dir::scratch_dir;
use walreceiver::demo::server_user::ServerUser;

use crate::wait::{SHORT, wait_for};

/// Changed whenever a template's content does.
const FORMAT: u32 = 1;

/// Makes the data directory of `server` a copy of the template for its version and `initdb`.
pub(crate) fn fill_from_template(server: &mut LocalPostgres, initdb: &[&str]) -> Result<()> {
    let template = template(server, initdb)?;
    let password = fs::read_to_string(template.join("password"))?;
    let mut copy = server.command("cp");
    copy.args(["-a", "--reflink=auto"])
        .arg(template.join("data"))
        .arg(server.data_dir());
    checked(&mut copy)?;
    server.set_password(password);
    Ok(())
}

/// The template's directory, which is made where it is missing. A lock lets one process make it at a time.
fn template(server: &LocalPostgres, initdb: &[&str]) -> Result<PathBuf> {
    let (programs, user) = (server.programs(), server.user());
    let parent = templates_dir(user)?;
    let mut hasher = DefaultHasher::new();
    (FORMAT, programs.bindir(), programs.version(), initdb).hash(&mut hasher);
    let name = format!("{}-{:016x}", programs.version(), hasher.finish());
    let lock = File::create(parent.join(format!("{name}.lock")))?;
    lock.lock()?;
    let template = parent.join(&name);
    if template.join("password").exists() {
        return Ok(template);
    }
    let unfinished = parent.join(format!("{name}.new"));
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let made = LocalPostgres::initdb(programs, user, Listen::Socket, initdb, &[])?;
    DirBuilder::new().mode(0o700).create(&unfinished)?;
    user.own(&unfinished)?;
    checked(
        made.command("cp")
            .arg("-a")
            .arg(made.data_dir())
            .arg(unfinished.join("data")),
    )?;
    made.write_file(&unfinished.join("password"), made.password())?;
    fs::rename(&unfinished, &template)?;
    Ok(template)
}

/// Where the templates are: beside the scratch directories, for the server's user alone.
fn templates_dir(user: &ServerUser) -> Result<PathBuf> {
    let uid = user
        .ids()
        .map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
    let scratch = scratch_dir(user)?;
    let parent = scratch
        .path()
        .parent()
        .map_or_else(|| PathBuf::from("/tmp"), Path::to_owned);
    let dir = parent.join(format!("walstream-templates-{uid}"));
    match DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => user.own(&dir)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", dir.display())),
    }
    // Whoever made it first could otherwise give us a server of theirs. Another test may just be giving it away.
    let private = || -> Result<bool> {
        let found = fs::symlink_metadata(&dir)?;
        Ok(found.is_dir() && found.uid() == uid && found.mode().trailing_zeros() >= 6)
    };
    wait_for(
        &format!(
            "\"{}\" belonging to the server's user alone (remove it)",
            dir.display()
        ),
        SHORT,
        private,
    )?;
    Ok(dir)
}
