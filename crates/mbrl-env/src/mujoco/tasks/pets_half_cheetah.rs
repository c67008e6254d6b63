//! The half-cheetahs of PETS and PDDM.

use std::{path::Path, sync::Arc};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{WithinLimits, control_cost, following, info, joint_fields, normal_noise, uniform_noise},
};
use crate::{
    EnvError, Field, FieldKind, Reward, Rng,
    field::with_unique_names,
    mujoco::{Camera, InitialState, Model, Rules, Sim, StepOutcome},
    tasks::Task,
};

const FILE: &str = "half_cheetah.xml";
const FRAME_SKIP: u32 = 5;
const CONTROL: f64 = 0.1;

/// PETS's half-cheetah (`dmbrl/env/half_cheetah.py`): Gymnasium's robot, whose observation begins with its mean velocity over the
/// step, `[Δx/dt, z, pitch, 6 joints, 9 velocities]`; reward: that velocity `− 0.1 ‖a‖²`; starts N(0, 0.001) around the
/// model's own.
pub(crate) fn pets_halfcheetah(name: &str) -> Result<Task, EnvError> {
    let model = model(Path::new(FILE))?;
    let period = model.timestep() * f64::from(FRAME_SKIP);
    Parts {
        name: name.to_owned(),
        model,
        frame_skip: FRAME_SKIP,
        rules: Arc::new(PetsHalfCheetah { period }),
        reward: Some(Arc::new(SpeedReward { column: 0 })),
        termination: None,
        max_steps: 1000,
    }
    .task()
}

struct PetsHalfCheetah {
    period: f64,
}

impl PetsHalfCheetah {
    fn speed(&self, before: &[f64], sim: &Sim) -> f64 {
        (sim.qpos()[0] - before[0]) / self.period
    }
}

impl Rules for PetsHalfCheetah {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        self.observe_change(&[sim.qpos()[0]], sim, obs);
    }

    fn observe_change(&self, before: &[f64], sim: &Sim, obs: &mut Vec<f64>) {
        obs.push(self.speed(before, sim));
        obs.extend(sim.qpos()[1..].iter().chain(sim.qvel()));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let speed = Field::linear("mean_velocity", "m/s");
        Some(with_unique_names([&[speed], &joint_fields(model, 1)[..]].concat()))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        normal_noise(qpos, 0.001, rng);
        normal_noise(qvel, 0.001, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.push(sim.qpos()[0]);
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let speed = self.speed(before, sim);
        let info = info([("x_position", sim.qpos()[0]), ("x_velocity", speed)]);
        StepOutcome { reward: speed - control_cost(CONTROL, action), terminated: false, info }
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 0.5, 4.0, -45.0)
    }
}

/// PDDM's half-cheetah (`pddm/envs/cheetah/cheetah.py`): Gymnasium's robot and starts; it observes all positions and
/// velocities, its reward is its velocity at the end of the step `− 0.1 ‖a‖²`, and it terminates when its pitch exceeds 1 rad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PddmHalfCheetahConfig {
    /// The time limit (steps; default 1000, as in Gymnasium; PDDM's rollouts take 100).
    pub max_steps: u32,
}

impl Default for PddmHalfCheetahConfig {
    fn default() -> Self {
        Self { max_steps: 1000 }
    }
}

impl PddmHalfCheetahConfig {
    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        let upright = WithinLimits { limits: vec![(2, f64::NEG_INFINITY, 1.0)], closed: true };
        Parts {
            name: name.to_owned(),
            model: model(Path::new(FILE))?,
            frame_skip: FRAME_SKIP,
            rules: Arc::new(PddmHalfCheetah),
            reward: Some(Arc::new(SpeedReward { column: 9 })),
            termination: Some(Arc::new(upright)),
            max_steps: self.max_steps,
        }
        .task()
    }
}

struct PddmHalfCheetah;

impl Rules for PddmHalfCheetah {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend(sim.qpos().iter().chain(sim.qvel()));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let mut fields = joint_fields(model, 0);
        // PDDM's model sees the pitch itself.
        fields[2].kind = FieldKind::Linear;
        Some(fields)
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, 0.1, rng);
        normal_noise(qvel, 0.1, rng);
    }

    fn judge(&self, _: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let (x, speed) = (sim.qpos()[0], sim.qvel()[0]);
        StepOutcome {
            reward: speed - control_cost(CONTROL, action),
            terminated: sim.qpos()[2] > 1.0,
            info: info([("x_position", x), ("x_velocity", speed)]),
        }
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 0.5, 4.0, -45.0)
    }
}

/// A velocity in the next observation, minus the cost of the controls.
struct SpeedReward {
    column: usize,
}

impl Reward for SpeedReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        next_obs.select_dim::<1>(1, self.column) - actions.square().sum_dim(1).squeeze_dim::<1>(1) * CONTROL
    }
}
