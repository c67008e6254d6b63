//! Evaluating a model on data that it was not fitted to: how large its errors are after k steps, and whether it knows how large.
//!
//! The model is rolled out from start instants of recorded episodes under the recorded actions, with many particles, and
//! compared with what was recorded. Every figure is per column of the observation, in the column's units.
//!
//! | symbol | here |
//! |---|---|
//! | K starts, P particles, H steps, O columns | [`StepEvaluation::starts`], [`Propagation::particles`], [`EvaluateConfig::horizon`] |
//! | y, the recorded observation; m, s, the particles' mean and standard deviation | |
//! | error √(mean (m − y)²) | [`StepEvaluation::rmse`] |
//! | share of y in the central interval that should hold α of them \[2\] | [`Calibration::coverage`] |
//! | mean of ½ ln(2π s²) + (y − m)² / 2s² \[3\] | [`Calibration::nll`] |
//! | sharpness \[3\]: mean s, mean width of the intervals | [`Calibration::std`], [`Calibration::width`] |
//!
//! A good forecast is as sharp as it can be while it stays calibrated \[3\]: coverage alone is also right for a model that
//! knows nothing and says so.
//!
//! ## References
//! \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models*
//! (PETS), NeurIPS: trajectory sampling.
//! \[2\] Kuleshov, Fenner and Ermon (2018), *Accurate Uncertainties for Deep Learning Using Calibrated Regression*, ICML.
//! \[3\] Gneiting and Raftery (2007), *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA 102.

use std::borrow::Cow;
use std::{f64::consts::TAU, ops::Range};

use burn::tensor::{Tensor, TensorData};
use mbrl_env::{Columns, EnvError, History, MAX_PAST, Replay, Rng, Situation};
use serde::{Deserialize, Serialize};

use crate::{
    Draw, Dynamics, MemberRule, ModelError, Propagation, Start, Trajectories, dynamics::check_size, ensemble::to_vec,
};

/// Transitions that are predicted at once.
const ROWS: usize = 1024;
/// Numbers of imagined states that are held at once (16 MiB).
const VALUES: usize = 1 << 22;

/// What to evaluate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Steps of a roll-out, `H` (default 20, of the order of planning horizons: 25 to 30 in PETS).
    pub horizon: usize,
    /// Maximum number of start instants of roll-outs, drawn without replacement (default 500).
    pub starts: usize,
    /// Maximum number of transitions for the one-step figures, drawn without replacement (default 10 000).
    pub rows: usize,
    /// How roll-outs propagate uncertainty. Default (none): TS∞ with noise, and 100 particles or the next multiple of the
    /// model's members. PETS plans with 20, but their outermost interval holds no more than 19 of 21 draws.
    pub propagation: Option<Propagation>,
    /// Shares of observations that central intervals should hold (default 0.5, 0.8, 0.9, 0.95).
    pub levels: Vec<f64>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { horizon: 20, starts: 500, rows: 10_000, propagation: None, levels: vec![0.5, 0.8, 0.9, 0.95] }
    }
}

