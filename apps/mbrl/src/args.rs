//! The command line.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the help of the terminal"
)]

use std::path::PathBuf;

use clap::{Parser, Subcommand, builder::RangedU64ValueParser};
use mbrl_env::data::{Layout, Missing, ReadOptions, split_names};
use mbrl_policy::WhichCheckpoint;

use crate::{commands::cores, compare::Format};

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
    /// Continue runs that were stopped or killed, or finished ones for more steps.
    Resume(ResumeArgs),
    /// Fit another model to the data of a run, without new real steps, and leave a run that can be evaluated and resumed.
    Refit(RefitArgs),
    /// Evaluate a checkpoint of a run, or a random agent.
    Eval(EvalArgs),
    /// Fit a model to a log of transitions (CSV, Parquet, NumPy, a folder of them) and leave a model folder.
    Fit(FitArgs),
    /// Estimate the masses, lengths and frictions of a machine from a log of it, with standard errors.
    Identify(IdentifyArgs),
    /// Evaluate a fitted model on a log that it was not fitted to.
    EvaluateModel(EvaluateModelArgs),
    /// Put the results of runs into one HTML page.
    Report(ReportArgs),
    /// Compare methods over seeds: medians, interquartile means, probabilities of improvement, steps to a threshold.
    Compare(CompareArgs),
    /// Run every method of a study with every seed, and compare them; if stopped or killed, the same command continues.
    Study(StudyArgs),
    /// Find what limits an agent: its model at its own states, its plans in the simulator, its values against the returns that followed.
    Diagnose(DiagnoseArgs),
    /// Write a run's policy as one safetensors file that runs without this program; for an agent that plans, its experiment and its
    /// model, for mbrl eval.
    Export(ExportArgs),
    /// Drive a robot, or a stand-in for one, in real time with the agent of a run.
    Drive(DriveArgs),
    /// Draw an episode of a run's evaluation as an animated PNG (tasks on MuJoCo; mbrl report plays those of all tasks).
    Render(RenderArgs),
    /// Report what this build and this machine can do, and what is missing.
    Doctor,
    /// Print completions for a shell, for example: mbrl completions bash > ~/.local/share/bash-completion/completions/mbrl
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which checkpoint of a run.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointArg {
    /// Which checkpoint: that of the best evaluation, the last one, or the one after STEP steps.
    #[arg(long, value_name = "best|last|STEP", default_value = "last", allow_negative_numbers = true)]
    pub(crate) checkpoint: WhichCheckpoint,
}

/// The number of threads.
#[derive(Debug, clap::Args)]
pub(crate) struct ThreadsArg {
    /// Number of threads (default: one per core). The results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    threads: Option<usize>,
}

