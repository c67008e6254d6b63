//! Steps with a backward pass, on a CPU and without Burn's autodiff: forward through the networks with a tape, back by hand.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{KnownAt, KnownGrads, Lanes, TILE};
use multiversion::multiversion;

use super::{Assignment, Ensemble, Head, Inputs, Predicted, delta, predicted::fill, to_vec};
use crate::{
    Draw, Imagined, MemberRule, ModelError, Pullback, Taped,
    mlp::{HostMlp, MlpConfig, Pass, Rows, Tape},
    taped::check_sizes,
    vmath,
};

/// The elites, and what stands around them.
#[derive(Debug)]
pub(super) struct HostTaped {
    networks: HostMlp,
    seen: Inputs,
    predicted: Predicted,
    obs: usize,
    action: usize,
    has_reward: bool,
    input_std: Vec<f32>,
    target_mean: Vec<f32>,
    target_std: Vec<f32>,
    /// 1 for columns of the observation that are predicted as a change, 0 for all others, `[O]`.
    delta: Vec<f32>,
    /// Largest and smallest log-variance and scale of each predicted column, for [`TILE`] rows, `[TILE, D]` each.
    bounds: [Vec<f32>; 3],
    /// Tapes that are not in use.
    tapes: Mutex<Vec<Tape>>,
}

/// What the backward pass needs of a step.
struct Back {
    model: Arc<HostTaped>,
    tape: Tape,
    /// Row of the inputs that each row of each member's batch is, `[E, B]`; padding is [`PADDING`].
    rows: Vec<usize>,
    /// The weight of each row of the outputs: 1, or 1/E where a row follows the mean over members.
    share: f32,
    /// Outputs `[E, B, out]`.
    outputs: Vec<f32>,
    /// The noise, where it was drawn.
    noise: Option<Noise>,
    /// Rows, N.
    count: usize,
    /// States and actions, where there are angles, features or known columns.
    seen: Option<[Vec<f32>; 2]>,
    /// Next observations, where there are known columns.
    next: Option<Vec<f32>>,
    device: Device,
}

/// Noise of a step.
struct Noise {
    /// Normals `[N, D]`.
    normals: Vec<f32>,
    /// Its standard deviation by each row of the outputs `[E, B, D]`.
    stds: Vec<f32>,
    /// Their slopes by the raw log-variance `[E, B, D]`.
    slopes: Vec<f32>,
}

const PADDING: usize = usize::MAX;

impl Ensemble {
    /// Whether a step is taped without Burn: its backward pass is then that of [`HostMlp`].
    pub(super) fn tapes_on_the_host(&self, draw: Draw) -> bool {
        self.use_engine && self.config.past == 0 && draw.propagation.rule != MemberRule::Ds
    }

    fn host_taped(&self) -> Arc<HostTaped> {
        let made = self.taped.get_or_init(|| {
            let network = &self.device_weights.network;
            let outputs = network.biases.last().map_or(0, |bias| bias.val().dims()[2]);
            let config = MlpConfig { members: self.elites.len(), ..self.config.mlp(self.seen.width(), outputs) };
            Arc::new(HostTaped {
                networks: HostMlp::from_params(&config, [&network.weights, &network.biases, &[], &[]]),
                seen: self.seen.clone(),
                predicted: self.predicted.clone(),
                obs: self.spec.obs,
                action: self.spec.action,
                has_reward: self.config.reward,
                input_std: self.inputs.std().to_vec(),
                target_mean: self.targets.mean().to_vec(),
                target_std: self.targets.std().to_vec(),
                delta: {
                    let mut delta = delta(&self.config, self.spec.obs);
                    self.predicted.known_columns().iter().for_each(|column| delta[*column] = 0.0);
                    delta
                },
                bounds: {
                    let columns = self.predicted.count();
                    let (max, min) = (to_vec(network.max_log_var.val()), to_vec(network.min_log_var.val()));
                    [&max, &min, self.targets.std()].map(|bound| bound[..columns.min(bound.len())].repeat(TILE))
                },
                tapes: Mutex::default(),
            })
        });
        Arc::clone(made)
    }