impl EvaluateConfig {
    /// The propagation for a model of `members`, after every rule was checked.
    fn propagation(&self, members: usize) -> Result<Propagation, ModelError> {
        let rule = |ok: bool, field, value: &dyn std::fmt::Debug, rule| match ok {
            true => Ok(()),
            false => Err(ModelError::Config { field, value: format!("{value:?}"), rule: Cow::Borrowed(rule) }),
        };
        rule(self.horizon > 0, "horizon", &self.horizon, "at least 1")?;
        rule(self.starts > 0, "starts", &self.starts, "at least 1")?;
        rule(self.rows > 0, "rows", &self.rows, "at least 1")?;
        rule(self.levels.iter().all(|l| *l > 0.0 && *l < 1.0), "levels", &self.levels, "shares above 0 and below 1")?;
        let propagation = self.propagation.unwrap_or(Propagation {
            rule: MemberRule::TsInf,
            noise: true,
            particles: 100usize.next_multiple_of(members.max(1)),
        });
        let particles = propagation.particles;
        rule(particles > 0, "particles", &particles, "at least 1")?;
        // The outermost particles are the 1/(P+1) and P/(P+1) quantiles. The tolerance is for 1 − level in binary.
        let widest = (particles as f64 - 1.0) / (particles as f64 + 1.0) + 1e-9;
        rule(
            particles == 1 || self.levels.iter().all(|l| *l <= widest),
            "levels",
            &self.levels,
            "levels of at most (P − 1)/(P + 1) with P particles, or more particles: no interval between them holds more",
        )?;
        Ok(propagation)
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelEvaluation {
    /// How the roll-outs propagated uncertainty.
    pub propagation: Propagation,
    /// Shares of observations that the intervals should hold, `[L]`.
    pub levels: Vec<f64>,
    /// Columns that the model [knows](crate::DynamicsSpec::known) and does not predict, in rising order: their figures do not measure the model.
    pub known: Vec<usize>,
    /// Standard deviation of each column over all next observations of the data, `[O]`: the error of always predicting
    /// the mean.
    pub column_std: Vec<f64>,
    /// Standard deviation of the rewards of the data.
    pub reward_std: f64,
    /// The model's own account of one step, without particles.
    pub one_step: OneStepEvaluation,
    /// Roll-outs after k = 1, 2, … steps: as many as the longest start has following steps, at most the horizon.
    pub steps: Vec<StepEvaluation>,
}

impl ModelEvaluation {
    /// Mean over columns of a figure `[O]` in units of each column's standard deviation, so that columns with different units can be combined;
    /// columns that never change or are [known](Self::known) are left out. For an [`rmse`](StepEvaluation::rmse), 1 is as good as
    /// always predicting the mean.
    #[must_use]
    pub fn scaled(&self, figure: &[f64]) -> f64 {
        let predicted = figure.iter().zip(&self.column_std).enumerate().filter(|(c, _)| !self.known.contains(c));
        let scaled: Vec<f64> =
            predicted.map(|(_, column)| column).filter(|(_, std)| **std > 0.0).map(|(f, std)| f / std).collect();
        scaled.iter().sum::<f64>() / scaled.len() as f64
    }
}

/// One step of many transitions, by [`Dynamics::predict`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OneStepEvaluation {
    /// Number of transitions.
    pub rows: usize,
    /// Root mean squared error of the predicted mean, `[O]`.
    pub rmse: Vec<f64>,
    /// The same for predicting that nothing changes, `[O]`.
    pub unchanged_rmse: Vec<f64>,
    /// Mean standard deviation of the world's noise, `[O]`, where the model gives one.
    pub aleatoric_std: Option<Vec<f64>>,
    /// Mean standard deviation of the members' means, `[O]`, where the model gives one.
    pub epistemic_std: Option<Vec<f64>>,
    /// Calibration of the Gaussian with the variance aleatoric² + epistemic²; none where the model gives neither.
    pub calibration: Option<Calibration>,
}

/// Roll-outs after k steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepEvaluation {
    /// Steps since the start, k, from 1.
    pub step: usize,
    /// Number of starts that k steps follow.
    pub starts: usize,
    /// Root mean squared error of the particles' mean, `[O]`. With P noisy particles, its square includes a part of s²/P that
    /// comes from the roll-out itself.
    pub rmse: Vec<f64>,
    /// The same for predicting the start, `[O]`.
    pub unchanged_rmse: Vec<f64>,
    /// Root mean squared error of the particles' mean reward of this step, where the model gives rewards.
    pub reward_rmse: Option<f64>,
    /// Calibration of the particles; none where there is only one, or where they never differ.
    pub calibration: Option<Calibration>,
}

