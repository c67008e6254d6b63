//! A market as a dynamics model: an ensemble predicts the next prices; the effect of a trade on the weights is known.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{Reward, Rng, reward_fn};
use mbrl_model::{
    Dataset, Draw, Dynamics, DynamicsSpec, Ensemble, EnsembleConfig, FitConfig, Imagined, MemberRule, ModelError,
    Prediction, Propagation, Start, Trajectories, fit, rollout_by_steps,
};

use crate::{account::trade, calibration::Gaussian, prices::Weeks};

/// Forgetting rates of the means of past returns, as the weight of the newest week: a month, half a year, five years.
const MEANS: [f64; 3] = [0.25, 1.0 / 26.0, 1.0 / 260.0];
/// Weight of the previous week's variance; RiskMetrics' 0.94, which was the best of some values before 2011 too.
pub(crate) const DECAY: f64 = 0.94;
/// Number of the ensemble's inputs for an axis besides its last return: three means, its variance; the first axis's last return and
/// variance; and how much all assets move.
const INPUTS: usize = MEANS.len() + 4;
/// Number of candidates that are rolled out together, so that their states stay in cache.
const CHUNK: usize = 8;
/// Avoids a division by 0 for portfolios without holdings.
const LEAST: f64 = 1e-6;

/// Decomposition of the returns of a market: each asset's return over its standard deviation expected from the past, and these along
/// uncorrelated directions, their principal components. The axis along which they move most is the first.
#[derive(Debug, Clone)]
pub(crate) struct Axes {
    n: usize,
    /// Root mean square of the log return of each asset in a week, `[n]`.
    spread: Vec<f64>,
    /// `[n, n]`, a row for each axis, of length 1.
    loadings: Vec<f64>,
    /// Root mean square along each axis, `[n]`.
    scale: Vec<f64>,
}

/// A step of the moving average of squares, as the logarithm of a variance.
fn remembered(log_variance: f64, square: f64) -> f64 {
    (DECAY * log_variance.exp() + (1.0 - DECAY) * square).max(LEAST).ln()
}

