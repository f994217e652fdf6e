//! Layouts of files that are not WAL, and what WAL says of their content.

pub mod backup_label;
pub mod checkpoint;
pub mod control;
pub mod controldata;
mod fields;
pub mod next_transaction;
pub mod tablespace_map;
