//! `write` on MuJoCo.

use std::f64::consts::TAU;

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
    scene::{PENCIL_AT, PENCIL_TIP, PENCIL_TIP_RADIUS, Variation},
    task::write::{JOINTS, OPEN, TARGET, WriteConfig, offset, tip},
};

/// Indices in the episode's memory: the path, its origin, and where the pencil's middle was.
const PATH: usize = OWN;
const ORIGIN: usize = OWN + 8;
const HOME: usize = OWN + 10;

struct Write {
    config: WriteConfig,
    servo: Servo,
    open: Vec<f64>,
    target: usize,
}

impl WriteConfig {
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

    fn parts(&self, variation: &Variation) -> Result<Parts<Write>, EnvError> {
        let (model, servo) = (model(&self.mjcf(variation))?, self.servo());
        let target = model.mocap("target")?;
        let open = HandConfig::angles(OPEN);
        Ok((model, Write { config: self.clone(), servo: servo.clone(), open, target }, servo))
    }
}

/// The pencil's axis.
fn axis(sim: &Sim) -> [f64; 3] {
    turned(part::<4>(sim.qpos(), JOINTS + 3), [0.0, 0.0, 1.0])
}

impl Write {
    fn phase(&self, step: f64) -> (f64, f64) {
        (TAU * step / self.config.period).sin_cos()
    }

    fn target(&self, memory: &[f64], step: f64) -> [f64; 2] {
        let [x, y] = offset(&self.phase(step), &part::<8>(memory, PATH));
        [memory[ORIGIN] + x, memory[ORIGIN + 1] + y]
    }
}

impl Play for Write {
    fn observe(&self, sim: &Sim, step: f64, obs: &mut Vec<f64>) {
        let (q, v, memory) = (sim.qpos(), sim.qvel(), sim.userdata());
        obs.extend_from_slice(&q[..JOINTS]);
        obs.extend_from_slice(&v[..JOINTS]);
        obs.extend(part::<3>(q, JOINTS));
        obs.extend(part::<3>(v, JOINTS));
        obs.extend(axis(sim));
        obs.extend(turned(part::<4>(q, JOINTS + 3), part::<3>(v, JOINTS + 3)));
        let (sin, cos) = self.phase(step);
        obs.extend([cos, sin]);
        obs.extend(self.target(memory, step));
        obs.extend(part::<2>(memory, ORIGIN));
        obs.extend(part::<8>(memory, PATH));
        obs.extend(part::<3>(memory, HOME));
    }

    fn judge(&self, _: &[f64], next: &[f64]) -> (f64, bool, Info) {
        let (reward, over) = judge(&self.config.objective(), next);
        let [x, y, z] = tip(&|column: usize| next[column]);
        let away = (x - next[TARGET]).hypot(y - next[TARGET + 1]);
        (reward, over, info([("tip_height", z - PENCIL_TIP_RADIUS), ("tip_to_target", away)]))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        scatter(&mut state.qpos[..JOINTS], &self.open, &self.servo, self.config.start_noise, rng);
    }

    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        // Held until the servos have closed, then released.
        let steps = (0.3 / sim.model().timestep()).ceil() as u32;
        let ([x, y, z], turn) = PENCIL_AT;
        let norm = turn.iter().map(|t| t * t).sum::<f64>().sqrt();
        for _ in 0..steps {
            let held = &mut sim.qpos_mut()[JOINTS..JOINTS + 7];
            held[..3].copy_from_slice(&[x, y, z]);
            held[3..].iter_mut().zip(turn).for_each(|(to, from)| *to = from / norm);
            sim.qvel_mut()[JOINTS..JOINTS + 6].fill(0.0);
            sim.advance(1)?;
        }
        wait(sim, 0.3)?;
        let (at, up) = (part::<3>(sim.qpos(), JOINTS), axis(sim));
        let path = self.config.draw_path(rng);
        let memory = sim.userdata_mut();
        memory[PATH..PATH + 8].copy_from_slice(&path);
        for k in 0..2 {
            memory[ORIGIN + k] = at[k] + PENCIL_TIP * up[k];
        }
        memory[HOME..HOME + 3].copy_from_slice(&at);
        let [x, y] = self.target(sim.userdata(), 0.0);
        sim.mocap_pos_mut()[self.target] = [x, y, 0.0];
        Ok(())
    }

    fn show(&self, step: f64, controls: &mut Controls<'_>) {
        let [x, y] = self.target(controls.userdata(), step);
        controls.mocap_pos_mut()[self.target] = [x, y, 0.0];
    }

    fn view(&self) -> ([f64; 3], f64, [f64; 2]) {
        ([0.08, 0.07, 0.05], 0.4, [-30.0, -30.0])
    }
}
