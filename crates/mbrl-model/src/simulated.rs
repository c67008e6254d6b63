//! A simulator as a model: planning with the ground truth.

use std::{fmt, sync::Mutex};

use burn::tensor::{Bool, Device, Tensor, TensorData};
use mbrl_env::{Simulator, Situation, Snapshot};
use rayon::prelude::*;

use crate::{
    Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction, Start, Trajectories, dynamics::check_size,
    ensemble::to_vec,
};

/// A pool of clones of a simulator as a [`Dynamics`]: a roll-out restores the situation's snapshot in a clone for each
/// candidate and steps it, on all threads of the current rayon pool.
///
/// It gives the simulator's own rewards and ends. It needs a situation with a snapshot: a simulator cannot be put into a state
/// known by its observation alone, so `predict`, `sample` and starts from states are [`ModelError::Unsupported`]. A snapshot
/// holds the simulator's generators too: whatever noise it draws, planning foresees; so there is one particle.
///
/// A clone's episode may end within the horizon, by a time limit too: from then on its last observation is repeated and
/// `terminated` stays set, so that [`returns`](https://docs.rs/mbrl-plan) counts nothing after it.
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
        let spec = DynamicsSpec {
            name: format!("simulator {}", env.name),
            state: env.obs.width(),
            obs: env.obs.width(),
            action: env.actions.width(),
            members: 1,
            device: device.clone(),
            differentiable: false,
        };
        Self { spec, pool: Mutex::default(), original: Mutex::new(simulator) }
    }

    fn unsupported<T>(&self, what: &'static str) -> Result<T, ModelError> {
        Err(ModelError::Unsupported { model: self.spec.name.clone(), what })
    }

    fn borrow(&self) -> Box<dyn Simulator> {
        let idle = lock(&self.pool).pop();
        idle.unwrap_or_else(|| lock(&self.original).boxed_clone())
    }

    /// One candidate: observations `[H, O]`, rewards and ends `[H]`.
    fn trajectory(&self, start: &[f32], snapshot: &Snapshot, actions: &[&[f32]]) -> Result<Trajectory, ModelError> {
        let mut simulator = self.borrow();
        let mut out = Trajectory::default();
        let run = |simulator: &mut dyn Simulator, out: &mut Trajectory| -> Result<(), ModelError> {
            simulator.restore(snapshot)?;
            let mut last = start.to_vec();
            let mut over = false;
            for action in actions {
                let mut reward = 0.0;
                if !over {
                    let step = simulator.step(action)?;
                    over = step.episode_over();
                    reward = step.reward as f32;
                    last = step.obs;
                }
                out.obs.extend_from_slice(&last);
                out.reward.push(reward);
                out.terminated.push(over);
            }
            Ok(())
        };
        let result = run(&mut *simulator, &mut out);
        lock(&self.pool).push(simulator);
        result.map(|()| out)
    }
}

#[derive(Default)]
struct Trajectory {
    obs: Vec<f32>,
    reward: Vec<f32>,
    terminated: Vec<bool>,
}

/// A panic in another thread leaves simulators that the next restore makes whole.
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

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
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
            let rule = "1: clones of one snapshot all see the same noise";
            return Err(ModelError::Config { field: "particles", value: particles.to_string(), rule });
        }
        let actions = to_vec(actions);
        let trajectories = (0..candidates)
            .into_par_iter()
            .map(|k| {
                let row = |t| &actions[(t * candidates + k) * width..(t * candidates + k + 1) * width];
                self.trajectory(obs, snapshot, &(0..horizon).map(row).collect::<Vec<_>>())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (rows, o) = (candidates, self.spec.obs);
        let mut states = Vec::with_capacity((horizon + 1) * rows * o);
        (0..rows).for_each(|_| states.extend_from_slice(obs));
        let (mut reward, mut terminated) = (Vec::with_capacity(horizon * rows), Vec::with_capacity(horizon * rows));
        for t in 0..horizon {
            for trajectory in &trajectories {
                states.extend_from_slice(&trajectory.obs[t * o..(t + 1) * o]);
                reward.push(trajectory.reward[t]);
                terminated.push(trajectory.terminated[t]);
            }
        }
        let device = &self.spec.device;
        Ok(Trajectories {
            obs: Tensor::from_data(TensorData::new(states, [horizon + 1, rows, o]), device),
            reward: Some(Tensor::from_data(TensorData::new(reward, [horizon, rows]), device)),
            terminated: Some(Tensor::<2, Bool>::from_data(TensorData::new(terminated, [horizon, rows]), device)),
        })
    }
}
