//! What several tasks have in common.

use std::ops::{Add, Mul};

use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::{
    EnvError, Field, Info, Reward, Rng, Termination,
    field::with_unique_names,
    mujoco::{Camera, Model, Sim, StepOutcome, View},
};

/// `weight · ‖action‖²` with the roundings of Gymnasium, whose actions are `float32`, as is everything computed from them
/// alone.
pub(super) fn control_cost(weight: f64, action: &[f32]) -> f64 {
    f64::from(weight as f32 * sum_of_squares(action))
}

/// The sum of the squares, in [`sum`]'s order.
pub(super) fn sum_of_squares<T: Number>(values: &[T]) -> T {
    sum(values, |x| x * x)
}

/// The sum of a function of each entry in NumPy's order, for the same roundings: one by one below eight entries, eight parallel
/// sums up to 128, halves beyond.
pub(super) fn sum<T: Number>(values: &[T], of: impl Fn(T) -> T + Copy) -> T {
    let n = values.len();
    if n < 8 {
        return values.iter().fold(T::default(), |sum, x| sum + of(*x));
    }
    if n > 128 {
        let (left, right) = values.split_at(n / 2 - n / 2 % 8);
        return sum(left, of) + sum(right, of);
    }
    let (blocks, rest) = values.as_chunks::<8>();
    let mut sums = [T::default(); 8];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum = *sum + of(*x);
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(sum, |sum, x| sum + of(*x))
}

/// `f32` and `f64`.
pub(super) trait Number: Copy + Default + Add<Output = Self> + Mul<Output = Self> {}
impl Number for f32 {}
impl Number for f64 {}

/// Change of a position in the plane over time.
pub(super) fn velocity(before: &[f64], after: [f64; 2], period: f64) -> [f64; 2] {
    [(after[0] - before[0]) / period, (after[1] - before[1]) / period]
}

/// Distance between two points.
pub(super) fn distance(from: [f64; 3], to: [f64; 3]) -> f64 {
    sum_of_squares(&[from[0] - to[0], from[1] - to[1], from[2] - to[2]]).sqrt()
}