impl Axes {
    /// From log returns `[W, n]`.
    pub(crate) fn of(returns: &[f64], n: usize) -> Self {
        let weeks = (returns.len() / n) as f64;
        let square = |i: usize| returns.iter().skip(i).step_by(n).map(|r| r * r).sum::<f64>() / weeks;
        let spread: Vec<f64> = (0..n).map(|i| square(i).sqrt()).collect();
        let mut moments = vec![0.0; n * n];
        let mut variance = vec![0f64; n];
        for row in returns.chunks_exact(n) {
            let over: Vec<f64> = row.iter().zip(&spread).map(|(r, spread)| r / spread).collect();
            let standard: Vec<f64> = over.iter().zip(&variance).map(|(r, v)| r * (-0.5 * v).exp()).collect();
            for i in 0..n {
                for j in 0..n {
                    moments[i * n + j] += standard[i] * standard[j] / weeks;
                }
            }
            variance.iter_mut().zip(&over).for_each(|(v, r)| *v = remembered(*v, r * r));
        }
        let mut vectors = rotated(&mut moments, n);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| moments[j * n + j].total_cmp(&moments[i * n + i]));
        // Positive means that most assets rise.
        for vector in vectors.chunks_exact_mut(n).filter(|vector| vector.iter().sum::<f64>() < 0.0) {
            vector.iter_mut().for_each(|x| *x = -*x);
        }
        // Two assets that always move together leave an axis without movement.
        let least = 1e-8 * moments[order[0] * n + order[0]];
        Self {
            n,
            spread,
            loadings: order.iter().flat_map(|&k| vectors[k * n..][..n].to_vec()).collect(),
            scale: order.iter().map(|&k| moments[k * n + k].max(least).sqrt()).collect(),
        }
    }

    fn loadings(&self, axis: usize) -> &[f64] {
        &self.loadings[axis * self.n..][..self.n]
    }

    /// The expected standard deviation of an asset's next return, from its past returns.
    fn std(&self, state: &[f32], asset: usize) -> f64 {
        self.spread[asset] * (0.5 * f64::from(state[Self::movement(self.n) + asset])).exp()
    }

    // The layout of a state: blocks of n columns. The first is the last return along each axis, over its root mean square.

    /// Means of the first block.
    fn mean(n: usize, which: usize) -> usize {
        (1 + which) * n
    }

    /// Logarithms of moving averages of its squares.
    fn variance(n: usize) -> usize {
        (1 + MEANS.len()) * n
    }

    /// Logarithms of the variances of assets, relative to those of all years.
    fn movement(n: usize) -> usize {
        (2 + MEANS.len()) * n
    }

    /// The part that rewards see begins here: log returns of the assets over the last week, then weights.
    fn returns(n: usize) -> usize {
        (3 + MEANS.len()) * n
    }

    fn weights(n: usize) -> usize {
        (4 + MEANS.len()) * n
    }

    /// Width of a state.
    pub(crate) fn width(n: usize) -> usize {
        (5 + MEANS.len()) * n
    }

    /// The state before any week, with these weights.
    fn start(&self, weights: &[f64]) -> Vec<f32> {
        let mut state = vec![0.0; Self::width(self.n)];
        self.hold(&mut state, weights);
        state
    }

    /// Puts weights into a state.
    pub(crate) fn hold(&self, state: &mut [f32], weights: &[f64]) {
        for (column, weight) in state[Self::weights(self.n)..].iter_mut().zip(weights) {
            *column = *weight as f32;
        }
    }

    /// Updates everything except the weights after a week with returns `y` `[n]` along the axes, over their root mean squares.
    fn advance(&self, state: &mut [f32], y: &[f32]) {
        let n = self.n;
        let mut standard = vec![0.0; n];
        for (k, &y) in y.iter().enumerate() {
            let z = f64::from(y) * self.scale[k];
            standard.iter_mut().zip(self.loadings(k)).for_each(|(r, loading)| *r += z * loading);
            state[k] = y;
            for (which, weight) in MEANS.iter().enumerate() {
                let mean = &mut state[Self::mean(n, which) + k];
                *mean += *weight as f32 * (y - *mean);
            }
            let variance = &mut state[Self::variance(n) + k];
            *variance = remembered(f64::from(*variance), f64::from(y).powi(2)) as f32;
        }
        for (i, standard) in standard.iter().enumerate() {
            let r = standard * self.std(state, i);
            let movement = &mut state[Self::movement(n) + i];
            *movement = remembered(f64::from(*movement), (r / self.spread[i]).powi(2)) as f32;
            state[Self::returns(n) + i] = r as f32;
        }
    }

    /// Returns along the axes, over their root mean squares, of the log returns of the assets `[n]`.
    fn standard(&self, state: &[f32], returns: &[f64]) -> Vec<f32> {
        let standard: Vec<f64> = returns.iter().enumerate().map(|(i, r)| r / self.std(state, i)).collect();
        let along = |k| self.loadings(k).iter().zip(&standard).map(|(a, b)| a * b).sum::<f64>();
        (0..self.n).map(|k| (along(k) / self.scale[k]) as f32).collect()
    }

    /// States before each of the first `weeks` weeks and after the last, each from those before it.
    pub(crate) fn follow(&self, history: &Weeks, weeks: usize) -> Vec<Vec<f32>> {
        let even = vec![1.0 / self.n as f64; self.n];
        let mut states = vec![self.start(&even)];
        for week in 0..weeks {
            states.push(self.after(&states[week], history.returns(week)));
        }
        states
    }

    /// The state after a week with these log returns; weights stay.
    pub(crate) fn after(&self, state: &[f32], returns: &[f64]) -> Vec<f32> {
        let mut next = state.to_vec();
        self.advance(&mut next, &self.standard(state, returns));
        next
    }

    /// The ensemble's inputs for each axis: the last return, and the rest.
    fn inputs<'a>(&self, states: impl Iterator<Item = &'a [f32]>) -> [Vec<f32>; 2] {
        let n = self.n;
        let (mut last, mut rest) = (Vec::new(), Vec::new());
        for state in states {
            let movement = state[Self::movement(n)..][..n].iter().sum::<f32>() / n as f32;
            for k in 0..n {
                last.push(state[k]);
                rest.extend((0..MEANS.len()).map(|which| state[Self::mean(n, which) + k]));
                rest.extend([state[Self::variance(n) + k], state[0], state[Self::variance(n)], movement]);
            }
        }
        [last, rest]
    }

    /// The assets' standard deviations and means for a week whose distribution along the axes is given.
    fn assets(&self, state: &[f32], along: &[Gaussian]) -> Forecast {
        let n = self.n;
        let stds: Vec<f64> = (0..n).map(|i| self.std(state, i)).collect();
        let (mut assets, mut even) = (vec![(0.0, 0.0); n], (0.0, 0.0));
        for (k, y) in along.iter().enumerate() {
            let (mean, variance) = (y.mean * self.scale[k], (y.std * self.scale[k]).powi(2));
            let mut sum = 0.0;
            for ((asset, loading), std) in assets.iter_mut().zip(self.loadings(k)).zip(&stds) {
                let loading = loading * std;
                *asset = (asset.0 + mean * loading, asset.1 + variance * loading * loading);
                sum += loading / n as f64;
            }
            even = (even.0 + mean * sum, even.1 + variance * sum * sum);
        }
        let normal = |(mean, variance): (f64, f64)| Gaussian { mean, std: variance.sqrt() };
        Forecast { assets: assets.into_iter().map(normal).collect(), even: normal(even) }
    }

    /// The long-only portfolio with the least variance expected from past returns alone, `[n]`.
    pub(crate) fn least_variance(&self, state: &[f32]) -> Vec<f64> {
        let n = self.n;
        let stds: Vec<f64> = (0..n).map(|i| self.std(state, i)).collect();
        let mut covariance = vec![0.0; n * n];
        for k in 0..n {
            let along = |i: usize| self.scale[k] * self.loadings(k)[i] * stds[i];
            for i in 0..n {
                for j in 0..n {
                    covariance[i * n + j] += along(i) * along(j);
                }
            }
        }
        // Exponentiated gradient: weights stay positive, and their sum 1.
        let rate = 1.0 / (0..n).map(|i| covariance[i * n + i]).fold(0.0, f64::max);
        let mut weights = vec![1.0 / n as f64; n];
        for _ in 0..1000 {
            let slopes: Vec<f64> =
                covariance.chunks_exact(n).map(|row| row.iter().zip(&weights).map(|(c, w)| c * w).sum()).collect();
            weights.iter_mut().zip(&slopes).for_each(|(w, slope)| *w *= (-rate * slope).exp());
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        weights
    }
}

