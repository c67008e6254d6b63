//! Planners in closed loop: a pendulum hangs still, its motor is too weak to lift it directly, and the model is exact.
//! `cargo test --test swing_up -- --ignored --nocapture` prints what each planner tries a control step and what it earns.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};
use mbrl_plan::{CemConfig, IcemConfig, Mpc, Planner, Problem, Replan};

const STEPS: usize = 100;
const SEEDS: u64 = 5;

/// Mean return over seeds, and sequences of `horizon` tried a control step.
fn swing_up(name: &str, horizon: usize, make: impl Fn(&ActionSpace) -> Box<dyn Planner>) -> (f32, u64) {
    const DT: f32 = 0.05;
    // State: angle from upright (rad), speed (rad/s). Action: torque (N·m) on a rod of 1 kg and 1 m.
    let model = dynamics_fn(2, 1, &Device::flex(), |s, a| {
        let (angle, speed) = (s.clone().narrow(1, 0, 1), s.narrow(1, 1, 1));
        let speed = speed + (angle.clone().sin() * 15.0 + a * 3.0) * DT;
        Tensor::cat(vec![angle + speed.clone() * DT, speed], 1)
    });
    // 1 a step for standing upright, −1 for hanging.
    let reward = reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        let (angle, speed) = (next.clone().narrow(1, 0, 1), next.narrow(1, 1, 1));
        (angle.cos() - speed.square() * 0.01 - a.square() * 0.001).squeeze_dim(1)
    });
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, 2.0).unwrap());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let (mut returns, mut tried) = (Vec::new(), 0);
    for seed in 0..SEEDS {
        let mut mpc = Mpc::new(make(&actions), Replan::EveryStep).unwrap();
        let mut rng = Rng::new(seed);
        let (mut angle, mut speed, mut total) = (std::f32::consts::PI, 0.0f32, 0.0);
        for _ in 0..STEPS {
            let step = mpc.act(&Situation::of(&[angle, speed]), &problem, &mut rng).unwrap();
            let torque = step.action[0];
            speed += DT * (15.0 * angle.sin() + 3.0 * torque);
            angle += DT * speed;
            total += angle.cos() - 0.01 * speed * speed - 0.001 * torque * torque;
            tried = tried.max(step.plan.unwrap().stats.model_steps / horizon as u64);
        }
        returns.push(total);
    }
    let mean = returns.iter().sum::<f32>() / SEEDS as f32;
    println!("{name:<40} {tried:>4} sequences per step, return {mean:>6.1} {returns:.1?}");
    (mean, tried)
}

#[test]
#[ignore = "10 s"]
fn icem_reaches_cems_return_with_a_third_of_its_samples() {
    let horizon = 20;
    // With its variance constrained, as PETS has it, CEM hardly leaves a bound that a swing-up runs along, and stays below.
    let cem = CemConfig {
        horizon,
        population: 100,
        elites: 10,
        iterations: 4,
        constrain_variance: false,
        ..CemConfig::default()
    };
    let icem = IcemConfig { horizon, ..IcemConfig::default() };
    let mean = Propagation::MEAN;
    let (cem, by_cem) = swing_up("CEM", horizon, |actions| Box::new(cem.init(actions, mean).unwrap()));
    let (icem, by_icem) = swing_up("iCEM", horizon, |actions| Box::new(icem.init(actions, mean).unwrap()));
    assert!(3 * by_icem <= by_cem, "{by_icem} and {by_cem} sequences");
    // Measured: 11.6 with a standard deviation of 0.6 over seeds, CEM 8.6 with 1.4. Hanging still earns −100.
    assert!(icem >= cem && cem > 0.0, "returns: iCEM {icem}, CEM {cem}");
}
