//! The `walreceiver` program: a thin shell over its library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(walreceiver::cli::main().code())
}
