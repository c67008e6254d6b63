//! What was typed.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the help of the terminal"
)]

use std::path::PathBuf;

use clap::{Parser, Subcommand, builder::RangedU64ValueParser};

/// Learn a model of a task and control it by planning.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List tasks and experiments.
    List,
    /// Train an agent and leave a run folder.
    Train(TrainArgs),
    /// Go on with runs that were stopped or killed.
    Resume(ResumeArgs),
    /// Evaluate the newest checkpoint of a run, or a random agent.
    Eval(EvalArgs),
    /// Put what runs left behind into one HTML page.
    Report(ReportArgs),
    /// Tell what this build and this machine can do, and what is missing.
    Doctor,
    /// Print the completions of a shell, for example: mbrl completions bash > ~/.local/share/bash-completion/completions/mbrl
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Name of an experiment (see `mbrl list`), or path of a .toml file.
    pub(crate) experiment: String,
    /// Seed of everything that is drawn.
    #[arg(long, value_parser = integer())]
    pub(crate) seed: Option<u64>,
    /// Run this many seeds side by side, one thread each, counting up from the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: Option<u64>,
    /// Real environment steps, random ones included.
    #[arg(long, value_name = "N", value_parser = integer())]
    pub(crate) steps: Option<u64>,
    /// Where tensors live: flex, ndarray, wgpu[:n] or cuda[:n].
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Override one value of the experiment, for example planner.population=500.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of the run (default: runs/<experiment>-<seed>); with --seeds, folder of the runs (default: runs).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Threads of one run (default: one a core; with --seeds, one). The results do not depend on it.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Write all metrics as TensorBoard's event files too, into the run's folder.
    #[arg(long)]
    pub(crate) tensorboard: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Folders of runs.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) runs: Vec<PathBuf>,
    /// Threads of one run (default: one a core). The results do not depend on it.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Write all metrics as TensorBoard's event files too, into the run's folder.
    #[arg(long)]
    pub(crate) tensorboard: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Folder of a run.
    #[arg(value_name = "DIR", required_unless_present = "random", conflicts_with = "random")]
    pub(crate) run: Option<PathBuf>,
    /// Evaluate an agent that acts uniformly at random on a task instead.
    #[arg(long, value_name = "TASK")]
    pub(crate) random: Option<String>,
    /// Episodes.
    #[arg(long, value_name = "N", default_value = "20", value_parser = positive)]
    pub(crate) episodes: usize,
    /// Seed of the start states; 0 gives those of the evaluations during training.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads (default: one a core). The results do not depend on it.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) runs: Vec<PathBuf>,
    /// Where the page goes (default: report.html in the run's folder; of several runs, in the folder that holds them all).
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// An integer that an experiment's TOML can hold.
fn integer() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(0..=i64::MAX.unsigned_abs())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}
