//! Learns how the pendulum moves from random actions alone, and checks it on a trajectory that it has not seen.
//!
//! You learn: collecting transitions, fitting an ensemble, reading its uncertainty. Runs some seconds:
//! `cargo run --release -p mbrl-model --example fit_pendulum --features flex`
//! You should see the prediction error per step grow slowly along an imagined trajectory, and the spread with it.

use mbrl_env::{Env, Rng, tasks};
use mbrl_model::{
    Dataset, Device, Draw, Dynamics, EnsembleConfig, FitConfig, MemberRule, Propagation, Start, Tensor, fit,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = Rng::new(0);
    let mut env = tasks::make("pendulum")?.env;
    let (mut obs, mut actions, mut next) = (Vec::new(), Vec::new(), Vec::new());
    let mut now = env.reset(Some(0))?;
    for _ in 0..2000 {
        let action = env.spec().actions.sample(&mut rng)?;
        let step = env.step(&action)?;
        obs.extend(&now);
        actions.extend(&action);
        next.extend(&step.obs);
        now = if step.episode_over() { env.reset(None)? } else { step.obs };
    }

    let device = Device::flex();
    let config = EnsembleConfig { hidden: vec![64, 64], ..EnsembleConfig::default() };
    let mut model = config.init(3, 1, &device, &mut rng)?;
    let data = Dataset::new(obs, actions, next, 3, 1)?;
    let report = fit(&mut model, &data, &FitConfig { batch_size: 64, ..FitConfig::default() }, &mut rng)?;
    println!(
        "fitted {} epochs in {:.1} s, holdout error {:?}",
        report.epochs,
        report.elapsed.as_secs_f32(),
        report.errors
    );

    // Twenty steps without torque from a fresh start, imagined by every member.
    let start = env.reset(Some(1))?;
    let particles = 5;
    let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles }, 0);
    let states = Tensor::<1>::from_floats(start.as_slice(), &device).unsqueeze();
    let imagined = model.rollout(Start::States(states), Tensor::zeros([20, 1, 1], &device), draw)?.obs;
    println!("step  error of the mean  spread of the members");
    for t in 1..=20 {
        let real = env.step(&[0.0])?.obs;
        let members: Tensor<2> = imagined.clone().narrow(0, t, 1).squeeze_dim(0);
        let mean = members.clone().mean_dim(0);
        let spread = (members - mean.clone()).square().mean().sqrt().into_scalar::<f32>();
        let real = Tensor::<1>::from_floats(real.as_slice(), &device).unsqueeze();
        let error = (mean - real).square().mean().sqrt().into_scalar::<f32>();
        if t % 4 == 0 {
            println!("{t:4}  {error:17.4}  {spread:21.4}");
        }
    }
    Ok(())
}
