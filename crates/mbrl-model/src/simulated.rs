//! A simulator as a model: planning with the ground truth.

use std::{fmt, sync::Mutex};

use burn::tensor::{Bool, Device, Tensor, TensorData};
use mbrl_env::{EnvError, Simulator, Situation, Snapshot};
use rayon::prelude::*;
use tracing::trace_span;

use crate::{
    Choose, Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction, Start, Trajectories,
    dynamics::{check_size, put_step},
    ensemble::to_vec,
};

/// A pool of clones of a simulator as a [`Dynamics`]: a roll-out restores the situation's snapshot in a clone for each
/// candidate and steps it, on all threads of the current rayon pool.
///
/// It gives the simulator's own rewards and terminations. It needs a situation with a snapshot: a simulator cannot be put into a state
/// that is known only by its observation, so `predict`, `sample` and starts from states are [`ModelError::Unsupported`]. A snapshot
/// holds the simulator's random generators too, so planning foresees whatever noise it draws; therefore there is one particle.
///
/// A candidate whose simulation breaks down ([`EnvError::Simulation`]) has a NaN reward at that step and terminates there:
/// planners rank it last.
///
/// A clone's episode may end within the horizon, by a time limit too: from then on its last observation is repeated and
/// `terminated` stays set, so that [`returns`](https://docs.rs/mbrl-plan) counts nothing after it. A planner has no reason to
/// avoid the limit: all candidates start from one situation and reach it after the same number of steps.
pub struct SimulatorModel {
    spec: DynamicsSpec,
    pool: Mutex<Vec<Box<dyn Simulator>>>,
    original: Mutex<Box<dyn Simulator>>,
}

impl fmt::Debug for SimulatorModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorModel").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl SimulatorModel {
    /// A model of `simulator`, whose results are put on `device`.
    #[must_use]
    pub fn new(simulator: Box<dyn Simulator>, device: &Device) -> Self {
        let env = simulator.spec();
        let name = format!("simulator {}", env.name);
        let spec = DynamicsSpec::new(name, env.obs.width(), env.actions.width(), device).with_needs_snapshot(true);
        let spec = spec.with_angles(env.angles());
        Self { spec, pool: Mutex::default(), original: Mutex::new(simulator) }
    }

    fn unsupported<T>(&self, what: &'static str) -> Result<T, ModelError> {
        Err(ModelError::Unsupported { model: self.spec.name.clone(), what })
    }

    fn borrow(&self) -> Box<dyn Simulator> {
        let idle = lock(&self.pool).pop();
        idle.unwrap_or_else(|| lock(&self.original).boxed_clone())
    }

    /// One candidate, on a simulator of the pool.
    fn trajectory<'a>(
        &self,
        start: &[f32],
        snapshot: &Snapshot,
        actions: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Result<Trajectory, ModelError> {
        let mut simulator = self.borrow();
        let followed = Trajectory::follow(&mut *simulator, start, snapshot, actions);
        lock(&self.pool).push(simulator);
        followed
    }
}

/// One candidate's observations `[H, O]`, rewards and terminations `[H]`.
struct Trajectory {
    obs: Vec<f32>,
    reward: Vec<f32>,
    terminated: Vec<bool>,
    /// The step in which it was cut from outside.
    cut: Option<usize>,
}

impl Trajectory {
    fn follow<'a>(
        simulator: &mut dyn Simulator,
        start: &[f32],
        snapshot: &Snapshot,
        actions: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Result<Self, ModelError> {
        let (horizon, width) = (actions.len(), start.len());
        let mut obs = Vec::with_capacity(horizon * width);
        let mut reward = Vec::with_capacity(horizon);
        let mut terminated = Vec::with_capacity(horizon);
        let mut cut = None;
        simulator.restore(snapshot)?;
        for action in actions {
            let step = match simulator.step(action) {
                // The candidate is at fault, not the plan: planners rank NaN last.
                Err(EnvError::Simulation { .. }) => {
                    let last = if obs.is_empty() { start.to_vec() } else { obs[obs.len() - width..].to_vec() };
                    obs.extend(last);
                    reward.push(f32::NAN);
                    terminated.push(true);
                    break;
                }
                step => step?,
            };
            let over = step.episode_over();
            check_size("entries of the simulator's observation", width, step.obs.len())?;
            obs.extend_from_slice(&step.obs);
            reward.push(step.reward as f32);
            terminated.push(over);
            if over {
                cut = (!step.terminated).then_some(reward.len() - 1);
                break;
            }
        }
        let missing = horizon - reward.len();
        if missing > 0 {
            let last = obs.len() - width;
            (0..missing).for_each(|_| obs.extend_from_within(last..last + width));
        }
        reward.resize(horizon, 0.0);
        terminated.resize(horizon, true);
        Ok(Self { obs, reward, terminated, cut })
    }
}

