//! Zeroth order: any sampler of sequences as an optimizer.

use burn::tensor::Tensor;
use mbrl_env::Rng;

use super::{Found, InUnits, Objective, Region, Stop};
use crate::{
    PlanError, SequenceSampler,
    error::require,
    host::{to_device, to_host},
};

/// Maximises a function by asking a sampler for parameters and telling it their values.
///
/// The search is one control step of the sampler: its `iterations`, or fewer where `stop` or its own convergence says
/// so, without a restart between them. Its shape `[H, A]` is read as one vector of `D = H · A` parameters;
/// `CemConfig::for_search().sampler(D)` has `[1, D]`. The sampler is reset first, so equal arguments give equal
/// results.
///
/// After each iteration but the last, the sampler's solution is evaluated along with the next candidates, and after
/// the last one on its own: the mean of a distribution is often better than all of its samples. Samplers are not told this
/// value. The best of everything evaluated is returned; values that are not finite never win. An iteration without a finite
/// value ends the search.
///
/// Where the region is not bounded, nothing is clipped. A sampler that itself keeps its samples within `[-1, 1]` could
/// never leave the first unit, so it is refused there: set [`CemConfig::constrain_variance`](crate::CemConfig) to
/// `false`. CEM's truncation does no harm, but narrows its samples to 0.88 of the standard deviation in each
/// iteration; without bounds, leave it infinite, as [`CemConfig::for_search`](crate::CemConfig::for_search) does. The
/// spread of CEM and its relatives shrinks on a mere slope as well: an optimum many units away is not reached,
/// whatever the budget. Choose the region's scale so that the optimum is probably within a unit or two of its centre.
///
/// ```
/// use mbrl_plan::{CemConfig, Device, Rng, Tensor, optimize::{Region, Stop, search}};
///
/// // Rastrigin's function has an optimum near every point of whole numbers; the best, 0, is at 0.
/// let rastrigin = |x: Tensor<2>| -> Tensor<1> {
///     let ripples = (x.clone() * std::f32::consts::TAU).cos() * 10.0;
///     -(x.square() - ripples + 10.0).sum_dim(1).squeeze_dim::<1>(1)
/// };
/// let mut cem = CemConfig { population: 500, elites: 100, ..CemConfig::for_search() }.sampler(10)?;
/// let region = Region { centre: vec![1.7; 10], scale: vec![4.0; 10], bounded: false, device: Device::flex() };
/// let stop = Stop { evaluations: 50_000, value: -1e-3 };
/// let found = search(&mut cem, &rastrigin, &region, stop, &mut Rng::new(0))?;
/// assert!(found.value >= -1e-3 && found.evaluations < 50_000);
/// assert!(found.parameters.iter().all(|x| x.abs() < 0.01), "{:?}", found.parameters);
/// # Ok::<(), mbrl_plan::PlanError>(())
/// ```
///
/// # Errors
/// [`PlanError::Width`] for a region without the sampler's number of parameters, [`PlanError::NonFinite`] for a
/// centre or a scale that is not finite, [`PlanError::Config`] for a scale that is not above 0, a `stop` without
/// evaluations or with a value of NaN, and a sampler that presumes bounds where there are none,
/// [`PlanError::NoFiniteReturn`] where nothing finite was found.
pub fn search(
    sampler: &mut dyn SequenceSampler,
    objective: &dyn Objective,
    region: &Region,
    stop: Stop,
    rng: &mut Rng,
) -> Result<Found, PlanError> {
    let [horizon, width] = sampler.shape();
    let dimensions = horizon * width;
    let function = InUnits::new(objective, region, dimensions)?;
    stop.check(1, "at least one evaluation")?;
    let fits = region.bounded || !sampler.presumes_bounds();
    require(
        fits,
        "region.bounded",
        region.bounded,
        "true, or a sampler that does not presume bounds (CEM with constrain_variance = false)",
    )?;

    let device = &region.device;
    let solution = |sampler: &dyn SequenceSampler| to_device(sampler.solution(), [1, dimensions], device);
    let mut progress = Progress {
        function,
        bounded: region.bounded,
        stop,
        found: Found { parameters: Vec::new(), value: f32::NEG_INFINITY, evaluations: 0, trace: Vec::new() },
    };
    sampler.reset();
    sampler.begin();
    for iteration in 0..sampler.iterations() {
        let asked = sampler.ask(iteration, device, rng);
        let candidates = asked.dims()[0];
        let mut units = asked.reshape([candidates, dimensions]);
        if iteration > 0 {
            units = Tensor::cat(vec![units, solution(sampler)], 0);
        }
        let (units, values) = progress.evaluate(units)?;
        if progress.over() {
            break;
        }
        let sequences = units.narrow(0, 0, candidates).reshape([candidates, horizon, width]);
        match sampler.tell(iteration, sequences, &values[..candidates]) {
            // Earlier finds are not lost.
            Err(PlanError::NoFiniteReturn { .. }) if progress.found.value.is_finite() => break,
            result => result?,
        }
        if sampler.converged() {
            break;
        }
    }
    if !progress.over() {
        progress.evaluate(solution(sampler))?;
    }
    let found = progress.found;
    if found.parameters.is_empty() {
        // The search was over before a sampler could report it.
        let population = usize::try_from(found.evaluations).unwrap_or(usize::MAX);
        return Err(PlanError::NoFiniteReturn { population, iteration: 0 });
    }
    Ok(found)
}

