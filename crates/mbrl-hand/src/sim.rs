//! The environments on MuJoCo.

mod adroit;
mod baoding;
mod reorient;
mod valve;
mod variants;
mod write;

use std::sync::Arc;

use mbrl_env::{
    BoxSpace, Delay, EnvError, Field, Info, Knowledge, Noise, Rng, Simulator, TimeLimit, World,
    mujoco::{Camera, Controls, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome, View},
    tasks::Task,
};

use crate::{
    Servo,
    objective::{Batched, Objective},
    scene::{PERIOD, Variation},
    task::{Choices, Told},
};
use variants::Variants;

/// What a task adds to a robot with servos.
pub(crate) trait Play: Send + Sync + 'static {
    /// Appends the observation after this many steps.
    fn observe(&self, sim: &Sim, step: f64, obs: &mut Vec<f64>);

    /// Reward, termination and numbers for logs, from the observation after a step and the measurements before it.
    fn judge(&self, before: &[f64], next: &[f64]) -> (f64, bool, Info);

    /// Appends the measurements that [`judge`](Self::judge) compares with.
    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        let _ = (sim, measured);
    }

    /// Moves the start away from the model's own state.
    fn start(&self, state: &mut InitialState, rng: &mut Rng);

    /// Steps until everything is at rest, and draws the goal of the episode.
    ///
    /// # Errors
    /// Those of the engine.
    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError>;

    /// Moves the bodies that show the targets to where the targets are after this many steps.
    fn show(&self, step: f64, controls: &mut Controls<'_>) {
        let _ = (step, controls);
    }

    /// The camera's target point (m), distance (m), azimuth and elevation (degrees).
    fn view(&self) -> ([f64; 3], f64, [f64; 2]);
}

/// Index of the time at which the episode begins, in its memory in the engine.
const BEGIN: usize = 0;
/// Index of the first number that belongs to the task.
pub(crate) const OWN: usize = 1;

/// A task as rules.
struct Stage<P> {
    play: P,
    servo: Servo,
    fields: Vec<Field>,
    actions: (BoxSpace, Vec<Field>),
}

fn step_at(time: f64, memory: &[f64]) -> f64 {
    ((time - memory[BEGIN]) / PERIOD).round()
}

impl<P: Play> Stage<P> {
    fn observed(&self, sim: &Sim) -> Vec<f64> {
        let mut obs = Vec::new();
        self.play.observe(sim, step_at(sim.time(), sim.userdata()), &mut obs);
        obs
    }
}

impl<P: Play> Rules for Stage<P> {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        self.play.observe(sim, step_at(sim.time(), sim.userdata()), obs);
    }

    fn fields(&self, _: &Model) -> Option<Vec<Field>> {
        Some(self.fields.clone())
    }

    fn actions(&self, _: &Model) -> Option<(BoxSpace, Vec<Field>)> {
        Some(self.actions.clone())
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        state.ctrl.copy_from_slice(&self.servo.rest);
        self.play.start(state, rng);
    }

    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        self.play.settle(sim, rng)?;
        let time = sim.time();
        sim.userdata_mut()[BEGIN] = time;
        Ok(())
    }

    fn apply(&self, action: &[f32], controls: &mut Controls<'_>) {
        let width = self.servo.width();
        let mut commands = vec![0.0; width];
        self.servo.commands(action, &controls.qpos()[..width], &mut commands);
        controls.ctrl_mut().copy_from_slice(&commands);
        let next = step_at(controls.time(), controls.userdata()) + 1.0;
        self.play.show(next, controls);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        self.play.measure(sim, measured);
    }

    fn judge(&self, before: &[f64], sim: &Sim, _: &[f32]) -> StepOutcome {
        // From the observation, to its last digit, so that batches judge alike, even at thresholds.
        let next: Vec<f64> = self.observed(sim).into_iter().map(|x| f64::from(x as f32)).collect();
        let (reward, terminated, info) = self.play.judge(before, &next);
        let mut outcome = StepOutcome::new(reward).with_terminated(terminated);
        outcome.info = info;
        outcome
    }

    fn camera(&self, model: &Model) -> Camera {
        let (lookat, distance, [azimuth, elevation]) = self.play.view();
        Camera::Free(View { lookat, distance, azimuth, elevation, ..View::of(model) })
    }
}

