//! The inputs that networks make of observations.

use burn::tensor::{Tensor, TensorData};
use mbrl_env::{AngleColumn, EnvSpec};

use crate::{AgentError, CheckpointReader, CheckpointWriter};

/// Standardised inputs stay within this many standard deviations (Stable-Baselines3's `VecNormalize`).
const CLIP: f32 = 10.0;
/// Added to a variance before its root is taken (as there).
const FLOOR: f64 = 1e-8;

/// The inputs that networks make of observations: angles as sine and cosine, the other columns as they are; if requested, standardised by
/// mean and standard deviation of all observations so far.
#[derive(Debug, Clone)]
pub struct Inputs {
    obs: usize,
    angles: Vec<AngleColumn>,
    running: Option<Running>,
}

/// Mean and variance of what came so far (Welford's update), in double precision.
#[derive(Debug, Clone)]
struct Running {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
    /// What inputs are standardised by.
    shift: Vec<f32>,
    scale: Vec<f32>,
}

const FILE: &str = "inputs.bin";

impl Inputs {
    /// For observations of an environment; `angles`: its angles enter as sine and cosine.
    #[must_use]
    pub fn new(spec: &EnvSpec, angles: bool, normalize: bool) -> Self {
        let obs = spec.obs.width();
        let mut inputs = Self { obs, angles: if angles { spec.angles() } else { Vec::new() }, running: None };
        inputs.running = normalize.then(|| Running::new(inputs.width()));
        inputs
    }

    /// Read from a file: statistics (shift and scale), if given, stay as they are.
    pub(crate) fn of_parts(obs: usize, angles: Vec<AngleColumn>, statistics: Option<[Vec<f32>; 2]>) -> Self {
        let fixed = |[shift, scale]: [Vec<f32>; 2]| Running { shift, scale, ..Running::new(0) };
        Self { obs, angles, running: statistics.map(fixed) }
    }

    /// Columns that enter as sine and cosine: the sine in the column's place, the cosines behind all columns.
    #[must_use]
    pub fn angles(&self) -> &[AngleColumn] {
        &self.angles
    }

    /// The statistics by which inputs are standardised, where they are: `(x − shift) · scale`, `[I]` each, clipped at ±10.
    #[must_use]
    pub fn statistics(&self) -> Option<[&[f32]; 2]> {
        self.running.as_ref().map(|running| [&running.shift[..], &running.scale[..]])
    }

    /// O, entries of an observation.
    #[must_use]
    pub fn obs_width(&self) -> usize {
        self.obs
    }

    /// Entries of an input.
    #[must_use]
    pub fn width(&self) -> usize {
        self.obs + self.angles.len()
    }

