//! [`DataDirectory`]: the files of the server beside us, as far as they say which server it is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walstream::storage::control::{ControlError, ControlFile};

use super::blocking;
use super::error::PrimaryError;
use crate::durable::FileError;

/// Path of the control file within the data directory.
pub(crate) const CONTROL_FILE: &str = "global/pg_control";

/// How often a control file that is not whole is read again: the server may just be writing it.
const CONTROL_ATTEMPTS: u32 = 20;
const CONTROL_WAIT: Duration = Duration::from_millis(5);

/// The data directory of a running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataDirectory {
    path: PathBuf,
}

impl DataDirectory {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The control file with its bytes, as it was at one moment. Blocks, for a tenth of a second at most.
    pub(crate) fn control(&self) -> Result<(ControlFile, Vec<u8>), PrimaryError> {
        let path = self.path.join(CONTROL_FILE);
        let mut attempt = 0;
        loop {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(source)
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    return Err(PrimaryError::NoDataDirectory {
                        directory: self.path.clone(),
                        source,
                    });
                }
                Err(source) => return Err(FileError::of("read", &path)(source).into()),
            };
            attempt += 1;
            match ControlFile::parse(&bytes) {
                Ok(control) => return Ok((control, bytes)),
                Err(ControlError::Crc { .. } | ControlError::Short(_))
                    if attempt < CONTROL_ATTEMPTS =>
                {
                    std::thread::sleep(CONTROL_WAIT);
                }
                Err(source) => return Err(PrimaryError::Control { path, source }),
            }
        }
    }

    /// The control file as it is now, read where blocking is allowed.
    pub(crate) async fn read_control(&self) -> Result<ControlFile, PrimaryError> {
        let directory = self.clone();
        Ok(blocking(move || directory.control()).await?.0)
    }

    /// Checks that the directory that a server names is this one, where it can be seen from here.
    pub(crate) fn check_same(&self, server: &Path) -> Result<(), PrimaryError> {
        let (Ok(ours), Ok(theirs)) = (fs::metadata(&self.path), fs::metadata(server)) else {
            // The server may run where paths are others, as in a container.
            return Ok(());
        };
        if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
            return Ok(());
        }
        Err(PrimaryError::OtherDirectory {
            server: server.to_owned(),
            directory: self.path.clone(),
        })
    }
}
