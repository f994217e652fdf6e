//! What the tests against real PostgreSQL servers share.
//!
//! [`Cluster`] is a server, [`Workdir`] a place for mirrors and for our own programs, which run there as the server's
//! user; [`wait_for`] waits for conditions. Everything ends and is removed when it is dropped, also in a panic, and when
//! the test process is killed. Nothing uses a fixed port. A missing PostgreSQL is an error, never a skipped test.

mod acknowledged_load;
mod binaries;
mod cluster;
mod cluster_options;
mod cluster_template;
mod cut_proxy;
pub mod data_directory;
pub mod every_record;
mod fake_peer;
mod fake_primary;
mod hub;
mod mirror;
mod program;
mod random;
mod receivewal;
mod recording;
pub mod redo_oracle;
pub mod redo_seeds;
pub mod regression_suite;
mod replay_scene;
mod s3_server;
mod served_archive;
mod servers;
pub mod slru_replay;
mod take_over;
mod wait;
mod wal_comparison;
pub mod wal_files;
pub mod waldump;
mod waldump_lines;
mod workdir;

pub use acknowledged_load::AcknowledgedLoad;
pub use binaries::build_directory;
pub use cluster::Cluster;
pub use cluster_options::ClusterOptions;
pub use cut_proxy::CutProxy;
pub use fake_peer::{FakePeer, FakeSystem};
pub use fake_primary::FakePrimary;
pub use hub::Hub;
pub use mirror::Mirror;
pub use program::{Finished, Program, Running};
pub use random::Random;
pub use receivewal::{Receivewal, ensure_same_output, file_names};
pub use recording::{RecordedWal, Recording, end_in_order, segment_path, start_lsn};
pub use replay_scene::ReplayScene;
pub use rustix::process::Signal;
pub use s3_server::{S3Server, object_names};
pub use served_archive::ServedArchive;
pub use servers::{MAJORS, server_version, server_with_large_blocks};
pub use take_over::{ensure_same_content, ensure_same_lines, take_over, wait_until_it_serves};
pub use wait::{LONG, SHORT, wait_for, wait_for_some};
pub use wal_comparison::{SameWal, ensure_same_wal};
pub use waldump_lines::ensure_same_records;
pub use walreceiver::demo::local_postgres::{LocalPostgres, StopMode};
pub use walreceiver::demo::postgres_programs::PostgresPrograms;
pub use walreceiver::demo::server_user::ServerUser;
pub use workdir::Workdir;
