//! Layouts of files that are not WAL, and what WAL says of their content.

pub mod backup_label;
pub mod checkpoint;
pub mod control;
pub mod controldata;
mod fields;
pub mod free_space_map;
pub mod heap_tuple;
pub mod item_pointer;
pub mod next_transaction;
pub mod page;
pub mod relation_map;
pub mod relation_path;
pub mod slru;
pub mod tablespace_map;
pub mod two_phase;
pub mod visibility_map;
