//! Our programs, as Cargo has built them.
//!
//! Cargo tells a test only about the programs of its own package, so they are looked for beside the test, and built when
//! one is missing or older than a source.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};

const PROGRAMS: [&str; 2] = ["walreceiver", "walsender"];
const SOURCES: [&str; 5] = [
    "walstream",
    "walsender",
    "walreceiver",
    "Cargo.toml",
    "Cargo.lock",
];

/// Path of a program that is as new as its sources.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| built().map_err(|error| format!("{error:#}")));
    let directory = directory
        .as_ref()
        .map_err(|error| anyhow!("cannot build our programs: {error}"))?;
    let path = directory.join(name);
    ensure!(path.is_file(), "there is no program \"{}\"", path.display());
    Ok(path)
}

/// The directory in which Cargo has built this program: `<target directory>/<profile>`.
///
/// # Errors
/// When this program lies elsewhere.
pub fn build_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    // Programs are in it, tests, benches and examples below it.
    let parent = program.parent();
    let directory = match parent.and_then(Path::file_name) {
        Some(name) if name == "deps" || name == "examples" => parent.and_then(Path::parent),
        _ => parent,
    };
    Ok(directory
        .context("this program does not lie where Cargo builds")?
        .to_owned())
}

/// The directory that holds the programs, built where that is necessary.
fn built() -> Result<PathBuf> {
    let directory = build_directory()?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace has no root")?;
    let newest = SOURCES
        .iter()
        .filter_map(|name| newest_source(&workspace.join(name)))
        .max();
    let fresh = |name: &str| {
        fs::metadata(directory.join(name))
            .and_then(|found| found.modified())
            .ok()
            >= newest
    };
    if PROGRAMS.iter().all(|name| fresh(name)) {
        return Ok(directory);
    }
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = directory
        .parent()
        .context("the profile's directory has no parent")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--quiet",
            "--bins",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target);
    for name in PROGRAMS {
        cargo.args(["-p", name]);
    }
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(directory)
}

/// When the newest source below a path was changed.
fn newest_source(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        return fs::read_dir(path)
            .ok()?
            .flatten()
            .filter_map(|entry| newest_source(&entry.path()))
            .max();
    }
    let source = matches!(
        path.extension().and_then(OsStr::to_str),
        Some("rs" | "toml" | "lock")
    );
    source
        .then(|| fs::metadata(path).and_then(|found| found.modified()).ok())
        .flatten()
}
