//! Gymnasium's Reacher-v5.

use std::{array, path::PathBuf, sync::Arc};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{check_numbers, check_sizes, control_cost, distance, info, uniform_noise},
};
use crate::{
    EnvError, Field, Reward, Rng,
    field::with_unique_names,
    mujoco::{InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome, fields::parts},
    tasks::{self, Task},
};

/// Targets lie within this distance of the base (m).
const TARGET_RADIUS: f64 = 0.2;

/// Gymnasium 1.4.0's `Reacher-v5`, with its options and their defaults: bring the tip of a two-link arm to a target, a new
/// one in each episode, with two motors.
///
/// Reward: `−reward_dist_weight · ‖tip − target‖ − reward_control_weight · ‖a‖²`. Never terminates; 50 steps of 0.02 s.
///
/// The observation holds `[cos θ₁, cos θ₂, sin θ₁, sin θ₂, target x, target y, θ̇₁, θ̇₂]` and the vector from target to tip in x and
/// y; tip and target are at the same height. This vector, and the reward with it, is as the engine last computed it, within
/// its last step; a batch reward reads it from the next observation, which holds the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReacherConfig {
    /// The model: a Gymnasium file by its bare name, or a path. It has bodies `fingertip` and `target`.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the distance.
    pub reward_dist_weight: f64,
    /// Weight of the squared controls.
    pub reward_control_weight: f64,
}

impl Default for ReacherConfig {
    fn default() -> Self {
        Self { xml_file: "reacher.xml".into(), frame_skip: 2, reward_dist_weight: 1.0, reward_control_weight: 1.0 }
    }
}

impl ReacherConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("reward_dist_weight", self.reward_dist_weight),
            ("reward_control_weight", self.reward_control_weight),
        ])?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 4, 4)?;
        let rules = ReacherRules { config: self.clone(), tip: model.body("fingertip")?, target: model.body("target")? };
        Ok(Parts {
            name: name.to_owned(),
            // The last two columns.
            reward: Some(Arc::new(ReacherReward {
                way: model.nq() + 4,
                distance: self.reward_dist_weight,
                control: self.reward_control_weight,
            })),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(rules),
            termination: None,
            max_steps: 50,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("Reacher-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

/// `−distance · ‖way‖ − control · ‖a‖²`, with the way to the target in the plane from the next observation.
#[derive(Debug, Clone, PartialEq)]
pub struct ReacherReward {
    /// First of the two columns of the way (m).
    pub way: usize,
    /// Weight of its length.
    pub distance: f64,
    /// Weight of the squared controls.
    pub control: f64,
}

impl Reward for ReacherReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let way = next_obs.narrow(1, self.way, 2);
        let length = tasks::distance(way.zeros_like(), way);
        let effort = actions.square().sum_dim(1).squeeze_dim::<1>(1);
        -(length * self.distance + effort * self.control)
    }
}

struct ReacherRules {
    config: ReacherConfig,
    tip: usize,
    target: usize,
}

impl Rules for ReacherRules {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let (angles, target) = sim.qpos().split_at(2);
        obs.extend(angles.iter().map(|angle| angle.cos()));
        obs.extend(angles.iter().map(|angle| angle.sin()));
        obs.extend_from_slice(target);
        obs.extend_from_slice(&sim.qvel()[..2]);
        let (tip, target) = (sim.xpos(self.tip), sim.xpos(self.target));
        obs.extend([tip[0] - target[0], tip[1] - target[1]]);
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let positions = model.position_fields();
        let (angles, target) = positions.split_at(2);
        let of = |what: &str| -> Vec<Field> {
            angles.iter().map(|field| Field::linear(format!("{what}_{}", field.name), "")).collect()
        };
        let way = parts("target_to_fingertip", &["x", "y"], "m");
        let all = [&of("cos"), &of("sin"), target, &model.velocity_fields()[..2], &way].concat();
        Some(with_unique_names(all))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, 0.1, rng);
        uniform_noise(qvel, 0.005, rng);
        let target = loop {
            let [x, y]: [f64; 2] = array::from_fn(|_| rng.uniform_f64(-TARGET_RADIUS, TARGET_RADIUS));
            if x.hypot(y) < TARGET_RADIUS {
                break [x, y];
            }
        };
        let (nq, nv) = (qpos.len(), qvel.len());
        qpos[nq - 2..].copy_from_slice(&target);
        qvel[nv - 2..].fill(0.0);
    }

    fn judge(&self, _: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let away = distance(sim.xpos(self.tip), sim.xpos(self.target));
        let reward_dist = -away * self.config.reward_dist_weight;
        let reward_ctrl = -control_cost(self.config.reward_control_weight, action);
        StepOutcome {
            reward: reward_dist + reward_ctrl,
            terminated: false,
            info: info([("reward_dist", reward_dist), ("reward_ctrl", reward_ctrl)]),
        }
    }
}
