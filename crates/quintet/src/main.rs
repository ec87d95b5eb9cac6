//! The `quintet` binary: nothing but the door to `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
