//! `--to`: finished files go to another place, an object store or a directory, while receiving goes on.
//!
//! The directory of `-D` is then where files are made, and where they wait. A file that is finished is queued; one thread
//! puts them into the place, one after the other in the order in which they were finished, so a timeline's history file
//! is there before its segments. A file has its name in the place only when it is whole there and was read back
//! ([`walsender::source::archive::Uploader`]); after that, and not before, the local one is removed. A kill between the
//! two leaves a file that is put there again, which finds the same file, and is removed then. Partial segments are never
//! put there.
//!
//! Receiving never waits for an upload. While the place does not take files they gather in the directory, which is said
//! with every attempt that fails, and when their number has doubled. What is there already under the same name with other
//! content is never overwritten: it ends the command.
//!
//! A start considers both places: receiving begins behind the highest segment of either, see
//! [`start_of`](super::start_position::start_of). [`Uploads::hold_removals`] keeps a file from moving from one to the
//! other while they are looked at.
//!
//! | module | what |
//! |---|---|
//! | `destination` | the place: opened, listed |
//! | `left_files` | finished files that an earlier run left |
//! | `queue` | what waits, and what became of it |
//! | `worker` | puts one file after the other, for as long as it takes |
//! | `uploads` | the handle that the command has |

mod destination;
mod left_files;
mod queue;
#[cfg(test)]
mod tests;
mod upload_error;
mod uploads;
mod worker;

pub use destination::{Destination, StoredContent};
pub use left_files::left_files;
pub use queue::WaitingFile;
pub use upload_error::UploadsError;
pub use uploads::{Patience, Uploads};
