//! Exploration by disagreement: plans lead to where the members of a model say different things.

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn, termination_fn};
use mbrl_model::{Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, Propagation};
use mbrl_plan::{CemConfig, Disagreement, Planner, Problem};

/// A point on a line that moves by its action. Where it is above 0.5, two members disagree: one is carried up by 0.2, the
/// other down. Its second column says nothing.
#[derive(Debug)]
struct Split(DynamicsSpec);

impl Split {
    fn new() -> Self {
        Self(DynamicsSpec::new("split", 2, 1, &Device::flex()).with_members(2).with_differentiable(true))
    }
}

impl Dynamics for Split {
    fn spec(&self) -> &DynamicsSpec {
        &self.0
    }
    fn predict(&self, _: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
        unreachable!("planning samples")
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let rows = states.dims()[0];
        assert_eq!(draw.propagation, MEMBERS, "the first half of the rows is the first member's");
        let sides: Vec<f32> = (0..rows).map(|row| if 2 * row < rows { 0.2 } else { -0.2 }).collect();
        let sides = Tensor::<2>::from_data(TensorData::new(sides, [rows, 1]), &self.0.device);
        let (x, idle) = (states.clone().narrow(1, 0, 1), states.narrow(1, 1, 1));
        let unknown = x.clone().greater_elem(0.5);
        let next = x + actions + sides.mask_fill(unknown.bool_not(), 0.0);
        Ok(Imagined::new(Tensor::cat(vec![next, idle], 1)))
    }
}

const MEMBERS: Propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 };

/// Where the plan leads from 0, were the members to agree.
fn destination(problem: &Problem<'_>) -> f32 {
    let config = CemConfig {
        horizon: 6,
        population: 400,
        elites: 10,
        initial_std: 1.0,
        constrain_variance: false,
        ..CemConfig::default()
    };
    let mut planner = config.init(problem.actions, MEMBERS).unwrap();
    let plan = planner.plan(&Situation::of(&[0.0, 1.0]), problem, &mut Rng::new(0)).unwrap();
    plan.actions.iter().sum()
}

#[test]
fn plans_go_where_members_disagree_and_not_without_the_bonus() {
    let (model, actions) = (Split::new(), ActionSpace::Box(BoxSpace::symmetric(1, 0.25).unwrap()));
    let at_home = reward_fn(|_, _, next: Tensor<2>| -next.narrow(1, 0, 1).square().squeeze_dim::<1>(1));
    let bonus = Disagreement { weight: 100.0, scale: vec![0.5, 1.0] };
    let rewarded = Problem::new(&model, &actions).with_reward(&at_home);
    assert!(destination(&rewarded).abs() < 0.1, "home is best where it is all that is paid");
    let curious = rewarded.clone().with_disagreement(&bonus);
    assert!(destination(&curious) > 0.5, "{}", destination(&curious));
    // Neither the problem nor the model gives a reward: exploration for its own sake.
    let pure = Problem::new(&model, &actions).with_disagreement(&bonus);
    assert!(destination(&pure) > 0.5, "{}", destination(&pure));
    let careful = Disagreement { weight: -100.0, ..bonus.clone() };
    let far = reward_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).squeeze_dim::<1>(1));
    let greedy = Problem::new(&model, &actions).with_reward(&far);
    assert!(destination(&greedy) > 1.0);
    let reached = destination(&greedy.with_disagreement(&careful));
    assert!(reached < 0.8, "one step beyond what is known, which it does not yet pay for: {reached}");
}

#[test]
fn what_is_over_explores_nothing() {
    let (model, actions) = (Split::new(), ActionSpace::Box(BoxSpace::symmetric(1, 0.25).unwrap()));
    let bonus = Disagreement { weight: 100.0, scale: vec![0.5, 1.0] };
    // Everything ends before it gets to where members disagree.
    let wall = termination_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).greater_elem(0.4).squeeze_dim(1));
    let mut problem = Problem::new(&model, &actions).with_disagreement(&bonus).with_termination(&wall);
    problem.after_termination = -1.0;
    assert!(destination(&problem) < 0.45, "beyond the wall there is nothing to be learned");
}
