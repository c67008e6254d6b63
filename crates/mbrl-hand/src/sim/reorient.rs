//! `reorient` on MuJoCo.

use mbrl_env::{
    EnvError, Info, Rng,
    mujoco::{Controls, InitialState, MujocoEnv, Sim},
    tasks::Task,
};

use super::{OWN, Parts, Play, bare, info, judged_by, model, part, scatter, turned, wait, world};
use crate::{
    Servo,
    objective::judge,
    robot::HandConfig,
    scene::Variation,
    task::reorient::{AXES, GOAL, JOINTS, ReorientConfig, ReorientObjective, about, angle_between, axes_of},
};

/// Indices in the episode's memory: where the cube started, and the goal as a quaternion.
const HOME: usize = OWN;
const TURN: usize = OWN + 3;
/// The cube's orientation before the last step, as a quaternion.
const BEFORE: usize = OWN + 7;

/// A cube in a hand.
pub(crate) struct Reorient {
    /// Axes of the world and angles about them (rad).
    pub(crate) goals: Vec<(usize, f64)>,
    pub(crate) start_noise: f64,
    pub(crate) objective: ReorientObjective,
    pub(crate) servo: Servo,
    pub(crate) target: usize,
    /// The camera's target point, distance, azimuth and elevation.
    pub(crate) view: ([f64; 3], f64, [f64; 2]),
}

impl ReorientConfig {
    /// The task, with its knowledge.
    ///
    /// # Errors
    /// [`EnvError::Config`], and those of the engine.
    pub fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.check()?;
        let make = |variation: &Variation| self.parts(variation);
        let env = world(name, &self.choices(), &Self::layout(), &HandConfig::names(), make)?;
        Ok(judged_by(self.objective(), env, self.knowledge()))
    }

    /// The environment alone, without variants: no delay, no noise, no time limit.
    ///
    /// # Errors
    /// As [`task`](Self::task).
    pub fn init(&self, name: &str) -> Result<MujocoEnv, EnvError> {
        self.check()?;
        let parts = self.parts(&Variation::default())?;
        bare(name, &self.choices(), &Self::layout(), &HandConfig::names(), parts)
    }

    fn parts(&self, variation: &Variation) -> Result<Parts<Reorient>, EnvError> {
        let (model, servo) = (model(&self.mjcf(variation))?, self.servo());
        let target = model.mocap("target")?;
        let play = Reorient {
            goals: self.goals.iter().map(|turn| turn.rotation((1, 1.0))).collect(),
            start_noise: self.start_noise,
            objective: self.objective(),
            servo: servo.clone(),
            target,
            view: ([0.08, 0.05, 0.28], 0.5, [150.0, -35.0]),
        };
        Ok((model, play, servo))
    }
}

/// The observation of the cube, where it started, and its goal.
fn observe_cube(sim: &Sim, obs: &mut Vec<f64>) {
    let (q, v, memory) = (sim.qpos(), sim.qvel(), sim.userdata());
    let orientation = part::<4>(q, JOINTS + 3);
    obs.extend(part::<3>(q, JOINTS));
    obs.extend(part::<3>(v, JOINTS));
    obs.extend_from_slice(axes_of(orientation).as_flattened());
    // The engine gives a free body's angular velocity in the body's own frame.
    obs.extend(turned(orientation, part::<3>(v, JOINTS + 3)));
    obs.extend(turned_by(part::<4>(memory, BEFORE), orientation));
    obs.extend(part::<3>(memory, HOME));
    let goal = part::<4>(memory, TURN);
    // Before the first episode there is none.
    let goal = if goal == [0.0; 4] { [1.0, 0.0, 0.0, 0.0] } else { goal };
    obs.extend_from_slice(axes_of(goal).as_flattened());
}

/// The rotation vector from one orientation to another, both given as unit quaternions, in the world (rad): the shorter way round.
fn turned_by(from: [f64; 4], to: [f64; 4]) -> [f64; 3] {
    // Before the first episode there is none.
    if from == [0.0; 4] {
        return [0.0; 3];
    }
    let ([a, b, c, d], [w, x, y, z]) = (from, to);
    let real = w * a + x * b + y * c + z * d;
    let rest = [x * a - w * b - y * d + z * c, y * a - w * c - z * b + x * d, z * a - w * d - x * c + y * b];
    let sine = rest.iter().map(|v| v * v).sum::<f64>().sqrt();
    if sine < 1e-12 {
        return [0.0; 3];
    }
    // A quaternion and its negative are the same orientation.
    let angle = 2.0 * (sine * real.signum()).atan2(real.abs());
    rest.map(|v| v * angle / sine)
}

/// Stores where the cube lies and draws a goal.
fn remember(sim: &mut Sim, goals: &[(usize, f64)], target: usize, rng: &mut Rng) {
    let (axis, angle) = goals[rng.below(goals.len())];
    let (home, goal) = (part::<3>(sim.qpos(), JOINTS), about(axis, angle));
    let orientation = part::<4>(sim.qpos(), JOINTS + 3);
    let memory = sim.userdata_mut();
    memory[BEFORE..BEFORE + 4].copy_from_slice(&orientation);
    memory[HOME..HOME + 3].copy_from_slice(&home);
    memory[TURN..TURN + 4].copy_from_slice(&goal);
    sim.mocap_quat_mut()[target] = goal;
}

/// How far the cube is from its goal.
fn told(next: &[f64]) -> Info {
    let axes = |first: usize| [part::<3>(next, first), part::<3>(next, first + 3)];
    info([("angle_to_goal", angle_between(&axes(AXES), &axes(GOAL)))])
}

impl Play for Reorient {
    fn observe(&self, sim: &Sim, _: f64, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[..JOINTS]);
        obs.extend_from_slice(&sim.qvel()[..JOINTS]);
        observe_cube(sim, obs);
    }

    fn judge(&self, _: &[f64], next: &[f64]) -> (f64, bool, Info) {
        let (reward, over) = judge(&self.objective, next);
        (reward, over, told(next))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        scatter(&mut state.qpos[..JOINTS], &self.servo.rest, &self.servo, self.start_noise, rng);
        state.qpos[JOINTS..JOINTS + 2].iter_mut().for_each(|x| *x += 0.002 * rng.normal_f64());
    }

    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        wait(sim, 0.6)?;
        remember(sim, &self.goals, self.target, rng);
        Ok(())
    }

    fn show(&self, _: f64, controls: &mut Controls<'_>) {
        let orientation = part::<4>(controls.qpos(), JOINTS + 3);
        controls.userdata_mut()[BEFORE..BEFORE + 4].copy_from_slice(&orientation);
    }

    fn view(&self) -> ([f64; 3], f64, [f64; 2]) {
        self.view
    }
}