/// Rotates a symmetric matrix `[n, n]` until it is diagonal (Jacobi); its eigenvalues are then on the diagonal, and the eigenvectors in
/// the rows of the returned matrix.
fn rotated(matrix: &mut [f64], n: usize) -> Vec<f64> {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                let off = matrix[p * n + q];
                if off == 0.0 {
                    continue;
                }
                let angle = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * off);
                let t = angle.signum() / (angle.abs() + (angle * angle + 1.0).sqrt());
                let (cos, sin) = (1.0 / (t * t + 1.0).sqrt(), t / (t * t + 1.0).sqrt());
                let turn = |a: &mut [f64], i: usize, j: usize| {
                    (a[i], a[j]) = (cos * a[i] - sin * a[j], sin * a[i] + cos * a[j]);
                };
                for i in 0..n {
                    turn(matrix, i * n + p, i * n + q);
                }
                for i in 0..n {
                    turn(matrix, p * n + i, q * n + i);
                    turn(&mut vectors, p * n + i, q * n + i);
                }
            }
        }
    }
    vectors
}

/// Weights from shares `[n]` in [0, 1], each over the sum of all.
pub(crate) fn weights(shares: &[f32]) -> Vec<f64> {
    let shares: Vec<f64> = shares.iter().map(|share| f64::from(share.clamp(0.0, 1.0)) + LEAST).collect();
    let sum: f64 = shares.iter().sum();
    shares.iter().map(|share| share / sum).collect()
}

