//! The one place where candidates are scored.

use burn::tensor::{Bool, Tensor};
use mbrl_env::{Reward, Situation};
use mbrl_model::{Chunk, Draw, MemberRule, Propagation, Start, Trajectories};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    PlanError, Problem,
    error::{check_size, refused, require},
    host::to_device,
};

/// The returns of K candidates, for each of P particles.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Returns {
    /// Discounted sums of rewards with the terminal value, `[P, K]`. May hold NaN where the model or the reward returned it.
    pub per_particle: Tensor<2>,
    /// Model steps taken: `H·P·K`.
    pub model_steps: u64,
}

/// How the returns of a candidate's particles become one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Aggregate {
    /// The mean over particles (default; PETS and PDDM).
    #[default]
    Mean,
    /// The mean minus this many standard deviations (divisor P): risk-averse for positive factors, exploratory for negative ones.
    /// PDDM's exploration option ranks costs by mean − 4 std: here that is −4.
    MeanMinusStd(f32),
    /// The worst particle.
    Worst,
}

impl Aggregate {
    /// Refuses a factor that is not finite.
    pub(crate) fn check(self) -> Result<(), PlanError> {
        match self {
            Self::MeanMinusStd(factor) => {
                require(factor.is_finite(), "aggregate", factor, "a finite factor of the standard deviation")
            }
            Self::Mean | Self::Worst => Ok(()),
        }
    }
}

impl Returns {
    /// One return for each candidate, `[K]`: finite, or −∞ for a candidate that must not win.
    ///
    /// A candidate with any particle that is NaN or infinite gets −∞. This is done here, before anything is ranked or
    /// weighted, because NaN sorts as the largest value on Burn's backends.
    #[must_use]
    pub fn aggregate(&self, aggregate: Aggregate) -> Tensor<1> {
        let all = self.per_particle.clone();
        let [particles, population] = all.dims();
        let value = match aggregate {
            _ if particles == 1 => all.clone(),
            Aggregate::Mean => all.clone().mean_dim(0),
            Aggregate::MeanMinusStd(factor) => {
                let mean = all.clone().mean_dim(0);
                let deviation = all.clone() - mean.clone();
                let variance = (deviation.clone() * deviation).mean_dim(0);
                // The root of 0 has an infinite gradient; multiplied by deviations of 0 it would give NaN.
                let agreed = variance.clone().equal_elem(0.0);
                let std = variance.mask_fill(agreed.clone(), 1.0).sqrt().mask_fill(agreed, 0.0);
                mean - std * factor
            }
            Aggregate::Worst => all.clone().min_dim(0),
        };
        // The aggregate itself may be infinite where no particle is: a sum can overflow.
        let finite = Tensor::cat(vec![all, value.clone()], 0).is_finite();
        value.mask_fill(finite.bool_not().any_dim(0), f32::NEG_INFINITY).reshape([population])
    }
}