impl ThreadsArg {
    /// The requested number, or one per core.
    pub(crate) fn count(&self) -> usize {
        self.threads.unwrap_or_else(cores)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Name of an experiment (see `mbrl list`), or path of a .toml file.
    pub(crate) experiment: String,
    /// Seed of all random draws.
    #[arg(long, allow_negative_numbers = true, value_parser = integer())]
    pub(crate) seed: Option<u64>,
    /// Run this many seeds side by side, one thread each, counting up from the first.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: Option<u64>,
    /// Real environment steps, including random ones.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = integer())]
    pub(crate) steps: Option<u64>,
    /// Device for tensors: flex, ndarray, wgpu[:n] or cuda[:n].
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Override one value of the experiment, for example planner.population=500.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of the run (default: runs/<experiment>-<seed>); with --seeds, folder of the runs (default: runs).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Threads of one run (default: one per core; with --seeds, one). The results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Also write all metrics as TensorBoard event files, into the run's folder.
    #[arg(long)]
    pub(crate) tensorboard: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Folders of runs.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) runs: Vec<PathBuf>,
    /// New total of real environment steps, not lower than before: the folder keeps the new budget. (The old budget truncated the last
    /// episode of a finished run, so the run differs from one with this budget from the start.)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = integer())]
    pub(crate) steps: Option<u64>,
    /// Threads of one run (default: one per core). The results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Also write all metrics as TensorBoard event files, into the run's folder.
    #[arg(long)]
    pub(crate) tensorboard: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Folder of a run, or the file of an exported agent.
    #[arg(value_name = "DIR|FILE", required_unless_present = "random", conflicts_with = "random")]
    pub(crate) run: Option<PathBuf>,
    /// Evaluate an agent that acts uniformly at random instead, on a task or on the task of an experiment.
    #[arg(long, value_name = "TASK|EXPERIMENT")]
    pub(crate) random: Option<String>,
    /// Which checkpoint of a run: that of the best evaluation, the last one (default), or the one after STEP steps.
    #[arg(long, value_name = "best|last|STEP", conflicts_with = "random", allow_negative_numbers = true)]
    pub(crate) checkpoint: Option<WhichCheckpoint>,
    /// Evaluate an agent that plans with another goal, task or planner: replace one value of its experiment, for example
    /// task_options.goal=clockwise. Its model stays as it is; tasks with other observations or actions are refused.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "random")]
    pub(crate) set: Vec<String>,
    /// Number of episodes.
    #[arg(long, value_name = "N", default_value = "20", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) episodes: usize,
    /// Seed of the start states; 0 gives those of the evaluations during training.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// New folder for the episodes, with the same files (episodes/STEP-NUMBER.csv) as a run writes for its evaluations.
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) runs: Vec<PathBuf>,
    /// File of the page (default: report.html in the run's folder; for several runs, in the folder that holds them all).
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Run folders, or patterns of them ('runs/sac-*'): runs whose experiments differ only in the seed and the steps are one method.
    /// NAME=DIR gives runs another name, and may be repeated; NAME=NUMBER and NAME@TASK=NUMBER are reference
    /// figures, such as the output of mbrl eval --random. The others are compared with the first method.
    #[arg(required = true, value_name = "DIR|NAME=DIR|NAME=NUMBER")]
    pub(crate) methods: Vec<String>,
    /// Compare at this real step instead of at the end of the runs (for runs of different lengths: at the last step that all have).
    #[arg(long, value_name = "STEP", allow_negative_numbers = true, value_parser = integer())]
    pub(crate) at: Option<u64>,
    /// Return that a method must reach; for several tasks TASK=RETURN, repeated (default: 90 % of the way
    /// from random actions, or from the lowest first figure if these are not known, to the best method).
    #[arg(long, value_name = "[TASK=]RETURN", allow_hyphen_values = true, value_parser = threshold)]
    pub(crate) threshold: Vec<(Option<String>, f64)>,
    /// Method that is a baseline: a line in pictures, at the end of tables. Planning with the simulator itself always is one.
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Vec<String>,
    /// Evaluate random actions on each task, from the start states of the runs' evaluations, as one more baseline.
    #[arg(long)]
    pub(crate) random: bool,
    /// Format of the tables (default: from the name of --out, or for a terminal).
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Write to a file: .txt, .md, .tex, .csv, or .html for a page that also has the curves.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StudyArgs {
    /// Name of a study (see `mbrl list`), or path of a .toml file.
    pub(crate) study: String,
    /// Number of seeds of every method, from 0 on (default: those of the study). A later call with more seeds adds to the existing ones.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: Option<u64>,
    /// Real environment steps of every run (default: those of the study).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = integer())]
    pub(crate) steps: Option<u64>,
    /// Run only these: comparison, ablations, the name of one ablation or method, or GROUP/METHOD; may be repeated. Tables show finished
    /// runs of the other methods of the same group too.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Train nothing: write tables and pictures of the finished runs.
    #[arg(long)]
    pub(crate) no_train: bool,
    /// Folder of the study (default: studies/<name>).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Number of runs side by side (default: as many as the cores allow).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) jobs: Option<usize>,
    /// Threads of one run (default: one). The results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RefitArgs {
    /// Folder of a run whose agent plans in its model (model-based). It stays as it is.
    #[arg(value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) which: CheckpointArg,
    /// Override one value of the run's experiment, for example model.hidden=[512,512].
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of the new run (default: <DIR>-refit).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Folder of a run whose agent learns a policy (sac, td3, npg, mbpo) or plans in its model (model-based).
    #[arg(value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) which: CheckpointArg,
    /// File to write; an existing file is left alone (default: policy-<step>.safetensors or agent-<step>.safetensors in the
    /// run's folder).
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DriveArgs {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) which: CheckpointArg,
    /// Address of the robot (docs/robot-protocol.md); without it, the run's task stands in, behind a socket on this machine.
    #[arg(long, value_name = "tcp://HOST:PORT")]
    pub(crate) link: Option<String>,
    /// Commands per second (default: those of the task). A stand-in follows: its physics run faster or slower.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = rate)]
    pub(crate) hz: Option<f64>,
    /// Duration of the drive (s).
    #[arg(long = "for", value_name = "SECONDS", default_value = "10", allow_negative_numbers = true, value_parser = above_zero)]
    pub(crate) seconds: f64,
    /// Limits of commands and joints, as a TOML file: low, high, rate, rest, reaction, joints (default: those of the task's actions).
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) limits: Option<PathBuf>,
    /// Control periods that the robot takes to act, in addition to those it reports.
    #[arg(long, value_name = "PERIODS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) delay: u64,
    /// Log commands and measurements in this folder, for mbrl fit.
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// Seed of the stand-in's first episode and of the agent.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0, value_parser = integer())]
    pub(crate) seed: u64,
    /// Time that messages to and from the stand-in take (ms).
    #[arg(long, value_name = "MS", default_value_t = 0.0, allow_negative_numbers = true, value_parser = at_least_zero, conflicts_with = "link")]
    pub(crate) latency: f64,
    /// Largest random time that they take in addition (ms).
    #[arg(long, value_name = "MS", default_value_t = 0.0, allow_negative_numbers = true, value_parser = at_least_zero, conflicts_with = "link")]
    pub(crate) jitter: f64,
    /// Share of these messages that is lost.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true, value_parser = at_least_zero, conflicts_with = "link")]
    pub(crate) loss: f64,
    /// Number of planning threads (default: one per core).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RenderArgs {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Which evaluation: the best one, the last one, or the one after STEP steps.
    #[arg(long, value_name = "best|last|STEP", default_value = "last", allow_negative_numbers = true)]
    pub(crate) checkpoint: WhichCheckpoint,
    /// Which episode of the evaluation.
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) episode: usize,
    /// Size in pixels, at most 4096 per side.
    #[arg(long, value_name = "WxH", default_value = "320x240", value_parser = size)]
    pub(crate) size: (u32, u32),
    /// File of the picture (default: episodes/<step>-<N>.png in the run's folder).
    #[arg(long, value_name = "FILE.png")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FitArgs {
    /// The log: CSV or other text, Parquet, .npz or .npy; several files, a folder of them, or a pattern ('run*.csv').
    #[arg(required = true, value_name = "DATA")]
    pub(crate) data: Vec<PathBuf>,
    /// Report what is in the log, and fit nothing.
    #[arg(long)]
    pub(crate) check: bool,
    /// Folder of the model (default: models/<name of the log>).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Experiment whose sections [model] and [fit] say how to fit (default: PETS's ensemble, with standardised targets).
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<String>,
    /// Override one value of these sections, for example model.hidden=[64,64].
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Validate on whole episodes (the share fit.holdout of them) instead of single rows.
    #[arg(long)]
    pub(crate) holdout_episodes: bool,
    /// Maximum number of passes over the data (short for --set fit.max_epochs=N).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) epochs: Option<usize>,
    /// Seed of all random draws.
    #[arg(long, allow_negative_numbers = true, value_parser = integer())]
    pub(crate) seed: Option<u64>,
    /// Device for tensors: flex, ndarray, wgpu[:n] or cuda[:n].
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = crate::identify::machines())]
pub(crate) struct IdentifyArgs {
    /// The log: CSV or other text, Parquet, .npz or .npy; several files, a folder of them, or a pattern ('run*.csv'). Columns of the
    /// observation and the action must be in the machine's order and units (default: the columns with the machine's own names).
    #[arg(required = true, value_name = "DATA")]
    pub(crate) data: Vec<PathBuf>,
    /// The machine: one of those listed below.
    #[arg(long, value_name = "MACHINE")]
    pub(crate) model: String,
    /// Parameter with a known value, which is not estimated; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) known: Vec<(String, f64)>,
    /// Parameter to estimate, starting from this guess of its order of magnitude; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) guess: Vec<(String, f64)>,
    /// Seconds per step (default: the median step of the log's time, which then must be in seconds).
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) period: Option<f64>,
    /// Transitions per window, each with its own first state; 0 for whole episodes. Use shorter windows if the equations are not quite right.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) window: usize,
    /// Standard deviation of the noise of each column of the observation, in its unit (default: estimated).
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) noise: Vec<f64>,
    /// Steps of the integrator per step of the log (default: the machine's).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = substeps())]
    pub(crate) substeps: Option<u64>,
    /// Folder of the model (default: models/<name of the log>).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvaluateModelArgs {
    /// Folder of a model, or of a run.
    #[arg(value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The log: files, a folder, or a pattern. Columns default to those that the model was fitted to; its time, episode,
    /// flags and reward only if the log has them.
    #[arg(required = true, value_name = "DATA")]
    pub(crate) data: Vec<PathBuf>,
    /// Which checkpoint, if DIR is the folder of a run (default: the last one).
    #[arg(long, value_name = "best|last|STEP", allow_negative_numbers = true)]
    pub(crate) checkpoint: Option<WhichCheckpoint>,
    /// Number of steps to predict.
    #[arg(long, value_name = "N", default_value = "20", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) horizon: usize,
    /// Time per step of the log, in the model's unit (default: the median step of the log's time, which then must be in that unit).
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = above_zero)]
    pub(crate) period: Option<f64>,
    /// File of the picture; the figures go beside it as .json (default: evaluation.svg in DIR).
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) out: Option<PathBuf>,
    /// Seed for drawing starting points in the log and particles.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiagnoseArgs {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) which: CheckpointArg,
    /// Diagnose the agent as it would plan with another goal, task or planner: replace one value of its experiment, for example
    /// task_options.goal=clockwise. Its model and its data stay as they are; tasks with other observations or actions are refused, and so are
    /// agents that learn more than a model.
    #[arg(long, value_name = "KEY=VALUE", requires = "out")]
    pub(crate) set: Vec<String>,
    /// Number of episodes whose states are examined.
    #[arg(long, value_name = "N", default_value = "5", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) episodes: usize,
    /// Number of states from which plans are made and executed.
    #[arg(long, value_name = "N", default_value = "24", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) plans: usize,
    /// Seed of the start states and of random draws; 0 gives the start states of the evaluations during training.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// File of the picture; the figures go beside it as .json (default: diagnosis.svg in the run's folder; required with
    /// --set).
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArg,
}

