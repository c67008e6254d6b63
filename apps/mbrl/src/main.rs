//! `mbrl`: learn a model of a task and control it by planning, from one command.
//!
//! Exit codes: 0 done, 1 an error, 2 a command line that makes no sense, 130 stopped by Ctrl-C or SIGTERM.

mod args;
mod chart;
mod commands;
mod compare;
mod console;
mod diagnose;
mod doctor;
mod drive;
mod evaluate_model;
mod export;
mod fit;
mod folder;
mod identify;
mod judged;
mod model_chart;
mod naming;
mod plot;
mod progress;
mod record;
mod refit;
mod registry;
mod render;
mod replay_episode;
mod report;
mod run;
mod study;
mod tensorboard;
mod trajectories;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .without_time()
        .init();
    match commands::run(args::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            console::note(format_args!("error: {}", console::chain(&error)));
            ExitCode::FAILURE
        }
    }
}
