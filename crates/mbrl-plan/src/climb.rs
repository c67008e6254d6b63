//! Many points that climb a function along its gradients, each independently.

use burn::tensor::Tensor;
use mbrl_env::Rng;

use crate::{PlanError, action_rate::RateLimit, adam::Adam, host::to_host};

/// A point that has not improved for this many steps goes back to its best place. Adam's mean of the gradients forgets in about as
/// many steps, so a point that overshoots a maximum has time to come back by itself.
const PATIENCE: usize = 10;

/// After so many halvings the steps are a millionth of the first ones: the point has arrived.
const ARRIVED: i32 = 20;

/// K points `[K, D]` that climb.
///
/// A point that has stepped to where the function is not finite, or that no longer improves, goes back to the best place
/// it has seen and takes steps half as long from there. One that has seen no good place, or stands where the gradient is not
/// finite (or above 10¹⁹), starts afresh at random. None of this affects the other points.
#[derive(Debug, Clone)]
pub(crate) struct Climb {
    /// `[K, D]`.
    points: Vec<f32>,
    len: usize,
    /// Whether points are held in `[-1, 1]^D`.
    bounded: bool,
    /// What else constrains them.
    limit: Option<RateLimit>,
    adam: Adam,
    /// The best place of each point, `[K, D]`, and its value, −∞ where there is none yet.
    best: Vec<f32>,
    best_values: Vec<f32>,
    /// Steps since it was found.
    stale: Vec<usize>,
    /// How often the steps of each point were halved.
    halved: Vec<i32>,
}

impl Climb {
    pub(crate) fn new(mut points: Vec<f32>, len: usize, bounded: bool) -> Self {
        let count = points.len() / len;
        if bounded {
            hold(&mut points);
        }
        Self {
            len,
            bounded,
            limit: None,
            adam: Adam::new(count, len),
            best: points.clone(),
            best_values: vec![f32::NEG_INFINITY; count],
            stale: vec![0; count],
            halved: vec![0; count],
            points,
        }
    }

    /// Holds the points within a limit on changes as well.
    pub(crate) fn within(mut self, limit: Option<RateLimit>) -> Self {
        if let Some(limit) = &limit {
            limit.hold_host(&mut self.points, self.len);
            self.best.clone_from(&self.points);
        }
        self.limit = limit;
        self
    }

    /// Where the points are, `[K, D]`.
    pub(crate) fn points(&self) -> &[f32] {
        &self.points
    }

    /// Records the values `[K]` of the points.
    pub(crate) fn see(&mut self, values: &[f32]) {
        for (k, &value) in values.iter().enumerate() {
            self.stale[k] += 1;
            if value.is_finite() && value > self.best_values[k] {
                self.best_values[k] = value;
                self.stale[k] = 0;
                let row = self.row(k);
                self.best[row.clone()].copy_from_slice(&self.points[row]);
            }
        }
    }

    /// A step of every point, from the gradients `[K, D]` at the points and the values `[K]` that were seen there.
    pub(crate) fn step(&mut self, values: &[f32], gradients: &[f32], rate: f32, rng: &mut Rng) {
        for (k, value) in values.iter().enumerate() {
            let row = self.row(k);
            let gradient = &gradients[row.clone()];
            // Adam squares it.
            let steep = gradient.iter().all(|g| (g * g).is_finite());
            let known = self.best_values[k] > f32::NEG_INFINITY;
            if value.is_finite() && steep && self.stale[k] < PATIENCE {
                let rate = rate * 0.5f32.powi(self.halved[k]);
                self.adam.step(k, &mut self.points[row.clone()], gradient, rate);
                if self.bounded {
                    hold(&mut self.points[row.clone()]);
                }
                self.keep_within(row);
                continue;
            }
            self.adam.forget(k);
            self.stale[k] = 0;
            if known && (steep || !value.is_finite()) {
                self.halved[k] += 1;
                self.points[row.clone()].copy_from_slice(&self.best[row]);
            } else {
                self.points[row.clone()].copy_from_slice(&random(self.len, self.bounded, rng));
                self.keep_within(row);
            }
        }
    }

    fn keep_within(&mut self, row: std::ops::Range<usize>) {
        if let Some(limit) = &self.limit {
            limit.hold_host(&mut self.points[row], self.len);
        }
    }

    /// Whether no point can improve any more.
    pub(crate) fn arrived(&self) -> bool {
        self.halved.iter().all(|&halved| halved >= ARRIVED)
    }

    /// The best place that any point has seen (of equals the first) and its value; `None` where no value was finite.
    pub(crate) fn best(&self) -> Option<(f32, &[f32])> {
        let first =
            (0..self.best_values.len()).rev().max_by(|&a, &b| self.best_values[a].total_cmp(&self.best_values[b]));
        first
            .filter(|&k| self.best_values[k] > f32::NEG_INFINITY)
            .map(|k| (self.best_values[k], &self.best[self.row(k)]))
    }

    fn row(&self, k: usize) -> std::ops::Range<usize> {
        k * self.len..(k + 1) * self.len
    }
}

fn hold(points: &mut [f32]) {
    points.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
}

/// A random point: uniform in `[-1, 1]^D`, or standard normal where there are no bounds.
pub(crate) fn random(len: usize, bounded: bool, rng: &mut Rng) -> Vec<f32> {
    (0..len).map(|_| if bounded { rng.uniform(-1.0, 1.0) } else { rng.normal() }).collect()
}