/// The roles of a log's columns; roles that are left out are looked up under usual names (obs_0, action_0, reward, …).
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns of the log")]
pub(crate) struct ColumnArgs {
    /// Columns of the observation, separated by commas. For names with commas, repeat the option or quote them:
    /// --obs 'x,"speed (m/s), filtered"'.
    #[arg(long, value_name = "NAMES")]
    pub(crate) obs: Vec<String>,
    /// Columns of the action.
    #[arg(long, value_name = "NAMES")]
    pub(crate) actions: Vec<String>,
    /// Columns of the observation that are angles in radians and turn all the way round, wrapped or not.
    #[arg(long, value_name = "NAMES")]
    pub(crate) angles: Vec<String>,
    /// The same in degrees.
    #[arg(long, value_name = "NAMES")]
    pub(crate) angles_deg: Vec<String>,
    /// Those of these angles whose turns count, as for a joint with a spring or a cable: they are unwrapped along each episode. For
    /// angles not listed here, the data of the fit decide.
    #[arg(long, value_name = "NAMES")]
    pub(crate) multi_turn: Vec<String>,
    /// Columns of the observation after the action (default: taken from the next row). Here and below, an empty name means
    /// none, whatever the log holds.
    #[arg(long, value_name = "NAMES")]
    pub(crate) next_obs: Vec<String>,
    /// Column of the reward.
    #[arg(long, value_name = "NAME")]
    pub(crate) reward: Option<String>,
    /// Column that says whether the task reached a terminal state.
    #[arg(long, value_name = "NAME")]
    pub(crate) terminated: Option<String>,
    /// Column that says whether the episode was truncated.
    #[arg(long, value_name = "NAME")]
    pub(crate) truncated: Option<String>,
    /// Column that says whether the episode ended, but not why.
    #[arg(long, value_name = "NAME")]
    pub(crate) done: Option<String>,
    /// Column that says whether an episode begins.
    #[arg(long, value_name = "NAME")]
    pub(crate) start: Option<String>,
    /// Column with the episode's number or name.
    #[arg(long, value_name = "NAME")]
    pub(crate) episode: Option<String>,
    /// Column with the time; where it goes back, stands still or skips rows, a new episode begins.
    #[arg(long, value_name = "NAME")]
    pub(crate) time: Option<String>,
    /// Longest time step that is not a gap, in median periods [default: 1.5].
    #[arg(long, value_name = "PERIODS", allow_negative_numbers = true)]
    pub(crate) max_gap: Option<f64>,
    /// What to do with rows that lack a value: refuse the log, or drop these rows (the episode ends there).
    #[arg(long, value_name = "RULE", value_enum, default_value_t = MissingArg::Refuse)]
    pub(crate) missing: MissingArg,
    /// Rows per episode, if nothing in the log marks episodes.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) episode_rows: Option<usize>,
    /// Names of all columns of a log without names, from the left: a CSV file without a header, a .npy file.
    #[arg(long, value_name = "NAMES")]
    pub(crate) names: Vec<String>,
    /// Separator of the fields of a text: a character, tab, or space for any number of blanks (default: detected).
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<char>,
    /// Which axis of arrays [E, T, O] or [T, N, O] is the time (default: the one along which observations change less).
    #[arg(long, value_name = "AXIS", value_parser = clap::value_parser!(u64).range(0..=1))]
    pub(crate) time_axis: Option<u64>,
}

