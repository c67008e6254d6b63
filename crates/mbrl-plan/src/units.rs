//! Conversion between the units of samplers and gradient optimizers and those of a model.

use burn::tensor::{Device, Int, Tensor};
use mbrl_env::{ActionSpace, BoxSpace};

use crate::{
    PlanError,
    action_rate::RateLimit,
    error::{check_size, refused},
    host::{to_device, to_host},
    sampler::sampler_width,
};

/// The box of a bounded action space.
///
/// # Errors
/// [`PlanError::ActionSpace`] for other spaces.
pub(crate) fn bounded<'a>(
    actions: &'a ActionSpace,
    planner: &'static str,
    expected: &'static str,
) -> Result<&'a BoxSpace, PlanError> {
    let refused = |space: String| Err(PlanError::ActionSpace { planner, expected, space });
    match actions {
        ActionSpace::Box(space) if space.is_bounded() => Ok(space),
        ActionSpace::Box(space) => refused(format!("unbounded box, low {:?}, high {:?}", space.low(), space.high())),
        ActionSpace::Discrete(n) => refused(format!("discrete with {n} choices")),
        other => refused(format!("{other:?}")),
    }
}

/// How a sampler's sequences become actions.
#[derive(Debug)]
pub(crate) enum Units<'a> {
    /// Half the range of a box.
    HalfRange(HalfRange<'a>, Option<RateLimit>),
    /// One number for each choice; the largest decides.
    Choices { count: usize, device: &'a Device },
}

impl<'a> Units<'a> {
    /// # Errors
    /// As [`sampler_width`].
    pub(crate) fn new(actions: &'a ActionSpace, planner: &'static str, device: &'a Device) -> Result<Self, PlanError> {
        let width = sampler_width(actions, planner)?;
        Ok(match actions {
            ActionSpace::Box(bounds) => Self::HalfRange(HalfRange::new(bounds, device), None),
            _ => Self::Choices { count: width, device },
        })
    }

    /// With a limit on changes.
    pub(crate) fn within(self, limit: Option<RateLimit>) -> Self {
        match self {
            Self::HalfRange(units, _) => Self::HalfRange(units, limit),
            choices => choices,
        }
    }

    /// Numbers per step.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::HalfRange(units, _) => units.half.len(),
            Self::Choices { count, .. } => *count,
        }
    }

    /// The sequences `[K, H, W]` that a sampler asked for, as they are reported back to it: clipped to the bounds and to the limit on
    /// changes, or 1 for the
    /// choice and −1 for the others.
    pub(crate) fn feasible(&self, asked: Tensor<3>) -> Tensor<3> {
        match self {
            Self::HalfRange(_, rate) => {
                let inside = asked.clamp(-1.0, 1.0);
                match rate {
                    Some(rate) => rate.hold(inside),
                    None => inside,
                }
            }
            // Not clipped before: of two numbers beyond 1 the larger one is the choice.
            Self::Choices { count, device } => one_hot(asked.argmax(2), *count, device),
        }
    }

    /// Actions `[K, H, A]` in the environment's units, from feasible sequences `[K, H, W]`.
    pub(crate) fn to_env(&self, feasible: Tensor<3>) -> Tensor<3> {
        match self {
            Self::HalfRange(units, _) => units.to_env(feasible),
            Self::Choices { .. } => feasible.argmax(2).float(),
        }
    }

    /// Actions `[H, A]` in the environment's units, from a sampler's solution `[H, W]`, in row-major order.
    pub(crate) fn solution_to_env(&self, solution: Vec<f32>) -> Vec<f32> {
        match self {
            Self::HalfRange(units, rate) => {
                let mut solution = solution;
                if let Some(rate) = rate {
                    solution.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
                    let len = solution.len();
                    rate.hold_host(&mut solution, len);
                }
                units.to_env_host(solution)
            }
            Self::Choices { count, .. } => {
                solution.chunks_exact(*count).map(|step| first_largest(step) as f32).collect()
            }
        }
    }

    /// Feasible sequences from proposed actions `[M, H, A]` in the environment's units.
    ///
    /// # Errors
    /// [`PlanError::Width`] for sequences of another shape, [`PlanError::NonFinite`], [`PlanError::Config`] for a number
    /// that is no choice.
    pub(crate) fn of_proposals(&self, proposals: &Tensor<3>, horizon: usize) -> Result<Tensor<3>, PlanError> {
        let [_, h, a] = proposals.dims();
        let width = if let Self::HalfRange(units, _) = self { units.half.len() } else { 1 };
        check_size("horizon of the proposals", horizon, h)?;
        check_size("width of the proposals' actions", width, a)?;
        let values = to_host(proposals.clone());
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(PlanError::NonFinite { what: "proposals", index, value: values[index] });
        }
        match self {
            Self::HalfRange(units, _) => Ok(self.feasible(units.of_env(proposals.clone()))),
            Self::Choices { count, device } => {
                let none = |v: &f32| v.fract() != 0.0 || *v < 0.0 || *v >= *count as f32;
                match values.iter().copied().find(none) {
                    Some(value) => Err(refused("proposals", value, format!("a choice from 0 to {}", *count - 1))),
                    None => Ok(one_hot(proposals.clone().int(), *count, device)),
                }
            }
        }
    }
}