/// Logarithm of the growth of wealth in a week, after costs, from a [`Market`]'s states.
pub(crate) fn growth(n: usize, cost: f64) -> impl Reward {
    reward_fn(move |obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>| {
        let shares = actions.clamp(0.0, 1.0) + LEAST as f32;
        let target = shares.clone() / shares.sum_dim(1);
        let turnover = (target.clone() - obs.narrow(1, n, n)).abs().sum_dim(1);
        let grown = (target * next.narrow(1, 0, n).exp()).sum_dim(1);
        ((turnover * -cost as f32 + 1.0) * grown).log().squeeze_dim::<1>(1)
    })
}

/// How the ensemble is fitted.
#[derive(Debug, Clone)]
pub(crate) struct FitPlan {
    pub(crate) members: usize,
    pub(crate) hidden: usize,
    /// Optimizer steps.
    pub(crate) steps: usize,
    /// Weight decay of each layer.
    pub(crate) decay: f32,
    /// Number of weeks at the beginning that only fill the means and variances.
    pub(crate) skipped: usize,
}

impl Default for FitPlan {
    fn default() -> Self {
        Self { members: 5, hidden: 32, steps: 1000, decay: 1e-3, skipped: 52 }
    }
}

/// The next week of a market, and the effect of a trade on a portfolio.
///
/// One ensemble serves all [axes](Axes): it sees one axis at a time and predicts the distribution of the next return along it. Own orders
/// do not move prices, so all candidates of a particle go through the same weeks: draws depend on the particle, not on the candidate, and
/// portfolios are compared on the same scenarios. Particles of the first and the second half draw the same noise with opposite signs, so
/// that the means of the scenarios are the predicted ones: otherwise the noise of a few hundred draws would exceed anything predictable.
#[derive(Debug)]
pub(crate) struct Market {
    spec: DynamicsSpec,
    axes: Axes,
    ensemble: Ensemble,
    /// The last drawn scenarios: the next chunk uses them too.
    last: Mutex<Option<(Drawn, Scenarios)>>,
}

/// The key of scenarios: a state, steps, and how they are drawn.
type Drawn = (Vec<f32>, usize, Propagation, u64, u32);
/// Log returns of the assets in each step, `[H][P · n]`.
type Scenarios = Arc<Vec<Vec<f32>>>;

/// The prediction for a week.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    /// The log return of each asset.
    pub(crate) assets: Vec<Gaussian>,
    /// Their mean: that of a portfolio of equal parts, apart from rebalancing within the week.
    pub(crate) even: Gaussian,
}

impl Market {
    /// Fitted to the first `weeks` weeks.
    pub(crate) fn fitted(history: &Weeks, weeks: usize, plan: &FitPlan, rng: &mut Rng) -> Result<Self> {
        let n = history.width;
        ensure!(weeks > plan.skipped, "weeks to fit to = {weeks}: expected more than {}", plan.skipped);
        let axes = Axes::of(&history.returns[..weeks * n], n);
        let states = axes.follow(history, weeks);
        let [last, rest] = axes.inputs(states[plan.skipped..weeks].iter().map(Vec::as_slice));
        let next = states[plan.skipped + 1..].iter().flat_map(|state| &state[..n]).copied().collect::<Vec<f32>>();
        // To the ensemble, the last return is the state. The rest takes the place of actions: inputs that it does not predict.
        let data = Dataset::new(last, rest, next, 1, INPUTS)?;
        let config = EnsembleConfig {
            members: plan.members,
            hidden: vec![plan.hidden; 2],
            weight_decay: vec![plan.decay; 3],
            no_delta: vec![0],
            max_log_var: 2.0,
            min_log_var: -4.0,
            ..EnsembleConfig::default()
        };
        let mut ensemble = config.init(1, INPUTS, &Device::flex(), rng)?;
        // Errors of means hardly fall, because there is hardly anything to predict: a holdout would end the fit before variances are learned.
        let config = FitConfig {
            max_epochs: plan.steps,
            max_steps: plan.steps,
            holdout: 0.0,
            final_rate: 0.05,
            ..FitConfig::default()
        };
        fit(&mut ensemble, &data, &config, rng)?;
        Ok(Self::new(axes, ensemble))
    }