/// Numbers for logs.
pub(super) fn info<const N: usize>(numbers: [(&'static str, f64); N]) -> Info {
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// The columns of an observation that has all positions except the first `skipped`, and the velocities.
pub(super) fn joint_fields(model: &Model, skipped: usize) -> Vec<Field> {
    with_unique_names([&model.position_fields()[skipped..], &model.velocity_fields()].concat())
}

/// Fields of each body except the world, from what they hold, their unit and their number of columns: `{body}_{what}`.
pub(super) fn body_fields(model: &Model, told: &[(&str, &str, usize)]) -> Vec<Field> {
    let mut fields = Vec::new();
    for body in model.body_names() {
        for (what, unit, columns) in told {
            fields.push(Field::linear(format!("{body}_{what}"), *unit).with_shape([*columns]));
        }
    }
    fields
}

/// What `cfrc_ext` holds for each body.
pub(super) const FORCES: [(&str, &str, usize); 2] = [("torque", "N m", 3), ("force", "N", 3)];

/// The info of a step in the plane: where the root is, and its velocity as the task computes it.
pub(super) fn plane_info(sim: &Sim, [x_velocity, y_velocity]: [f64; 2]) -> Info {
    let (x, y) = (sim.qpos()[0], sim.qpos()[1]);
    info([
        ("x_position", x),
        ("y_position", y),
        ("distance_from_origin", sum_of_squares(&[x, y]).sqrt()),
        ("x_velocity", x_velocity),
        ("y_velocity", y_velocity),
    ])
}

/// Rewards and costs of running: the parts that the task has.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) forward: f64,
    pub(super) control: f64,
    pub(super) survive: Option<f64>,
    pub(super) contact: Option<f64>,
}

impl Running {
    /// The reward, summed in Gymnasium's order; its parts are added to `info`.
    pub(super) fn judge(self, terminated: bool, mut info: Info) -> StepOutcome {
        let Self { forward, control, survive, contact } = self;
        info.extend([("reward_forward".into(), forward), ("reward_ctrl".into(), -control)]);
        info.extend(survive.map(|pay| ("reward_survive".into(), pay)));
        info.extend(contact.map(|cost| ("reward_contact".into(), -cost)));
        let reward = forward + survive.unwrap_or(0.0) - (control + contact.unwrap_or(0.0));
        StepOutcome { reward, terminated, info }
    }
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

/// A camera at Gymnasium's distance from a body that it follows, at its own height (m), looking down by its angle
/// (degrees).
pub(super) fn following(model: &Model, body: &str, height: f64, distance: f64, elevation: f64) -> Camera {
    // Your own model may use another name.
    let follow = model.body(body).is_ok().then(|| body.to_owned());
    Camera::Free(View { lookat: [0.0, 0.0, height], distance, elevation, follow, ..View::of(model) })
}

/// Refuses numbers with which no task works.
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

/// Refuses an empty range; its ends may be infinite.
pub(super) fn check_range(field: &'static str, (low, high): (f64, f64)) -> Result<(), EnvError> {
    if low < high {
        return Ok(());
    }
    Err(EnvError::Config { field, value: format!("({low}, {high})"), rule: "a lower end below the upper one" })
}

/// Refuses a model without the positions and velocities that the rules read by index.
pub(super) fn check_sizes(model: &Model, nq: usize, nv: usize) -> Result<(), EnvError> {
    if model.nq() >= nq && model.nv() >= nv {
        return Ok(());
    }
    let (origin, positions, velocities) = (model.origin(), model.nq(), model.nv());
    Err(EnvError::Engine {
        reason: format!("{origin}: {positions} positions and {velocities} velocities, expected at least {nq} and {nv}"),
    })
}

/// Reward for running: `forward · Δx / dt − control · ‖a‖² + healthy`, for an observation that holds the position.
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
    /// Added reward for a next state within limits.
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

/// Terminates if an entry of the next observation leaves its limits, or is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct WithinLimits {
    /// Column, lower and upper limit.
    pub limits: Vec<(usize, f64, f64)>,
    /// Whether an entry may be exactly at its limit.
    pub closed: bool,
}

impl WithinLimits {
    /// Which rows of `[N, O]` are within the limits, `[N]`.
    #[must_use]
    pub fn holds(&self, obs: &Tensor<2>) -> Tensor<1, Bool> {
        let (n, device) = (self.limits.len(), obs.device());
        if n == 0 {
            return Tensor::<1, Bool>::zeros([obs.dims()[0]], &device).bool_not();
        }
        let columns: Vec<i64> = self.limits.iter().map(|(column, ..)| *column as i64).collect();
        let columns = Tensor::<1, Int>::from_data(TensorData::new(columns, [n]), &device);
        let row = |limit: fn(&(usize, f64, f64)) -> f64| {
            let limits: Vec<f32> = self.limits.iter().map(|limits| limit(limits) as f32).collect();
            Tensor::<2>::from_data(TensorData::new(limits, [1, n]), &device)
        };
        let (low, high) = (row(|limits| limits.1), row(|limits| limits.2));
        let entries = obs.clone().select(1, columns);
        // NaN is within no limits.
        let within = if self.closed {
            entries.clone().greater_equal(low).bool_and(entries.lower_equal(high))
        } else {
            entries.clone().greater(low).bool_and(entries.lower(high))
        };
        within.all_dim(1).squeeze_dim::<1>(1)
    }
}

impl Termination for WithinLimits {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        self.holds(&next_obs).bool_not()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    /// The bits are those of NumPy 2.4's `np.sum(np.square(x))` for `x = np.arange(n) * 7 % 11 * 0.1 + 0.3` in `float32` and for
    /// a tenth of it in `float64`.
    #[test]
    fn sums_are_numpys_to_the_bit() {
        for (n, single, double) in [
            (5, 0x407c_cccc, 0x3fa4_3958_0e56_041f),
            (8, 0x40c8_f5c3, 0x3fb0_13a9_2ee6_31fe),
            (23, 0x4182_f5c3, 0x3fc4_f41f_2b5d_cc6b),
            (128, 0x42be_5c2a, 0x3fee_7525_5453_8efe),
            (131, 0x42c2_6148, 0x3fef_19ce_1611_3410),
            (300, 0x435d_3ae2, 0x4001_b2ca_602b_6aee),
            (1000, 0x4439_1000, 0x401d_9c29_03fb_e776),
        ] {
            let singles: Vec<f32> = (0..n).map(|i| (i * 7 % 11) as f32 * 0.1 + 0.3).collect();
            let doubles: Vec<f64> = singles.iter().map(|x| f64::from(*x) * 0.1).collect();
            assert_eq!(sum_of_squares(&singles).to_bits(), single, "{n}");
            assert_eq!(sum_of_squares(&doubles).to_bits(), double, "{n}");
        }
    }

    #[test]
    fn limits_are_kept_row_by_row() {
        let rows = [[0.0_f32, 1.0, 9.0], [0.0, 2.0, 9.0], [0.5, 1.5, f32::NAN], [f32::NAN, 1.5, 9.0], [-0.1, 1.5, 9.0]];
        let holds = |limits, closed| -> Vec<bool> {
            let obs = Tensor::<2>::from_data(rows, &Device::flex());
            WithinLimits { limits, closed }.holds(&obs).into_data().iter::<bool>().collect()
        };
        let limits = vec![(1, 1.0, 2.0), (0, 0.0, f64::INFINITY)];
        assert_eq!(holds(limits.clone(), true), [true, true, true, false, false]);
        assert_eq!(holds(limits, false), [false, false, true, false, false]);
        assert_eq!(holds(Vec::new(), false), [true; 5]);
    }
}
