//! Parameters of a physics from measurements of its motion: least squares over whole trajectories, whose first states are unknown too.
//!
//! The measurements of a window are `y_t = h(x_t) + noise`, with `x_{t+1} = f(x_t, u_t; θ)`. The Levenberg-Marquardt method finds the logarithms of
//! the parameters and the first state of each window together. The first states are eliminated window by window (Schur's
//! complement), so the work grows with the number of windows and not with its cube.

use std::fmt;

use rayon::prelude::*;

use super::{
    PhysicsModel,
    formula::Slopes,
    linear::{eigen, reduced, solve},
    model::Equations,
};
use crate::{Dataset, Dynamics, ModelError, dynamics::check_size};

/// How to identify.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IdentifyConfig {
    /// Transitions per window, 0 for whole episodes (default 100). Each window has a first state of its own, which is estimated too. Long
    /// windows determine the parameters better where the measurements' noise is the only error; short ones are less sensitive to equations
    /// that are not quite right, and to chaotic motion.
    pub window: usize,
    /// Standard deviation of the noise of each column of the observations, `[O]`, in the column's unit. `None` (default): it is estimated, which
    /// needs windows of at least as many transitions as the state has numbers.
    pub noise: Option<Vec<f64>>,
    /// Maximum number of iterations at each length of windows (default 100).
    pub max_iterations: usize,
}

impl Default for IdentifyConfig {
    fn default() -> Self {
        Self { window: 100, noise: None, max_iterations: 100 }
    }
}

impl IdentifyConfig {
    /// Sets the transitions per window; 0 for whole episodes.
    #[must_use]
    pub fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    /// Sets the standard deviation of the noise of each column, `[O]`.
    #[must_use]
    pub fn with_noise(self, noise: impl Into<Vec<f64>>) -> Self {
        Self { noise: Some(noise.into()), ..self }
    }
}

/// The estimate of a parameter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Its value.
    pub value: f64,
    /// Standard error, in the parameter's unit: infinite where the data do not determine it, 0 where it was known.
    pub std_error: f64,
    /// Whether it was fitted.
    pub fitted: bool,
    /// The end of the search range at which it stopped, a million times its guess or a millionth of it: the search would have continued, so the
    /// value is not a result. A finite standard error at the lower end says that the value cannot be distinguished from 0, and how far from 0 it
    /// may be.
    pub at_bound: Option<Bound>,
}

/// An end of the range in which [`identify`] looks for a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A millionth of the guess.
    Lower,
    /// A million times the guess.
    Upper,
}

impl Estimate {
    /// The 95 % interval, 1.96 standard errors to either side, in the parameter's unit; cut off at 0 from below.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        let half = 1.96 * self.std_error;
        ((self.value - half).max(0.0), self.value + half)
    }
}

/// A change of parameters that leaves the predicted measurements as they are, so that the data cannot determine them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Undetermined {
    /// Which parameters change together, and by which powers: with (`mass`, 1) and (`length`, −2), twice the mass and a quarter of the length.
    pub powers: Vec<(String, f64)>,
}

impl fmt::Display for Undetermined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(name, _)] = self.powers.as_slice() {
            return write!(f, "{name}: what was measured does not depend on it");
        }
        let names: Vec<&str> = self.powers.iter().map(|(name, _)| name.as_str()).collect();
        let factors: Vec<String> = self
            .powers
            .iter()
            .map(|(name, power)| format!("{name} × {}", (2f64.powf(*power) * 1e3).round() / 1e3))
            .collect();
        write!(f, "{}: nothing that was measured tells {} apart", names.join(", "), factors.join(" with "))
    }
}

