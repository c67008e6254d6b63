//! `baoding` on MuJoCo.

use std::f64::consts::{PI, TAU};

use mbrl_env::{
    EnvError, Info, Rng,
    mujoco::{Controls, InitialState, MujocoEnv, Sim},
    tasks::Task,
};

use super::{OWN, Parts, Play, bare, info, judged_by, model, part, scatter, wait, world};
use crate::{
    Servo,
    objective::judge,
    robot::HandConfig,
    scene::Variation,
    task::baoding::{BALLS, BaodingConfig, BaodingGoal, BaodingObjective, JOINTS, START_PHASE, TARGETS, Targets},
};

/// Indices in the episode's memory: the phase at the start, minus the angle that the targets have waited since; the turn per step by the clock.
const PHASE: usize = OWN;
const TURN: usize = OWN + 1;

/// Indices of the balls' positions and velocities in the engine's state.
const POSITIONS: [usize; 2] = [JOINTS, JOINTS + 7];
const VELOCITIES: [usize; 2] = [JOINTS, JOINTS + 6];

/// Balls in a hand, with arbitrary targets.
pub(crate) struct Baoding {
    pub(crate) goal: BaodingGoal,
    pub(crate) period: f64,
    pub(crate) start_noise: f64,
    pub(crate) objective: BaodingObjective,
    pub(crate) servo: Servo,
    pub(crate) targets: Targets,
    /// Bodies that show them.
    pub(crate) shown_by: [usize; 2],
    pub(crate) start_phase: f64,
    /// Height at which targets are shown (m): above the balls.
    pub(crate) shown: f64,
    /// The camera's target point, distance, azimuth and elevation.
    pub(crate) view: ([f64; 3], f64, [f64; 2]),
}

impl BaodingConfig {
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

    fn parts(&self, variation: &Variation) -> Result<Parts<Baoding>, EnvError> {
        let (model, servo) = (model(&self.mjcf(variation))?, self.servo());
        let shown_by = [model.mocap("target0")?, model.mocap("target1")?];
        let play = Baoding {
            goal: self.goal,
            period: self.period,
            start_noise: self.start_noise,
            objective: self.objective(),
            servo: servo.clone(),
            targets: self.targets(),
            shown_by,
            start_phase: START_PHASE,
            shown: 0.32,
            view: ([0.06, 0.0, 0.27], 0.42, [150.0, -45.0]),
        };
        Ok((model, play, servo))
    }
}

/// The goal of the episode: the phase at the start, and the turn per step.
fn draw(goal: BaodingGoal, period: f64, start: f64, rng: &mut Rng) -> [f64; 2] {
    match goal {
        BaodingGoal::CounterClockwise => [start, TAU / period],
        BaodingGoal::Clockwise => [start, -TAU / period],
        BaodingGoal::Place => [rng.uniform_f64(-PI, PI), 0.0],
        BaodingGoal::Mixed => {
            let period = [3.0, 4.0, 6.0][rng.below(3)] * period / 3.0;
            let side = if rng.below(2) == 0 { -1.0 } else { 1.0 };
            [start + rng.uniform_f64(-1.6, 1.6), side * TAU / period]
        }
    }
}

/// The observation of balls and targets.
fn observe_balls(sim: &Sim, targets: &[[f64; 2]; 2], obs: &mut Vec<f64>) {
    for ball in 0..2 {
        obs.extend(part::<3>(sim.qpos(), POSITIONS[ball]));
        obs.extend(part::<3>(sim.qvel(), VELOCITIES[ball]));
    }
    obs.extend_from_slice(targets.as_flattened());
    obs.push(sim.userdata()[TURN]);
}

/// The direction from the second ball to the first.
fn direction(first: [f64; 2], second: [f64; 2]) -> f64 {
    (first[1] - second[1]).atan2(first[0] - second[0])
}

/// The outcome of a step: by how much the balls turned (degrees, in the targets' direction), and how far they are from their
/// targets (m).
fn told(before: &[f64], next: &[f64]) -> Info {
    let at = |first: usize| part::<2>(next, first);
    let turned = (direction(at(BALLS[0]), at(BALLS[1])) - before[0] + PI).rem_euclid(TAU) - PI;
    let away = |ball: usize| {
        let ([x, y], [u, v]) = (at(BALLS[ball]), at(TARGETS[ball]));
        (x - u).hypot(y - v)
    };
    info([("ball_to_target", (away(0) + away(1)) / 2.0), ("turned", turned.to_degrees() * before[1].signum())])
}

/// The balls' direction and the targets' turn, before a step.
fn measure_balls(sim: &Sim, measured: &mut Vec<f64>) {
    let at = |ball: usize| part::<2>(sim.qpos(), POSITIONS[ball]);
    measured.extend([direction(at(0), at(1)), sim.userdata()[TURN]]);
}

/// Stores the goal of the episode.
fn remember(sim: &mut Sim, [phase, turn]: [f64; 2]) {
    let memory = sim.userdata_mut();
    (memory[PHASE], memory[TURN]) = (phase, turn);
}

/// Displaces the balls by a few millimetres at most.
fn scatter_balls(state: &mut InitialState, rng: &mut Rng) {
    for first in POSITIONS {
        state.qpos[first..first + 2].iter_mut().for_each(|x| *x += 0.002 * rng.normal_f64());
    }
}

impl Baoding {
    /// Where the targets are after this many steps.
    fn at(&self, memory: &[f64], step: f64) -> [[f64; 2]; 2] {
        let phase = memory[PHASE] + memory[TURN] * step;
        [0.0, PI].map(|more| self.targets.at(phase + more))
    }

    /// Turns the targets back by the angle that they wait in the step to `next`.
    fn hold_back(&self, next: f64, controls: &mut Controls<'_>) {
        let [first, second] = POSITIONS.map(|ball| part::<2>(controls.qpos(), ball));
        let turn = controls.userdata()[TURN];
        let target = self.at(controls.userdata(), next - 1.0)[0];
        let advance = self.targets.advance(&turn, &target, &first, &second);
        controls.userdata_mut()[PHASE] += advance - turn;
    }
}

impl Play for Baoding {
    fn observe(&self, sim: &Sim, step: f64, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[..JOINTS]);
        obs.extend_from_slice(&sim.qvel()[..JOINTS]);
        observe_balls(sim, &self.at(sim.userdata(), step), obs);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measure_balls(sim, measured);
    }

    fn judge(&self, before: &[f64], next: &[f64]) -> (f64, bool, Info) {
        let (reward, over) = judge(&self.objective, next);
        (reward, over, told(before, next))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        scatter(&mut state.qpos[..JOINTS], &self.servo.rest, &self.servo, self.start_noise, rng);
        scatter_balls(state, rng);
    }

    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        remember(sim, draw(self.goal, self.period, self.start_phase, rng));
        let targets = self.at(sim.userdata(), 0.0);
        for (mocap, [x, y]) in self.shown_by.into_iter().zip(targets) {
            sim.mocap_pos_mut()[mocap] = [x, y, self.shown];
        }
        wait(sim, 0.5)
    }

    fn show(&self, step: f64, controls: &mut Controls<'_>) {
        self.hold_back(step, controls);
        let targets = self.at(controls.userdata(), step);
        for (mocap, [x, y]) in self.shown_by.into_iter().zip(targets) {
            controls.mocap_pos_mut()[mocap] = [x, y, self.shown];
        }
    }

    fn view(&self) -> ([f64; 3], f64, [f64; 2]) {
        self.view
    }
}