    pub(super) fn sample_taped_on_the_host(
        &self,
        states: Tensor<2>,
        actions: Tensor<2>,
        draw: Draw,
    ) -> Result<Taped, ModelError> {
        let (count, device) = (states.dims()[0], self.spec.device.clone());
        let model = self.host_taped();
        let members = self.elites.len();
        let (rows, share) = match self.assign(&draw, count)? {
            Assignment::All => ((0..members).flat_map(|_| 0..count).collect(), 1.0 / members as f32),
            Assignment::Particles(assigned) | Assignment::Rows(assigned) => {
                (rows_of(&assigned, count / assigned.len(), members), 1.0)
            }
            Assignment::Mixture => unreachable!("it is not taped here"),
        };
        let knows = self.predicted.known.is_some();
        let needs_inputs = !self.seen.angles.is_empty() || self.seen.features.is_some() || knows;
        let inputs = to_vec(self.network_inputs(states.clone(), actions.clone()));
        let states = to_vec(states);
        let seen = needs_inputs.then(|| [states.clone(), to_vec(actions)]);
        let mut tape = model.tapes.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        // Padding repeats the first row; nothing reads it.
        let picked: Vec<usize> = rows.iter().map(|row| if *row == PADDING { 0 } else { *row }).collect();
        let outputs = model.networks.forward(Rows::Picked { of: &inputs, rows: &picked }, Pass::Infer, Some(&mut tape));
        let follows_mean = draw.propagation.rule == MemberRule::Expectation;
        let noisy = draw.propagation.noise && !follows_mean && self.config.head == Head::Gaussian;
        let normals = noisy.then(|| to_vec(draw.normals([count, self.predicted.count()], &device)));
        let noise = normals.map(|normals| model.noise(normals, &outputs));
        let mut back = Back { model, tape, rows, share, outputs, noise, count, seen, next: None, device };
        let (mut next, reward, ends) = back.outcome(&states, self.config.termination);
        let o = self.spec.obs;
        for wrap in &self.wraps {
            for row in next.chunks_mut(o) {
                wrap.place(&mut row[wrap.column..=wrap.column]);
            }
        }
        if knows {
            back.complete(&mut next);
            back.next = Some(next.clone());
        }
        let device = &back.device;
        let mut imagined = Imagined::new(Tensor::from_data(TensorData::new(next, [count, o]), device));
        imagined.reward = reward.map(|reward| Tensor::from_data(TensorData::new(reward, [count]), device));
        imagined.terminated = ends.map(|ends| Tensor::from_data(TensorData::new(ends, [count]), device));
        Ok(Taped::new(imagined, Box::new(back)))
    }
}

/// Rows of each member, padded to as many for each: groups of `each` successive rows belong to the member that is assigned.
fn rows_of(assigned: &[usize], each: usize, members: usize) -> Vec<usize> {
    let mut shares = vec![Vec::new(); members];
    for (group, &member) in assigned.iter().enumerate() {
        shares[member].extend(group * each..(group + 1) * each);
    }
    let longest = shares.iter().map(Vec::len).max().unwrap_or(0);
    for share in &mut shares {
        share.resize(longest, PADDING);
    }
    shares.concat()
}

impl HostTaped {
    /// Columns of the means: the predicted ones of the observation, and the reward's.
    fn columns(&self) -> usize {
        self.predicted.count() + usize::from(self.has_reward)
    }

    /// The noise of outputs `[E, B, out]`.
    fn noise(&self, normals: Vec<f32>, outputs: &[f32]) -> Noise {
        let (first, count, out) = (self.columns(), self.predicted.count(), self.networks.config().outputs);
        let mut stds: Vec<f32> = outputs.chunks(out).flat_map(|said| &said[first..][..count]).copied().collect();
        let (mut slopes, chunk) = (vec![0.0; stds.len()], (TILE * count).max(1));
        for (stds, slopes) in stds.chunks_mut(chunk).zip(slopes.chunks_mut(chunk)) {
            spread(stds, slopes, &self.bounds);
        }
        Noise { normals, stds, slopes }
    }
}

/// Makes standard deviations and their slopes from raw log-variances, whose largest and smallest values and scales are `bounds`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn spread(raw: &mut [f32], slopes: &mut [f32], [max, min, scale]: &[Vec<f32>; 3]) {
    for ((((raw, slope), &max), &min), scale) in raw.iter_mut().zip(slopes).zip(max).zip(min).zip(scale) {
        let below_max = max - vmath::softplus(max - *raw);
        let log_var = min + vmath::softplus(below_max - min);
        let std = vmath::exp(0.5 * log_var) * scale;
        let upper = 1.0 / (1.0 + vmath::exp(*raw - max));
        let lower = 1.0 / (1.0 + vmath::exp(min - below_max));
        (*raw, *slope) = (std, 0.5 * std * upper * lower);
    }
}