/// What [`identify`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Identification {
    /// The model with the values that were found.
    pub model: PhysicsModel,
    /// All parameters, `[P]`.
    pub estimates: Vec<Estimate>,
    /// What the data do not determine; empty where they determine everything.
    pub undetermined: Vec<Undetermined>,
    /// Standard deviation of the noise of each column, `[O]`: as given, or as estimated.
    pub noise: Vec<f64>,
    /// Root mean square residual of each column, `[O]`, in its unit.
    pub rmse: Vec<f64>,
    /// Correlation of each column's residuals with those of the measurement before, `[O]`, from −1 to 1: near 0 where the only error is the
    /// noise of the measurements. If it is far above 0, the equations lack something, and the standard errors are too small.
    pub correlation: Vec<f64>,
    /// Number of windows.
    pub windows: usize,
    /// Number of transitions in all windows.
    pub transitions: usize,
    /// Number of iterations, over all lengths of windows.
    pub iterations: usize,
    /// Whether the search had converged when it ended; where it had not, better guesses or more iterations help.
    pub converged: bool,
}

impl Identification {
    /// The estimate of a parameter.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a name that is not there.
    pub fn estimate(&self, name: &str) -> Result<&Estimate, ModelError> {
        let names = || self.estimates.iter().map(|estimate| estimate.name.clone()).collect();
        let found = self.estimates.iter().find(|estimate| estimate.name == name);
        found.ok_or_else(|| ModelError::Parameter { name: name.to_owned(), known: names() })
    }
}

