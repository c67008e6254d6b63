//! Exploration: a bonus for going where the members of an ensemble disagree.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use mbrl_model::{DynamicsSpec, Propagation};

use crate::{
    PlanError,
    error::{check_size, require},
    host::to_device,
};

/// A bonus for planned steps on whose outcome the members of an ensemble disagree. Members agree where there was data, so
/// plans lead to where there was none.
///
/// The bonus of a step is `weight · mean_c Var_p(o_c / scale_c)`: the variance of the next observation over the P particles
/// (divisor P) \[1\], in units of `scale`, averaged over its C columns, so that the weight does not depend on their number. Columns
/// that the model [knows](mbrl_model::DynamicsSpec::known) are left out, since members cannot disagree on them. All
/// particles of a candidate earn the same bonus; terminated ones neither earn it nor count towards the variance.
///
/// Particles have to stand for members: use TS∞ without noise and one particle per member. With noise, the randomness of the
/// world, which no data can reduce, counts as disagreement too. In \[1\] and \[2\] members start each step from the same state;
/// here each particle continues from the state that its member predicted, so the disagreement of earlier steps counts again in
/// later ones.
///
/// A negative weight avoids what the model does not know.
///
/// ```
/// use mbrl_model::EnsembleConfig;
/// use mbrl_plan::{
///     ActionSpace, BoxSpace, CemConfig, Device, Disagreement, MemberRule, Planner, Problem, Propagation, Rng, Situation,
/// };
///
/// let (mut rng, device) = (Rng::new(0), Device::flex());
/// let model = EnsembleConfig { members: 3, hidden: vec![16], ..Default::default() }.init(2, 1, &device, &mut rng)?;
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// // No reward: exploration for its own sake.
/// let disagreement = Disagreement { weight: 1.0, scale: vec![0.5, 2.0] };
/// let problem = Problem::new(&model, &actions).with_disagreement(&disagreement);
/// let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 3 };
/// let mut planner = CemConfig { horizon: 5, ..CemConfig::default() }.init(&actions, propagation)?;
/// let plan = planner.plan(&Situation::of(&[0.0, 0.0]), &problem, &mut rng)?;
/// assert!(plan.best_return > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ## References
/// \[1\] Pathak, Gandhi, Gupta (2019), *Self-Supervised Exploration via Disagreement*, ICML. arXiv:1906.04161
/// \[2\] Sekar et al. (2020), *Planning to Explore via Self-Supervised World Models* (Plan2Explore), ICML. arXiv:2005.05960
#[derive(Debug, Clone, PartialEq)]
pub struct Disagreement {
    /// Reward per unit of variance (dimensionless: variances are in units of `scale` squared).
    pub weight: f32,
    /// The unit of each column of the observation, above 0, `[O]`: a standard deviation of the data, say.
    pub scale: Vec<f32>,
}

impl Disagreement {
    /// The bonus of each step `[H, P·K]` for next observations `[H, P·K, O]`; `[H, P·K]` marks the rows that are over.
    pub(crate) fn bonus(
        &self,
        next: &Tensor<3>,
        over: Option<&Tensor<2, Bool>>,
        propagation: Propagation,
        spec: &DynamicsSpec,
    ) -> Result<Tensor<2>, PlanError> {
        let [horizon, rows, width] = next.dims();
        let particles = propagation.particles;
        require(self.weight.is_finite(), "disagreement.weight", self.weight, "a finite number")?;
        check_size("columns of disagreement.scale", width, self.scale.len())?;
        if let Some(scale) = self.scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            require(false, "disagreement.scale", scale, "a finite number above 0")?;
        }
        require(spec.members > 1, "members", spec.members, "at least 2, since one alone cannot disagree")?;
        require(particles > 1, "particles", particles, "at least 2, since one alone cannot disagree")?;

