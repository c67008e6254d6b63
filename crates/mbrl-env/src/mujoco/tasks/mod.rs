//! The tasks, and the registry that makes them by name.

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

use serde::Deserializer;

use super::{Model, MujocoEnv, Rules};
use crate::{
    EnvError, Reward, Termination, TimeLimit,
    tasks::{Task, read_options, refuse_options},
};

pub use ant::{AntConfig, MainBody};
pub use half_cheetah::HalfCheetahConfig;
pub use hopper::HopperConfig;
pub use humanoid::HumanoidConfig;
pub use inverted_double_pendulum::{InvertedDoublePendulumConfig, TipFalls};
pub use inverted_pendulum::InvertedPendulumConfig;
pub use parts::{RunnerReward, WithinLimits};
pub use pets_half_cheetah::PddmHalfCheetahConfig;
pub use pusher::{PusherConfig, PusherReward};
pub use reacher::{ReacherConfig, ReacherReward};
pub use swimmer::SwimmerConfig;
pub use walker2d::Walker2dConfig;

const MODELS: &str = "MBRL_MUJOCO_MODELS";

/// Makes a task on MuJoCo by its name.
pub(crate) fn make_with<'de, D: Deserializer<'de>>(name: &str, options: D) -> Result<Task, EnvError> {
    match name {
        "HalfCheetah-v5" => read_options::<HalfCheetahConfig, _>(name, options)?.task(name),
        "Hopper-v5" => read_options::<HopperConfig, _>(name, options)?.task(name),
        "InvertedPendulum-v5" => read_options::<InvertedPendulumConfig, _>(name, options)?.task(name),
        "Ant-v5" => read_options::<AntConfig, _>(name, options)?.task(name),
        "Humanoid-v5" => read_options::<HumanoidConfig, _>(name, options)?.task(name),
        "InvertedDoublePendulum-v5" => read_options::<InvertedDoublePendulumConfig, _>(name, options)?.task(name),
        "Pusher-v5" => read_options::<PusherConfig, _>(name, options)?.task(name),
        "Reacher-v5" => read_options::<ReacherConfig, _>(name, options)?.task(name),
        "Swimmer-v5" => read_options::<SwimmerConfig, _>(name, options)?.task(name),
        "Walker2d-v5" => read_options::<Walker2dConfig, _>(name, options)?.task(name),
        "pets-halfcheetah" => no_options(name, options, pets_half_cheetah::pets_task),
        "pets-pusher" => no_options(name, options, pets_pusher::task),
        "pets-reacher" => no_options(name, options, pets_reacher::task),
        "pddm-halfcheetah" => pets_half_cheetah::pddm_task(name, &read_options(name, options)?),
        _ => unreachable!("{name} is listed among the tasks on MuJoCo"),
    }
}

fn no_options<'de, D: Deserializer<'de>>(
    name: &str,
    options: D,
    make: impl FnOnce(&str) -> Result<Task, EnvError>,
) -> Result<Task, EnvError> {
    refuse_options(name, options)?;
    make(name)
}

/// The folder of Gymnasium's models.
///
/// # Errors
/// [`EnvError::Engine`] where it is not known or not there, saying how to get it.
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

/// A model file: one of Gymnasium's by its bare name, or any other by its path.
fn model(file: &Path) -> Result<Model, EnvError> {
    let bare = file.components().count() == 1;
    let path = if bare { models_folder()?.join(file) } else { file.to_owned() };
    if bare && fs::metadata(&path).is_err() {
        let reason = format!("{}: no such model; `crates/mbrl-env/scripts/get-mujoco` fetches them", path.display());
        return Err(EnvError::Engine { reason });
    }
    Model::load(path)
}

/// What a task is made of.
struct Parts {
    name: String,
    model: Model,
    frame_skip: u32,
    rules: Arc<dyn Rules>,
    reward: Option<Arc<dyn Reward>>,
    termination: Option<Arc<dyn Termination>>,
    angles: Vec<usize>,
    max_steps: u32,
}

impl Parts {
    fn env(&self) -> Result<MujocoEnv, EnvError> {
        MujocoEnv::new(&self.name, &self.model, self.frame_skip, self.rules.clone())
    }

    fn task(self) -> Result<Task, EnvError> {
        Ok(Task {
            env: Box::new(TimeLimit::new(self.env()?, self.max_steps)?),
            reward: self.reward,
            termination: self.termination,
            angles: self.angles,
            sketch: None,
            max_steps: self.max_steps,
        })
    }
}