/// Whether predicted spreads match the errors, and how wide they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Share of the observations within the central interval of each level, `[L][O]`. Over roll-outs, intervals lie
    /// between the particles' quantiles (at position q·(P + 1), so that an observation drawn like the particles lies within
    /// with the nominal probability); over one step, between those of the Gaussian.
    pub coverage: Vec<Vec<f64>>,
    /// Mean width of these intervals, `[L][O]`.
    pub width: Vec<Vec<f64>>,
    /// Mean negative log-likelihood of the observations (nats) under the Gaussian with the predicted mean and variance, `[O]`;
    /// over roll-outs these are the particles' (variance with P − 1), whatever the shape of their distribution. A standard
    /// deviation below the resolution of `f32` at the column's largest value counts as that resolution.
    pub nll: Vec<f64>,
    /// Mean predicted standard deviation, `[O]`.
    pub std: Vec<f64>,
}

/// Evaluates `model` on `data`, which should not be the data that it was fitted to.
///
/// A roll-out starts at an instant that is followed by `horizon` transitions of its episode; a shorter episode gives its first
/// instant, with the steps it has. So errors at different k come from the same starts wherever episodes are long enough. A model
/// that looks back is given what an agent is given: the episode's last [`MAX_PAST`] steps before the start. A model with memory
/// is given the belief that it reaches by following the episode from its beginning.
///
/// Starts are processed in batches, so the amount imagined at a time does not grow with the data. `rng` chooses starts and keys the noise; the
/// number of threads changes nothing. A prediction that is not finite makes the figures of its step and column not
/// finite.
///
/// ```
/// use mbrl_env::{Replay, Rng, Transition};
/// use mbrl_model::{Device, EvaluateConfig, dynamics_fn, evaluate};
///
/// // An episode of s' = s + a, and a model that takes half of the action for the whole.
/// let mut data = Replay::new(1, 1, 100)?;
/// for t in 0..100_u8 {
///     let s = f32::from(t);
///     let step = Transition {
///         obs: vec![s], action: vec![1.0], reward: 0.0, next_obs: vec![s + 1.0], terminated: false, truncated: false,
///     };
///     data.push(&step)?;
/// }
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.5);
/// let found = evaluate(&model, &data, &EvaluateConfig { horizon: 4, ..Default::default() }, &mut Rng::new(0))?;
/// // Half a unit is lost a step; "nothing changes" loses a whole one.
/// assert_eq!(found.steps[3].rmse, [2.0]);
/// assert_eq!(found.steps[3].unchanged_rmse, [4.0]);
/// assert!(found.steps[3].calibration.is_none());
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Config`] for a setting that breaks a rule or particles that cannot be shared evenly among the members,
/// [`ModelError::Width`] where the data has other columns than the model, [`EnvError::TooLittleData`] where there is none;
/// [`ModelError::Unsupported`] for a model that cannot start from a state, such as a simulator, or one whose rewards see something
/// other than observations.
pub fn evaluate(
    model: &dyn Dynamics,
    data: &Replay,
    config: &EvaluateConfig,
    rng: &mut Rng,
) -> Result<ModelEvaluation, ModelError> {
    let spec = model.spec();
    let propagation = config.propagation(spec.members)?;
    check_size("columns of the data's observations", spec.obs, data.obs_width())?;
    check_size("columns of the data's actions", spec.action, data.action_width())?;
    if data.is_empty() {
        return Err(EnvError::TooLittleData { what: "an evaluation of a model", actual: 0, needed: 1 }.into());
    }
    if spec.view != spec.obs {
        let what = "be compared with observations: it shows rewards something else";
        return Err(ModelError::Unsupported { model: spec.name.clone(), what });
    }
    let columns = data.columns();
    let beliefs = match spec.belief {
        0 => Vec::new(),
        _ => beliefs(model, data)?,
    };
    let resolution = resolution(&columns.next_obs, spec.obs);
    let judge = Judge { model, columns, beliefs, resolution, levels: &config.levels, propagation };

    let (mut transitions, mut starts) = (Vec::new(), Vec::new());
    for episode in data.episodes() {
        let first = episode.start;
        let at = |at| Instant { first, at, steps: config.horizon.min(episode.end - at) };
        transitions.extend(episode.clone().map(at));
        let last = (episode.end + 1).saturating_sub(config.horizon).max(first + 1);
        starts.extend((first..last).map(at));
    }
    let transitions = draw(transitions, config.rows, rng);
    let starts = draw(starts, config.starts, rng);
    Ok(ModelEvaluation {
        propagation,
        levels: config.levels.clone(),
        known: spec.known.clone(),
        column_std: (0..spec.obs)
            .map(|d| deviation(judge.columns.next_obs.iter().skip(d).step_by(spec.obs).map(|v| f64::from(*v))))
            .collect(),
        reward_std: deviation(judge.columns.rewards.iter().copied()),
        one_step: judge.one_step(&transitions)?,
        steps: judge.rollouts(&starts, rng)?,
    })
}

/// An instant of an episode, with positions in the replay.
#[derive(Debug, Clone, Copy)]
struct Instant {
    /// First of its episode.
    first: usize,
    at: usize,
    /// Steps that follow, at most the horizon.
    steps: usize,
}

/// At most `most` of them, in their order.
fn draw(instants: Vec<Instant>, most: usize, rng: &mut Rng) -> Vec<Instant> {
    if instants.len() <= most {
        return instants;
    }
    let mut chosen = rng.permutation(instants.len());
    chosen.truncate(most);
    chosen.sort_unstable();
    chosen.into_iter().map(|i| instants[i]).collect()
}

struct Judge<'a> {
    model: &'a dyn Dynamics,
    columns: Columns<'a>,
    /// The beliefs of a model with memory at each position, `[N, B]`.
    beliefs: Vec<f32>,
    /// Smallest standard deviation that a likelihood is computed with, `[O]`.
    resolution: Vec<f64>,
    levels: &'a [f64],
    propagation: Propagation,
}

impl Judge<'_> {
    fn one_step(&self, instants: &[Instant]) -> Result<OneStepEvaluation, ModelError> {
        let width = self.model.spec().obs;
        let kept = observed_columns(self.model)?;
        let quantiles: Vec<f64> = self.levels.iter().map(|level| central_quantile(*level)).collect();
        let mut sums = Sums::new(width, self.levels.len());
        let (mut aleatoric, mut epistemic) = (None, None);
        let mut spread = false;
        for batch in instants.chunks(ROWS) {
            let actions = self.upload(batch.iter().flat_map(|i| self.action(i.at)).copied().collect(), batch.len());
            let prediction = self.model.predict(self.states(batch)?, actions)?;
            let observed = self.model.observe(prediction.mean);
            check_size("rows of the predicted mean", batch.len(), observed.dims()[0])?;
            check_size("columns of the predicted mean as observed", width, observed.dims()[1])?;
            let mean = to_vec(observed);
            // Spreads of a state are those of an observation only where this is a part of it.
            let observed_std = |std: Option<Tensor<2>>| {
                let (std, kept) = (std?, kept.as_ref()?);
                let row = std.dims()[1];
                let std = to_vec(std);
                Some(std.chunks_exact(row).flat_map(|r| kept.iter().map(|c| f64::from(r[*c]))).collect::<Vec<_>>())
            };
            let stds = [observed_std(prediction.aleatoric_std), observed_std(prediction.epistemic_std)];
            for (sum, std) in [&mut aleatoric, &mut epistemic].into_iter().zip(&stds) {
                let Some(std) = std else { continue };
                let sum = sum.get_or_insert_with(|| vec![0.0; width]);
                std.iter().enumerate().for_each(|(i, s)| sum[i % width] += s);
            }
            for (row, instant) in batch.iter().enumerate() {
                sums.rows += 1;
                for d in 0..width {
                    let y = self.next(instant.at, d);
                    let m = y + self.model.spec().difference(d, f64::from(mean[row * width + d]) - y);
                    sums.error(d, m - y, self.model.spec().difference(d, self.now(instant.at, d) - y));
                    let variance = |std: &Option<Vec<f64>>| std.as_ref().map(|std| std[row * width + d].powi(2));
                    let (a, e) = (variance(&stds[0]), variance(&stds[1]));
                    if a.is_none() && e.is_none() {
                        continue;
                    }
                    spread = true;
                    let std = (a.unwrap_or(0.0) + e.unwrap_or(0.0)).sqrt();
                    sums.gaussian(d, m - y, std, self.resolution[d]);
                    for (l, z) in quantiles.iter().enumerate() {
                        sums.interval(l, d, y, [m - z * std, m + z * std]);
                    }
                }
            }
        }
        let rows = sums.rows;
        let over_rows = |sum: Option<Vec<f64>>| sum.map(|sum| sum.iter().map(|s| s / rows as f64).collect());
        Ok(OneStepEvaluation {
            rows,
            rmse: sums.rmse(),
            unchanged_rmse: sums.unchanged_rmse(),
            aleatoric_std: over_rows(aleatoric),
            epistemic_std: over_rows(epistemic),
            calibration: spread.then(|| sums.calibration()),
        })
    }

    fn rollouts(&self, starts: &[Instant], rng: &mut Rng) -> Result<Vec<StepEvaluation>, ModelError> {
        let spec = self.model.spec();
        let (width, particles) = (spec.obs, self.propagation.particles);
        let horizon = starts.iter().map(|s| s.steps).max().unwrap_or(0);
        let mut sums = vec![Sums::new(width, self.levels.len()); horizon];
        let mut rewards: Option<Vec<f64>> = None;
        let mut spread = false;
        let mut cloud = Vec::with_capacity(particles);
        let batch = VALUES / ((horizon + 1) * particles * width.max(spec.state));
        for starts in starts.chunks(batch.max(1)) {
            let count = starts.len();
            let mut actions = vec![0.0; horizon * count * spec.action];
            for (k, start) in starts.iter().enumerate() {
                for t in 0..start.steps {
                    actions[(t * count + k) * spec.action..][..spec.action].copy_from_slice(self.action(start.at + t));
                }
            }
            let actions = Tensor::from_data(TensorData::new(actions, [horizon, count, spec.action]), &spec.device);
            let draw = Draw::new(self.propagation, rng.key());
            let Trajectories { obs, reward, .. } =
                self.model.rollout(Start::States(self.states(starts)?), actions, draw)?;
            let [instants, rows, columns] = obs.dims();
            check_size("instants of the rolled-out observations", horizon + 1, instants)?;
            check_size("rows of the rolled-out observations", particles * count, rows)?;
            check_size("columns of the rolled-out observations", width, columns)?;
            let obs = to_vec(obs);
            let reward = reward.map(to_vec);
            check_size("rewards of the roll-out", horizon * rows, reward.as_ref().map_or(horizon * rows, Vec::len))?;
            for (k, start) in starts.iter().enumerate() {
                for t in 0..start.steps {
                    let sums = &mut sums[t];
                    sums.rows += 1;
                    for d in 0..width {
                        let y = self.next(start.at + t, d);
                        cloud.clear();
                        let first = (t + 1) * rows + k;
                        // Around what really followed: particles on both sides of a jump are near each other.
                        let near = |x: f32| y + self.model.spec().difference(d, f64::from(x) - y);
                        cloud.extend((0..particles).map(|p| near(obs[(first + p * count) * width + d])));
                        let mean = mean(&cloud);
                        sums.error(d, mean - y, self.model.spec().difference(d, self.now(start.at, d) - y));
                        if particles == 1 {
                            continue;
                        }
                        let square: f64 = cloud.iter().map(|x| (x - mean).powi(2)).sum();
                        let std = (square / (particles - 1) as f64).sqrt();
                        spread |= std != 0.0;
                        sums.gaussian(d, mean - y, std, self.resolution[d]);
                        cloud.sort_unstable_by(f64::total_cmp);
                        for (l, level) in self.levels.iter().enumerate() {
                            // Where a particle is not finite, neither is the deviation.
                            let bound = |q| if std.is_finite() { quantile(&cloud, q) } else { f64::NAN };
                            sums.interval(l, d, y, [bound(0.5 * (1.0 - level)), bound(0.5 * (1.0 + level))]);
                        }
                    }
                    if let Some(reward) = &reward {
                        let predicted = (0..particles).map(|p| f64::from(reward[t * rows + p * count + k]));
                        let error = predicted.sum::<f64>() / particles as f64 - self.columns.rewards[start.at + t];
                        rewards.get_or_insert_with(|| vec![0.0; horizon])[t] += error.powi(2);
                    }
                }
            }
        }
        let step = |(t, sums): (usize, Sums)| StepEvaluation {
            step: t + 1,
            starts: sums.rows,
            rmse: sums.rmse(),
            unchanged_rmse: sums.unchanged_rmse(),
            reward_rmse: rewards.as_ref().map(|r| (r[t] / sums.rows as f64).sqrt()),
            calibration: spread.then(|| sums.calibration()),
        };
        Ok(sums.into_iter().enumerate().map(step).collect())
    }

    /// The model's states at some instants, `[N, S]`.
    fn states(&self, instants: &[Instant]) -> Result<Tensor<2>, ModelError> {
        let past = |instant: &Instant| {
            let mut past = History::default();
            for position in instant.first.max(instant.at.saturating_sub(MAX_PAST))..instant.at {
                past.push(self.obs(position).to_vec(), self.action(position).to_vec(), MAX_PAST);
            }
            past
        };
        let pasts: Vec<History> = instants.iter().map(past).collect();
        let width = self.model.spec().belief;
        let situation = |(instant, past): (&Instant, _)| {
            let Instant { at, .. } = *instant;
            let belief = (width > 0).then(|| &self.beliefs[row(at, width)]);
            Situation { past, belief, ..Situation::of(self.obs(at)) }
        };
        let situations: Vec<Situation<'_>> = instants.iter().zip(&pasts).map(situation).collect();
        let states = self.model.encode_batch(&situations)?;
        check_size("rows of the encoded states", instants.len(), states.dims()[0])?;
        Ok(states)
    }

    fn upload(&self, values: Vec<f32>, rows: usize) -> Tensor<2> {
        let width = values.len() / rows;
        Tensor::from_data(TensorData::new(values, [rows, width]), &self.model.spec().device)
    }

    fn obs(&self, position: usize) -> &[f32] {
        &self.columns.obs[row(position, self.columns.obs_width)]
    }

    fn action(&self, position: usize) -> &[f32] {
        &self.columns.actions[row(position, self.columns.action_width)]
    }

    fn now(&self, position: usize, d: usize) -> f64 {
        f64::from(self.obs(position)[d])
    }

    fn next(&self, position: usize, d: usize) -> f64 {
        f64::from(self.columns.next_obs[row(position, self.columns.obs_width)][d])
    }
}

/// The beliefs of a model with memory at each position of the data, `[N, B]`: it follows all episodes side by side, each from its beginning.
fn beliefs(model: &dyn Dynamics, data: &Replay) -> Result<Vec<f32>, ModelError> {
    let (spec, columns) = (model.spec(), data.columns());
    let episodes: Vec<Range<usize>> = data.episodes().collect();
    let mut all = vec![0.0; data.len() * spec.belief];
    let longest = episodes.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    for t in 0..longest {
        let here: Vec<usize> = episodes.iter().filter(|e| t < e.len()).map(|e| e.start + t).collect();
        let rows = |values: &[f32], width: usize, back: usize| {
            let picked: Vec<f32> = here.iter().flat_map(|at| &values[row(at - back, width)]).copied().collect();
            Tensor::<2>::from_data(TensorData::new(picked, [here.len(), width]), &spec.device)
        };
        let obs = rows(&columns.obs, spec.obs, 0);
        let beliefs = match t {
            0 => model.begin(obs)?,
            _ => model.follow(rows(&all, spec.belief, 1), rows(&columns.actions, spec.action, 1), obs)?,
        };
        check_size("rows of the beliefs", here.len(), beliefs.dims()[0])?;
        check_size("columns of the beliefs", spec.belief, beliefs.dims()[1])?;
        for (belief, at) in to_vec(beliefs).chunks_exact(spec.belief).zip(&here) {
            all[row(*at, spec.belief)].copy_from_slice(belief);
        }
    }
    Ok(all)
}

fn row(position: usize, width: usize) -> Range<usize> {
    position * width..(position + 1) * width
}

/// Sums over rows, for each column.
#[derive(Debug, Clone)]
struct Sums {
    rows: usize,
    square: Vec<f64>,
    unchanged: Vec<f64>,
    coverage: Vec<Vec<f64>>,
    width: Vec<Vec<f64>>,
    nll: Vec<f64>,
    std: Vec<f64>,
}

impl Sums {
    fn new(columns: usize, levels: usize) -> Self {
        let zeros = vec![0.0; columns];
        Self {
            rows: 0,
            square: zeros.clone(),
            unchanged: zeros.clone(),
            coverage: vec![zeros.clone(); levels],
            width: vec![zeros.clone(); levels],
            nll: zeros.clone(),
            std: zeros,
        }
    }

    fn error(&mut self, d: usize, error: f64, unchanged: f64) {
        self.square[d] += error.powi(2);
        self.unchanged[d] += unchanged.powi(2);
    }

    fn gaussian(&mut self, d: usize, error: f64, std: f64, resolution: f64) {
        self.std[d] += std;
        let variance = std.max(resolution).powi(2);
        self.nll[d] += 0.5 * ((TAU * variance).ln() + error.powi(2) / variance);
    }

    /// Bounds that are not finite hold nothing and miss nothing: they make the figures not finite.
    fn interval(&mut self, level: usize, d: usize, y: f64, [low, high]: [f64; 2]) {
        let width = high - low;
        let within = f64::from(u8::from(low <= y && y <= high));
        self.coverage[level][d] += if width.is_finite() { within } else { f64::NAN };
        self.width[level][d] += width;
    }

    fn rmse(&self) -> Vec<f64> {
        self.over_rows(&self.square).iter().map(|s| s.sqrt()).collect()
    }

    fn unchanged_rmse(&self) -> Vec<f64> {
        self.over_rows(&self.unchanged).iter().map(|s| s.sqrt()).collect()
    }

    fn calibration(&self) -> Calibration {
        Calibration {
            coverage: self.coverage.iter().map(|sum| self.over_rows(sum)).collect(),
            width: self.width.iter().map(|sum| self.over_rows(sum)).collect(),
            nll: self.over_rows(&self.nll),
            std: self.over_rows(&self.std),
        }
    }

    fn over_rows(&self, sum: &[f64]) -> Vec<f64> {
        sum.iter().map(|s| s / self.rows as f64).collect()
    }
}

/// Which column of a state each column of an observation is; none where an observation is anything but a part of the state.
fn observed_columns(model: &dyn Dynamics) -> Result<Option<Vec<usize>>, ModelError> {
    let spec = model.spec();
    // Two states in which all entries differ: a column of both that comes out as it went in is that column.
    let probe: Vec<f32> = (0..2 * spec.state).map(|i| 0.625 + i as f32).collect();
    let observed = model.observe(Tensor::from_data(TensorData::new(probe.clone(), [2, spec.state]), &spec.device));
    check_size("columns of an observed state", spec.obs, observed.dims()[1])?;
    let observed = to_vec(observed);
    let column = |d: usize| {
        let same = |c: &usize| (0..2).all(|r| probe[r * spec.state + c] == observed[r * spec.obs + d]);
        (0..spec.state).find(same)
    };
    Ok((0..spec.obs).map(column).collect())
}

/// The smallest difference that `f32` represents at the largest magnitude of each column.
fn resolution(rows: &[f32], width: usize) -> Vec<f64> {
    let mut largest = vec![f32::MIN_POSITIVE; width];
    for row in rows.chunks_exact(width) {
        largest.iter_mut().zip(row).for_each(|(l, v)| *l = l.max(v.abs()));
    }
    largest.into_iter().map(|l| f64::from(l) * f64::from(f32::EPSILON)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation (divided by the number of values).
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// The quantile `q` of sorted values, at the position q·(P + 1), from 1, between its neighbours: of P + 1 independent equal
/// draws, the last lies below it with probability q.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() + 1) as f64;
    let below = (position as usize).clamp(1, sorted.len() - 1);
    let (low, high) = (sorted[below - 1], sorted[below]);
    low + (position - below as f64) * (high - low)
}

/// The z for which a standard normal lies in [−z, z] with probability `level`, by bisection.
fn central_quantile(level: f64) -> f64 {
    // 2 φ(z) Σ z^(2n+1) / (1·3·…·(2n+1)): all terms positive, and below 1e-17 after 200 of them for z up to 9.
    let central = |z: f64| {
        let (mut term, mut sum) = (z, 0.0);
        for n in 0..200 {
            sum += term;
            term *= z * z / f64::from(2 * n + 3);
        }
        2.0 * (-0.5 * z * z).exp() / TAU.sqrt() * sum
    };
    let (mut low, mut high) = (0.0, 9.0);
    for _ in 0..60 {
        let z = 0.5 * (low + high);
        if central(z) < level { low = z } else { high = z }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_normal() {
        // From tables.
        for (level, z) in [(0.5, 0.674_490), (0.8, 1.281_552), (0.95, 1.959_964), (0.999_999, 4.891_638)] {
            assert!((central_quantile(level) - z).abs() < 1e-6, "{level}: {}", central_quantile(level));
        }
    }

    #[test]
    fn quantiles_of_particles() {
        let sorted = [1.0, 2.0, 4.0];
        assert_eq!([0.25, 0.5, 0.75].map(|q| quantile(&sorted, q)), sorted);
        assert_eq!(quantile(&sorted, 0.625), 3.0);
    }

    #[test]
    fn every_rule_names_its_field() {
        let bad = |change: fn(&mut EvaluateConfig), field: &str| {
            let mut config = EvaluateConfig::default();
            change(&mut config);
            match config.propagation(5) {
                Err(ModelError::Config { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        };
        bad(|c| c.horizon = 0, "horizon");
        bad(|c| c.starts = 0, "starts");
        bad(|c| c.rows = 0, "rows");
        bad(|c| c.levels = vec![0.5, 1.0], "levels");
        bad(|c| c.levels = vec![f64::NAN], "levels");
        bad(|c| c.propagation = Some(Propagation { particles: 0, ..Propagation::MEAN }), "particles");
        // 19 of 21 draws lie within the outermost of 20 particles.
        let twenty = Propagation { rule: MemberRule::TsInf, noise: true, particles: 20 };
        let config =
            |level| EvaluateConfig { propagation: Some(twenty), levels: vec![level], ..EvaluateConfig::default() };
        assert!(config(19.0 / 21.0).propagation(5).is_ok());
        assert!(matches!(config(0.91).propagation(5), Err(ModelError::Config { field: "levels", .. })));
    }

    #[test]
    fn particles_are_a_multiple_of_the_members() {
        for (members, particles) in [(1, 100), (5, 100), (7, 105), (150, 150)] {
            assert_eq!(EvaluateConfig::default().propagation(members).unwrap().particles, particles);
        }
    }
}