        let shape = [horizon, particles, rows / particles, width];
        let scale = to_device(self.scale.clone(), [1, 1, width], &spec.device);
        let next = beside_first(next, particles, spec) / scale;
        let (next, shape) = match predicted(width, spec) {
            None => (next, shape),
            Some(columns) => {
                let count = columns.dims()[0];
                (next.select(2, columns), [horizon, particles, rows / particles, count])
            }
        };
        let next = next.reshape(shape);
        let over = over.map(|over| over.clone().reshape([horizon, particles, rows / particles, 1]).expand(shape));
        // Masks select: values in rows that are over are left out of the sum, not multiplied by 0.
        let alive = |x: Tensor<4>| match &over {
            Some(over) => x.mask_fill(over.clone(), 0.0),
            None => x,
        };
        let count = alive(Tensor::ones(shape, &spec.device)).sum_dim(1).clamp_min(1.0);
        let mean = alive(next.clone()).sum_dim(1) / count.clone();
        let variance = alive(next - mean).square().sum_dim(1) / count;
        let bonus = variance.mean_dim(3) * self.weight;
        Ok(bonus.repeat_dim(1, particles).reshape([horizon, rows]))
    }
}

/// The columns that the model predicts, where it knows some of the others.
fn predicted(width: usize, spec: &DynamicsSpec) -> Option<Tensor<1, Int>> {
    let columns: Vec<i32> = (0..width).filter(|c| !spec.known.contains(c)).map(|c| c as i32).collect();
    let count = columns.len();
    (count < width).then(|| Tensor::from_data(TensorData::new(columns, [count]), &spec.device))
}