    /// Appends the inputs `[N, I]` of observations `[N, O]`.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    pub fn prepare(&self, obs: &[f32], into: &mut Vec<f32>) {
        assert!(obs.len().is_multiple_of(self.obs), "{} numbers are no rows of {}", obs.len(), self.obs);
        let from = into.len();
        self.embed(obs, into);
        if let Some(running) = &self.running {
            running.apply(&mut into[from..]);
        }
    }

    fn embed(&self, obs: &[f32], into: &mut Vec<f32>) {
        if self.angles.is_empty() {
            into.extend_from_slice(obs);
            return;
        }
        for row in obs.chunks_exact(self.obs) {
            let from = into.len();
            into.extend_from_slice(row);
            for angle in &self.angles {
                let (sin, cos) = turned(angle, row[angle.column]).sin_cos();
                into[from + angle.column] = sin;
                into.push(cos);
            }
        }
    }

    /// As [`prepare`](Self::prepare), on tensors: inputs `[N, I]` of observations `[N, O]`, differentiable.
    #[must_use]
    pub fn tensor(&self, obs: Tensor<2>) -> Tensor<2> {
        let device = obs.device();
        let column = |index: usize| obs.clone().narrow(1, index, 1);
        let radians = |angle: &AngleColumn| column(angle.column) * (std::f32::consts::TAU / angle.turn);
        let plain_or_sine = |index: usize| match self.angles.iter().find(|angle| angle.column == index) {
            Some(angle) => radians(angle).sin(),
            None => column(index),
        };
        let inputs = if self.angles.is_empty() {
            obs
        } else {
            let cosines = self.angles.iter().map(|angle| radians(angle).cos());
            Tensor::cat((0..self.obs).map(plain_or_sine).chain(cosines).collect(), 1)
        };
        let Some(running) = &self.running else { return inputs };
        let row = |numbers: &[f32]| Tensor::from_data(TensorData::new(numbers.to_vec(), [1, numbers.len()]), &device);
        ((inputs - row(&running.shift)) * row(&running.scale)).clamp(-CLIP, CLIP)
    }

    /// Gradients with respect to observations `[N, O]`, from those with respect to the inputs `[N, I]` that were made of them.
    #[must_use]
    pub fn pullback(&self, obs: &[f32], gradients: &[f32]) -> Vec<f32> {
        let width = self.width();
        let mut inputs = Vec::new();
        self.embed(obs, &mut inputs);
        let mut pulled = Vec::with_capacity(obs.len());
        for ((row, inputs), gradients) in
            obs.chunks_exact(self.obs).zip(inputs.chunks_exact(width)).zip(gradients.chunks_exact(width))
        {
            let gradient = |i: usize| match &self.running {
                Some(running) => gradients[i] * running.slope(i, inputs[i]),
                None => gradients[i],
            };
            let from = pulled.len();
            pulled.extend((0..self.obs).map(gradient));
            for (i, angle) in self.angles.iter().enumerate() {
                let (sin, cos) = turned(angle, row[angle.column]).sin_cos();
                let per_unit = std::f32::consts::TAU / angle.turn;
                let (by_sin, by_cos) = (gradient(angle.column), gradient(self.obs + i));
                pulled[from + angle.column] = (by_sin * cos - by_cos * sin) * per_unit;
            }
        }
        pulled
    }

    /// Takes observations `[N, O]` into the statistics, where there are any.
    pub fn observe(&mut self, obs: &[f32]) {
        if self.running.as_ref().is_none_or(Running::is_fixed) {
            return;
        }
        let mut inputs = Vec::new();
        self.embed(obs, &mut inputs);
        let width = self.width();
        if let Some(running) = &mut self.running {
            inputs.chunks_exact(width).for_each(|row| running.observe(row));
            running.refresh();
        }
    }

    /// Takes the statistics of observations `[N, O]` in place of those so far, where there are any.
    pub fn observe_anew(&mut self, obs: &[f32]) {
        let width = self.width();
        if let Some(running) = self.running.as_mut().filter(|running| !running.is_fixed()) {
            *running = Running::new(width);
        }
        self.observe(obs);
    }

    /// Writes the statistics.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        let Some(running) = &self.running else { return Ok(()) };
        let numbers = [running.count].into_iter().chain(running.mean.iter().copied()).chain(running.squares.clone());
        let bytes: Vec<u8> = numbers.flat_map(f64::to_le_bytes).collect();
        into.put(FILE, &bytes)
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing or of another width.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let width = self.width();
        let Some(running) = &mut self.running else { return Ok(()) };
        let bytes = from.get(FILE)?;
        let numbers: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        if bytes.len() != 8 * (2 * width + 1) || numbers.iter().any(|x| !x.is_finite()) {
            let reason = format!("{} bytes: expected statistics of {width} inputs", bytes.len());
            return Err(from.refuse(FILE, reason));
        }
        running.count = numbers[0];
        running.mean.copy_from_slice(&numbers[1..=width]);
        running.squares.copy_from_slice(&numbers[width + 1..]);
        running.refresh();
        Ok(())
    }
}

/// An angle in radians.
fn turned(angle: &AngleColumn, value: f32) -> f32 {
    value * (std::f32::consts::TAU / angle.turn)
}

impl Running {
    fn new(width: usize) -> Self {
        let zeros = || vec![0.0; width];
        Self { count: 0.0, mean: zeros(), squares: zeros(), shift: vec![0.0; width], scale: vec![1.0; width] }
    }

    /// Read from a file, which holds what inputs are standardised by, but not the statistics behind it.
    fn is_fixed(&self) -> bool {
        self.mean.len() != self.shift.len()
    }

