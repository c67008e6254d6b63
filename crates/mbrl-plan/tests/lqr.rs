//! Planners against exact answers: a double integrator with quadratic costs, where Riccati's recursion gives the optimum.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Reward, Rng, Situation, reward_fn};
use mbrl_model::{Dynamics, Propagation, dynamics_fn};
use mbrl_plan::{CemConfig, Mpc, PddmConfig, Planner, Problem, Replan};

const DT: f64 = 0.2;
const R: f64 = 0.1;
const START: [f64; 2] = [1.0, 0.5];

/// x' = A x + B u with position and speed; cost x'ᵀ x' + R u² a step.
fn step([x, v]: [f64; 2], u: f64) -> ([f64; 2], f64) {
    let next = [x + DT * v, v + DT * u];
    (next, next[0] * next[0] + next[1] * next[1] + R * u * u)
}

fn cost(actions: &[f64]) -> f64 {
    actions
        .iter()
        .fold((START, 0.0), |(s, total), &u| {
            let (next, cost) = step(s, u);
            (next, total + cost)
        })
        .1
}

/// The optimal actions over `horizon` steps, by Riccati's recursion.
fn optimal(horizon: usize) -> Vec<f64> {
    // p: cost to go of a state that was just reached, its own cost included; gains are found backwards.
    let mut p = [[1.0, 0.0], [0.0, 1.0]];
    let mut gains = Vec::new();
    for _ in 0..horizon {
        // With A = [[1, DT], [0, 1]], B = [0, DT]: BᵀP, its products, and PA.
        let bp = [DT * p[1][0], DT * p[1][1]];
        let denominator = R + bp[1] * DT;
        let bpa = [bp[0], bp[0] * DT + bp[1]];
        let k = [bpa[0] / denominator, bpa[1] / denominator];
        gains.push(k);
        let pa = [[p[0][0], p[0][0] * DT + p[0][1]], [p[1][0], p[1][0] * DT + p[1][1]]];
        let apa = [[pa[0][0], pa[0][1]], [DT * pa[0][0] + pa[1][0], DT * pa[0][1] + pa[1][1]]];
        for i in 0..2 {
            for j in 0..2 {
                p[i][j] = apa[i][j] - bpa[i] * k[j] + f64::from(u8::from(i == j));
            }
        }
    }
    let mut s = START;
    gains
        .iter()
        .rev()
        .map(|k| {
            let u = -(k[0] * s[0] + k[1] * s[1]);
            s = step(s, u).0;
            u
        })
        .collect()
}

fn model() -> impl Dynamics {
    dynamics_fn(2, 1, &Device::flex(), |s, a| {
        let v = s.clone().narrow(1, 1, 1);
        s + Tensor::cat(vec![v, a], 1) * DT as f32
    })
}

fn reward() -> impl Reward {
    reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        -((next.clone() * next).sum_dim(1) + a.clone() * a * R as f32).squeeze_dim::<1>(1)
    })
}

fn bounds() -> ActionSpace {
    ActionSpace::Box(BoxSpace::new([-5.0], [4.0]).unwrap())
}

fn here() -> [f32; 2] {
    START.map(|x| x as f32)
}

#[test]
fn the_recursion_gives_a_minimum() {
    let best = optimal(12);
    assert!(best.iter().all(|u| (-4.5..3.5).contains(u)), "the bounds are inactive: {best:?}");
    for t in 0..12 {
        for h in [-1e-3, 1e-3] {
            let mut other = best.clone();
            other[t] += h;
            // The cost is a quadratic with a curvature of at least R in each action.
            assert!(cost(&other) - cost(&best) > 0.9 * R * h * h);
        }
    }
}

#[test]
fn cem_comes_within_one_percent_of_the_optimum() {
    let (model, reward, actions) = (model(), reward(), bounds());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let optimum = cost(&optimal(12));
    for seed in 0..3 {
        let config = CemConfig { horizon: 12, iterations: 15, variance_stop: 1e-5, ..CemConfig::default() };
        let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
        let plan = planner.plan(&Situation::of(&here()), &problem, &mut Rng::new(seed)).unwrap();
        let planned: Vec<f64> = plan.actions.into_data().iter::<f64>().collect();
        let ratio = cost(&planned) / optimum;
        assert!((1.0..1.01).contains(&ratio), "seed {seed}: {ratio} of the optimum");
        assert!((f64::from(-plan.predicted_return) / optimum - 1.0).abs() < 0.02, "{}", plan.predicted_return);
    }
}

#[test]
fn pddm_with_refinements_comes_within_ten_percent_of_the_optimum() {
    let (model, reward, actions) = (model(), reward(), bounds());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let optimum = cost(&optimal(12));
    let config =
        PddmConfig { horizon: 12, population: 400, iterations: 30, sigma: 0.3, kappa: 5.0, ..PddmConfig::default() };
    let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
    let plan = planner.plan(&Situation::of(&here()), &problem, &mut Rng::new(0)).unwrap();
    let planned: Vec<f64> = plan.actions.into_data().iter::<f64>().collect();
    let ratio = cost(&planned) / optimum;
    assert!((1.0..1.1).contains(&ratio), "{ratio} of the optimum");
}

/// The cost of 12 steps in a world where a constant force of 1 acts that the model does not know of.
fn cost_against_wind(replan: Replan) -> f64 {
    let (model, reward, actions) = (model(), reward(), bounds());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig { horizon: 12, iterations: 10, ..CemConfig::default() };
    let mut mpc = Mpc::new(Box::new(config.init(&actions, Propagation::MEAN).unwrap()), replan).unwrap();
    let mut rng = Rng::new(0);
    let (mut s, mut total) = (START, 0.0);
    for _ in 0..12 {
        let obs = s.map(|x| x as f32);
        let u = f64::from(mpc.act(&Situation::of(&obs), &problem, &mut rng).unwrap().action[0]);
        let effort = R * u * u;
        s = step(s, u + 1.0).0;
        total += s[0] * s[0] + s[1] * s[1] + effort;
    }
    total
}

#[test]
fn replanning_corrects_a_wrong_model() {
    let [open, every_four, every] = [Replan::OpenLoop, Replan::Every(4), Replan::EveryStep].map(cost_against_wind);
    assert!(every < every_four && every_four < open, "costs: {every}, {every_four}, open loop {open}");
    assert!(every < 0.7 * open, "costs: {every}, open loop {open}");
}