/// Scores K candidate sequences, `candidates` `[K, H, A]` in environment units, from one situation.
///
/// Takes one roll-out of `H·P·K` model steps with the noise of `key`, then one call each to the reward, the termination rule
/// and the terminal value over all rows. The return is the discounted sum
///
/// ```text
/// G = Σ_{t<H} γ^t r_t + γ^H V(o_H)
/// ```
///
/// where `r_t` counts up to and including the terminal step; each later step earns `problem.after_termination` instead,
/// and `V` is not counted after termination. (PDDM's code leaves the terminal step's own reward out; here it counts.)
/// A model that gives rewards marks with NaN a candidate that broke it; this applies even where the problem has its own reward.
/// Rewards and values of rows that are over, NaN included, are dropped, not multiplied by zero. Shaping and the
/// bonus for disagreement are added to the reward of each step; the cost of its change of the action is subtracted.
///
/// Differentiable with respect to `candidates` where the model, the reward and the value are; termination itself has no
/// gradient. Rewards and values are then not even evaluated on rows that are over, since a NaN there would come back as the
/// gradient 0 · NaN. A model whose states are no longer finite after a termination does give such a candidate NaN gradients.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, Aggregate, BoxSpace, Device, Problem, Propagation, Situation, Tensor, dynamics_fn, returns,
///     reward_fn,
/// };
///
/// // The state moves by the action; being far from 0 costs.
/// let device = Device::flex();
/// let model = dynamics_fn(1, 1, &device, |s, a| s + a);
/// let reward = reward_fn(|_, _, next: Tensor<2>| -next.abs().squeeze_dim(1));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let problem = Problem::new(&model, &actions).with_reward(&reward);
///
/// let candidates = Tensor::<3>::from_floats([[[-1.0], [-1.0]], [[0.0], [0.0]]], &device); // [K = 2, H = 2, A = 1]
/// let returns = returns(&problem, &Situation::of(&[2.0]), candidates, Propagation::MEAN, 0)?;
/// let scores = returns.aggregate(Aggregate::Mean).into_data();
/// assert_eq!(scores.try_to_vec::<f32>()?, [-1.0, -4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PlanError::Width`] for arrays whose sizes do not match, [`PlanError::Config`] for a discount outside (0, 1], no
/// particles or an `after_termination` that is not finite, [`PlanError::NoReward`], or an error of the model.
pub fn returns(
    problem: &Problem<'_>,
    situation: &Situation<'_>,
    candidates: Tensor<3>,
    propagation: Propagation,
    key: u64,
) -> Result<Returns, PlanError> {
    let [population, horizon, width] = candidates.dims();
    let particles = propagation.particles;
    let spec = problem.dynamics.spec();
    require(population > 0, "candidates", population, "at least one candidate")?;
    require(horizon > 0, "horizon", horizon, "at least one step")?;
    require(particles > 0, "particles", particles, "at least one particle")?;
    require(problem.discount > 0.0 && problem.discount <= 1.0, "discount", problem.discount, "a number in (0, 1]")?;
    if let Some(rate) = problem.action_rate {
        rate.check(problem.actions)?;
    }
    require(problem.after_termination.is_finite(), "after_termination", problem.after_termination, "a finite number")?;
    check_size("width of the action space", spec.action, problem.actions.width())?;
    check_size("width of the candidates' actions", spec.action, width)?;
    // One particle would score each candidate by one member, and compare members instead of candidates.
    if !matches!(propagation.rule, MemberRule::Expectation | MemberRule::Ds) && !particles.is_multiple_of(spec.members)
    {
        let rule = format!("a multiple of {}, so that every candidate meets each member of the model", spec.members);
        return Err(refused("particles", particles, rule));
    }

    let draw = Draw::new(propagation, key);
    // Chunk by chunk where the model prefers it, cut by shape alone; gradients need the whole batch at once.
    let even = population.div_ceil(CHUNKS).next_multiple_of(ROWS);
    let chunk = problem.dynamics.chunk_size(horizon, particles).map(|size| size.min(even));
    let chunk = chunk.filter(|&size| size > 0 && size < population);
    let per_particle = match chunk.filter(|_| !candidates.is_autodiff()) {
        None => score(problem, situation, candidates, draw)?,
        Some(size) => {
            let chunks: Result<Vec<_>, PlanError> = (0..population)
                .into_par_iter()
                .step_by(size)
                .map(|first| {
                    let candidates = candidates.clone().narrow(0, first, size.min(population - first));
                    score(problem, situation, candidates, draw.in_chunk(Chunk { first, population }))
                })
                .collect();
            Tensor::cat(chunks?, 1)
        }
    };
    Ok(Returns { per_particle, model_steps: (horizon * particles * population) as u64 })
}

/// The least number of chunks that a large population is cut into, so that threads share them evenly.
const CHUNKS: usize = 4;
/// Chunk sizes are multiples of this: the number of rows that processors work on side by side.
const ROWS: usize = 32;