    fn new(axes: Axes, ensemble: Ensemble) -> Self {
        let n = axes.n;
        let spec = DynamicsSpec::new("market", Axes::width(n), n, &Device::flex())
            .with_view(2 * n)
            .with_members(ensemble.spec().members)
            .with_stochastic(true);
        Self { spec, axes, ensemble, last: Mutex::new(None) }
    }

    pub(crate) fn axes(&self) -> &Axes {
        &self.axes
    }

    /// The prediction for the week after a state: normal distributions with the moments of the ensemble's mixture.
    pub(crate) fn forecast(&self, state: &[f32]) -> Result<Forecast> {
        Ok(self.axes.assets(state, &self.along(&[state])?))
    }

    /// The ensemble's predictions for the axes of some states, `[N · n]`.
    fn along(&self, states: &[&[f32]]) -> Result<Vec<Gaussian>, ModelError> {
        let [last, rest] = self.asked(states);
        let Prediction { mean, aleatoric_std, epistemic_std, .. } = self.ensemble.predict(last, rest)?;
        let mut variance = vec![0.0; states.len() * self.axes.n];
        for std in [aleatoric_std, epistemic_std].into_iter().flatten() {
            variance.iter_mut().zip(host(std)).for_each(|(sum, std)| *sum += f64::from(std).powi(2));
        }
        let normal = |(mean, variance): (f32, f64)| Gaussian { mean: f64::from(mean), std: variance.sqrt() };
        Ok(host(mean).into_iter().zip(variance).map(normal).collect())
    }

    fn asked(&self, states: &[&[f32]]) -> [Tensor<2>; 2] {
        let rows = states.len() * self.axes.n;
        let [last, rest] = self.axes.inputs(states.iter().copied());
        let table = |values, width| Tensor::from_data(TensorData::new(values, [rows, width]), &self.spec.device);
        [table(last, 1), table(rest, INPUTS)]
    }

    /// Draws the next returns along the axes, `[P · n]`, for the states of P particles of one candidate, because all candidates share them.
    fn drawn(&self, particles: &[&[f32]], draw: Draw) -> Result<Vec<f32>, ModelError> {
        let Propagation { rule, noise, .. } = draw.propagation;
        let count = particles.len();
        let ask = |particles: &[&[f32]], noise| {
            let [last, rest] = self.asked(particles);
            let propagation = Propagation { rule, noise, particles: particles.len() };
            let next = self.ensemble.sample(last, rest, Draw::new(propagation, draw.key).at_step(draw.step))?.next;
            Ok::<_, ModelError>(host(next))
        };
        let drawn = noise && matches!(rule, MemberRule::Ts1 | MemberRule::TsInf);
        if !drawn || !count.is_multiple_of(2 * self.spec.members) {
            return ask(particles, noise);
        }
        let (first, second) = particles.split_at(count / 2);
        let mut all = ask(first, true)?;
        let (means, mirrored) = (ask(second, false)?, ask(second, true)?);
        all.extend(means.iter().zip(&mirrored).map(|(mean, y)| 2.0 * mean - y));
        Ok(all)
    }

