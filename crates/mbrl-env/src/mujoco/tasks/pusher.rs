//! Gymnasium's Pusher-v5.

use std::{path::PathBuf, sync::Arc};

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

/// Joints of the arm.
const JOINTS: usize = 7;
/// The object starts at least this far from the goal (m).
const LEAST_WAY: f64 = 0.17;

/// Gymnasium 1.4.0's `Pusher-v5`, with its options and their defaults: push a cylinder to a goal with an arm that has seven joints
/// and as many motors.
///
/// Reward: `−reward_near_weight · ‖object − tip‖ − reward_dist_weight · ‖object − goal‖ − reward_control_weight · ‖a‖²`. Never
/// terminates; 100 steps of 0.05 s.
///
/// The observation holds the seven angles and their velocities, and the positions of tip, object and goal, three numbers
/// each. Each episode begins with the object at a new place; the goal stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PusherConfig {
    /// The model: a Gymnasium file by its bare name, or a path. It has bodies `tips_arm`, `object` and `goal`.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the distance from tip to object.
    pub reward_near_weight: f64,
    /// Weight of the distance from object to goal.
    pub reward_dist_weight: f64,
    /// Weight of the squared controls.
    pub reward_control_weight: f64,
}

impl Default for PusherConfig {
    fn default() -> Self {
        Self {
            xml_file: "pusher_v5.xml".into(),
            frame_skip: 5,
            reward_near_weight: 0.5,
            reward_dist_weight: 1.0,
            reward_control_weight: 0.1,
        }
    }
}

impl PusherConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("reward_near_weight", self.reward_near_weight),
            ("reward_dist_weight", self.reward_dist_weight),
            ("reward_control_weight", self.reward_control_weight),
        ])?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, JOINTS + 4, JOINTS + 4)?;
        let [tip, object, goal] = [model.body("tips_arm")?, model.body("object")?, model.body("goal")?];
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(Pusher { config: self.clone(), tip, object, goal }),
            reward: Some(Arc::new(PusherReward {
                near: self.reward_near_weight,
                distance: self.reward_dist_weight,
                control: self.reward_control_weight,
            })),
            termination: None,
            max_steps: 100,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("Pusher-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

/// `−near · ‖object − tip‖ − distance · ‖object − goal‖ − control · ‖a‖²`, from the next observation of `Pusher-v5`.
#[derive(Debug, Clone, PartialEq)]
pub struct PusherReward {
    /// Weight of the distance from tip to object.
    pub near: f64,
    /// Weight of the distance from object to goal.
    pub distance: f64,
    /// Weight of the squared controls.
    pub control: f64,
}

impl Reward for PusherReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let point = |index: usize| next_obs.clone().narrow(1, 2 * JOINTS + 3 * index, 3);
        let (tip, object, goal) = (point(0), point(1), point(2));
        let near = tasks::distance(object.clone(), tip);
        let away = tasks::distance(object, goal);
        let effort = actions.square().sum_dim(1).squeeze_dim::<1>(1);
        -(near * self.near + away * self.distance + effort * self.control)
    }
}

struct Pusher {
    config: PusherConfig,
    tip: usize,
    object: usize,
    goal: usize,
}

impl Rules for Pusher {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[..JOINTS]);
        obs.extend_from_slice(&sim.qvel()[..JOINTS]);
        obs.extend([self.tip, self.object, self.goal].into_iter().flat_map(|body| sim.xpos(body)));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let arm = [&model.position_fields()[..JOINTS], &model.velocity_fields()[..JOINTS]].concat();
        let points = ["tips_arm", "object", "goal"].map(|body| parts(body, &["x", "y", "z"], "m")).concat();
        Some(with_unique_names([arm, points].concat()))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        // Position of the object relative to the goal.
        let [y, x] = loop {
            let [y, x] = [rng.uniform_f64(-0.3, 0.0), rng.uniform_f64(-0.2, 0.2)];
            if y.hypot(x) > LEAST_WAY {
                break [y, x];
            }
        };
        let (nq, nv) = (qpos.len(), qvel.len());
        qpos[nq - 4..].copy_from_slice(&[y, x, 0.0, 0.0]);
        uniform_noise(&mut qvel[..nv - 4], 0.005, rng);
        qvel[nv - 4..].fill(0.0);
    }

    fn judge(&self, _: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let object = sim.xpos(self.object);
        let reward_near = -distance(object, sim.xpos(self.tip)) * self.config.reward_near_weight;
        let reward_dist = -distance(object, sim.xpos(self.goal)) * self.config.reward_dist_weight;
        let reward_ctrl = -control_cost(self.config.reward_control_weight, action);
        StepOutcome {
            reward: reward_dist + reward_ctrl + reward_near,
            terminated: false,
            info: info([("reward_dist", reward_dist), ("reward_ctrl", reward_ctrl), ("reward_near", reward_near)]),
        }
    }
}
