//! `valve` on MuJoCo.

use mbrl_env::{
    EnvError, Info, Rng,
    mujoco::{InitialState, MujocoEnv, Sim},
    tasks::Task,
};

use super::{OWN, Parts, Play, bare, info, model, wait, world};
use crate::{
    objective::{Batched, judge},
    robot::ClawConfig,
    scene::Variation,
    task::valve::{ANGLE, GOAL, GOALS, JOINTS, START, ValveConfig, ValveObjective, turn_between},
};

/// Index of the valve's angle among the positions.
const VALVE: usize = JOINTS;

struct Valve {
    rest: Vec<f64>,
    target: usize,
}

impl ValveConfig {
    /// The task, with its knowledge.
    ///
    /// # Errors
    /// [`EnvError::Config`], and those of the engine.
    pub fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.check()?;
        let make = |variation: &Variation| self.parts(variation);
        let env = world(name, &self.choices(), &Self::layout(), &ClawConfig::JOINTS, make)?;
        Ok(Task::new(env).with_reward(std::sync::Arc::new(Batched(ValveObjective))).with_knowledge(self.knowledge()))
    }

    /// The environment alone, without variants: no delay, no noise, no time limit.
    ///
    /// # Errors
    /// As [`task`](Self::task).
    pub fn init(&self, name: &str) -> Result<MujocoEnv, EnvError> {
        self.check()?;
        let parts = self.parts(&Variation::default())?;
        bare(name, &self.choices(), &Self::layout(), &ClawConfig::JOINTS, parts)
    }

    fn parts(&self, variation: &Variation) -> Result<Parts<Valve>, EnvError> {
        let (model, servo) = (model(&self.mjcf(variation))?, self.servo());
        let play = Valve { rest: servo.rest.clone(), target: model.mocap("target")? };
        Ok((model, play, servo))
    }
}

impl Play for Valve {
    fn observe(&self, sim: &Sim, _: f64, obs: &mut Vec<f64>) {
        let (q, v) = (sim.qpos(), sim.qvel());
        obs.extend_from_slice(&q[..JOINTS]);
        obs.extend_from_slice(&v[..JOINTS]);
        obs.extend([q[VALVE], v[VALVE], sim.userdata()[OWN]]);
    }

    fn judge(&self, _: &[f64], next: &[f64]) -> (f64, bool, Info) {
        let (reward, over) = judge(&ValveObjective, next);
        (reward, over, info([("angle_to_goal", turn_between(&next[GOAL], &next[ANGLE]).abs())]))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        state.qpos[..JOINTS].copy_from_slice(&self.rest);
        state.qpos[VALVE] = rng.uniform_f64(-START, START);
    }

    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        let side = if rng.below(2) == 0 { -1.0 } else { 1.0 };
        let goal = side * rng.uniform_f64(GOALS[0], GOALS[1]);
        sim.userdata_mut()[OWN] = goal;
        let (sin, cos) = (goal / 2.0).sin_cos();
        sim.mocap_quat_mut()[self.target] = [cos, 0.0, 0.0, sin];
        wait(sim, 0.2)
    }

    fn view(&self) -> ([f64; 3], f64, [f64; 2]) {
        ([0.0, 0.0, 0.08], 0.5, [120.0, -35.0])
    }
}