/// Finds the unknown parameters of `model` that best explain the motion in `data`; their present values are the guesses.
///
/// Windows are short at first, so that the search converges from poor guesses too, and then grow. Angles are compared the short way round.
///
/// ```
/// use mbrl_model::{
///     Dataset, Device, Draw, Dynamics, IdentifyConfig, Pendulum, PhysicsModel, Propagation, Rng, Start, Tensor, identify,
/// };
///
/// // Forty steps of a pendulum under random torques, its angle and speed measured with an error of 0.01.
/// let (device, mut rng) = (Device::flex(), Rng::new(0));
/// let truth = PhysicsModel::new(Pendulum::default(), 0.05, &device)?.with_known("mass", 0.4)?.with_known("length", 0.8)?;
/// let torques: Vec<f32> = (0..40).map(|_| rng.uniform(-2.0, 2.0)).collect();
/// let actions = Tensor::<1>::from_floats(torques.as_slice(), &device).reshape([40, 1, 1]);
/// let start = Start::States(Tensor::from_floats([[1.0, 0.0]], &device));
/// let motion = truth.rollout(start, actions, Draw::new(Propagation::MEAN, 0))?.obs;
/// let measured: Vec<f32> = motion.into_data().iter::<f32>().map(|x| x + 0.01 * rng.normal()).collect();
/// let data = Dataset::new(&measured[..80], torques, &measured[2..], 2, 1)?.with_episodes(&[40])?;
///
/// let found = identify(&PhysicsModel::new(Pendulum::default(), 0.05, &device)?, &data, &IdentifyConfig::default())?;
/// let mass = found.estimate("mass")?;
/// assert!((mass.value - 0.4).abs() < 4.0 * mass.std_error && mass.std_error < 0.02);
/// assert!(found.undetermined.is_empty());
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Width`] for data of other columns; [`ModelError::Config`] where nothing is to be fitted, for noise that is not positive or cannot
/// be estimated, for observations that never change, and for guesses that lead to numbers that are not finite; [`ModelError::TooLittleData`].
pub fn identify(model: &PhysicsModel, data: &Dataset, config: &IdentifyConfig) -> Result<Identification, ModelError> {
    let (spec, equations) = (model.spec(), model.equations());
    check_size("columns of obs", spec.obs, data.obs_width())?;
    check_size("columns of actions", spec.action, data.action_width())?;
    let unknown = model.unknown();
    let refuse = |field, value: &str, rule: &str| {
        Err(ModelError::Config { field, value: value.to_owned(), rule: rule.to_owned().into() })
    };
    if unknown.is_empty() {
        return refuse("parameters", "all known", "one at least that is to be fitted");
    }
    let o = spec.obs;
    let runs = runs(data);
    if let Some(noise) = &config.noise {
        check_size("columns of noise", o, noise.len())?;
        if let Some(bad) = noise.iter().find(|noise| !(noise.is_finite() && **noise > 0.0)) {
            return refuse("noise", &bad.to_string(), "positive finite numbers");
        }
    }
    let longest = runs.iter().map(Run::transitions).max().unwrap_or(0);
    let window = if config.window == 0 { longest } else { config.window.min(longest) };
    let chunks = chunks(&runs, window);
    let most = chunks.iter().map(|chunk| chunk.count).max().unwrap_or(0);
    if config.noise.is_none() && most <= equations.states {
        let value = format!("to be estimated from windows of {} transitions", most.saturating_sub(1));
        return refuse("noise", &value, &format!("windows of at least {} transitions, or the noise", equations.states));
    }
    let measured: usize = chunks.iter().map(|chunk| chunk.count * o).sum();
    let needed = chunks.len() * equations.states + unknown.len() + 1;
    if measured < needed {
        let per =
            (chunks.iter().map(|chunk| chunk.count - 1).sum::<usize>() as f64 / measured as f64 * needed as f64).ceil();
        return Err(ModelError::TooLittleData { actual: data.len(), needed: per as usize });
    }
    let Some(ranges) = ranges(&runs, equations) else {
        return refuse("data", "observations that never change", "a log in which the machine moves");
    };
    // What a sensor of a hundredth of the range would have: only the ratios matter until the last stage.
    let noise = config.noise.clone().unwrap_or_else(|| ranges.iter().map(|range| 0.01 * range).collect());
    let mut search = Search {
        equations,
        runs: &runs,
        guesses: model.values(),
        values: model.values(),
        unknown,
        noise,
        chunks: Vec::new(),
        starts: Vec::new(),
        iterations: 0,
    };
    let mut length = 1;
    while length < window {
        search.regroup(length)?;
        search.descend(config.max_iterations.min(30), 1e-3)?;
        length *= 4;
    }
    search.regroup(window)?;
    let mut converged = search.descend(config.max_iterations, 1e-7)?;
    let mut judged = search.judge();
    if config.noise.is_none() {
        for _ in 0..30 {
            let before = search.noise.clone();
            let floors = ranges.iter().map(|range| 1e-7 * range);
            search.noise = judged.noise.iter().zip(floors).map(|(noise, floor)| noise.max(floor)).collect();
            converged = search.descend(config.max_iterations, 1e-7)?;
            judged = search.judge();
            let moved = before.iter().zip(&search.noise).map(|(before, now)| (now / before - 1.0).abs());
            if moved.fold(0.0, f64::max) < 1e-3 {
                break;
            }
        }
    }
    search.result(model, judged, converged)
}

/// Measurements that follow each other.
struct Run {
    /// `[T + 1, O]`.
    obs: Vec<f64>,
    /// `[T, A]`.
    actions: Vec<f64>,
    widths: [usize; 2],
}

impl Run {
    fn transitions(&self) -> usize {
        self.obs.len() / self.widths[0] - 1
    }
}

/// The runs of a data set: an episode, or what is left of it where an observation is not the next one of the transition before.
fn runs(data: &Dataset) -> Vec<Run> {
    let (o, a) = (data.obs_width(), data.action_width());
    let whole =
        |row: &[f32]| -> Vec<f64> { row.iter().zip(data.offset()).map(|(x, offset)| f64::from(*x) + offset).collect() };
    let row = |values: &'_ [f32], i: usize| values[i * o..(i + 1) * o].to_vec();
    let mut runs: Vec<Run> = Vec::new();
    for episode in data.episodes() {
        let begin = episode.start;
        for i in episode {
            let (obs, next) = (row(data.obs(), i), row(data.next_obs(), i));
            if i == begin || row(data.next_obs(), i - 1) != obs {
                runs.push(Run { obs: whole(&obs), actions: Vec::new(), widths: [o, a] });
            }
            let run = runs.last_mut().expect("begun above");
            run.obs.extend(whole(&next));
            run.actions.extend(data.actions()[i * a..(i + 1) * a].iter().map(|x| f64::from(*x)));
        }
    }
    runs
}

/// How far each column of the measurements goes; a turn at most for angles. 1 where a column stands still; `None` where all do.
fn ranges(runs: &[Run], equations: &Equations) -> Option<Vec<f64>> {
    let o = equations.fields.len();
    let ranges: Vec<f64> = (0..o)
        .map(|c| {
            let values = runs.iter().flat_map(|run| run.obs.iter().skip(c).step_by(o));
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            let turn = equations.angles.iter().find(|angle| angle.column == c).map(|angle| f64::from(angle.turn));
            (high - low).min(turn.unwrap_or(f64::MAX))
        })
        .collect();
    let moves = ranges.iter().any(|range| *range > 0.0);
    moves.then(|| ranges.into_iter().map(|range| if range > 0.0 { range } else { 1.0 }).collect())
}

/// Some measurements of a run: a window.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    run: usize,
    first: usize,
    /// Measurements: one more than transitions.
    count: usize,
}

/// Runs in windows of `window` transitions or some more, so that each measurement is in one of them.
fn chunks(runs: &[Run], window: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (run, of) in runs.iter().enumerate() {
        let measured = of.transitions() + 1;
        let parts = (measured / (window + 1)).max(1);
        chunks.extend((0..parts).map(|i| {
            let (first, end) = (i * measured / parts, (i + 1) * measured / parts);
            Chunk { run, first, count: end - first }
        }));
    }
    chunks
}

struct Search<'a> {
    equations: &'a Equations,
    runs: &'a [Run],
    guesses: Vec<f64>,
    values: Vec<f64>,
    unknown: Vec<usize>,
    noise: Vec<f64>,
    chunks: Vec<Chunk>,
    /// First states, of each window `[S]`.
    starts: Vec<Vec<f64>>,
    iterations: usize,
}

/// Sums of products of derivatives over a window: those of its first state, `a` `[S, S]`, of both, `b` `[S, P]`, and of the parameters, `c`
/// `[P, P]`; those with the errors, `gx` `[S]` and `gp` `[P]`; and the sum of the squared errors.
struct Block {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    gx: Vec<f64>,
    gp: Vec<f64>,
    cost: f64,
}

/// What is known where a search ends.
struct Judged {
    /// Of the logarithms, `[P, P]`, where they are determined.
    covariance: Vec<f64>,
    /// Directions that the data do not determine at all, in units of the parameters or their guesses.
    null: Vec<Vec<f64>>,
    /// The same and those that the data determine too poorly to count, in logarithms.
    unclear: Vec<Vec<f64>>,
    noise: Vec<f64>,
    rmse: Vec<f64>,
    correlation: Vec<f64>,
}

/// Largest step of a logarithm in an iteration.
const LONGEST_STEP: f64 = 1.5;
/// A parameter is looked for within this factor of its guess.
const FARTHEST: f64 = 1e6;
/// A direction of parameters whose Fisher information is below this share of the largest, or below this number, is not determined: a standard error of
/// ten times the parameter.
const NULL: [f64; 2] = [1e-11, 1e-2];

impl Search<'_> {
    fn widths(&self) -> [usize; 2] {
        [self.equations.states, self.unknown.len()]
    }

    /// Where a parameter is looked for.
    fn bounds(&self, parameter: usize) -> [f64; 2] {
        [self.guesses[parameter] / FARTHEST, self.guesses[parameter] * FARTHEST]
    }

    /// Walks through a window with `values` from `start`, passing `visit` the column, its error in units of its noise, and derivatives
    /// `[S + P]` of the prediction in the same units (empty without `slopes`). Returns whether all numbers were finite.
    fn walk(
        &self,
        chunk: Chunk,
        values: &[f64],
        start: &[f64],
        with_slopes: bool,
        mut visit: impl FnMut(usize, f64, &[f64]),
    ) -> bool {
        let equations = self.equations;
        let [s, p] = self.widths();
        let (o, a) = (equations.fields.len(), equations.actions.len());
        let k = if with_slopes { s + p } else { 0 };
        // A parameter's derivative by its own logarithm is itself.
        let mut of_values = vec![0.0; values.len() * k];
        if with_slopes {
            self.unknown.iter().enumerate().for_each(|(j, &i)| of_values[i * k + s + j] = values[i]);
        }
        let mut step = Slopes::new(&equations.step, values, &of_values, k);
        let mut observe = Slopes::new(&equations.observe, &[], &[], k);
        let run = &self.runs[chunk.run];
        let mut inputs = vec![0.0; s + a];
        inputs[..s].copy_from_slice(start);
        let mut slopes = vec![0.0; s * k];
        (0..s.min(k)).for_each(|i| slopes[i * k + i] = 1.0);
        let (mut seen, mut seen_slopes) = (vec![0.0; o], vec![0.0; o * k]);
        for t in chunk.first..chunk.first + chunk.count {
            observe.set(&inputs[..s], &slopes);
            observe.values(&mut seen);
            observe.slopes(&mut seen_slopes);
            for c in 0..o {
                let mut off = run.obs[t * o + c] - seen[c];
                if let Some(angle) = equations.angles.iter().find(|angle| angle.column == c) {
                    let turn = f64::from(angle.turn);
                    off -= turn * (off / turn).round();
                }
                let noise = self.noise[c];
                let row = &mut seen_slopes[c * k..(c + 1) * k];
                row.iter_mut().for_each(|slope| *slope /= noise);
                if !(off.is_finite() && row.iter().all(|slope| slope.is_finite())) {
                    return false;
                }
                visit(c, off / noise, row);
            }
            if t + 1 < chunk.first + chunk.count {
                inputs[s..].copy_from_slice(&run.actions[t * a..(t + 1) * a]);
                step.set(&inputs, &slopes);
                step.values(&mut inputs[..s]);
                step.slopes(&mut slopes);
            }
        }
        true
    }

    /// The state of a window at a measurement of its run.
    fn state_at(&self, which: usize, measurement: usize) -> Vec<f64> {
        let equations = self.equations;
        let (s, a) = (equations.states, equations.actions.len());
        let chunk = self.chunks[which];
        let run = &self.runs[chunk.run];
        let mut step = Slopes::new(&equations.step, &self.values, &[], 0);
        let mut inputs = self.starts[which].clone();
        inputs.resize(s + a, 0.0);
        for t in chunk.first..measurement {
            inputs[s..].copy_from_slice(&run.actions[t * a..(t + 1) * a]);
            step.set(&inputs, &[]);
            step.values(&mut inputs[..s]);
        }
        inputs.truncate(s);
        inputs
    }

    /// Other windows, from what is known of the states so far.
    fn regroup(&mut self, window: usize) -> Result<(), ModelError> {
        let (o, s) = (self.equations.fields.len(), self.equations.states);
        let chunks = chunks(self.runs, window);
        let starts = chunks.iter().map(|chunk| {
            let holds = |old: &Chunk| old.run == chunk.run && (old.first..old.first + old.count).contains(&chunk.first);
            let state = match self.chunks.iter().position(holds) {
                Some(which) => self.state_at(which, chunk.first),
                None => {
                    let mut state = vec![0.0; s];
                    let mut of = Slopes::new(&self.equations.state_of, &[], &[], 0);
                    of.set(&self.runs[chunk.run].obs[chunk.first * o..(chunk.first + 1) * o], &[]);
                    of.values(&mut state);
                    state
                }
            };
            match state.iter().all(|x| x.is_finite()) {
                true => Ok(state),
                false => Err(lost()),
            }
        });
        self.starts = starts.collect::<Result<Vec<_>, _>>()?;
        self.chunks = chunks;
        Ok(())
    }

    fn cost(&self, values: &[f64], starts: &[Vec<f64>]) -> f64 {
        let each: Vec<f64> = (0..self.chunks.len())
            .into_par_iter()
            .map(|i| {
                let mut sum = 0.0;
                match self.walk(self.chunks[i], values, &starts[i], false, |_, off, _| sum += off * off) {
                    true => sum,
                    false => f64::INFINITY,
                }
            })
            .collect();
        // In their order: the bits do not depend on threads.
        each.iter().sum()
    }

    fn blocks(&self) -> Option<Vec<Block>> {
        let [s, p] = self.widths();
        (0..self.chunks.len())
            .into_par_iter()
            .map(|i| {
                let mut block = Block {
                    a: vec![0.0; s * s],
                    b: vec![0.0; s * p],
                    c: vec![0.0; p * p],
                    gx: vec![0.0; s],
                    gp: vec![0.0; p],
                    cost: 0.0,
                };
                let finite = self.walk(self.chunks[i], &self.values, &self.starts[i], true, |_, off, row| {
                    let (x, q) = row.split_at(s);
                    block.cost += off * off;
                    for i in 0..s {
                        block.gx[i] += x[i] * off;
                        (0..s).for_each(|j| block.a[i * s + j] += x[i] * x[j]);
                        (0..p).for_each(|j| block.b[i * p + j] += x[i] * q[j]);
                    }
                    for i in 0..p {
                        block.gp[i] += q[i] * off;
                        (0..p).for_each(|j| block.c[i * p + j] += q[i] * q[j]);
                    }
                });
                finite.then_some(block)
            })
            .collect()
    }

    /// Levenberg and Marquardt's iterations until a step would lower the sum of squares by less than `enough`. Returns whether it got that far.
    fn descend(&mut self, most: usize, enough: f64) -> Result<bool, ModelError> {
        let [s, p] = self.widths();
        let mut damping = 1e-3;
        let mut blocks = self.blocks().ok_or_else(lost)?;
        let mut cost: f64 = blocks.iter().map(|block| block.cost).sum();
        let (mut tries, mut lowered) = (0, true);
        while tries < most {
            tries += 1;
            self.iterations += usize::from(lowered);
            let Some((of_parameters, of_starts)) = step(&blocks, [s, p], damping) else {
                damping *= 10.0;
                continue;
            };
            let mut values = self.values.clone();
            for (&i, by) in self.unknown.iter().zip(&of_parameters) {
                let [low, high] = self.bounds(i);
                values[i] = (values[i] * by.exp()).clamp(low, high);
            }
            let moved = |(start, by): (&Vec<f64>, &Vec<f64>)| start.iter().zip(by).map(|(x, by)| x + by).collect();
            let starts: Vec<Vec<f64>> = self.starts.iter().zip(&of_starts).map(moved).collect();
            // By how much the sum of squares would fall if the problem were linear.
            let along = |g: &[f64], x: &[f64]| g.iter().zip(x).map(|(g, x)| g * x).sum::<f64>();
            let promised: f64 =
                blocks.iter().zip(&of_starts).map(|(b, x)| along(&b.gx, x) + along(&b.gp, &of_parameters)).sum();
            let new = self.cost(&values, &starts);
            lowered = new <= cost;
            if lowered {
                (self.values, self.starts) = (values, starts);
                let won = cost - new;
                cost = new;
                damping = (damping * 0.2).max(1e-10);
                if promised <= enough && won <= enough {
                    return Ok(true);
                }
                blocks = self.blocks().ok_or_else(lost)?;
            } else {
                if promised <= 1e-9 * (1.0 + cost) {
                    // Rounding is all that is left.
                    return Ok(true);
                }
                damping *= 5.0;
                if damping > 1e12 {
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// What the data say about the parameters, and about the noise, where the search stands.
    fn judge(&self) -> Judged {
        let [s, p] = self.widths();
        let o = self.equations.fields.len();
        let blocks = self.blocks().unwrap_or_default();
        let (fisher, inverses) = eliminated(&blocks, [s, p], 0.0).unwrap_or((vec![0.0; p * p], Vec::new()));
        // In units of the parameter, or of the guess where the parameter has become much smaller: how far it may be from 0 counts then.
        let unit: Vec<f64> = self.unknown.iter().map(|&i| (self.guesses[i] / self.values[i]).max(1.0)).collect();
        let scaled: Vec<f64> = (0..p * p).map(|i| fisher[i] * unit[i / p] * unit[i % p]).collect();
        let largest = (0..p)
            .map(|i| blocks.iter().map(|block| block.c[i * p + i]).sum::<f64>() * unit[i] * unit[i])
            .fold(0.0, f64::max);
        let (values, vectors) = eigen(&scaled, p);
        let mut covariance = vec![0.0; p * p];
        let (mut null, mut unclear) = (Vec::new(), Vec::new());
        for (value, v) in values.iter().zip(vectors.chunks(p)) {
            let nothing = *value <= NULL[0] * largest;
            if nothing || *value < NULL[1] {
                // Where the parameter is nearly 0, powers mean little.
                unclear.push(v.iter().zip(&unit).map(|(v, unit)| v * unit.min(10.0)).collect());
            }
            if nothing {
                null.push(v.to_vec());
            } else {
                (0..p * p).for_each(|i| covariance[i] += v[i / p] * v[i % p] / value * unit[i / p] * unit[i % p]);
            }
        }
        let (mut squares, mut counts, mut used) = (vec![0.0; o], vec![0.0; o], vec![0.0; o]);
        let mut products = vec![0.0; o];
        for (i, chunk) in self.chunks.iter().enumerate() {
            let mut before = vec![None; o];
            self.walk(*chunk, &self.values, &self.starts[i], true, |c, off, row| {
                squares[c] += off * off;
                counts[c] += 1.0;
                if let Some(before) = before[c].replace(off) {
                    products[c] += off * before;
                }
                let Some((a, b)) = inverses.get(i) else { return };
                let (x, q) = row.split_at(s);
                // What of this measurement went into the window's first state, and into the parameters.
                let through: Vec<f64> = (0..s).map(|i| (0..s).map(|j| a[i * s + j] * x[j]).sum()).collect();
                used[c] += through.iter().zip(x).map(|(t, x)| t * x).sum::<f64>();
                let rest: Vec<f64> = (0..p).map(|j| q[j] - (0..s).map(|i| b[i * p + j] * x[i]).sum::<f64>()).collect();
                used[c] += (0..p * p).map(|i| rest[i / p] * covariance[i] * rest[i % p]).sum::<f64>();
            });
        }
        let per = |sums: &[f64], by: &[f64]| sums.iter().zip(by).map(|(sum, by)| sum / by).collect::<Vec<f64>>();
        let free: Vec<f64> = counts.iter().zip(&used).map(|(count, used)| (count - used).max(0.5)).collect();
        let scaled = |shares: Vec<f64>| shares.iter().zip(&self.noise).map(|(x, noise)| x.sqrt() * noise).collect();
        Judged {
            covariance,
            null,
            unclear,
            noise: scaled(per(&squares, &free)),
            rmse: scaled(per(&squares, &counts)),
            correlation: products.iter().zip(&squares).map(|(x, all)| if *all > 0.0 { x / all } else { 0.0 }).collect(),
        }
    }

    fn result(self, model: &PhysicsModel, judged: Judged, converged: bool) -> Result<Identification, ModelError> {
        let p = self.unknown.len();
        let unclear = reduced(judged.unclear);
        let names: Vec<String> = self.unknown.iter().map(|&i| model.parameters()[i].name.clone()).collect();
        let model = model.clone().with_values(&self.values)?;
        let estimate = |(i, parameter): (usize, &super::Parameter)| {
            let (name, unit, value) = (parameter.name.clone(), parameter.unit.clone(), parameter.value);
            let [low, high] = self.bounds(i);
            let at_bound = match parameter.fitted {
                true if value <= low => Some(Bound::Lower),
                true if value >= high => Some(Bound::Upper),
                _ => None,
            };
            let std_error = self.unknown.iter().position(|&of| of == i).map_or(0.0, |j| {
                let error = judged.covariance[j * p + j].sqrt() * value;
                let told = judged.null.iter().all(|v| v[j].abs() < 1e-3) && error <= 10.0 * value.max(self.guesses[i]);
                // Where a search was cut off, its errors say nothing, unless they say that what is left cannot be distinguished from 0.
                let told = told && (at_bound.is_none() || at_bound == Some(Bound::Lower) && error >= value);
                if told { error } else { f64::INFINITY }
            });
            Estimate { name, unit, value, std_error, fitted: parameter.fitted, at_bound }
        };
        let powers = |v: &Vec<f64>| {
            names.iter().cloned().zip(v.iter().copied()).filter(|(_, power)| power.abs() >= 0.02).collect()
        };
        Ok(Identification {
            estimates: model.parameters().iter().enumerate().map(estimate).collect(),
            undetermined: unclear.iter().map(|v| Undetermined { powers: powers(v) }).collect(),
            noise: self.noise,
            rmse: judged.rmse,
            correlation: judged.correlation,
            windows: self.chunks.len(),
            transitions: self.chunks.iter().map(|chunk| chunk.count - 1).sum(),
            iterations: self.iterations,
            converged,
            model,
        })
    }
}

/// The normal equations of the parameters with the first states eliminated, `[P, P]`, and of each window the inverse of its first state's part, `[S, S]`,
/// and that times `b`, `[S, P]`. `None` where they are not positive definite.
#[expect(clippy::type_complexity, reason = "private")]
fn eliminated(blocks: &[Block], [s, p]: [usize; 2], damping: f64) -> Option<(Vec<f64>, Vec<(Vec<f64>, Vec<f64>)>)> {
    let mut left = vec![0.0; p * p];
    let mut inverses = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut a = block.a.clone();
        // Numbers that the data do not determine stay where they are.
        let floor = 1e-12 * (0..s).map(|i| a[i * s + i]).fold(f64::MIN_POSITIVE, f64::max);
        (0..s).for_each(|i| a[i * s + i] += damping * a[i * s + i] + floor);
        let mut inverse: Vec<f64> = (0..s * s).map(|i| f64::from(u8::from(i % (s + 1) == 0))).collect();
        if !solve(&a, s, &mut inverse) {
            return None;
        }
        let through: Vec<f64> =
            (0..s * p).map(|i| (0..s).map(|j| inverse[i / p * s + j] * block.b[j * p + i % p]).sum()).collect();
        for i in 0..p {
            for j in 0..p {
                let taken: f64 = (0..s).map(|k| block.b[k * p + i] * through[k * p + j]).sum();
                left[i * p + j] += block.c[i * p + j] - taken;
            }
        }
        inverses.push((inverse, through));
    }
    Some((left, inverses))
}

/// A damped step of the parameters' logarithms `[P]` and of each window's first state `[S]`.
fn step(blocks: &[Block], [s, p]: [usize; 2], damping: f64) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let (mut left, inverses) = eliminated(blocks, [s, p], damping)?;
    let diagonal: Vec<f64> = (0..p).map(|i| blocks.iter().map(|block| block.c[i * p + i]).sum()).collect();
    let floor = 1e-12 * diagonal.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    (0..p).for_each(|i| left[i * p + i] += damping * diagonal[i] + floor);
    let mut right = vec![0.0; p];
    for (block, (_, through)) in blocks.iter().zip(&inverses) {
        for (j, right) in right.iter_mut().enumerate() {
            *right += block.gp[j] - (0..s).map(|i| through[i * p + j] * block.gx[i]).sum::<f64>();
        }
    }
    if !solve(&left, p, &mut right) {
        return None;
    }
    // Each by itself, so that a friction that goes to 0, whose logarithm has no limit, does not hold up the others.
    right.iter_mut().for_each(|x| *x = x.clamp(-LONGEST_STEP, LONGEST_STEP));
    let starts = blocks.iter().zip(&inverses).map(|(block, (inverse, through))| {
        let of = |i: usize| {
            let own: f64 = (0..s).map(|j| inverse[i * s + j] * block.gx[j]).sum();
            own - (0..p).map(|j| through[i * p + j] * right[j]).sum::<f64>()
        };
        (0..s).map(of).collect()
    });
    let starts: Vec<Vec<f64>> = starts.collect();
    Some((right, starts))
}

fn lost() -> ModelError {
    ModelError::Config {
        field: "parameters",
        value: "guesses that lead to numbers that are not finite".into(),
        rule: "guesses nearer to the truth, or more steps of the integrator per period".into(),
    }
}
