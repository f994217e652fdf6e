//! Layouts of files that are not WAL.

pub mod backup_label;
pub mod checkpoint;
pub mod control;
pub mod controldata;
mod fields;
pub mod page;
pub mod slru;
pub mod tablespace_map;