/// The parts of a task in one of its variants.
pub(crate) type Parts<P> = (Model, P, Servo);

/// A task's environment alone: no delay, no noise, no time limit.
pub(crate) fn bare<P: Play>(
    name: &str,
    choices: &Choices<'_>,
    layout: &[(Field, Told)],
    joints: &[&str],
    (model, play, servo): Parts<P>,
) -> Result<MujocoEnv, EnvError> {
    let fields = layout.iter().map(|(field, _)| field.clone()).collect();
    let actions =
        (BoxSpace::symmetric(joints.len(), 1.0)?, joints.iter().map(|joint| Field::linear(*joint, "")).collect());
    let stage = Stage { play, servo, fields, actions };
    MujocoEnv::new(name, &model, choices.physics.frame_skip()?, Arc::new(stage))
}

/// A task's environment: its model in each of its variants, wrapped in delays, sensors and a time limit.
pub(crate) fn world<P: Play>(
    name: &str,
    choices: &Choices<'_>,
    layout: &[(Field, Told)],
    joints: &[&str],
    make: impl Fn(&Variation) -> Result<Parts<P>, EnvError>,
) -> Result<World, EnvError> {
    let one = |variation: &Variation| -> Result<Delay<MujocoEnv>, EnvError> {
        let env = bare(name, choices, layout, joints, make(variation)?)?;
        Ok(Delay::actions(env, choices.action_delay + variation.delay))
    };
    let env: Box<dyn Simulator> = match choices.randomize {
        None => Box::new(one(&Variation::default())?),
        Some(randomize) => {
            let mut all: Vec<Box<dyn Simulator>> = Vec::new();
            for variation in randomize.draw() {
                all.push(Box::new(one(&variation)?));
            }
            Box::new(Variants::new(all))
        }
    };
    if choices.sensors.is_none() {
        return Ok(World::from_simulator(TimeLimit::new(env, choices.max_steps)?));
    }
    let noisy = Noise::new(env).of_sensors().on_observations(choices.sensors.columns(layout))?;
    Ok(World::from_simulator(TimeLimit::new(noisy, choices.max_steps)?))
}

/// A task whose reward and termination come from an objective.
pub(crate) fn judged_by<J: Objective + 'static>(objective: J, env: World, knowledge: Knowledge) -> Task {
    let objective = Arc::new(Batched(objective));
    Task::new(env).with_reward(objective.clone()).with_termination(objective).with_knowledge(knowledge)
}

/// Displaces the robot's joints by Gaussian noise, within their stops.
pub(crate) fn scatter(joints: &mut [f64], pose: &[f64], servo: &Servo, std: f64, rng: &mut Rng) {
    for (j, (joint, pose)) in joints.iter_mut().zip(pose).enumerate() {
        *joint = (pose + std * rng.normal_f64()).clamp(servo.low[j], servo.high[j]);
    }
}

/// Steps for some time (s).
pub(crate) fn wait(sim: &mut Sim, time: f64) -> Result<(), EnvError> {
    let steps = (time / sim.model().timestep()) as u32;
    sim.advance(steps)
}

/// A vector in a free body's frame, rotated into the world by the body's unit quaternion (real part first).
pub(crate) fn turned([w, x, y, z]: [f64; 4], v: [f64; 3]) -> [f64; 3] {
    let cross =
        |a: [f64; 3], b: [f64; 3]| [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let u = [x, y, z];
    let t = cross(u, v).map(|c| 2.0 * c);
    let s = cross(u, t);
    std::array::from_fn(|i| v[i] + w * t[i] + s[i])
}

/// Part of a state, from its first entry.
pub(crate) fn part<const N: usize>(values: &[f64], first: usize) -> [f64; N] {
    std::array::from_fn(|k| values[first + k])
}

/// Numbers for logs.
pub(crate) fn info<const N: usize>(numbers: [(&'static str, f64); N]) -> Info {
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// A model from generated text, which the engine should never reject.
pub(crate) fn model(mjcf: &str) -> Result<Model, EnvError> {
    Model::from_xml(mjcf)
}
