//! `mbrl render`: an episode of a run's newest evaluation as an animated picture.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use mbrl_env::EnvError;
use mbrl_policy::{Best, WhichCheckpoint};

use crate::{
    args::RenderArgs,
    console,
    folder::checked_out,
    replay_episode::EpisodeReplay,
    run::RunFolder,
    trajectories::{self, Stored},
};

pub(crate) fn run(args: &RenderArgs) -> Result<ExitCode> {
    let folder = RunFolder::open(&args.run)?;
    let path = folder.path.display();
    let wanted = match args.checkpoint {
        WhichCheckpoint::Last => None,
        WhichCheckpoint::Step(step) => Some(step),
        WhichCheckpoint::Best => match Best::of_run(&folder.path) {
            Some(best) => Some(best.env_step),
            None => bail!("{path}: no evaluation so far, so there is no best one"),
        },
    };
    let Some((step, episodes)) = trajectories::newest(&folder.path, wanted)? else {
        if let Some(step) = wanted {
            bail!("{path}: no evaluation was recorded at step {step}");
        }
        bail!(
            "{path}: no evaluation was recorded; a run with `--set train.eval_every=1000`, say, records some, and `mbrl report \
             {path}` plays the last training episode of this one"
        );
    };
    let mut numbers = Vec::new();
    let mut found = None;
    for episode in episodes {
        let episode = episode?;
        numbers.push(episode.number.to_string());
        if episode.number == args.episode {
            found = Some(episode);
        }
    }
    let Some(episode) = found else {
        bail!("no episode {}: the evaluation at step {step} has {}", args.episode, numbers.join(", "));
    };
    let out = match &args.out {
        Some(out) => checked_out(out, "png")?,
        None => trajectories::folder(&folder.path).join(format!("{step}-{}.png", episode.number)),
    };
    write(&folder, &episode, args.size, &out).map_err(|error| match error.downcast_ref() {
        Some(EnvError::NoPicture { .. }) => error.context(format!(
            "nothing to render: `mbrl report {path}` plays the episodes of every task; an environment draws pictures where it \
             implements Env::render, as those on MuJoCo do"
        )),
        _ => error.context(format!("task {}", folder.experiment.task)),
    })?;
    console::out(out.display())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "mujoco")]
fn write(folder: &RunFolder, episode: &Stored, size: (u32, u32), out: &PathBuf) -> Result<()> {
    // Shortest duration of a frame (s): shorter ones only make the file larger.
    const FRAME: f64 = 0.04;
    let mut replay = EpisodeReplay::new(&folder.experiment, episode)?;
    let steps = episode.transitions.len();
    let every = (FRAME / replay.period()).round().max(1.0) as usize;
    let period = every as f64 * replay.period();
    // From the start to the end, even if the end falls between two frames.
    let frames = (0..steps.div_ceil(every) + 1).map(|i| replay.frame((i * every).min(steps), size));
    Ok(mbrl_env::write_animation(out, period, frames)?)
}

/// This build's tasks draw no pictures, and the first frame says so.
#[cfg(not(feature = "mujoco"))]
fn write(folder: &RunFolder, episode: &Stored, size: (u32, u32), _: &PathBuf) -> Result<()> {
    EpisodeReplay::new(&folder.experiment, episode)?.frame(0, size)?;
    bail!("this build writes no pictures: it needs the feature mujoco")
}
