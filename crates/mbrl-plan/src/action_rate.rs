//! Actions that change little from step to step.

use burn::tensor::Tensor;
use mbrl_env::{ActionSpace, Situation};

use crate::{
    PlanError,
    error::{check_size, require},
    host::to_device,
    units::bounded,
};

/// What changes of the action cost, and how large they may be. Both are in half ranges of each action, so that one number fits all:
/// from one bound to the other is a change of 2.
///
/// The change of the first planned action is measured from the last action of the situation's [past](Situation::past). Where there is
/// none, the first action is free.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ActionRate {
    /// Cost of a step: this times the sum of the squared changes. 0 for none.
    pub weight: f32,
    /// Largest change per step; infinity for none.
    pub limit: f32,
}

impl ActionRate {
    /// A cost and a limit.
    #[must_use]
    pub fn new(weight: f32, limit: f32) -> Self {
        Self { weight, limit }
    }

    /// Refuses an invalid weight or limit, and actions without bounds.
    pub(crate) fn check(self, actions: &ActionSpace) -> Result<(), PlanError> {
        let Self { weight, limit } = self;
        require(weight >= 0.0 && weight.is_finite(), "action_rate.weight", weight, "a finite number of at least 0")?;
        require(limit > 0.0, "action_rate.limit", limit, "a number above 0, infinity for no limit")?;
        bounded(actions, "action rate", "a bounded box").map(|_| ())
    }

    /// Holds a plan `[H, A]` in environment units within the limit.
    pub(crate) fn hold(
        self,
        actions: &ActionSpace,
        situation: &Situation<'_>,
        plan: &mut [f32],
    ) -> Result<(), PlanError> {
        self.check(actions)?;
        let bounds = bounded(actions, "action rate", "a bounded box")?;
        let width = bounds.width();
        let Some(limit) = self.limit.is_finite().then_some(self.limit) else { return Ok(()) };
        for i in 0..plan.len() {
            let (low, high) = (bounds.low()[i % width], bounds.high()[i % width]);
            let before = match i.checked_sub(width) {
                Some(before) => Some(plan[before]),
                None => situation.past.actions.last().and_then(|last| last.get(i)).map(|last| last.clamp(low, high)),
            };
            if let Some(before) = before {
                // A planner keeps to the limit in other units, so its actions may be off by the last digit.
                let most = limit * (0.5 * high - 0.5 * low);
                let slack = 1e-5 * (0.5 * high - 0.5 * low);
                if (plan[i] - before).abs() > most + slack {
                    plan[i] = plan[i].clamp(before - most, before + most);
                }
            }
        }
        Ok(())
    }

    /// The cost of each step `[H, K]` of sequences `[H, K, A]` in environment units.
    pub(crate) fn cost(
        self,
        actions: &ActionSpace,
        situation: &Situation<'_>,
        sequences: &Tensor<3>,
    ) -> Result<Tensor<2>, PlanError> {
        let bounds = bounded(actions, "action rate", "a bounded box")?;
        let [horizon, population, width] = sequences.dims();
        let device = sequences.device();
        // A fixed action does not change, whatever its range.
        let per_half: Vec<f32> =
            bounds.low().iter().zip(bounds.high()).map(|(l, h)| if h > l { 2.0 / (h - l) } else { 0.0 }).collect();
        let scale = to_device(per_half, [1, 1, width], &device);
        let first = sequences.clone().narrow(0, 0, 1);
        let before = match situation.past.actions.last() {
            Some(last) => {
                check_size("width of the last action", width, last.len())?;
                to_device(last.clone(), [1, 1, width], &device).expand([1, population, width])
            }
            None => first.clone(),
        };
        let change = if horizon > 1 {
            let later = sequences.clone().narrow(0, 1, horizon - 1) - sequences.clone().narrow(0, 0, horizon - 1);
            Tensor::cat(vec![first - before, later], 0)
        } else {
            first - before
        };
        let change = change * scale;
        Ok((change.clone() * change).sum_dim(2).squeeze_dim::<2>(2) * self.weight)
    }
}

/// A limit on changes in units of half the action range, for sequences of steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RateLimit {
    limit: f32,
    /// The action before the first step, where there was one, `[A]`.
    before: Option<Vec<f32>>,
    width: usize,
}

impl RateLimit {
    /// The limit for a problem's sequences; `None` where there is no limit.
    pub(crate) fn of(
        rate: Option<ActionRate>,
        actions: &ActionSpace,
        situation: &Situation<'_>,
    ) -> Result<Option<Self>, PlanError> {
        let Some(rate) = rate else { return Ok(None) };
        rate.check(actions)?;
        if rate.limit >= 2.0 {
            return Ok(None);
        }
        let bounds = bounded(actions, "action rate", "a bounded box")?;
        let width = bounds.width();
        let before = match situation.past.actions.last() {
            None => None,
            Some(last) => {
                check_size("width of the last action", width, last.len())?;
                let limits = bounds.low().iter().zip(bounds.high());
                let unit = |(x, (l, h)): (&f32, (&f32, &f32))| {
                    let half = 0.5 * h - 0.5 * l;
                    if half > 0.0 { ((x - (0.5 * h + 0.5 * l)) / half).clamp(-1.0, 1.0) } else { 0.0 }
                };
                Some(last.iter().zip(limits).map(unit).collect())
            }
        };
        Ok(Some(Self { limit: rate.limit, before, width }))
    }

    /// The sequences `[K, H, A]` within the limit that are nearest, step by step.
    pub(crate) fn hold(&self, sequences: Tensor<3>) -> Tensor<3> {
        let [population, horizon, width] = sequences.dims();
        let mut before = self
            .before
            .as_ref()
            .map(|before| to_device(before.clone(), [1, 1, width], &sequences.device()).expand([population, 1, width]));
        let mut held = Vec::with_capacity(horizon);
        for t in 0..horizon {
            let step = sequences.clone().narrow(1, t, 1);
            let step = match before {
                Some(before) => step.max_pair(before.clone() - self.limit).min_pair(before + self.limit),
                None => step,
            };
            before = Some(step.clone());
            held.push(step);
        }
        Tensor::cat(held, 1)
    }

    /// The same for consecutive sequences `[K, H, A]` in row-major order, each of `len` = H · A entries.
    pub(crate) fn hold_host(&self, sequences: &mut [f32], len: usize) {
        for sequence in sequences.chunks_exact_mut(len) {
            for i in 0..len {
                let before = match i.checked_sub(self.width) {
                    Some(before) => Some(sequence[before]),
                    None => self.before.as_ref().map(|before| before[i]),
                };
                if let Some(before) = before {
                    sequence[i] = sequence[i].clamp(before - self.limit, before + self.limit);
                }
            }
        }
    }
}