/// A search under way.
struct Progress<'a> {
    function: InUnits<'a>,
    bounded: bool,
    stop: Stop,
    found: Found,
}

impl Progress<'_> {
    fn over(&self) -> bool {
        self.found.evaluations >= self.stop.evaluations || self.found.value >= self.stop.value
    }

    /// Evaluates units `[K, D]`, or as many of them as are still allowed; returns them as they were evaluated, and their
    /// values.
    fn evaluate(&mut self, units: Tensor<2>) -> Result<(Tensor<2>, Vec<f32>), PlanError> {
        let left = usize::try_from(self.stop.evaluations - self.found.evaluations).unwrap_or(usize::MAX);
        let count = left.min(units.dims()[0]);
        let units = units.narrow(0, 0, count);
        let units = if self.bounded { units.clamp(-1.0, 1.0) } else { units };
        let values = to_host(self.function.evaluate(units.clone())?);
        let mut best = None;
        for (k, &value) in values.iter().enumerate() {
            if value.is_finite() && value > self.found.value {
                self.found.value = value;
                best = Some(k);
            }
        }
        if let Some(k) = best {
            self.found.parameters = to_host(self.function.parameters(units.clone().narrow(0, k, 1)));
        }
        self.found.evaluations += count as u64;
        self.found.trace.push((self.found.evaluations, self.found.value));
        Ok((units, values))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::HashMap,
    };

    use burn::tensor::Device;

    use super::*;
    use crate::{CemConfig, CemSampler, IcemConfig, MppiConfig, RandomShootingConfig};

    fn region(centre: &[f32], scale: f32, bounded: bool) -> Region {
        Region { centre: centre.to_vec(), scale: vec![scale; centre.len()], bounded, device: Device::flex() }
    }

    const ALL: Stop = Stop { evaluations: u64::MAX, value: f32::INFINITY };

    /// −|x − goal|².
    fn bowl(goal: f32) -> impl Fn(Tensor<2>) -> Tensor<1> {
        move |x| -(x - goal).square().sum_dim(1).squeeze_dim::<1>(1)
    }

    fn cem() -> CemConfig {
        CemConfig { population: 60, elites: 12, iterations: 40, ..CemConfig::for_search() }
    }

    fn run(sampler: &mut CemSampler, region: &Region, stop: Stop) -> Found {
        search(sampler, &bowl(0.5), region, stop, &mut Rng::new(1)).unwrap()
    }

    #[test]
    fn evaluations_are_counted_and_never_exceeded() {
        for budget in [1, 59, 60, 61, 120, 121, 1000] {
            let rows = Cell::new(0);
            let counted = |x: Tensor<2>| {
                rows.set(rows.get() + x.dims()[0] as u64);
                bowl(0.5)(x)
            };
            let stop = Stop { evaluations: budget, value: f32::INFINITY };
            let mut sampler = cem().sampler(3).unwrap();
            let found = search(&mut sampler, &counted, &region(&[0.0; 3], 1.0, false), stop, &mut Rng::new(1)).unwrap();
            assert_eq!((found.evaluations, rows.get()), (budget, budget));
            assert_eq!(found.trace.last(), Some(&(budget, found.value)));
        }
        // Without a limit: 40 iterations, the solution of each but the first with the next, and the last one.
        let found = run(&mut cem().sampler(3).unwrap(), &region(&[0.0; 3], 1.0, false), ALL);
        assert_eq!(found.evaluations, 40 * 60 + 39 + 1);
    }

    #[test]
    fn the_trace_rises_and_ends_at_the_value_asked_for() {
        let stop = Stop { evaluations: 100_000, value: -1e-4 };
        let found = run(&mut cem().sampler(3).unwrap(), &region(&[0.0; 3], 1.0, false), stop);
        assert!(found.value >= -1e-4 && found.evaluations < 2000, "{found:?}");
        assert!(
            found.trace.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1),
            "{:?}",
            found.trace
        );
        let before = found.trace[found.trace.len() - 2].1;
        assert!(before < -1e-4, "it should have ended before: {:?}", found.trace);
        let value: f32 = found.parameters.iter().map(|x| -(x - 0.5).powi(2)).sum();
        assert!((value - found.value).abs() < 1e-6, "the parameters have another value: {found:?}");
    }

    #[test]
    fn units_are_those_of_the_region() {
        // The same bowl in other units: centre 100, scale 10.
        let near = run(&mut cem().sampler(2).unwrap(), &region(&[0.0; 2], 1.0, false), ALL);
        let wide = |x: Tensor<2>| bowl(0.5)((x - 100.0) / 10.0);
        let far =
            search(&mut cem().sampler(2).unwrap(), &wide, &region(&[100.0; 2], 10.0, false), ALL, &mut Rng::new(1));
        let far = far.unwrap();
        assert!(near.parameters.iter().all(|x| (x - 0.5).abs() < 1e-3), "{near:?}");
        assert!(far.parameters.iter().all(|x| (x - 105.0).abs() < 1e-2), "{far:?}");
    }

    #[test]
    fn a_bounded_region_is_kept_and_an_unbounded_one_is_left() {
        let seen = RefCell::new((f32::INFINITY, f32::NEG_INFINITY));
        let goal_outside = |x: Tensor<2>| {
            let (low, high) = *seen.borrow();
            let values = to_host(x.clone());
            *seen.borrow_mut() =
                (values.iter().copied().fold(low, f32::min), values.iter().copied().fold(high, f32::max));
            bowl(3.5)(x)
        };
        let find = |bounded: bool| {
            *seen.borrow_mut() = (f32::INFINITY, f32::NEG_INFINITY);
            let stop = Stop { evaluations: 20_000, value: -1e-6 };
            let mut sampler = CemConfig { iterations: 300, alpha: 0.5, ..cem() }.sampler(2).unwrap();
            let found = search(&mut sampler, &goal_outside, &region(&[1.0; 2], 2.0, bounded), stop, &mut Rng::new(1));
            (found.unwrap(), *seen.borrow())
        };
        let (found, (low, high)) = find(true);
        assert_eq!(found.parameters, [3.0, 3.0], "the corner of [-1, 3]² next to the goal");
        assert!(low >= -1.0 && high <= 3.0, "evaluated from {low} to {high}");
        // One and a quarter units from the centre, two and a half standard deviations of the first samples.
        let (found, _) = find(false);
        assert!(found.value > -1e-4, "{found:?}");
    }

    #[test]
    fn values_that_are_not_finite_never_win() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let poisoned = |x: Tensor<2>| {
                let left = x.clone().narrow(1, 0, 1).lower_elem(0.0).squeeze_dim::<1>(1);
                bowl(-0.5)(x).mask_fill(left, bad)
            };
            let stop = Stop { evaluations: 1000, value: f32::MAX };
            let mut sampler = cem().sampler(2).unwrap();
            let found =
                search(&mut sampler, &poisoned, &region(&[0.0; 2], 1.0, false), stop, &mut Rng::new(1)).unwrap();
            assert!(found.value.is_finite() && found.parameters[0] >= 0.0, "{found:?}");
            assert!(found.trace.iter().all(|(_, value)| value.is_finite()), "{found:?}");
        }
        let hopeless = |x: Tensor<2>| bowl(0.0)(x) * f32::NAN;
        let error =
            search(&mut cem().sampler(2).unwrap(), &hopeless, &region(&[0.0; 2], 1.0, true), ALL, &mut Rng::new(1));
        assert_eq!(error.unwrap_err().to_string(), "none of the 60 candidates of iteration 0 has a finite return");
    }

    #[test]
    fn a_last_batch_without_a_finite_value_spoils_nothing() {
        let rows = Cell::new(0);
        let fails_late = |x: Tensor<2>| {
            let first = rows.replace(rows.get() + x.dims()[0]) == 0;
            if first { bowl(0.5)(x) } else { bowl(0.5)(x) * f32::NAN }
        };
        let stop = Stop { evaluations: 65, value: f32::INFINITY };
        let near = region(&[0.0; 2], 1.0, false);
        let find = || search(&mut cem().sampler(2).unwrap(), &fails_late, &near, stop, &mut Rng::new(1));
        let found = find().unwrap();
        assert!(found.value.is_finite() && found.parameters.len() == 2 && found.evaluations == 65, "{found:?}");
        // Nor does a whole iteration: the search ends with what it has found, after it evaluates the solution that it had.
        rows.set(0);
        let found = search(&mut cem().sampler(2).unwrap(), &fails_late, &near, ALL, &mut Rng::new(1)).unwrap();
        assert!(found.value.is_finite() && found.evaluations == 60 + 61 + 1, "{found:?}");
        // And where no value at all was finite, that is an error still.
        assert_eq!(find().unwrap_err().to_string(), "none of the 60 candidates of iteration 0 has a finite return");
        let short = Stop { evaluations: 7, ..stop };
        let error = search(&mut cem().sampler(2).unwrap(), &fails_late, &near, short, &mut Rng::new(1)).unwrap_err();
        assert_eq!(error.to_string(), "none of the 7 candidates of iteration 0 has a finite return");
    }

    #[test]
    fn searches_repeat_and_a_used_sampler_is_as_a_new_one() {
        let region = region(&[0.0; 3], 1.0, false);
        let mut sampler = cem().sampler(3).unwrap();
        let first = run(&mut sampler, &region, ALL);
        assert_eq!(run(&mut sampler, &region, ALL), first);
        assert_eq!(run(&mut cem().sampler(3).unwrap(), &region, ALL), first);
    }

    #[test]
    fn every_sampler_searches() {
        let near = region(&[0.0; 3], 1.0, false);
        let stop = Stop { evaluations: 6000, value: f32::INFINITY };
        let value = |found: Result<Found, PlanError>| found.unwrap().value;
        let mut values = HashMap::new();
        let mut rng = Rng::new(4);
        let cem = &mut CemConfig::for_search().sampler(3).unwrap();
        values.insert("cem", value(search(cem, &bowl(0.5), &near, stop, &mut rng)));
        let icem = &mut IcemConfig::for_search().sampler(3).unwrap();
        values.insert("icem", value(search(icem, &bowl(0.5), &near, stop, &mut rng)));
        let mppi = &mut MppiConfig::for_search().sampler(3).unwrap();
        values.insert("mppi", value(search(mppi, &bowl(0.5), &near, stop, &mut rng)));
        let random = &mut RandomShootingConfig::for_search().sampler(3).unwrap();
        let at_random = value(search(random, &bowl(0.5), &near, stop, &mut rng));
        // The start has −0.75. Of 6000 random points the nearest has about −0.01; samplers that learn come much nearer.
        assert!((-0.05..-1e-4).contains(&at_random), "random search: {at_random}");
        assert!(values.values().all(|v| *v > -1e-6), "{values:?}");
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: CemConfig, region: &Region, stop: Stop| {
            let mut sampler = config.sampler(2).unwrap();
            search(&mut sampler, &bowl(0.0), region, stop, &mut Rng::new(0)).unwrap_err().to_string()
        };
        let good = || region(&[0.0; 2], 1.0, false);
        assert_eq!(fails(cem(), &region(&[0.0; 3], 1.0, true), ALL), "entries of region.centre = 3: expected 2");
        let short = Region { scale: vec![1.0], ..good() };
        assert_eq!(fails(cem(), &short, ALL), "entries of region.scale = 1: expected 2");
        let error = fails(cem(), &region(&[0.0, f32::NAN], 1.0, true), ALL);
        assert_eq!(error, "region.centre[1] = NaN: expected a finite number");
        let error = fails(cem(), &region(&[0.0; 2], f32::INFINITY, true), ALL);
        assert_eq!(error, "region.scale[0] = inf: expected a finite number");
        let error = fails(cem(), &region(&[0.0; 2], 0.0, true), ALL);
        assert_eq!(error, "region.scale = 0: expected a number above 0 in every dimension");
        let error = fails(cem(), &good(), Stop { evaluations: 0, ..ALL });
        assert_eq!(error, "stop.evaluations = 0: expected at least one evaluation");
        let error = fails(cem(), &good(), Stop { value: f32::NAN, ..ALL });
        assert_eq!(error, "stop.value = NaN: expected a number, or INFINITY for none");
        // Held in [-1, 1] by its own rule, CEM would stall before its first step beyond.
        let error = fails(CemConfig { constrain_variance: true, ..cem() }, &good(), ALL);
        assert_eq!(
            error,
            "region.bounded = false: expected true, or a sampler that does not presume bounds (CEM with constrain_variance = false)"
        );
        let mut held = CemConfig { constrain_variance: true, ..cem() }.sampler(2).unwrap();
        let bounded = region(&[0.0; 2], 1.0, true);
        assert!(search(&mut held, &bowl(0.5), &bounded, ALL, &mut Rng::new(0)).unwrap().value > -1e-6);
        let wrong = |x: Tensor<2>| bowl(0.0)(x).narrow(0, 0, 1);
        let error = search(&mut cem().sampler(2).unwrap(), &wrong, &good(), ALL, &mut Rng::new(0)).unwrap_err();
        assert_eq!(error.to_string(), "values of the objective = 1: expected 60");
    }
}
