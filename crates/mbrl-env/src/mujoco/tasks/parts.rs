//! What several tasks have in common.

use burn::tensor::{Bool, Tensor};

use crate::{
    EnvError, Reward, Rng, Termination,
    mujoco::{Camera, Model, View},
};

/// `weight · ‖action‖²` with the roundings of Gymnasium, whose actions are `float32`, and so is what is computed of them
/// alone.
pub(super) fn control_cost(weight: f64, action: &[f32]) -> f64 {
    f64::from(weight as f32 * sum_of_squares(action))
}

/// NumPy's order of summation: one by one below eight entries, else eight sums side by side.
pub(super) fn sum_of_squares(action: &[f32]) -> f32 {
    let square = |x: &f32| x * x;
    if action.len() < 8 {
        return action.iter().map(square).fold(0.0, |sum, x| sum + x);
    }
    let (blocks, rest) = action.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x * x;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().map(square).fold(sum, |sum, x| sum + x)
}

/// Adds uniform noise in ±`scale` to each entry.
pub(super) fn uniform_noise(values: &mut [f64], scale: f64, rng: &mut Rng) {
    for value in values {
        *value += rng.uniform_f64(-scale, scale);
    }
}

/// Adds Gaussian noise of standard deviation `scale` to each entry.
pub(super) fn normal_noise(values: &mut [f64], scale: f64, rng: &mut Rng) {
    for value in values {
        *value += scale * rng.normal_f64();
    }
}

/// A camera at Gymnasium's distance from a body that it follows, at a height of its own (m), looking down by its angle
/// (degrees).
pub(super) fn following(model: &Model, body: &str, height: f64, distance: f64, elevation: f64) -> Camera {
    let follow = Some(body.to_owned());
    Camera::Free(View { lookat: [0.0, 0.0, height], distance, elevation, follow, ..View::of(model) })
}

/// Refuses numbers that no task works with.
pub(super) fn check_numbers(numbers: &[(&'static str, f64)]) -> Result<(), EnvError> {
    match numbers.iter().find(|(_, value)| !value.is_finite()) {
        Some((field, value)) => Err(EnvError::Config { field, value: value.to_string(), rule: "a finite number" }),
        None => Ok(()),
    }
}

/// Refuses a scale of noise below 0.
pub(super) fn check_scale(field: &'static str, scale: f64) -> Result<(), EnvError> {
    if scale.is_finite() && scale >= 0.0 {
        return Ok(());
    }
    Err(EnvError::Config { field, value: scale.to_string(), rule: "a finite number of at least 0" })
}

/// Refuses a range whose ends do not enclose anything; they may be infinite.
pub(super) fn check_range(field: &'static str, (low, high): (f64, f64)) -> Result<(), EnvError> {
    if low < high {
        return Ok(());
    }
    Err(EnvError::Config { field, value: format!("({low}, {high})"), rule: "a lower end below the upper one" })
}

/// Reward for running: `forward · Δx / dt − control · ‖a‖² + healthy`, where the observation holds the position.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerReward {
    /// Column of the position (m).
    pub position: usize,
    /// Time between two observations (s).
    pub period: f64,
    /// Weight of the velocity.
    pub forward: f64,
    /// Weight of the squared controls.
    pub control: f64,
    /// What a next state within limits is paid besides.
    pub healthy: Option<(f64, WithinLimits)>,
}

impl Reward for RunnerReward {
    fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let position = |rows: &Tensor<2>| rows.clone().select_dim::<1>(1, self.position);
        let speed = (position(&next_obs) - position(&obs)) / self.period;
        let effort = actions.square().sum_dim(1).squeeze_dim::<1>(1);
        let running = speed * self.forward - effort * self.control;
        match &self.healthy {
            Some((pay, limits)) => running + limits.holds(&next_obs).float() * *pay,
            None => running,
        }
    }
}

/// Ends where an entry of the next observation leaves its limits, or is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct WithinLimits {
    /// Column, lower and upper limit.
    pub limits: Vec<(usize, f64, f64)>,
    /// Whether an entry may be at its limit.
    pub closed: bool,
}

impl WithinLimits {
    /// Which rows of `[N, O]` keep to the limits, `[N]`.
    #[must_use]
    pub fn holds(&self, obs: &Tensor<2>) -> Tensor<1, Bool> {
        // NaN keeps to no limit.
        let mut holds: Option<Tensor<1, Bool>> = None;
        for (index, low, high) in &self.limits {
            let entry = obs.clone().select_dim::<1>(1, *index);
            let within = if self.closed {
                entry.clone().greater_equal_elem(*low).bool_and(entry.lower_equal_elem(*high))
            } else {
                entry.clone().greater_elem(*low).bool_and(entry.lower_elem(*high))
            };
            holds = Some(match holds {
                Some(before) => before.bool_and(within),
                None => within,
            });
        }
        holds.unwrap_or_else(|| Tensor::<1, Bool>::zeros([obs.dims()[0]], &obs.device()).bool_not())
    }
}

impl Termination for WithinLimits {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        self.holds(&next_obs).bool_not()
    }
}
