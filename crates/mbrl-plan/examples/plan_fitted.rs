//! Planning with a model that `mbrl fit` made of a log: brings the first column of the observation to 0.
//!
//! You learn to open a model's folder, to read names, units, period and ranges from it, and to plan from an observation in
//! the log's units. Runs for about a second: `cargo run --release -p mbrl-plan --example plan_fitted -- models/NAME`. You
//! should see the predicted column come closer to 0, as far as the actions of the log reach.

use mbrl_model::{Dynamics, FittedModel};
use mbrl_plan::{CemConfig, Device, Planner, Problem, Propagation, Rng, Situation, Tensor, reward_fn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("expected the folder of a model, such as models/NAME")?;
    let fitted = FittedModel::open(folder, &Device::flex())?;
    println!("period {:?}, actions {:?} within {:?}", fitted.period(), fitted.action_names(), fitted.action_ranges());

    // The model sees a column without its offset; 0 of the log is this.
    let zero = fitted.obs(&vec![0.0; fitted.obs_names().len()])?[0];
    let reward = reward_fn(move |_, _, next: Tensor<2>| -(next.narrow(1, 0, 1) - zero).square().squeeze_dim::<1>(1));
    let actions = fitted.action_space()?;
    let problem = Problem::new(fitted.model(), &actions).with_reward(&reward);
    let mut planner = CemConfig { horizon: 15, ..CemConfig::default() }.init(&actions, Propagation::MEAN)?;

    // From the highest values of the log.
    let start: Vec<f64> = fitted.obs_ranges().iter().map(|range| range.1).collect();
    let obs = fitted.obs(&start)?;
    let plan = planner.plan(&Situation::of(&obs), &problem, &mut Rng::new(0))?;
    let mut state = Tensor::<1>::from_floats(obs.as_slice(), &Device::flex()).unsqueeze::<2>();
    for step in 0..15 {
        let action = Tensor::<1>::from_floats(plan.action(step), &Device::flex()).unsqueeze::<2>();
        state = fitted.model().predict(state, action)?.mean;
        let seen = fitted.values(&fitted.model().observe(state.clone()).into_data().try_to_vec::<f32>()?)?;
        println!("step {:>2}: action {:+.3?}  {} {:+.4}", step + 1, plan.action(step), fitted.obs_names()[0], seen[0]);
    }
    Ok(())
}