impl Back {
    /// Next observations `[N, O]` without their known columns, rewards and terminations `[N]`.
    fn outcome(&self, states: &[f32], terminates: bool) -> (Vec<f32>, Option<Vec<f32>>, Option<Vec<bool>>) {
        let model = &*self.model;
        let (o, out) = (model.obs, model.networks.config().outputs);
        let mut next: Vec<f32> =
            states.chunks(o).flat_map(|row| row.iter().zip(&model.delta).map(|(s, delta)| s * delta)).collect();
        let mut reward = model.has_reward.then(|| vec![0.0; self.count]);
        let mut end = terminates.then(|| vec![0.0; self.count]);
        for (i, (said, &row)) in self.outputs.chunks(out).zip(&self.rows).enumerate() {
            if row == PADDING {
                continue;
            }
            let mean = |d: usize| said[d] * model.target_std[d] + model.target_mean[d];
            let (next, count) = (&mut next[row * o..][..o], model.predicted.count());
            for (d, column) in model.predicted.columns.iter().enumerate() {
                next[*column] += self.share * mean(d);
                if let Some(noise) = &self.noise {
                    next[*column] += noise.stds[i * count + d] * noise.normals[row * count + d];
                }
            }
            if let Some(reward) = &mut reward {
                reward[row] += self.share * mean(count);
            }
            if let Some(end) = &mut end {
                end[row] += self.share / (1.0 + vmath::exp(-said[out - 1]));
            }
        }
        (next, reward, end.map(|end| end.into_iter().map(|p| p > 0.5).collect()))
    }

    /// Gradients of the networks' inputs `[N, in]`, of standardised columns.
    fn to_inputs(&self, next: &[f32], reward: Option<&[f32]>) -> Vec<f32> {
        let model = &*self.model;
        let (o, columns, out) = (model.obs, model.columns(), model.networks.config().outputs);
        let mut gradients = vec![0.0; self.outputs.len()];
        for (i, (gradient, &row)) in gradients.chunks_mut(out).zip(&self.rows).enumerate() {
            if row == PADDING {
                continue;
            }
            let count = model.predicted.count();
            for (d, column) in model.predicted.columns.iter().enumerate() {
                let next = next[row * o + column];
                gradient[d] = self.share * next * model.target_std[d];
                if let Some(noise) = &self.noise {
                    gradient[columns + d] = next * noise.normals[row * count + d] * noise.slopes[i * count + d];
                }
            }
            if let (true, Some(reward)) = (model.has_reward, reward) {
                gradient[count] = self.share * reward[row] * model.target_std[count];
            }
        }
        let width = model.networks.config().inputs;
        let mut inputs = vec![0.0; self.count * width];
        for (gradient, &row) in model.networks.input_grad(&self.tape, &gradients).chunks(width).zip(&self.rows) {
            if row != PADDING {
                for ((sum, gradient), std) in
                    inputs[row * width..][..width].iter_mut().zip(gradient).zip(&model.input_std)
                {
                    *sum += gradient / std;
                }
            }
        }
        inputs
    }
}

impl Pullback for Back {
    fn pull(mut self: Box<Self>, next: Tensor<2>, reward: Option<Tensor<1>>) -> Result<[Tensor<2>; 2], ModelError> {
        let (o, a) = (self.model.obs, self.model.action);
        check_sizes([self.count, o], &next, reward.as_ref())?;
        let (mut next, reward) = (to_vec(next), reward.map(to_vec));
        let known = self.pull_known(&mut next);
        let inputs = self.to_inputs(&next, reward.as_deref());
        let model = Arc::clone(&self.model);
        model.tapes.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.tape));
        let mut states: Vec<f32> =
            next.chunks(o).flat_map(|row| row.iter().zip(&model.delta).map(|(g, delta)| g * delta)).collect();
        let mut actions = vec![0.0; self.count * a];
        let (plain, angles) = (model.seen.plain.len(), model.seen.angles.len());
        for (row, gradient) in inputs.chunks(model.networks.config().inputs).enumerate() {
            let state = &mut states[row * o..][..o];
            for (column, gradient) in model.seen.plain.iter().zip(gradient) {
                state[*column] += gradient;
            }
            for (i, (column, scale)) in model.seen.angles.iter().enumerate() {
                let angle = self.seen.as_ref().map_or(0.0, |[states, _]| states[row * o + column]);
                let (sin, cos) = (angle * scale).sin_cos();
                state[*column] += scale * (gradient[plain + i] * cos - gradient[plain + angles + i] * sin);
            }
            actions[row * a..][..a].copy_from_slice(&gradient[plain + 2 * angles..][..a]);
        }
        if let Some([to_states, to_actions]) = known {
            states.iter_mut().zip(to_states).for_each(|(sum, gradient)| *sum += gradient);
            actions.iter_mut().zip(to_actions).for_each(|(sum, gradient)| *sum += gradient);
        }
        if let Some(seen) = &self.seen {
            let first = plain + 2 * angles + a;
            model.pull_features([&seen[0], &seen[1]], &inputs, first, [&mut states, &mut actions]);
        }
        let tensor = |values, width| Tensor::from_data(TensorData::new(values, [self.count, width]), &self.device);
        Ok([tensor(states, o), tensor(actions, a)])
    }
}