    fn observe(&mut self, row: &[f32]) {
        self.count += 1.0;
        for ((x, mean), squares) in row.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let off = f64::from(*x) - *mean;
            *mean += off / self.count;
            *squares += off * (f64::from(*x) - *mean);
        }
    }

    fn refresh(&mut self) {
        // Of one row there is no spread.
        if self.count < 2.0 {
            return;
        }
        for i in 0..self.mean.len() {
            self.shift[i] = self.mean[i] as f32;
            self.scale[i] = (1.0 / (self.squares[i] / self.count + FLOOR).sqrt()) as f32;
        }
    }

    fn apply(&self, inputs: &mut [f32]) {
        for row in inputs.chunks_exact_mut(self.shift.len()) {
            for ((x, shift), scale) in row.iter_mut().zip(&self.shift).zip(&self.scale) {
                *x = ((*x - shift) * scale).clamp(-CLIP, CLIP);
            }
        }
    }

    fn slope(&self, i: usize, x: f32) -> f32 {
        if ((x - self.shift[i]) * self.scale[i]).abs() < CLIP { self.scale[i] } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::{ActionSpace, BoxSpace, Env, Rng, tasks};

    use super::*;

    fn spec() -> EnvSpec {
        // Columns x, θ and their velocities.
        tasks::make("cartpole-swingup").unwrap().env.spec().clone()
    }

    #[test]
    fn angles_enter_as_sine_and_cosine_and_the_rest_as_it_is() {
        let spec = spec();
        let angle = spec.angles()[0];
        let inputs = Inputs::new(&spec, true, false);
        let mut obs = vec![0.3; spec.obs.width()];
        obs[angle.column] = 0.25 * angle.turn;
        let mut seen = Vec::new();
        inputs.prepare(&obs, &mut seen);
        assert_eq!(seen.len(), spec.obs.width() + 1);
        assert!((seen[angle.column] - 1.0).abs() < 1e-6 && seen[spec.obs.width()].abs() < 1e-6, "{seen:?}");
        let mut plain = Vec::new();
        Inputs::new(&spec, false, false).prepare(&obs, &mut plain);
        assert_eq!(plain, obs);
    }

    #[test]
    fn statistics_are_those_of_all_rows_and_come_from_the_inputs() {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let spec = EnvSpec::new("two", BoxSpace::unbounded(2), actions, 0.1);
        let mut inputs = Inputs::new(&spec, true, true);
        let rows: Vec<f32> = (0..100).flat_map(|i| [i as f32, 5.0 - 0.01 * i as f32]).collect();
        for part in rows.chunks(14) {
            inputs.observe(part);
        }
        let mut seen = Vec::new();
        inputs.prepare(&rows, &mut seen);
        for column in 0..2 {
            let values = || seen.iter().skip(column).step_by(2).map(|x| f64::from(*x));
            let mean = values().sum::<f64>() / 100.0;
            let variance = values().map(|x| x * x).sum::<f64>() / 100.0 - mean * mean;
            assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "column {column}: {mean}, {variance}");
        }
        seen.clear();
        inputs.prepare(&[1e9, 4.5], &mut seen);
        assert_eq!(seen[0], CLIP);
    }

    #[test]
    fn gradients_go_back_through_it() {
        let spec = spec();
        let mut rng = Rng::new(1);
        let width = spec.obs.width();
        let mut inputs = Inputs::new(&spec, true, true);
        let seen: Vec<f32> = (0..50 * width).map(|_| 2.0 * rng.normal()).collect();
        inputs.observe(&seen);
        let obs: Vec<f32> = (0..3 * width).map(|_| rng.normal()).collect();
        let weights: Vec<f32> = (0..3 * inputs.width()).map(|_| rng.normal()).collect();
        let sum = |obs: &[f32]| {
            let mut made = Vec::new();
            inputs.prepare(obs, &mut made);
            made.iter().zip(&weights).map(|(x, w)| f64::from(x * w)).sum::<f64>()
        };
        let pulled = inputs.pullback(&obs, &weights);
        for i in 0..obs.len() {
            let moved = |by: f32| {
                let mut obs = obs.clone();
                obs[i] += by;
                sum(&obs)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(pulled[i]) - difference).abs() < 1e-3, "{i}: {} and {difference}", pulled[i]);
        }
    }
}
