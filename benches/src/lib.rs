//! What the benchmarks share: WAL to measure on, programs to measure, and the comparisons with PostgreSQL's own.

pub mod compare;
pub mod cores;
pub mod corpus;
pub mod measure;
pub mod table;