/// What to do with rows that lack a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MissingArg {
    Refuse,
    Drop,
}

impl ColumnArgs {
    /// The roles of columns, as far as they were given.
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            obs: self.obs.clone(),
            actions: self.actions.clone(),
            next_obs: self.next_obs.clone(),
            reward: self.reward.clone(),
            terminated: self.terminated.clone(),
            truncated: self.truncated.clone(),
            done: self.done.clone(),
            start: self.start.clone(),
            episode: self.episode.clone(),
            time: self.time.clone(),
            names: match self.names.as_slice() {
                [one] => split_names(one),
                several => several.to_owned(),
            },
            angles: self.angles.clone(),
            angles_deg: self.angles_deg.clone(),
            multi_turn: self.multi_turn.clone(),
        }
    }

    /// The other options for reading the log.
    pub(crate) fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.max_gap = self.max_gap.unwrap_or(options.max_gap);
        options.delimiter = self.delimiter;
        options.episode_rows = self.episode_rows;
        options.time_axis = self.time_axis.map(|axis| axis as usize);
        options.missing = match self.missing {
            MissingArg::Refuse => Missing::Refuse,
            MissingArg::Drop => Missing::Drop,
        };
        options
    }
}

fn delimiter(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("tab" | "\\t", ..) => Ok('\t'),
        ("space" | "blank" | "blanks", ..) => Ok(' '),
        (_, Some(one), None) if one.is_ascii() => Ok(one),
        _ => Err("expected one character, tab or space".into()),
    }
}

/// An integer that an experiment's TOML can hold. (Numbers allow a minus, so that the value check refuses it and not the syntax.)
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

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0, at most a million".into()),
    }
}

fn substeps() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1e-3..=1e6).contains(&number) => Ok(number),
        _ => Err("a number from 0.001 to a million".into()),
    }
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1e6).contains(&number) => Ok(number),
        _ => Err("a number of at least 0".into()),
    }
}

fn threshold(text: &str) -> Result<(Option<String>, f64), String> {
    let (task, number) = text.rsplit_once('=').map_or((None, text), |(task, number)| (Some(task.to_owned()), number));
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((task, value)),
        _ => Err("a finite return, as in -200 or pendulum=-200".into()),
    }
}

fn assignment(text: &str) -> Result<(String, f64), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=VALUE, as in mass=0.4")?;
    let value = number.trim().parse::<f64>().map_err(|error| format!("{number}: {error}"))?;
    Ok((name.trim().to_owned(), value))
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |side: &str| side.parse::<u32>().ok().filter(|side| (1..=4096).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "two numbers from 1 to 4096, as in 640x480".into())
}
