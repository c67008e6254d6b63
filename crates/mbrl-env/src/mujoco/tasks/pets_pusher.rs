//! PETS's pusher.

use std::{fs, sync::Arc};

use burn::tensor::Tensor;

use super::{
    Parts, models_folder,
    parts::{info, sum_of_squares},
};
use crate::{
    EnvError, Field, Reward, Rng,
    field::with_unique_names,
    mujoco::{InitialState, Model, Rules, Sim, StepOutcome, fields::parts},
    tasks::Task,
};

/// Where the object should be (m).
const GOAL: [f64; 3] = [0.45, -0.05, -0.323];
/// Weights of the distances from tip to object and from object to goal, and of the controls.
const WEIGHTS: [f64; 3] = [0.5, 1.25, 0.1];
/// Columns of the tip's position and the object's.
const TIP: usize = 14;
const OBJECT: usize = 17;

/// PETS's pusher (`dmbrl/env/pusher.py`): a seven-joint arm pushes a cylinder, which starts near a fixed place, to a goal.
///
/// The model is Gymnasium's `pusher.xml` with PETS's wider range of the shoulder. An observation has 7 angles, 7 velocities, the
/// tip and the object; reward: `−0.5 ‖tip − object‖₁ − 1.25 ‖object − goal‖₁ − 0.1 ‖a‖²` for the state before the step.
/// 150 steps of 0.04 s.
pub(crate) fn pets_pusher(name: &str) -> Result<Task, EnvError> {
    let path = models_folder()?.join("pusher.xml");
    let text = fs::read_to_string(&path).map_err(|source| EnvError::Io { path: path.clone(), source })?;
    let (gymnasium, pets) = (r#"range="-2.2854 1.714602""#, r#"range="-2.2854 2.0""#);
    if text.matches(gymnasium).count() != 1 {
        let reason = format!("expected Gymnasium 1.4.0's model, with one joint of {gymnasium}");
        return Err(EnvError::Format { path, reason });
    }
    let model = Model::from_xml(&text.replace(gymnasium, pets))?;
    let rules = PetsPusher { tip: model.body("tips_arm")?, object: model.body("object")? };
    Parts {
        name: name.to_owned(),
        model,
        frame_skip: 4,
        rules: Arc::new(rules),
        reward: Some(Arc::new(PetsPusherReward)),
        termination: None,
        max_steps: 150,
    }
    .task()
}

struct PetsPusher {
    tip: usize,
    object: usize,
}

impl Rules for PetsPusher {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend(sim.qpos()[..7].iter().chain(&sim.qvel()[..7]));
        self.measure(sim, obs);
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let arm = [&model.position_fields()[..7], &model.velocity_fields()[..7]].concat();
        let points = ["tips_arm", "object"].map(|body| parts(body, &["x", "y", "z"], "m")).concat();
        Some(with_unique_names([arm, points].concat()))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        let joints = qpos.len();
        qpos[joints - 4] = -0.25 + 0.025 * rng.normal_f64();
        qpos[joints - 3] = 0.15 + 0.025 * rng.normal_f64();
        qpos[joints - 2..].fill(0.0);
        for velocity in &mut qvel[..joints - 4] {
            *velocity += rng.uniform_f64(-0.005, 0.005);
        }
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        // In its version of gym, PETS's `get_body_com` was the centre of mass, 0.1 m before the frame of the tip.
        measured.extend(sim.data().subtree_com()[self.tip]);
        measured.extend(sim.data().subtree_com()[self.object]);
    }

    fn judge(&self, before: &[f64], _: &Sim, action: &[f32]) -> StepOutcome {
        let (tip, object) = before.split_at(3);
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>();
        let (near, far) = (distance(tip, object), distance(object, &GOAL));
        let [near_weight, far_weight, control] = WEIGHTS;
        let reward = -near_weight * near - far_weight * far - control * f64::from(sum_of_squares(action));
        StepOutcome { reward, terminated: false, info: info([("tip_to_object", near), ("object_to_goal", far)]) }
    }
}

/// The reward, from the observation before the step.
struct PetsPusherReward;

impl Reward for PetsPusherReward {
    fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, _: Tensor<2>) -> Tensor<1> {
        let of = |column: usize| obs.clone().narrow(1, column, 3);
        let goal = Tensor::<1>::from_floats(GOAL.map(|x| x as f32), &obs.device()).unsqueeze::<2>();
        let sum = |rows: Tensor<2>| rows.sum_dim(1).squeeze_dim::<1>(1);
        let near = sum((of(TIP) - of(OBJECT)).abs());
        let far = sum((of(OBJECT) - goal).abs());
        let [near_weight, far_weight, control] = WEIGHTS;
        -(near * near_weight + far * far_weight + sum(actions.square()) * control)
    }
}