    /// Draws complete scenarios from a state.
    fn scenarios(&self, start: &[f32], horizon: usize, draw: Draw) -> Result<Scenarios, ModelError> {
        let wanted = (start.to_vec(), horizon, draw.propagation, draw.key, draw.step);
        let last = |found: &Option<(Drawn, Scenarios)>| {
            found.as_ref().filter(|(drawn, _)| *drawn == wanted).map(|(_, scenarios)| scenarios.clone())
        };
        // The lock is not held while drawing, which waits for other threads.
        if let Some(scenarios) = last(&self.last.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(scenarios);
        }
        let n = self.axes.n;
        let mut market = vec![start.to_vec(); draw.propagation.particles];
        let mut all = Vec::new();
        for step in 0..horizon {
            let drawn = self.drawn(&market.iter().map(Vec::as_slice).collect::<Vec<_>>(), draw.later(step))?;
            market.iter_mut().zip(drawn.chunks_exact(n)).for_each(|(state, y)| self.axes.advance(state, y));
            all.push(market.iter().flat_map(|state| &state[Axes::returns(n)..][..n]).copied().collect());
        }
        let all = Arc::new(all);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((wanted, all.clone()));
        Ok(all)
    }

    /// Writes the weights after a trade and a week into the next state, whose returns are known.
    fn held(&self, state: &[f32], shares: &[f32], next: &mut [f32]) {
        let n = self.axes.n;
        let numbers = |from: usize, row: &[f32]| row[from..from + n].iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let mut held = numbers(Axes::weights(n), state);
        let gross: Vec<f64> = numbers(Axes::returns(n), next).into_iter().map(f64::exp).collect();
        trade(&mut held, &weights(shares), &gross, 0.0);
        self.axes.hold(next, &held);
    }