/// The scores `[P, K]` of candidates whose settings have been checked.
fn score(
    problem: &Problem<'_>,
    situation: &Situation<'_>,
    candidates: Tensor<3>,
    draw: Draw,
) -> Result<Tensor<2>, PlanError> {
    let [population, horizon, _] = candidates.dims();
    let (propagation, spec) = (draw.propagation, problem.dynamics.spec());
    let particles = propagation.particles;
    let rows = particles * population;
    let steps = horizon * rows;
    let actions = candidates.swap_dims(0, 1);
    let rate = match problem.action_rate.filter(|rate| rate.weight > 0.0) {
        Some(rate) => Some(rate.cost(problem.actions, situation, &actions)?.repeat_dim(1, particles)),
        None => None,
    };
    let imagined = problem.dynamics.rollout(Start::Situation(*situation), actions.clone(), draw)?;
    check_trajectories(&imagined, horizon, rows, spec.view)?;
    let obs = imagined.obs;

    // All steps of all rows as one batch [H·P·K, ·], in the order of `obs`.
    let tracked = actions.is_autodiff();
    let asked = problem.reward.is_some() || problem.termination.is_some() || problem.shaping.is_some();
    let actions = if asked && particles > 1 { actions.repeat_dim(1, particles) } else { actions };
    let now = obs.clone().narrow(0, 0, horizon);
    let next = obs.clone().narrow(0, 1, horizon);
    let flat = |x: &Tensor<3>| {
        let width = x.dims()[2];
        x.clone().reshape([steps, width])
    };
    let terminated = match problem.termination {
        Some(termination) => {
            let terminated = termination.terminated(flat(&now), flat(&actions), flat(&next));
            check_size("flags of the termination rule", steps, terminated.dims()[0])?;
            let terminated = terminated.reshape([horizon, rows]);
            // A simulator whose episode is over, for example by a time limit, stands still: nothing is earned there, whatever the rule says.
            Some(match imagined.terminated {
                Some(over) if spec.needs_snapshot => terminated.bool_or(over),
                _ => terminated,
            })
        }
        None => imagined.terminated,
    };
    let (before, at_end) = terminated.map(over).unzip();
    let paid_by = |reward: &dyn Reward| {
        let seen = |x: &Tensor<3>| match &before {
            Some(before) if tracked => flat(&first_step_where(x, before)),
            _ => flat(x),
        };
        let rewards = reward.reward(seen(&now), seen(&actions), seen(&next));
        check_size("rewards of the reward function", steps, rewards.dims()[0])?;
        Ok::<_, PlanError>(rewards.reshape([horizon, rows]))
    };
    let rewards = match problem.reward {
        Some(reward) => {
            let rewards = paid_by(reward)?;
            // A NaN from the model says that it broke down there, whoever gives the reward.
            Some(match imagined.reward {
                Some(model) => rewards.mask_fill(model.is_nan(), f32::NAN),
                None => rewards,
            })
        }
        None => imagined.reward,
    };
    let shaping = problem.shaping.map(paid_by).transpose()?;
    let bonus = match problem.disagreement {
        Some(disagreement) => Some(disagreement.bonus(&next, before.as_ref(), propagation, spec)?),
        None => None,
    };
    let rewards = [rewards, shaping, bonus].into_iter().flatten().reduce(|sum, more| sum + more);
    let rewards = rewards.ok_or_else(|| PlanError::NoReward { model: spec.name.clone() })?;
    let rewards = match rate {
        Some(cost) => rewards - cost,
        None => rewards,
    };
    let rewards = match before {
        None => rewards,
        Some(before) => rewards.mask_fill(before, problem.after_termination),
    };
    let rewards = match imagined.cut {
        None => rewards,
        Some(cut) => rewards.mask_fill(over(cut).0, 0.0),
    };
    let mut total = if problem.discount == 1.0 {
        rewards.sum_dim(0)
    } else {
        let weights = (0..horizon).map(|t| problem.discount.powi(t as i32)).collect();
        (rewards * to_device(weights, [horizon, 1], &spec.device)).sum_dim(0)
    };
    if let Some(value) = problem.terminal_value {
        let last = obs.narrow(0, horizon, 1);
        let last = match &at_end {
            Some(over) if tracked => {
                let over = over.clone().unsqueeze_dim::<3>(2).expand(last.dims());
                last.mask_where(over, next.narrow(0, 0, 1))
            }
            _ => last,
        };
        let values = value.value(last.reshape([rows, spec.view]));
        check_size("values of the terminal value function", rows, values.dims()[0])?;
        let values = values.reshape([1, rows]) * problem.discount.powi(horizon as i32);
        total = total
            + match at_end {
                None => values,
                Some(over) => values.mask_fill(over, 0.0),
            };
    }
    Ok(total.reshape([particles, population]))
}