impl HostTaped {
    /// Adds the features' contribution, from their gradients in the columns from `first` on, to the gradients of states and actions.
    fn pull_features(
        &self,
        [states, actions]: [&[f32]; 2],
        inputs: &[f32],
        first: usize,
        [grad_states, grad_actions]: [&mut [f32]; 2],
    ) {
        let Some(features) = &self.seen.features else { return };
        let (o, a, width, count) = (self.obs, self.action, self.networks.config().inputs, states.len() / self.obs);
        let lanes = |columns: usize| -> Vec<Lanes> { vec![[0.0; TILE]; columns] };
        let (mut s, mut u, mut g) = (lanes(o), lanes(a), lanes(features.width()));
        for row in (0..count).step_by(TILE) {
            let n = TILE.min(count - row);
            fill(&mut s, &states[row * o..], o, n);
            fill(&mut u, &actions[row * a..], a, n);
            fill(&mut g, &inputs[row * width + first..], width, n);
            let (mut to_states, mut to_actions) = (lanes(o), lanes(a));
            features.pullback(&s, &u, &g, &mut to_states, &mut to_actions);
            add(&to_states, &mut grad_states[row * o..], n);
            add(&to_actions, &mut grad_actions[row * a..], n);
        }
    }
}

impl Back {
    /// Puts the known columns into next observations `[N, O]`.
    fn complete(&self, next: &mut [f32]) {
        let (Some([states, actions]), model) = (&self.seen, &*self.model) else { return };
        model.predicted.complete_rows([states, actions], next, [model.obs, model.action]);
    }

    /// The contribution of gradients `[N, O]` of the known columns to those of states `[N, O]` and actions `[N, A]`; their
    /// contribution to those of the predicted columns is added there.
    fn pull_known(&self, grad: &mut [f32]) -> Option<[Vec<f32>; 2]> {
        let model = &*self.model;
        let (known, [states, actions]) = (model.predicted.known.as_ref()?, self.seen.as_ref()?);
        let (next, columns) = (self.next.as_ref()?, known.columns());
        let (o, a) = (model.obs, model.action);
        let lanes = |columns: usize| -> Vec<Lanes> { vec![[0.0; TILE]; columns] };
        let (mut s, mut u, mut after, mut all) = (lanes(o), lanes(a), lanes(o), lanes(o));
        let (mut grad_states, mut grad_actions) = (vec![0.0; states.len()], vec![0.0; actions.len()]);
        for row in (0..self.count).step_by(TILE) {
            let n = TILE.min(self.count - row);
            fill(&mut s, &states[row * o..], o, n);
            fill(&mut u, &actions[row * a..], a, n);
            fill(&mut after, &next[row * o..], o, n);
            fill(&mut all, &grad[row * o..], o, n);
            let of_known: Vec<Lanes> = columns.iter().map(|column| all[*column]).collect();
            let (mut to_states, mut to_actions, mut to_next) = (lanes(o), lanes(a), lanes(o));
            let at = KnownAt { obs: &s, actions: &u, next: &after };
            let into = KnownGrads { obs: &mut to_states, actions: &mut to_actions, next: &mut to_next };
            known.pullback(at, &of_known, into);
            add(&to_states, &mut grad_states[row * o..], n);
            add(&to_actions, &mut grad_actions[row * a..], n);
            add(&to_next, &mut grad[row * o..], n);
        }
        Some([grad_states, grad_actions])
    }
}

/// Adds the first `n` lanes of a tile to rows of as many columns.
fn add(tile: &[Lanes], rows: &mut [f32], n: usize) {
    for (lane, row) in rows.chunks_mut(tile.len().max(1)).take(n).enumerate() {
        row.iter_mut().zip(tile).for_each(|(sum, column)| *sum += column[lane]);
    }
}