    /// Rows of states and actions, on the host.
    fn rows(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<[Vec<f32>; 2], ModelError> {
        let width = |what, expected, actual| match expected == actual {
            true => Ok(()),
            false => Err(ModelError::Width { what, expected, actual }),
        };
        width("columns of states", self.spec.state, states.dims()[1])?;
        width("columns of actions", self.spec.action, actions.dims()[1])?;
        width("rows of actions", states.dims()[0], actions.dims()[0])?;
        Ok([host(states), host(actions)])
    }

    fn table(&self, rows: Vec<f32>) -> Tensor<2> {
        let count = rows.len() / self.spec.state;
        Tensor::from_data(TensorData::new(rows, [count, self.spec.state]), &self.spec.device)
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

impl Dynamics for Market {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    /// Standard deviations are those of the returns along the axes; those of all other columns follow from them and are left at 0.
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let (n, width) = (self.axes.n, self.spec.state);
        let [states, actions] = self.rows(states, actions)?;
        let rows: Vec<&[f32]> = states.chunks_exact(width).collect();
        let along = self.along(&rows)?;
        let (mut mean, mut std) = (Vec::new(), vec![0.0; states.len()]);
        for (i, (state, along)) in rows.iter().zip(along.chunks_exact(n)).enumerate() {
            let mut next = state.to_vec();
            self.axes.advance(&mut next, &along.iter().map(|y| y.mean as f32).collect::<Vec<f32>>());
            self.held(state, &actions[i * n..][..n], &mut next);
            mean.extend(next);
            std[i * width..].iter_mut().zip(along).for_each(|(std, y)| *std = y.std as f32);
        }
        Ok(Prediction::new(self.table(mean)).with_aleatoric_std(self.table(std)))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let (n, width) = (self.axes.n, self.spec.state);
        let [states, actions] = self.rows(states, actions)?;
        let (rows, particles) = (states.len() / width, draw.propagation.particles);
        if particles == 0 || !rows.is_multiple_of(particles) {
            let rule = format!("a divisor of {rows} (the rows), at least 1").into();
            return Err(ModelError::Config { field: "particles", value: particles.to_string(), rule });
        }
        let candidates = rows / particles;
        let mut next = states.clone();
        for candidate in 0..candidates {
            let row = |particle: usize| particle * candidates + candidate;
            let own: Vec<&[f32]> = (0..particles).map(|particle| &states[row(particle) * width..][..width]).collect();
            let drawn = self.drawn(&own, draw)?;
            for (particle, y) in drawn.chunks_exact(n).enumerate() {
                let next = &mut next[row(particle) * width..][..width];
                self.axes.advance(next, y);
                self.held(own[particle], &actions[row(particle) * n..][..n], next);
            }
        }
        Ok(Imagined::new(self.table(next)))
    }

    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states.narrow(1, Axes::returns(self.axes.n), 2 * self.axes.n)
    }

    /// Draws do not depend on the candidate, so chunks give the same results as the whole.
    fn chunk_size(&self, _horizon: usize, _particles: usize) -> Option<usize> {
        Some(CHUNK)
    }

    /// From one situation, the weeks are drawn once, for all candidates of a chunk.
    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let situation = match from {
            Start::Situation(situation) => situation,
            from @ Start::States(_) => return rollout_by_steps(self, from, actions, draw),
        };
        let (n, [horizon, candidates, width]) = (self.axes.n, actions.dims());
        if width != n {
            return Err(ModelError::Width { what: "columns of actions", expected: n, actual: width });
        }
        let (start, particles) = (host(self.encode(&situation)?), draw.propagation.particles);
        let rows = particles * candidates;
        let targets: Vec<Vec<f64>> = host(actions).chunks_exact(n).map(weights).collect();
        let shown = &start[Axes::returns(n)..];
        let mut obs = Vec::with_capacity((horizon + 1) * rows * 2 * n);
        (0..rows).for_each(|_| obs.extend(shown));
        let mut held: Vec<f64> = shown[n..].iter().map(|weight| f64::from(*weight)).collect::<Vec<_>>().repeat(rows);
        for (step, returns) in self.scenarios(&start, horizon, draw)?.iter().enumerate() {
            for (p, returns) in returns.chunks_exact(n).enumerate() {
                let gross: Vec<f64> = returns.iter().map(|r| f64::from(*r).exp()).collect();
                for (k, target) in targets[step * candidates..][..candidates].iter().enumerate() {
                    let held = &mut held[(p * candidates + k) * n..][..n];
                    trade(held, target, &gross, 0.0);
                    obs.extend(returns);
                    obs.extend(held.iter().map(|weight| *weight as f32));
                }
            }
        }
        Ok(Trajectories::new(Tensor::from_data(TensorData::new(obs, [horizon + 1, rows, 2 * n]), &self.spec.device)))
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Situation;
    use mbrl_model::check::check_dynamics;

    use super::*;
    use crate::simulate;

    fn fitted(n: usize) -> (Weeks, Market) {
        let history = simulate::weeks(&simulate::Kind::Momentum { phi: 0.5 }, n, 300, 1);
        let plan = FitPlan { hidden: 16, steps: 50, ..FitPlan::default() };
        let market = Market::fitted(&history, 250, &plan, &mut Rng::new(0)).unwrap();
        (history, market)
    }

    fn table(rows: Vec<Vec<f32>>) -> Tensor<2> {
        let shape = [rows.len(), rows[0].len()];
        Tensor::from_data(TensorData::new(rows.concat(), shape), &Device::flex())
    }

    #[test]
    fn it_keeps_the_contract() {
        let (history, market) = fitted(3);
        let mut rng = Rng::new(2);
        let mut states = market.axes().follow(&history, 280)[260..266].to_vec();
        for state in &mut states {
            let shares: Vec<f32> = (0..3).map(|_| rng.uniform(0.0, 1.0)).collect();
            market.axes().hold(state, &weights(&shares));
        }
        let actions = (0..6).map(|_| (0..3).map(|_| rng.uniform(0.0, 1.0)).collect()).collect();
        check_dynamics(&market, table(states), table(actions)).unwrap();
    }

    #[test]
    fn axes_do_not_correlate_and_say_returns_again() {
        let (history, market) = fitted(4);
        let axes = market.axes();
        let states = axes.follow(&history, 250);
        for k in 0..4 {
            for other in 0..4 {
                let products = states[1..].iter().map(|state| f64::from(state[k]) * f64::from(state[other]));
                let found = products.sum::<f64>() / 250.0;
                let expected = f64::from(u8::from(k == other));
                assert!((found - expected).abs() < 1e-5, "{k} {other}: {found}, not {expected}");
            }
            assert!(k == 0 || axes.scale[k] <= axes.scale[k - 1]);
        }
        // A state contains the returns from which it was made.
        for (shown, r) in states[200][Axes::returns(4)..].iter().zip(history.returns(199)) {
            assert!((f64::from(*shown) - r).abs() < 1e-6);
        }
        // The variances are the moving averages of squares.
        let expected =
            (0..200).fold(axes.spread[1].powi(2), |v, week| 0.94 * v + 0.06 * history.returns(week)[1].powi(2));
        assert!((axes.std(&states[200], 1) / expected.sqrt() - 1.0).abs() < 1e-5);
    }

    /// The growth that the planner sees equals that of the account, row by row.
    #[test]
    fn the_reward_is_the_account_s() {
        let (n, cost) = (3, 0.002);
        let mut rng = Rng::new(7);
        let (mut obs, mut actions, mut next, mut expected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..20 {
            let mut draw = || (0..n).map(|_| rng.uniform(0.0, 1.0)).collect::<Vec<f32>>();
            let (mut held, shares, returns) = (weights(&draw()), draw(), draw());
            obs.push([vec![0.0; n], held.iter().map(|w| *w as f32).collect()].concat());
            let gross: Vec<f64> = returns.iter().map(|r| f64::from(*r).exp()).collect();
            let (factor, _) = trade(&mut held, &weights(&shares), &gross, cost);
            expected.push(factor.ln());
            next.push([returns, vec![0.0; n]].concat());
            actions.push(shares);
        }
        let rewards = growth(n, cost).reward(table(obs), table(actions), table(next));
        for (found, expected) in host(rewards).iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }

    /// All candidates meet the same weeks, and the scenarios' mean is the predicted one.
    #[test]
    fn scenarios_are_shared_and_have_the_predicted_mean() {
        let (history, market) = fitted(3);
        let state = market.axes().follow(&history, 260).pop().unwrap();
        let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 20 };
        let actions = Tensor::<3>::from_floats([[[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]]], &Device::flex());
        let rollout = |key| {
            let from = Start::Situation(Situation::of(&state));
            host(market.rollout(from, actions.clone(), Draw::new(propagation, key)).unwrap().obs)
        };
        let obs = rollout(3);
        // Scenarios are kept, but not for another key.
        assert!(obs == rollout(3) && obs != rollout(4));
        let row = |p: usize, k: usize| &obs[(40 + p * 2 + k) * 6..][..6];
        let predicted = market.forecast(&state).unwrap();
        let mut means = [0.0; 3];
        for p in 0..20 {
            assert_eq!(row(p, 0)[..3], row(p, 1)[..3]);
            assert!(p == 0 || row(p, 0)[..3] != row(p - 1, 0)[..3]);
            means.iter_mut().zip(row(p, 0)).for_each(|(mean, r)| *mean += f64::from(*r) / 20.0);
        }
        for (mean, asset) in means.iter().zip(&predicted.assets) {
            assert!((mean - asset.mean).abs() < 1e-6, "{mean}, not {}", asset.mean);
        }
    }

    /// For two uncorrelated assets, weights are proportional to the inverse variances.
    #[test]
    fn the_least_variance_is_that_of_the_closed_form() {
        let mut rng = Rng::new(4);
        let returns: Vec<f64> = (0..4000).flat_map(|_| [0.01 * rng.normal_f64(), 0.02 * rng.normal_f64()]).collect();
        let axes = Axes::of(&returns, 2);
        let found = axes.least_variance(&axes.start(&[0.5, 0.5]));
        assert!((found[0] - 0.8).abs() < 0.03, "{found:?}");
    }
}
