//! `llm-config`: the edge daemon beside an application, and the command line for people and pipelines.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
