//! What the benchmarks share: WAL to measure on, and programs to measure.

pub mod corpus;