/// Values `[K]` and gradients `[K, D]` of a function of independent rows at `points` `[K, D]`: one graph and one backward
/// pass for all, since Burn's backward pass consumes the graph.
pub(crate) fn value_and_gradient(
    points: Tensor<2>,
    function: impl FnOnce(Tensor<2>) -> Result<Tensor<1>, PlanError>,
) -> Result<(Vec<f32>, Vec<f32>), PlanError> {
    let len = points.shape().num_elements();
    let points = points.autodiff().require_grad();
    let values = function(points.clone())?;
    let gradient = values.is_tracked().then(|| values.clone().sum().backward()).and_then(|all| points.grad(&all));
    // Without a path from the points to the values these are constant.
    Ok((to_host(values.inner()), gradient.map_or_else(|| vec![0.0; len], to_host)))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::host::to_device;

    /// `steps` steps on `f`; the points visited on the way.
    fn run(climb: &mut Climb, steps: usize, rate: f32, f: impl Fn(Tensor<2>) -> Tensor<1>) -> Vec<Vec<f32>> {
        let mut rng = Rng::new(0);
        let shape = [climb.points().len() / climb.len, climb.len];
        let step = |_| {
            let visited = climb.points().to_vec();
            let points = to_device(visited.clone(), shape, &Device::flex());
            let (values, gradients) = value_and_gradient(points, |x| Ok(f(x))).unwrap();
            climb.see(&values);
            climb.step(&values, &gradients, rate, &mut rng);
            visited
        };
        (0..steps).map(step).collect()
    }

    /// −(x − 0.3)² − (y − 0.6)² for x up to 0.5; beyond, `beyond` is multiplied in.
    fn hill_beside_an_abyss(x: Tensor<2>, beyond: f32) -> Tensor<1> {
        let summit = to_device(vec![0.3, 0.6], [1, 2], &Device::flex());
        let over = x.clone().narrow(1, 0, 1).greater_elem(0.5);
        let factor = Tensor::ones(over.dims(), &Device::flex()).mask_fill(over, beyond);
        (-(x - summit).square().sum_dim(1) * factor).squeeze_dim(1)
    }

    #[test]
    fn gradients_of_independent_rows_are_their_own() {
        let points = Tensor::<2>::from_floats([[1.0, 2.0], [-3.0, 0.5]], &Device::flex());
        let (values, gradients) =
            value_and_gradient(points.clone(), |x| Ok((x.clone() * x).sum_dim(1).squeeze_dim(1))).unwrap();
        assert_eq!(values, [5.0, 9.25]);
        assert_eq!(gradients, [2.0, 4.0, -6.0, 1.0]);
        let device = points.device();
        let (_, flat) = value_and_gradient(points, |_| Ok(Tensor::ones([2], &device))).unwrap();
        assert_eq!(flat, [0.0; 4], "a constant");
    }

    #[test]
    fn a_point_that_steps_into_nan_goes_back_and_takes_shorter_steps() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // The second one starts where the value is not finite, the third one is never near it.
            let starts = vec![0.45, -1.0, 0.9, 0.9, -0.5, -0.5];
            let mut climb = Climb::new(starts, 2, true);
            // So long that the first step of the first point, along x as along y, would lead beyond 0.5 were it not downhill:
            // momentum and restarts carry points there.
            let visited = run(&mut climb, 300, 0.4, |x| hill_beside_an_abyss(x, bad));
            assert!(visited.iter().flatten().all(|x| x.abs() <= 1.0), "within the bounds, and never NaN");
            let (value, best) = climb.best().unwrap();
            assert!(
                value > -1e-6 && (best[0] - 0.3).abs() < 1e-3 && (best[1] - 0.6).abs() < 1e-3,
                "{value} at {best:?}"
            );
            assert!(climb.best_values.iter().all(|v| *v > -1e-3), "each of them arrives: {:?}", climb.best_values);

            let mut alone = Climb::new(vec![-0.5, -0.5], 2, true);
            let path = run(&mut alone, 300, 0.4, |x| hill_beside_an_abyss(x, bad));
            let in_company = visited.iter().map(|points| &points[4..]);
            let same = path.iter().zip(in_company).take_while(|(alone, company)| alone.as_slice() == *company).count();
            // Until it draws from the generator itself, which never happens here.
            assert_eq!(same, 300, "others have no influence");
        }
    }

    #[test]
    fn steps_get_shorter_until_the_points_arrive() {
        let hill = |x: Tensor<2>| -(x - 0.25).square().sum_dim(1).squeeze_dim::<1>(1);
        let mut climb = Climb::new(vec![-1.0, 0.0, 1.0], 1, false);
        run(&mut climb, 50, 0.5, hill);
        assert!(!climb.arrived());
        run(&mut climb, 2000, 0.5, hill);
        assert!(climb.arrived() && climb.best().unwrap().0 > -1e-9, "{climb:?}");
    }

    #[test]
    fn a_point_at_a_place_without_a_gradient_starts_afresh() {
        // The root has an infinite slope at 0, where the point stands.
        let mut climb = Climb::new(vec![0.0], 1, true);
        run(&mut climb, 400, 0.1, |x| x.clone().abs().sqrt().squeeze_dim::<1>(1) - x.square().squeeze_dim::<1>(1));
        // |x|^½ − x² is largest at 4^(−2/3), either side.
        let (value, best) = climb.best().unwrap();
        assert!((best[0].abs() - 0.397).abs() < 1e-2, "{value} at {best:?}");
    }

    #[test]
    fn where_nothing_is_finite_there_is_no_best() {
        let mut climb = Climb::new(vec![0.0, 0.5], 1, true);
        run(&mut climb, 5, 0.1, |x| x.squeeze_dim::<1>(1) * f32::NAN);
        assert!(climb.best().is_none());
    }

    #[test]
    fn of_equals_the_first_is_the_best() {
        let mut climb = Climb::new(vec![0.1, 0.2, 0.3], 1, true);
        climb.see(&[1.0, 2.0, 2.0]);
        assert_eq!(climb.best().unwrap(), (2.0, [0.2].as_slice()));
    }
}