/// Observations `[H, P·K, O]` with angles that wrap given relative to the candidate's first particle, the short way
/// round: particles on both sides of a jump agree.
fn beside_first(next: &Tensor<3>, particles: usize, spec: &DynamicsSpec) -> Tensor<3> {
    let [_, rows, width] = next.dims();
    // One turn for such columns; the others have no reference particle, and no turns are taken off.
    let (mut wraps, mut turns) = (vec![0.0; width], vec![1.0; width]);
    for angle in spec.angles.iter().filter(|angle| angle.wraps) {
        (wraps[angle.column], turns[angle.column]) = (1.0, angle.turn);
    }
    if !wraps.contains(&1.0) {
        return next.clone();
    }
    let [wraps, turns] = [wraps, turns].map(|row| to_device(row, [1, 1, width], &spec.device));
    let first = next.clone().narrow(1, 0, rows / particles).repeat_dim(1, particles);
    // A first particle that is over may be anything.
    let first = first.clone().mask_fill(first.is_nan(), 0.0);
    let beyond = next.clone() - first * wraps.clone();
    let whole = (beyond.clone() / turns.clone()).round();
    beyond - whole * turns * wraps
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use mbrl_model::{AngleColumn, MemberRule};

    use super::*;
    use crate::host::to_host;

    const THREE: Propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 3 };

    fn spec(members: usize) -> DynamicsSpec {
        DynamicsSpec::new("three", 2, 1, &Device::flex()).with_members(members).with_differentiable(true)
    }

    /// One step of three particles and two candidates: particle-major rows.
    fn next() -> Tensor<3> {
        let nan = f32::NAN;
        let rows = [[1.0, 0.0], [5.0, 0.0], [3.0, 6.0], [5.0, 0.0], [8.0, 3.0], [nan, nan]];
        Tensor::<2>::from_floats(rows, &Device::flex()).unsqueeze()
    }

    #[test]
    fn the_bonus_by_hand() {
        let disagreement = Disagreement { weight: 2.0, scale: vec![1.0, 3.0] };
        let bonus = to_host(disagreement.bonus(&next(), None, THREE, &spec(3)).unwrap());
        // Variances 26/3 of (1, 3, 8), and 2/3 of (0, 2, 1).
        let expected = 2.0 * (26.0 / 3.0 + 2.0 / 3.0) / 2.0;
        for particle in 0..3 {
            assert!((bonus[2 * particle] - expected).abs() < 1e-5, "{bonus:?}, expected {expected}");
            assert!(bonus[2 * particle + 1].is_nan(), "what is not finite is not hidden");
        }
    }

    #[test]
    fn particles_on_both_sides_of_a_jump_agree() {
        // A compass and a plain column: 350°, 0°, 10° are 10° apart, and 350, 0, 10 are not 10 apart.
        let rows = [[350.0, 350.0], [0.0, 0.0], [10.0, 10.0]];
        let next: Tensor<3> = Tensor::<2>::from_floats(rows, &Device::flex()).unsqueeze();
        let of = |scale: [f32; 2]| {
            let spec = spec(3).with_angles([AngleColumn { column: 0, turn: 360.0, wraps: true }]);
            let disagreement = Disagreement { weight: 1.0, scale: scale.to_vec() };
            to_host(disagreement.bonus(&next, None, THREE, &spec).unwrap())[0]
        };
        // Half of the compass's variance, 200/3, where the other column has no weight; half of the plain one's.
        assert!((of([1.0, 1e9]) - 100.0 / 3.0).abs() < 1e-3);
        assert!((of([1e9, 1.0]) - 0.5 * (122_600.0 / 3.0 - 120.0 * 120.0)).abs() < 1.0, "{}", of([1e9, 1.0]));
    }

    #[test]
    fn known_columns_are_nothing_to_disagree_on() {
        let disagreement = Disagreement { weight: 1.0, scale: vec![1.0, 3.0] };
        let of =
            |known: &[usize]| to_host(disagreement.bonus(&next(), None, THREE, &spec(3).with_known(known)).unwrap())[0];
        // The variances of (1, 3, 8), of (0, 2, 1), and their mean.
        assert!((of(&[1]) - 26.0 / 3.0).abs() < 1e-5 && (of(&[0]) - 2.0 / 3.0).abs() < 1e-5);
        assert!((of(&[]) - 14.0 / 3.0).abs() < 1e-5);
    }

    #[test]
    fn particles_that_are_over_do_not_count() {
        let disagreement = Disagreement { weight: 1.0, scale: vec![1.0, 1.0] };
        let over = Tensor::<2>::from_floats([[0.0, 1.0, 0.0, 1.0, 1.0, 1.0]], &Device::flex()).greater_elem(0.5);
        let bonus = to_host(disagreement.bonus(&next(), Some(&over), THREE, &spec(3)).unwrap());
        // (1, 3) with a variance of 1, (0, 6) with 9; of the other candidate no particle is left.
        assert_eq!(bonus, [5.0, 0.0, 5.0, 0.0, 5.0, 0.0]);
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |disagreement: Disagreement, propagation, members| {
            disagreement.bonus(&next(), None, propagation, &spec(members)).unwrap_err().to_string()
        };
        let good = || Disagreement { weight: 1.0, scale: vec![1.0, 1.0] };
        let error = fails(Disagreement { weight: f32::NAN, ..good() }, THREE, 3);
        assert_eq!(error, "disagreement.weight = NaN: expected a finite number");
        let error = fails(Disagreement { scale: vec![1.0], ..good() }, THREE, 3);
        assert_eq!(error, "columns of disagreement.scale = 1: expected 2");
        for bad in [0.0, -1.0, f32::INFINITY] {
            let error = fails(Disagreement { scale: vec![1.0, bad], ..good() }, THREE, 3);
            assert_eq!(error, format!("disagreement.scale = {bad}: expected a finite number above 0"));
        }
        let error = fails(good(), THREE, 1);
        assert_eq!(error, "members = 1: expected at least 2, since one alone cannot disagree");
        let error = fails(good(), Propagation { particles: 1, ..THREE }, 3);
        assert_eq!(error, "particles = 1: expected at least 2, since one alone cannot disagree");
    }
}
