//! Environments on MuJoCo keep the contract.
#![cfg(feature = "mujoco")]

use mbrl_env::{Device, Rng, Tensor, check, collect, tasks};

#[test]
fn every_task_keeps_the_contract() {
    for info in tasks::list() {
        let mut task = tasks::make(info.name).unwrap();
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(&mut task.env).unwrap();
    }
}

#[test]
fn rewards_and_ends_in_batches_agree_with_the_steps() {
    for name in ["InvertedPendulum-v5", "pets-halfcheetah", "pets-pusher", "pets-reacher", "pddm-halfcheetah"] {
        let mut task = tasks::make(name).unwrap();
        let reward = task.reward.expect("its observation holds what it needs");
        let (termination, mut rng) = (task.termination.as_deref(), Rng::new(0));
        check::check_reward_agrees(&mut task.env, &*reward, termination, 3, &Device::flex(), &mut rng)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// With the position in the observation, a reward is a difference of positions that are rounded to `f32`: half a unit in
/// the last place of each, over the time of a step.
#[test]
fn rewards_of_runners_agree_up_to_the_rounding_of_the_position() {
    let options = serde_json::json!({ "exclude_current_positions_from_observation": false });
    for name in ["HalfCheetah-v5", "Hopper-v5"] {
        let task = tasks::make_with(name, &options).unwrap();
        assert!(tasks::make(name).unwrap().reward.is_none(), "{name}: without the position it cannot be known");
        let (spec, reward) = (task.env.spec().clone(), task.reward.unwrap());
        let episodes = collect(&task.env, 0..5, |_, rng| spec.actions.sample(rng).unwrap()).unwrap();
        let mut compared = 0;
        for t in episodes.iter().flatten() {
            let row = |x: &[f32]| Tensor::<1>::from_floats(x, &Device::flex()).unsqueeze::<2>();
            let batch = reward.reward(row(&t.obs), row(&t.action), row(&t.next_obs)).into_scalar::<f32>();
            let ulps = f64::from(f32::EPSILON) * f64::from(t.obs[0].abs().max(t.next_obs[0].abs()));
            let tolerance = 1e-5 + ulps / spec.control_period;
            assert!((f64::from(batch) - t.reward).abs() < tolerance, "{name}: {batch} and {}", t.reward);
            compared += 1;
        }
        assert!(compared >= 50, "{name}: {compared}");
    }
}