/// A panic in another thread leaves simulators that the next restore repairs.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Dynamics for SimulatorModel {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, _: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
        self.unsupported("predict from states alone: it needs a snapshot")
    }

    fn sample(&self, _: Tensor<2>, _: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
        self.unsupported("step from states alone: it needs a snapshot")
    }

    fn rollout_policy(
        &self,
        situation: &Situation<'_>,
        [rows, steps]: [usize; 2],
        choose: &mut Choose<'_>,
        _: Draw,
    ) -> Result<Vec<f32>, ModelError> {
        let Some(snapshot) = situation.snapshot else {
            return Err(ModelError::NeedsSnapshot { model: self.spec.name.clone() });
        };
        let (width, o) = (self.spec.action, self.spec.obs);
        check_size("entries of the observation", o, situation.obs.len())?;
        let mut clones: Vec<_> = (0..rows).map(|_| Some(self.borrow())).collect();
        for clone in clones.iter_mut().flatten() {
            clone.restore(snapshot)?;
        }
        let mut obs = situation.obs.repeat(rows);
        let mut actions = vec![0.0; rows * steps * width];
        for t in 0..steps {
            let chosen = choose(&obs, t);
            check_size("entries of the chosen actions", rows * width, chosen.len())?;
            put_step(&mut actions, &chosen, [steps, width], t);
            let each = clones.iter_mut().zip(obs.chunks_exact_mut(o)).zip(chosen.chunks_exact(width));
            for ((running, obs), action) in each {
                let Some(clone) = running else { continue };
                // Where an episode is over or broke down, its row stands still.
                let over = match clone.step(action) {
                    Err(EnvError::Simulation { .. }) => true,
                    step => {
                        let step = step?;
                        check_size("entries of the simulator's observation", o, step.obs.len())?;
                        obs.copy_from_slice(&step.obs);
                        step.episode_over()
                    }
                };
                if over && let Some(clone) = running.take() {
                    lock(&self.pool).push(clone);
                }
            }
        }
        lock(&self.pool).extend(clones.into_iter().flatten());
        Ok(actions)
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let _span = trace_span!("imagine", model = %self.spec.name).entered();
        let Start::Situation(Situation { obs, snapshot, .. }) = from else {
            return self.unsupported("start from states: it needs a snapshot");
        };
        let Some(snapshot) = snapshot else {
            return Err(ModelError::NeedsSnapshot { model: self.spec.name.clone() });
        };
        let [horizon, candidates, width] = actions.dims();
        check_size("columns of actions", self.spec.action, width)?;
        check_size("entries of the observation", self.spec.obs, obs.len())?;
        if actions.is_autodiff() {
            return self.unsupported("carry gradients");
        }
        let particles = draw.propagation.particles;
        if particles != 1 {
            let rule = "1, because clones of one snapshot all see the same noise".into();
            return Err(ModelError::Config { field: "particles", value: particles.to_string(), rule });
        }
        let actions = to_vec(actions);
        let trajectories: Vec<_> = (0..candidates)
            .into_par_iter()
            // One by one: where some terminate early, a thread with many long ones would otherwise be left working alone.
            .with_max_len(1)
            .map(|k| {
                let action = |t| &actions[(t * candidates + k) * width..][..width];
                self.trajectory(obs, snapshot, (0..horizon).map(action))
            })
            .collect();
        // The first error, whichever thread met one first.
        let trajectories = trajectories.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (rows, o) = (candidates, self.spec.obs);
        let mut states = Vec::with_capacity((horizon + 1) * rows * o);
        (0..rows).for_each(|_| states.extend_from_slice(obs));
        let (mut reward, mut terminated) = (Vec::with_capacity(horizon * rows), Vec::with_capacity(horizon * rows));
        let mut cut = Vec::with_capacity(horizon * rows);
        for t in 0..horizon {
            for trajectory in &trajectories {
                states.extend_from_slice(&trajectory.obs[t * o..(t + 1) * o]);
                reward.push(trajectory.reward[t]);
                terminated.push(trajectory.terminated[t]);
                cut.push(trajectory.cut == Some(t));
            }
        }
        let device = &self.spec.device;
        Ok(Trajectories {
            obs: Tensor::from_data(TensorData::new(states, [horizon + 1, rows, o]), device),
            reward: Some(Tensor::from_data(TensorData::new(reward, [horizon, rows]), device)),
            terminated: Some(Tensor::<2, Bool>::from_data(TensorData::new(terminated, [horizon, rows]), device)),
            cut: Some(Tensor::<2, Bool>::from_data(TensorData::new(cut, [horizon, rows]), device)),
        })
    }
}
