//! The tasks: Gymnasium's, PETS's and PDDM's. The table that makes them by name is `tasks::entries`.

mod ant;
mod half_cheetah;
mod hopper;
mod humanoid;
mod inverted_double_pendulum;
mod inverted_pendulum;
mod legged;
mod parts;
mod pets_half_cheetah;
mod pets_pusher;
mod pets_reacher;
mod pusher;
mod reacher;
mod swimmer;
mod walker2d;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Model, MujocoEnv, Rules};
use crate::{EnvError, Reward, Termination, TimeLimit, World, tasks::Task};

pub use ant::{AntConfig, MainBody};
pub use half_cheetah::HalfCheetahConfig;
pub use hopper::HopperConfig;
pub use humanoid::HumanoidConfig;
pub use inverted_double_pendulum::{InvertedDoublePendulumConfig, TipFalls};
pub use inverted_pendulum::InvertedPendulumConfig;
pub use parts::{RunnerReward, WithinLimits};
pub use pets_half_cheetah::PddmHalfCheetahConfig;
pub(crate) use pets_half_cheetah::pets_halfcheetah;
pub(crate) use pets_pusher::pets_pusher;
pub(crate) use pets_reacher::pets_reacher;
pub use pusher::{PusherConfig, PusherReward};
pub use reacher::{ReacherConfig, ReacherReward};
pub use swimmer::SwimmerConfig;
pub use walker2d::Walker2dConfig;

const MODELS: &str = "MBRL_MUJOCO_MODELS";

/// The folder of Gymnasium's models.
///
/// # Errors
/// [`EnvError::Engine`] if it is not known or not there, saying how to get it.
pub fn models_folder() -> Result<PathBuf, EnvError> {
    const FETCH: &str = "`crates/mbrl-env/scripts/get-mujoco` fetches them";
    let refuse = |reason: String| Err(EnvError::Engine { reason });
    let folder = match env::var_os(MODELS) {
        Some(folder) => PathBuf::from(folder),
        None => match option_env!("MBRL_MUJOCO_MODELS_DEFAULT") {
            Some(folder) => PathBuf::from(folder),
            None => return refuse(format!("set {MODELS} to the folder of Gymnasium's models; {FETCH}")),
        },
    };
    if !folder.is_dir() {
        let folder = folder.display();
        return refuse(format!("{folder}: no such folder, expected Gymnasium's models ({MODELS}); {FETCH}"));
    }
    Ok(folder)
}

/// A model file: a Gymnasium file by its bare name, or any other by its path.
fn model(file: &Path) -> Result<Model, EnvError> {
    let bare = file.components().count() == 1;
    let path = if bare { models_folder()?.join(file) } else { file.to_owned() };
    if bare && fs::metadata(&path).is_err() {
        let reason = format!("{}: no such model; `crates/mbrl-env/scripts/get-mujoco` fetches them", path.display());
        return Err(EnvError::Engine { reason });
    }
    Model::load(path)
}

/// The parts of a task.
struct Parts {
    name: String,
    model: Model,
    frame_skip: u32,
    rules: Arc<dyn Rules>,
    reward: Option<Arc<dyn Reward>>,
    termination: Option<Arc<dyn Termination>>,
    max_steps: u32,
}

impl Parts {
    fn env(&self) -> Result<MujocoEnv, EnvError> {
        MujocoEnv::new(&self.name, &self.model, self.frame_skip, self.rules.clone())
    }

    fn task(self) -> Result<Task, EnvError> {
        let mut task = Task::new(World::from_simulator(TimeLimit::new(self.env()?, self.max_steps)?));
        (task.reward, task.termination) = (self.reward, self.termination);
        Ok(task)
    }
}