/// 1 for the choice and −1 for the others, `[K, H, n]`, from choices `[K, H, 1]`.
fn one_hot(choices: Tensor<3, Int>, count: usize, device: &Device) -> Tensor<3> {
    let [k, h, _] = choices.dims();
    let each = Tensor::<1, Int>::arange(0..count as i64, device).reshape([1, 1, count]).expand([k, h, count]);
    choices.expand([k, h, count]).equal(each).float() * 2.0 - 1.0
}

/// The index of the largest number; of equals the first.
fn first_largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Between environment units and units of half the action range.
#[derive(Debug)]
pub(crate) struct HalfRange<'a> {
    bounds: &'a BoxSpace,
    middle: Vec<f32>,
    half: Vec<f32>,
    device: &'a Device,
}

impl<'a> HalfRange<'a> {
    pub(crate) fn new(bounds: &'a BoxSpace, device: &'a Device) -> Self {
        let (low, high) = (bounds.low(), bounds.high());
        // Halved before they are added: the range of two large bounds may overflow.
        let middle = low.iter().zip(high).map(|(l, h)| 0.5 * h + 0.5 * l).collect();
        let half = low.iter().zip(high).map(|(l, h)| 0.5 * h - 0.5 * l).collect();
        Self { bounds, middle, half, device }
    }

    /// A row `[1, 1, A]` that broadcasts over sequences `[K, H, A]`.
    fn row(&self, values: &[f32]) -> Tensor<3> {
        to_device(values.to_vec(), [1, 1, values.len()], self.device)
    }

    /// Clipped: the sum may round to just beyond a bound.
    pub(crate) fn to_env(&self, sequences: Tensor<3>) -> Tensor<3> {
        let actions = sequences * self.row(&self.half) + self.row(&self.middle);
        actions.max_pair(self.row(self.bounds.low())).min_pair(self.row(self.bounds.high()))
    }

    /// As `to_env`, for gradients: these ignore the clipping. A sequence on a bound would otherwise have
    /// no gradient there, and never leave it.
    #[cfg(feature = "gradient")]
    pub(crate) fn to_env_tracked(&self, sequences: Tensor<3>) -> Tensor<3> {
        let actions = sequences.clone() * self.row(&self.half) + self.row(&self.middle);
        let fixed = actions.clone().inner();
        actions + (self.to_env(sequences.inner()) - fixed)
    }

    fn of_env(&self, sequences: Tensor<3>) -> Tensor<3> {
        // A dimension that is fixed, whose range is 0, has one point: the middle.
        let half: Vec<f32> = self.half.iter().map(|half| if *half == 0.0 { f32::INFINITY } else { *half }).collect();
        (sequences - self.row(&self.middle)) / self.row(&half)
    }

    /// One sequence `[H, A]`, clipped as well.
    pub(crate) fn to_env_host(&self, mut sequence: Vec<f32>) -> Vec<f32> {
        for action in sequence.chunks_exact_mut(self.half.len()) {
            for (i, u) in action.iter_mut().enumerate() {
                *u = (self.middle[i] + self.half[i] * *u).clamp(self.bounds.low()[i], self.bounds.high()[i]);
            }
        }
        sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_dimension_stays_where_it_is() {
        let device = Device::flex();
        let actions = ActionSpace::Box(BoxSpace::new([-1.0, 0.5], [3.0, 0.5]).unwrap());
        let units = Units::new(&actions, "test", &device).unwrap();
        let proposals = to_device(vec![2.0, 0.5, -1.0, 7.0], [1, 2, 2], &device);
        let feasible = units.of_proposals(&proposals, 2).unwrap();
        assert_eq!(to_host(feasible.clone()), [0.5, 0.0, -1.0, 0.0]);
        assert_eq!(to_host(units.to_env(feasible)), [2.0, 0.5, -1.0, 0.5]);
        assert_eq!(units.solution_to_env(vec![0.0, 1.0]), [1.0, 0.5]);
    }

    #[test]
    fn the_first_of_equal_numbers_is_the_choice_everywhere() {
        let (actions, device) = (ActionSpace::Discrete(4), Device::flex());
        let units = Units::new(&actions, "test", &device).unwrap();
        let asked = [[0.0, 0.0, 0.0, 0.0], [-1.0, 3.0, 2.0, 3.0], [-0.4, -0.5, -0.3, -0.3]];
        let feasible = units.feasible(Tensor::<2>::from_floats(asked, &device).unsqueeze_dim(0));
        let one_hot = [[1.0, -1.0, -1.0, -1.0], [-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, -1.0]].concat();
        assert_eq!(to_host(feasible.clone()), one_hot);
        assert_eq!(to_host(units.to_env(feasible)), [0.0, 1.0, 2.0]);
        assert_eq!(units.solution_to_env(asked.concat()), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn proposed_choices_are_themselves_and_nothing_else_is_one() {
        let (actions, device) = (ActionSpace::Discrete(3), Device::flex());
        let units = Units::new(&actions, "test", &device).unwrap();
        let proposal = |values: [f32; 2]| units.of_proposals(&to_device(values.to_vec(), [1, 2, 1], &device), 2);
        assert_eq!(to_host(units.to_env(proposal([2.0, 0.0]).unwrap())), [2.0, 0.0]);
        for bad in [0.5, 3.0, -1.0] {
            let error = proposal([0.0, bad]).unwrap_err().to_string();
            assert_eq!(error, format!("proposals = {bad}: expected a choice from 0 to 2"));
        }
        assert!(sampler_width(&ActionSpace::Discrete(0), "test").is_err());
    }
}
