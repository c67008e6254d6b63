//! Where sampling stops scaling and gradients continue, in two pictures.
//!
//! `optimizers.svg`: function evaluations that an optimizer needs to come within a tolerance of the optimum, over the
//! number of dimensions. `planners.svg`: the share of the largest possible gain that a planner gets on a linear-quadratic problem, for
//! several horizons and action dimensions, with an equal budget of model steps. Run it with `cargo run --release -p mbrl-limits`; it
//! takes some ten minutes on two cores; `--quick` takes seconds and shows less.

mod optimizers;
mod planners;
#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Draws where sampling stops scaling and gradients do not")]
struct Args {
    /// Folder of the two pictures.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Few dimensions, one seed: a quick check that it works.
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.out).with_context(|| format!("folder {}", args.out.display()))?;
    optimizers::run(&args.out.join("optimizers.svg"), args.quick)?;
    planners::run(&args.out.join("planners.svg"), args.quick)
}

/// The median, the upper one of an even number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// This many seeds.
fn counted(seeds: u64) -> String {
    if seeds == 1 { "one seed".to_owned() } else { format!("{seeds} seeds") }
}
