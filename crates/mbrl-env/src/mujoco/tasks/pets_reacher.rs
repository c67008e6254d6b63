//! PETS's reacher.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{
    Parts,
    parts::{info, sum_of_squares},
};
use crate::{
    EnvError, Field, Reward, Rng,
    field::with_unique_names,
    mujoco::{InitialState, Model, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Joints of the arm.
const JOINTS: usize = 7;
const CONTROL: f64 = 0.01;
/// Where the arm stands, and the lengths from the shoulder's axis to the elbow, the wrist and the tip (m).
const BASE_Y: f64 = -0.188;
const SHOULDER: f64 = 0.1;
const LINKS: [f64; 3] = [0.4, 0.321, 0.16828];

/// PETS's reacher (`dmbrl/env/reacher.py`): the tip of a seven-joint arm goes to a target that is drawn at each start, N(0, 0.1)
/// around (0, 0.25, 0). The model is ours, with the dimensions of PETS's.
///
/// An observation has 7 angles, the target and 7 velocities; reward: `−‖tip − target‖² − 0.01 ‖a‖²`, with the tip computed from the
/// angles. 150 steps of 0.02 s.
pub(crate) fn pets_reacher(name: &str) -> Result<Task, EnvError> {
    Parts {
        name: name.to_owned(),
        model: Model::from_xml(include_str!("pets_reacher.xml"))?,
        frame_skip: 2,
        rules: Arc::new(PetsReacher),
        reward: Some(Arc::new(PetsReacherReward)),
        termination: None,
        max_steps: 150,
    }
    .task()
}

struct PetsReacher;

impl Rules for PetsReacher {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend(sim.qpos().iter().chain(&sim.qvel()[..JOINTS]));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        Some(with_unique_names([&model.position_fields()[..], &model.velocity_fields()[..JOINTS]].concat()))
    }

    fn start(&self, InitialState { qpos, .. }: &mut InitialState, rng: &mut Rng) {
        for target in &mut qpos[JOINTS..] {
            *target += 0.1 * rng.normal_f64();
        }
    }

    fn judge(&self, _: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let (angles, target) = sim.qpos().split_at(JOINTS);
        let apart = tip(angles).iter().zip(target).map(|(tip, target)| (tip - target).powi(2)).sum::<f64>();
        let reward = -apart - CONTROL * f64::from(sum_of_squares(action));
        StepOutcome { reward, terminated: false, info: info([("distance", apart.sqrt())]) }
    }
}

/// Position of the tip for joint angles (rad), computed from the wrist to the base.
fn tip(angles: &[f64]) -> [f64; 3] {
    let about_x = |[x, y, z]: [f64; 3], angle: f64| {
        let (sin, cos) = angle.sin_cos();
        [x, cos * y - sin * z, sin * y + cos * z]
    };
    let about_y = |[x, y, z]: [f64; 3], angle: f64| {
        let (sin, cos) = angle.sin_cos();
        [cos * x + sin * z, y, cos * z - sin * x]
    };
    let along = |[x, y, z]: [f64; 3], length: f64| [x + length, y, z];
    let [upper_arm, forearm, hand] = LINKS;
    let from_wrist = about_x(about_y([hand, 0.0, 0.0], angles[5]), angles[4]);
    let from_elbow = about_x(about_y(along(from_wrist, forearm), angles[3]), angles[2]);
    let [x, y, z] = along(about_y(along(from_elbow, upper_arm), angles[1]), SHOULDER);
    let (sin, cos) = angles[0].sin_cos();
    [cos * x - sin * y, sin * x + cos * y + BASE_Y, z]
}

/// The reward, from the next observation.
struct PetsReacherReward;

impl Reward for PetsReacherReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        type Point = [Tensor<1>; 3];
        let angle = |joint: usize| {
            let angle = next_obs.clone().select_dim::<1>(1, joint);
            (angle.clone().sin(), angle.cos())
        };
        let about_x = |[x, y, z]: Point, joint: usize| {
            let (sin, cos) = angle(joint);
            [x, cos.clone() * y.clone() - sin.clone() * z.clone(), sin * y + cos * z]
        };
        let about_y = |[x, y, z]: Point, joint: usize| {
            let (sin, cos) = angle(joint);
            [cos.clone() * x.clone() + sin.clone() * z.clone(), y, cos * z - sin * x]
        };
        let along = |[x, y, z]: Point, length: f64| [x + length, y, z];
        let [upper_arm, forearm, hand] = LINKS;
        let zero = next_obs.clone().select_dim::<1>(1, 0).zeros_like();
        let wrist = [zero.clone() + hand, zero.clone(), zero];
        let from_wrist = about_x(about_y(wrist, 5), 4);
        let from_elbow = about_x(about_y(along(from_wrist, forearm), 3), 2);
        let [x, y, z] = along(about_y(along(from_elbow, upper_arm), 1), SHOULDER);
        let (sin, cos) = angle(0);
        let tip = [cos.clone() * x.clone() - sin.clone() * y.clone(), sin * x + cos * y + BASE_Y, z];
        let apart = tip
            .into_iter()
            .enumerate()
            .map(|(axis, tip)| (tip - next_obs.clone().select_dim::<1>(1, JOINTS + axis)).square())
            .reduce(|sum, square| sum + square)
            .expect("three axes");
        -(apart + actions.square().sum_dim(1).squeeze_dim::<1>(1) * CONTROL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tip_by_the_angles_is_where_the_engine_has_it() {
        let model = Model::from_xml(include_str!("pets_reacher.xml")).unwrap();
        let site = model.site("tip").unwrap();
        let mut sim = Sim::new(&model).unwrap();
        let mut rng = Rng::new(0);
        for _ in 0..50 {
            let angles: Vec<f64> = (0..JOINTS).map(|_| rng.uniform_f64(-2.0, 2.0)).collect();
            sim.set_state(&[&angles[..], &[0.0; 3]].concat(), &vec![0.0; model.nv()]).unwrap();
            for (ours, engine) in tip(&angles).iter().zip(sim.site_xpos(site)) {
                assert!((ours - engine).abs() < 1e-12, "{angles:?}: {ours} and {engine}");
            }
        }
    }
}