/// From terminations `[H, N]`: what was over before each step `[H, N]`, and what is over after the last one `[1, N]`.
fn over(terminated: Tensor<2, Bool>) -> (Tensor<2, Bool>, Tensor<2, Bool>) {
    let [horizon, rows] = terminated.dims();
    let mut over = Tensor::zeros([1, rows], &terminated.device());
    let mut before = Vec::with_capacity(horizon);
    // On a CPU with thousands of rows, many times as fast as a cumulative sum.
    for t in 0..horizon {
        before.push(over.clone());
        over = over.bool_or(terminated.clone().narrow(0, t, 1));
    }
    (Tensor::cat(before, 0), over)
}

/// `[H, N, W]` with the rows that are over `[H, N]` replaced by their values in the first step, in which no row is over yet.
fn first_step_where(x: &Tensor<3>, over: &Tensor<2, Bool>) -> Tensor<3> {
    let shape = x.dims();
    let first = x.clone().narrow(0, 0, 1).expand(shape);
    x.clone().mask_where(over.clone().unsqueeze_dim::<3>(2).expand(shape), first)
}

/// A wrong shape from another crate's model would otherwise show up as a wrong reward.
fn check_trajectories(imagined: &Trajectories, horizon: usize, rows: usize, width: usize) -> Result<(), PlanError> {
    let [instants, n, o] = imagined.obs.dims();
    check_size("instants of the roll-out", horizon + 1, instants)?;
    check_size("rows of the roll-out", rows, n)?;
    check_size("width of the roll-out's observations", width, o)?;
    if let Some([h, n]) = imagined.reward.as_ref().map(Tensor::dims) {
        check_size("steps of the model's rewards", horizon, h)?;
        check_size("rows of the model's rewards", rows, n)?;
    }
    if let Some([h, n]) = imagined.terminated.as_ref().map(Tensor::dims) {
        check_size("steps of the model's terminations", horizon, h)?;
        check_size("rows of the model's terminations", rows, n)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use mbrl_env::{ActionSpace, BoxSpace, reward_fn, termination_fn, value_fn};
    use mbrl_model::{Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, dynamics_fn};

    use super::*;
    use crate::host::to_host;

    fn unit_actions() -> ActionSpace {
        ActionSpace::Box(BoxSpace::symmetric(1, 10.0).unwrap())
    }

    /// x' = x + a.
    fn counter() -> impl Dynamics {
        dynamics_fn(1, 1, &Device::flex(), |s, a| s + a)
    }

    fn sequences<const K: usize, const H: usize>(values: [[f32; H]; K]) -> Tensor<3> {
        Tensor::<2>::from_floats(values, &Device::flex()).unsqueeze_dim(2)
    }

    fn score(problem: &Problem<'_>, candidates: Tensor<3>) -> Vec<f32> {
        to_host(returns(problem, &Situation::of(&[0.0]), candidates, Propagation::MEAN, 0).unwrap().per_particle)
    }

    #[test]
    fn discount_and_terminal_value_by_hand() {
        let (model, actions) = (counter(), unit_actions());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let value = value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1) * 100.0);
        let mut problem = Problem::new(&model, &actions).with_reward(&reward);
        // x runs over 1, 2, 4 and over 0, 0, −1.
        let candidates = sequences([[1.0, 1.0, 2.0], [0.0, 0.0, -1.0]]);
        assert_eq!(score(&problem, candidates.clone()), [7.0, -1.0]);
        problem.discount = 0.5;
        assert_eq!(score(&problem, candidates.clone()), [1.0 + 1.0 + 1.0, -0.25]);
        problem.terminal_value = Some(&value);
        assert_eq!(score(&problem, candidates), [3.0 + 400.0 / 8.0, -0.25 - 100.0 / 8.0]);
    }

    /// A model that is not rolled out in chunks.
    struct Whole<'a>(&'a dyn Dynamics);

    impl Dynamics for Whole<'_> {
        fn spec(&self) -> &DynamicsSpec {
            self.0.spec()
        }

        fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
            self.0.predict(states, actions)
        }

        fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
            self.0.sample(states, actions, draw)
        }

        fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
            self.0.rollout(from, actions, draw)
        }
    }

    #[test]
    fn chunks_score_as_the_whole_on_any_number_of_threads() {
        let device = Device::flex();
        let mut rng = mbrl_env::Rng::new(1);
        let config = mbrl_model::EnsembleConfig { members: 5, hidden: vec![16], ..Default::default() };
        let model = config.init(3, 1, &device, &mut rng).unwrap();
        let actions = unit_actions();
        let reward =
            reward_fn(|now: Tensor<2>, a: Tensor<2>, next: Tensor<2>| (now + next * a).sum_dim(1).squeeze_dim(1));
        let end = termination_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).greater_elem(1.0).squeeze_dim::<1>(1));
        let value = value_fn(|obs: Tensor<2>| obs.square().sum_dim(1).squeeze_dim(1));
        let (population, horizon) = (197, 6);
        let values = (0..population * horizon).map(|_| rng.normal()).collect();
        let candidates = to_device(values, [population, horizon, 1], &device);
        let propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 5 };
        let run = |model: &dyn Dynamics, threads| {
            let problem = Problem { terminal_value: Some(&value), ..Problem::new(model, &actions) };
            let problem = problem.with_reward(&reward).with_termination(&end);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let here = Situation::of(&[0.1, -0.2, 0.3]);
            pool.install(|| to_host(returns(&problem, &here, candidates.clone(), propagation, 7).unwrap().per_particle))
        };
        assert!(model.chunk_size(horizon, 5).is_some() && Whole(&model).chunk_size(horizon, 5).is_none());
        let whole = run(&Whole(&model), 1);
        assert!(whole.iter().all(|value| value.is_finite()));
        for threads in 1..4 {
            assert_eq!(run(&model, threads), whole);
        }
    }

    #[test]
    fn shaping_is_paid_on_top_of_whosever_reward_until_the_end() {
        let (model, actions) = (counter(), unit_actions());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let shaping = reward_fn(|_, actions: Tensor<2>, _| (actions * -10.0).squeeze_dim(1));
        let end = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(3.5).squeeze_dim::<1>(1));
        // x runs over 1, 2, 4 and over 0, 0, −1.
        let candidates = sequences([[1.0, 1.0, 2.0], [0.0, 0.0, -1.0]]);
        let shaped = Problem::new(&model, &actions).with_shaping(&shaping);
        assert_eq!(score(&shaped, candidates.clone()), [-40.0, 10.0]);
        let both = shaped.clone().with_reward(&reward);
        assert_eq!(score(&both, candidates), [7.0 - 40.0, -1.0 + 10.0]);
        // After the end in the second step no reward is given.
        let ended = sequences([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]]);
        assert_eq!(score(&both.with_termination(&end), ended), [1.0 + 4.0 - 40.0, -1.0 + 10.0]);
    }

    #[test]
    fn reward_sees_observation_action_and_next_observation_of_the_same_step() {
        let (model, actions) = (counter(), unit_actions());
        let reward =
            reward_fn(|o: Tensor<2>, a: Tensor<2>, next: Tensor<2>| (o * 100.0 + a * 10.0 + next).squeeze_dim(1));
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        // (0, 1, 1), (1, 2, 3) and (0, −1, −1), (−1, 3, 2).
        let by_hand = [11.0 + 123.0, -11.0 - 68.0];
        assert_eq!(score(&problem, sequences([[1.0, 2.0], [-1.0, 3.0]])), by_hand);
    }

    #[test]
    fn after_termination_each_remaining_step_earns_the_constant_and_no_value() {
        let (model, actions) = (counter(), unit_actions());
        // NaN, like the value, beyond the end: masked steps must not leak.
        let reward = reward_fn(|obs: Tensor<2>, _, next: Tensor<2>| {
            let beyond = obs.greater_elem(2.5);
            next.mask_fill(beyond, f32::NAN).squeeze_dim(1)
        });
        let value = value_fn(|obs: Tensor<2>| {
            let beyond = obs.clone().greater_elem(2.5);
            (obs * 0.0 + 1000.0).mask_fill(beyond, f32::NAN).squeeze_dim(1)
        });
        let end = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(2.5).squeeze_dim(1));
        let mut problem = Problem::new(&model, &actions).with_reward(&reward).with_termination(&end);
        problem.after_termination = -500.0;
        problem.terminal_value = Some(&value);
        let candidates = sequences([
            [1.0, 2.0, 1.0, 1.0],  // 1, then 3: over at the second step
            [1.0, 0.0, 0.0, 0.0],  // never over
            [0.0, 0.0, 0.0, 3.0],  // over at the last step: its reward counts, the value does not
            [3.0, -3.0, 0.0, 0.0], // back in the good region after the end: still over
        ]);
        let undiscounted = [1.0 + 3.0 - 1000.0, 4.0 + 1000.0, 3.0, 3.0 - 1500.0];
        assert_eq!(score(&problem, candidates.clone()), undiscounted);
        problem.discount = 0.5;
        let discounted = [1.0 + 1.5 - 125.0 - 62.5, 1.875 + 1000.0 / 16.0, 3.0 / 8.0, 3.0 - 250.0 - 125.0 - 62.5];
        assert_eq!(score(&problem, candidates), discounted);
    }

    /// A model of two members that add 1 and 2 times the action, with rewards and terminations of its own.
    #[derive(Debug)]
    struct TwoMembers(DynamicsSpec);

    impl TwoMembers {
        fn new() -> Self {
            Self(DynamicsSpec::new("two", 1, 1, &Device::flex()).with_members(2).with_differentiable(true))
        }
    }

    impl Dynamics for TwoMembers {
        fn spec(&self) -> &DynamicsSpec {
            &self.0
        }
        fn predict(&self, _: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
            unreachable!("planning samples")
        }
        fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
            let [rows, _] = states.dims();
            let particles = draw.propagation.particles;
            let gains = (0..rows).map(|row| if row * 2 < rows || particles == 1 { 1.0 } else { 2.0 }).collect();
            let next = states + actions * to_device(gains, [rows, 1], &self.0.device);
            let reward = next.clone().squeeze_dim::<1>(1);
            // Beyond −50 it breaks down.
            let reward = reward.clone().mask_fill(reward.lower_elem(-50.0), f32::NAN);
            let terminated = reward.clone().greater_elem(3.5);
            Ok(Imagined::new(next).with_reward(reward).with_terminated(terminated))
        }
    }

    #[test]
    fn where_the_model_breaks_down_no_reward_of_the_problem_counts() {
        let (model, actions) = (TwoMembers::new(), unit_actions());
        // Pays for being far off.
        let reward = reward_fn(|_, _, next: Tensor<2>| -next.squeeze_dim::<1>(1));
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let candidates = sequences([[-1.0, -1.0], [-100.0, 0.0]]);
        let returns = returns(&problem, &Situation::of(&[0.0]), candidates, BOTH, 0).unwrap();
        let scores = returns.aggregate(Aggregate::Mean).try_into_vec_as::<f32>().unwrap();
        assert!(scores[0] > 0.0 && scores[1] == f32::NEG_INFINITY, "{scores:?}");
    }

    const BOTH: Propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 };

    #[test]
    fn particles_stay_with_their_candidate_and_the_models_own_reward_and_end_serve() {
        let (model, actions) = (TwoMembers::new(), unit_actions());
        let mut problem = Problem::new(&model, &actions);
        problem.after_termination = -10.0;
        let candidates = sequences([[1.0, 1.0], [0.0, 0.0], [2.0, 1.0]]);
        let here = Situation::of(&[0.0]);
        let scored = returns(&problem, &here, candidates.clone(), BOTH, 0).unwrap();
        assert_eq!(scored.per_particle.dims(), [2, 3]);
        // Member 1: 1+2, 0, 2+3. Member 2: 2+4, 0, 4 and over.
        assert_eq!(to_host(scored.per_particle), [3.0, 0.0, 5.0, 6.0, 0.0, -6.0]);
        assert_eq!(scored.model_steps, 2 * 2 * 3);
        // The same rewards and terminations as functions of the rows give the same returns: actions are repeated in row order.
        let reward = reward_fn(|_, a: Tensor<2>, next: Tensor<2>| (a * 0.0 + next).squeeze_dim(1));
        let end = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(3.5).squeeze_dim(1));
        let problem = Problem { reward: Some(&reward), termination: Some(&end), ..problem };
        let scored = returns(&problem, &here, candidates.clone(), BOTH, 0).unwrap();
        assert_eq!(to_host(scored.per_particle), [3.0, 0.0, 5.0, 6.0, 0.0, -6.0]);
        let effort = reward_fn(|_, a: Tensor<2>, _| a.squeeze_dim(1));
        let problem = Problem::new(&model, &actions).with_reward(&effort);
        let scored = returns(&Problem { after_termination: 0.0, ..problem }, &here, candidates, BOTH, 0).unwrap();
        assert_eq!(to_host(scored.per_particle), [2.0, 0.0, 3.0, 2.0, 0.0, 2.0]);
    }

    #[test]
    fn a_batch_gives_what_its_candidates_give_one_by_one() {
        let (model, actions) = (TwoMembers::new(), unit_actions());
        let problem = Problem::new(&model, &actions);
        let candidates = sequences([[0.3, 1.1], [-0.7, 0.2], [1.9, -0.4], [0.1, 0.1]]);
        let all = to_host(
            returns(&problem, &Situation::of(&[0.5]), candidates.clone(), BOTH, 0).unwrap().aggregate(Aggregate::Mean),
        );
        for (k, together) in all.into_iter().enumerate() {
            let alone = candidates.clone().narrow(0, k, 1);
            let alone = returns(&problem, &Situation::of(&[0.5]), alone, BOTH, 0).unwrap().aggregate(Aggregate::Mean);
            assert_eq!(to_host(alone), [together]);
        }
    }

    #[test]
    fn aggregates_by_hand() {
        let per_particle = Tensor::from_floats([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]], &Device::flex());
        let returns = Returns { per_particle, model_steps: 0 };
        assert_eq!(to_host(returns.aggregate(Aggregate::Mean)), [4.0, 5.0]);
        assert_eq!(to_host(returns.aggregate(Aggregate::Worst)), [1.0, 5.0]);
        // Variance (9 + 1 + 16) / 3.
        let careful = to_host(returns.aggregate(Aggregate::MeanMinusStd(2.0)));
        assert!((careful[0] - (4.0 - 2.0 * (26.0f32 / 3.0).sqrt())).abs() < 1e-5, "{careful:?}");
        assert_eq!(careful[1], 5.0);
    }

    #[test]
    fn one_particle_that_is_not_finite_excludes_its_candidate() {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for aggregate in [Aggregate::Mean, Aggregate::MeanMinusStd(-1.0), Aggregate::Worst] {
            for bad in bad {
                let per_particle = Tensor::from_floats([[bad, 1.0, 2.0], [3.0, 1.0, bad]], &Device::flex());
                let scores = to_host(Returns { per_particle, model_steps: 0 }.aggregate(aggregate));
                assert_eq!(scores, [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], "{aggregate:?} of {bad}");
                let alone = Tensor::from_floats([[bad, 1.0]], &Device::flex());
                let scores = to_host(Returns { per_particle: alone, model_steps: 0 }.aggregate(aggregate));
                assert_eq!(scores, [f32::NEG_INFINITY, 1.0], "{aggregate:?} of {bad} alone");
            }
        }
    }

    #[test]
    fn gradients_reach_the_candidates() {
        let device = Device::flex().autodiff();
        let model = dynamics_fn(1, 1, &device, |s, a| s + a);
        let actions = unit_actions();
        let reward = reward_fn(|_, _, next: Tensor<2>| (next.clone() * next).squeeze_dim(1));
        let value = value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1) * 5.0);
        let end = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(10.0).squeeze_dim(1));
        let mut problem = Problem::new(&model, &actions).with_reward(&reward).with_termination(&end);
        problem.terminal_value = Some(&value);
        let candidates = Tensor::<3>::from_floats([[[1.0], [2.0]], [[11.0], [2.0]]], &device).require_grad();
        let scored = returns(&problem, &Situation::of(&[0.0]), candidates.clone(), Propagation::MEAN, 0).unwrap();
        let gradients = scored.aggregate(Aggregate::Mean).sum().backward();
        // a0² + (a0 + a1)² + 5 (a0 + a1) at (1, 2); a0² alone where the first step ends it.
        assert_eq!(to_host(candidates.grad(&gradients).unwrap()), [13.0, 11.0, 22.0, 0.0]);
    }

    /// Gradients of the sum of `aggregate` with respect to candidates of one row each.
    fn gradients(problem: &Problem<'_>, candidates: Tensor<3>, propagation: Propagation, by: Aggregate) -> Vec<f32> {
        let candidates = candidates.autodiff().require_grad();
        let scored = returns(problem, &Situation::of(&[1.0]), candidates.clone(), propagation, 0).unwrap();
        to_host(candidates.grad(&scored.aggregate(by).sum().backward()).unwrap())
    }

    #[test]
    fn particles_that_agree_have_a_gradient_of_the_spread() {
        let (model, actions) = (TwoMembers::new(), unit_actions());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let mut problem = Problem::new(&model, &actions).with_reward(&reward);
        let never = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(1e9).squeeze_dim(1));
        problem.termination = Some(&never);
        // Returns of 1 + a and 1 + 2a: a mean of 1 + 1.5 a, a deviation of |a| / 2. Members agree where a = 0.
        let by = Aggregate::MeanMinusStd(2.0);
        assert_eq!(gradients(&problem, sequences([[1.0], [0.0], [-1.0]]), BOTH, by), [0.5, 1.5, 2.5]);
        assert_eq!(gradients(&problem, sequences([[1.0], [0.0], [-1.0]]), BOTH, Aggregate::Worst)[0], 1.0);
    }

    #[test]
    fn what_is_over_leaves_no_nan_in_the_gradient() {
        let (model, actions) = (counter(), unit_actions());
        // The root is NaN beyond 3, in value and slope; rows that get there are over.
        let reward = reward_fn(|_, _, next: Tensor<2>| (next * -1.0 + 3.0).sqrt().squeeze_dim(1));
        let value = value_fn(|obs: Tensor<2>| (obs * -1.0 + 3.0).sqrt().squeeze_dim(1));
        let end = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(1.5).squeeze_dim(1));
        let mut problem = Problem::new(&model, &actions).with_reward(&reward).with_termination(&end);
        problem.terminal_value = Some(&value);
        // From 1: over at 2 with the slope −1/2, then NaN; never over, with the slopes −1/(2√2) each.
        let got = gradients(&problem, sequences([[1.0, 9.0], [0.0, 0.0]]), Propagation::MEAN, Aggregate::Mean);
        let slope = -0.5 / 2.0f32.sqrt();
        for (got, expected) in got.iter().zip([-0.5, 0.0, 3.0 * slope, 2.0 * slope]) {
            assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
        }
    }

    #[test]
    fn a_candidate_that_is_not_finite_leaves_the_gradients_of_others_alone() {
        let (model, actions) = (counter(), unit_actions());
        let reward = reward_fn(|_, _, next: Tensor<2>| (next * -1.0 + 3.0).sqrt().squeeze_dim(1));
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let got = gradients(&problem, sequences([[9.0], [1.0]]), Propagation::MEAN, Aggregate::Mean);
        assert_eq!(got[1], -0.5);
    }

    #[test]
    fn each_rule_has_its_error() {
        let (model, actions) = (counter(), unit_actions());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let fails = |problem: &Problem<'_>, candidates, propagation| {
            returns(problem, &Situation::of(&[0.0]), candidates, propagation, 0).unwrap_err().to_string()
        };
        let one = || sequences([[0.0]]);
        let mean = Propagation::MEAN;
        let no_reward = fails(&Problem::new(&model, &actions), one(), mean);
        assert_eq!(no_reward, "the problem has no reward, and the model closure gives none");
        for discount in [0.0, 1.5, f32::NAN] {
            let error = fails(&Problem { discount, ..problem.clone() }, one(), mean);
            assert_eq!(error, format!("discount = {discount}: expected a number in (0, 1]"));
        }
        let error = fails(&Problem { after_termination: f32::NAN, ..problem.clone() }, one(), mean);
        assert_eq!(error, "after_termination = NaN: expected a finite number");
        let error = fails(&problem, one(), Propagation { particles: 0, ..mean });
        assert_eq!(error, "particles = 0: expected at least one particle");
        let error = fails(&problem, Tensor::zeros([2, 3, 2], &Device::flex()), mean);
        assert_eq!(error, "width of the candidates' actions = 2: expected 1");
        let wide = ActionSpace::Box(BoxSpace::symmetric(3, 1.0).unwrap());
        let error = fails(&Problem { actions: &wide, ..problem.clone() }, one(), mean);
        assert_eq!(error, "width of the action space = 3: expected 1");
        let short = reward_fn(|_, _, next: Tensor<2>| next.narrow(0, 0, 1).squeeze_dim(1));
        let error = fails(&problem.clone().with_reward(&short), sequences([[0.0, 0.0]]), mean);
        assert_eq!(error, "rewards of the reward function = 1: expected 2");
    }
}
