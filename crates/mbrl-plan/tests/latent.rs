//! Planning through a model whose state is not the observation and comes from the past: what is scored, and what is seen.
#![cfg(feature = "gradient")]

use mbrl_plan::{
    ActionSpace, Aggregate, BoxSpace, CemConfig, Device, Draw, Dynamics, DynamicsSpec, GradientConfig, History,
    IcemConfig, Imagined, MemberRule, ModelError, Mpc, MppiConfig, PddmConfig, PlannerConfig, Prediction, Problem,
    Propagation, RandomShootingConfig, Refinement, Replan, Reward, Rng, Situation, Tensor, Value, dynamics_fn,
    reward_fn, value_fn,
};

/// Control period (s).
const DT: f32 = 0.2;

/// A cart whose position alone is observed: the state `[x, v]` (S = 2, O = 1) takes its speed from the last observation and action.
#[derive(Debug)]
struct Latent(DynamicsSpec);

impl Latent {
    fn new() -> Self {
        Self(DynamicsSpec::new("latent", 2, 1, &Device::flex()).with_obs(1).with_differentiable(true))
    }
}

/// x' = x + v dt, v' = v + a dt.
fn step(s: Tensor<2>, a: Tensor<2>) -> Tensor<2> {
    let speed = s.clone().narrow(1, 1, 1);
    s + Tensor::cat(vec![speed, a], 1) * DT
}

impl Dynamics for Latent {
    fn spec(&self) -> &DynamicsSpec {
        &self.0
    }
    fn predict(&self, _: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
        unreachable!("planning samples")
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
        Ok(Imagined::new(step(states, actions)))
    }
    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        // Without a past it stands still.
        let (now, past) = (situation.obs[0], situation.past);
        let last = past.obs.last().zip(past.actions.last());
        let speed = last.map_or(0.0, |(obs, action)| (now - obs[0]) / DT + action[0] * DT);
        Ok(Tensor::from_floats([[now, speed]], &self.0.device))
    }
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states.narrow(1, 0, 1)
    }
}

fn planners() -> Vec<PlannerConfig> {
    let horizon = 10;
    vec![
        CemConfig { horizon, ..Default::default() }.into(),
        PddmConfig { horizon, ..Default::default() }.into(),
        IcemConfig { horizon, ..Default::default() }.into(),
        MppiConfig { horizon, ..Default::default() }.into(),
        RandomShootingConfig { horizon, ..Default::default() }.into(),
        GradientConfig { horizon, ..Default::default() }.into(),
    ]
}

fn actions() -> ActionSpace {
    ActionSpace::Box(BoxSpace::symmetric(1, 2.0).unwrap())
}

/// Rewards see observations: one column.
fn at_rest() -> impl Reward {
    reward_fn(|obs: Tensor<2>, _, next: Tensor<2>| {
        assert_eq!((obs.dims()[1], next.dims()[1]), (1, 1));
        -(next.clone().square() + (next - obs).square() * 10.0).squeeze_dim::<1>(1)
    })
}

fn stays_there() -> impl Value {
    value_fn(|obs: Tensor<2>| {
        assert_eq!(obs.dims()[1], 1);
        -obs.square().squeeze_dim::<1>(1)
    })
}

fn came_from(position: f32) -> History {
    let mut past = History::default();
    past.push(vec![position], vec![0.0], 4);
    past
}

#[test]
fn plans_through_a_latent_model_are_those_through_its_state() {
    let (latent, full, actions) = (Latent::new(), dynamics_fn(2, 1, &Device::flex(), step), actions());
    // The same goal in terms of the whole state.
    let (seen, whole, value) = (
        at_rest(),
        reward_fn(|obs: Tensor<2>, _, next: Tensor<2>| {
            let (obs, next) = (obs.narrow(1, 0, 1), next.narrow(1, 0, 1));
            -(next.clone().square() + (next - obs).square() * 10.0).squeeze_dim::<1>(1)
        }),
        stays_there(),
    );
    let whole_value = value_fn(|obs: Tensor<2>| -obs.narrow(1, 0, 1).square().squeeze_dim::<1>(1));
    for config in planners() {
        for (before, speed) in [(-0.2, 1.0), (0.2, -1.0)] {
            let past = came_from(before);
            let situation = Situation { past: &past, ..Situation::of(&[0.0]) };
            let [through_latent, through_state] = [
                (situation, Problem::new(&latent, &actions).with_reward(&seen).with_terminal_value(&value)),
                (
                    Situation::of(&[0.0, speed]),
                    Problem::new(&full, &actions).with_reward(&whole).with_terminal_value(&whole_value),
                ),
            ]
            .map(|(situation, problem)| {
                let mut planner =
                    config.init(&actions, Propagation::MEAN, Aggregate::Mean, &Refinement::off()).unwrap();
                planner.plan(&situation, &problem, &mut Rng::new(0)).unwrap()
            });
            assert_eq!(through_latent.actions, through_state.actions, "{} at a speed of {speed}", config.kind());
            assert_eq!(through_latent.best_return, through_state.best_return);
            // It brakes. Nobody could tell from the position alone.
            let first = through_latent.actions[..3].iter().sum::<f32>();
            assert!(first * speed < 0.0, "{}: {:?} at a speed of {speed}", config.kind(), through_latent.actions);
        }
    }
}

#[test]
fn control_with_memory_comes_to_rest_where_control_without_it_does_not() {
    let (latent, reward, actions) = (Latent::new(), at_rest(), actions());
    let problem = Problem::new(&latent, &actions).with_reward(&reward);
    // Particles and a refinement on top: they go through the latent state as well.
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 };
    let run = |remembers: bool| {
        let config = PlannerConfig::from(CemConfig { horizon: 10, population: 100, elites: 10, ..Default::default() });
        let refinement = Refinement { iterations: 3, ..Refinement::default() };
        let planner = config.init(&actions, propagation, Aggregate::Worst, &refinement).unwrap();
        let mut mpc = Mpc::new(planner, Replan::EveryStep).unwrap();
        let (mut past, mut rng, [mut x, mut v]) = (History::default(), Rng::new(0), [1.0, 0.0]);
        let mut furthest = 0f32;
        for time in 0..60 {
            let obs = [x];
            let action = mpc.act(&Situation { past: &past, ..Situation::of(&obs) }, &problem, &mut rng).unwrap().action;
            if remembers {
                past.push(obs.to_vec(), action.clone(), 1);
            }
            (x, v) = (x + v * DT, v + action[0] * DT);
            if time >= 40 {
                furthest = furthest.max(x.abs());
            }
        }
        furthest
    };
    let (with, without) = (run(true), run(false));
    assert!(with < 0.05 && without > 0.2, "{with} m from the goal with memory, {without} m without");
}
