//! Mirrors a PostgreSQL coordinator over physical streaming replication.
//!
//! The program is a thin shell over this library: another service can embed every part of it.

#![deny(unsafe_code)]

pub mod activate;
pub mod cli;
pub mod connection;
pub mod demo;
pub mod exit;
pub mod hub;
pub mod init;
pub mod mirror;
pub mod receive;
pub mod replay;
pub mod run;
pub mod status;
pub mod wal_reader;
pub mod wal_sink;
pub mod waldump;

/// The examples of the README, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
