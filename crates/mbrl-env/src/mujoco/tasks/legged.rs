//! What Hopper and Walker2d have in common: legs that run in the plane and must not fall.

use std::sync::Arc;

use super::parts::{RunnerReward, Running, WithinLimits, control_cost, following, info, joint_fields, uniform_noise};
use crate::{
    Field, FieldKind, Reward, Rng, Termination,
    mujoco::{Camera, InitialState, Model, Rules, Sim, StepOutcome},
};

/// Rules of Gymnasium's runners that can fall.
pub(super) struct Legged<F> {
    pub(super) period: f64,
    pub(super) forward_reward_weight: f64,
    pub(super) ctrl_cost_weight: f64,
    pub(super) healthy_reward: f64,
    pub(super) terminate_when_unhealthy: bool,
    pub(super) reset_noise_scale: f64,
    /// Number of positions that the observation leaves out, 0 or 1.
    pub(super) skipped: usize,
    /// Largest velocity in an observation.
    pub(super) velocity_limit: f64,
    /// Whether a state is healthy.
    pub(super) is_healthy: F,
    /// Distance of the camera (m).
    pub(super) distance: f64,
}

impl<F> Legged<F> {
    /// The batch reward, if the observation holds the position and health is determined by limits.
    pub(super) fn reward(&self, healthy: &WithinLimits) -> Option<Arc<dyn Reward>> {
        (self.skipped == 0).then(|| -> Arc<dyn Reward> {
            Arc::new(RunnerReward {
                position: 0,
                period: self.period,
                forward: self.forward_reward_weight,
                control: self.ctrl_cost_weight,
                healthy: Some((self.healthy_reward, healthy.clone())),
            })
        })
    }

    /// The batch termination rule, if there is one.
    pub(super) fn termination(&self, healthy: WithinLimits) -> Option<Arc<dyn Termination>> {
        self.terminate_when_unhealthy.then(|| -> Arc<dyn Termination> { Arc::new(healthy) })
    }
}

impl<F: Fn(&Sim) -> bool + Send + Sync> Rules for Legged<F> {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[self.skipped..]);
        obs.extend(sim.qvel().iter().map(|v| v.clamp(-self.velocity_limit, self.velocity_limit)));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let mut fields = joint_fields(model, self.skipped);
        if self.terminate_when_unhealthy {
            // The pitch stays within its range: its sine and cosine would carry less information, not more.
            fields[2 - self.skipped].kind = FieldKind::Linear;
        }
        Some(fields)
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.reset_noise_scale, rng);
        uniform_noise(qvel, self.reset_noise_scale, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.push(sim.qpos()[0]);
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let (x, healthy) = (sim.qpos()[0], (self.is_healthy)(sim));
        let speed = (x - before[0]) / self.period;
        let forward = self.forward_reward_weight * speed;
        let survive = Some(if healthy { self.healthy_reward } else { 0.0 });
        let control = control_cost(self.ctrl_cost_weight, action);
        let raised = sim.qpos()[1] - sim.model().inner().qpos0()[1];
        let info = info([("x_position", x), ("z_distance_from_origin", raised), ("x_velocity", speed)]);
        let terminated = self.terminate_when_unhealthy && !healthy;
        Running { forward, control, survive, contact: None }.judge(terminated, info)
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 1.15, self.distance, -20.0)
    }
}

/// Whether a number lies in an open range.
pub(super) fn within(x: f64, (low, high): (f64, f64)) -> bool {
    low < x && x < high
}
