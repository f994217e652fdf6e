//! Rows that a server answers replication commands with, as typed values, in both directions.
//!
//! Every value is in text format. A `parse` takes the columns of one row, `None` where a column is null; columns
//! beyond the known ones are ignored, since newer servers add some at the end. `columns` and `values` give what a
//! server of a given version sends.

pub mod backup_position;
pub mod next_timeline;
pub mod row;
pub mod slot;
pub mod system;
pub mod tablespace;
pub mod timeline_history;

pub use backup_position::BackupPosition;
pub use next_timeline::NextTimeline;
pub use row::{ResultColumn, TextValue};
pub use slot::{CreatedSlot, SlotPosition};
pub use system::IdentifySystem;
pub use tablespace::BackupTablespace;
pub use timeline_history::TimelineHistoryFile;
