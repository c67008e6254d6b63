//! Every task of the registry keeps the contracts, and their rewards and ends are fit for planning.

use mbrl_env::{
    Device, Env, EnvError, Reward, Rng, Tensor, Termination, check,
    tasks::{self, CartPole, CartPoleReward, CartPoleSwingupReward, CartPoleTermination, Pendulum, PendulumReward},
};

fn tensor<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<2> {
    Tensor::from_data(rows, &Device::flex())
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[test]
fn all_tasks_keep_the_contracts() {
    for info in tasks::list() {
        let mut task = tasks::make(info.name).unwrap();
        assert_eq!(task.env.spec().name, info.name);
        assert!(task.angles.iter().all(|&column| column < task.env.spec().obs.width()));
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(&mut task.env).unwrap();
        let (reward, termination) = (&*task.reward, task.termination.as_deref());
        check::check_reward_agrees(&mut task.env, reward, termination, 20, &Device::flex(), &mut Rng::new(0)).unwrap();
    }
}

#[test]
fn every_task_ends_at_its_time_limit() {
    for info in tasks::list() {
        let mut task = tasks::make(info.name).unwrap();
        let mut longest = 0;
        for seed in 0..20 {
            task.env.reset(Some(seed)).unwrap();
            for length in 1.. {
                // No force: the cart-pole's pole falls over, the others go on to the limit.
                let step = task.env.step(&[0.0]).unwrap();
                assert_eq!(step.truncated, length == task.max_steps, "{} at {length}", info.name);
                assert!(!step.terminated || task.termination.is_some());
                if step.episode_over() {
                    longest = longest.max(length);
                    break;
                }
            }
        }
        assert!(longest == task.max_steps || task.termination.is_some());
    }
}

#[test]
fn an_unknown_task_is_named_beside_the_known_ones() {
    match tasks::make("acrobot") {
        Err(error @ EnvError::UnknownTask { .. }) => {
            let text = error.to_string();
            assert!(text.contains("`acrobot`"), "{text}");
            assert!(tasks::list().iter().all(|info| text.contains(info.name)), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_tasks_snapshot_is_refused() {
    let mut pendulum = tasks::make("pendulum").unwrap();
    let snapshot = tasks::make("cartpole").unwrap().env.save();
    pendulum.env.reset(Some(0)).unwrap();
    assert!(matches!(pendulum.env.restore(&snapshot), Err(EnvError::ForeignSnapshot { .. })));
    assert!(pendulum.env.step(&[0.0]).is_ok());
}

#[test]
fn a_state_that_is_no_number_is_refused() {
    let mut env = Pendulum::new();
    assert!(matches!(env.set_state([f64::NAN, 0.0]), Err(EnvError::NonFinite { index: 0, .. })));
    assert!(matches!(env.step(&[0.0]), Err(EnvError::NeedsReset { .. })));
}

#[test]
fn the_failing_step_pays_one_in_the_environment_and_nothing_in_planning() {
    let mut env = CartPole::new();
    let before = env.set_state([2.39, 1.0, 0.0, 0.0]).unwrap();
    let step = env.step(&[0.0]).unwrap();
    assert_eq!((step.reward, step.terminated), (1.0, true));
    let row = |obs: &[f32]| Tensor::<1>::from_data(obs, &Device::flex()).unsqueeze::<2>();
    let reward = CartPoleReward.reward(row(&before), tensor([[0.0]]), row(&step.obs));
    assert_eq!(values(reward), [0.0]);
}

#[test]
fn cartpole_ends_on_each_side_and_at_nan() {
    let limit = 12.0_f32.to_radians();
    let next = tensor([
        [0.0, 9.0, 0.0, 9.0],
        [2.39, 0.0, 0.99 * limit, 0.0],
        [2.41, 0.0, 0.0, 0.0],
        [-2.41, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.01 * limit, 0.0],
        [0.0, 0.0, -1.01 * limit, 0.0],
        [f32::NAN, 0.0, 0.0, 0.0],
        [0.0, 0.0, f32::NAN, 0.0],
    ]);
    let ends = CartPoleTermination.terminated(next.clone(), Tensor::zeros([8, 1], &Device::flex()), next);
    let ends: Vec<bool> = ends.into_data().iter::<bool>().collect();
    assert_eq!(ends, [false, false, true, true, true, true, true, true]);
}

#[test]
fn rewards_are_what_the_formulas_say() {
    // Pendulum: hanging, at 2 rad/s, with torque 1: −(π² + 0.4 + 0.001).
    let (obs, action) = (tensor([[-1.0, 0.0, 2.0]]), tensor([[1.0]]));
    let reward = values(PendulumReward.reward(obs.clone(), action, obs))[0];
    let expected = -(std::f32::consts::PI.powi(2) + 0.401);
    assert!((reward - expected).abs() < 1e-5, "{reward}, expected {expected}");
    // Swing-up: pole to the side with its tip at x = 0, so 0.6 m below the target; one unit of action.
    let quarter = std::f32::consts::FRAC_PI_2;
    let next = tensor([[0.6, quarter, 0.0, 0.0]]);
    let reward = values(CartPoleSwingupReward.reward(next.clone(), tensor([[1.0]]), next))[0];
    assert!((reward - ((-1.0_f32).exp() - 0.01)).abs() < 1e-6, "{reward}");
}

#[test]
fn rewards_have_no_nan_at_the_ends_of_the_number_line() {
    let extremes = [0.0, -0.0, 1e-40, 1.0, -1e20, 3e38, -3e38];
    let rewards: [(&dyn Reward, usize); 3] = [(&PendulumReward, 3), (&CartPoleReward, 4), (&CartPoleSwingupReward, 4)];
    for (reward, width) in rewards {
        let mut rng = Rng::new(0);
        let n = 500;
        let mut draw = |width: usize| {
            let entries: Vec<f32> = (0..n * width).map(|_| extremes[rng.below(extremes.len())]).collect();
            Tensor::<1>::from_data(entries.as_slice(), &Device::flex()).reshape([n, width])
        };
        let rewards = values(reward.reward(draw(width), draw(1), draw(width)));
        assert_eq!(rewards.len(), n);
        assert!(rewards.iter().all(|reward| !reward.is_nan() && *reward <= 1.0), "{rewards:?}");
    }
}

#[test]
fn gradients_of_rewards_are_those_of_finite_differences() {
    let rewards: [(&dyn Reward, usize); 2] = [(&PendulumReward, 3), (&CartPoleSwingupReward, 4)];
    for (reward, width) in rewards {
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            // Away from 0: there the pendulum's angle jumps or turns fast, and differences do not give the slope.
            let mut draw = |n| {
                let entry = |_| rng.uniform(0.5, 1.5) * if rng.below(2) == 0 { 1.0 } else { -1.0 };
                (0..n).map(entry).collect::<Vec<f32>>()
            };
            let inputs = [draw(width), draw(1), draw(width)];
            let row = |entries: &[f32]| Tensor::<1>::from_data(entries, &Device::flex()).unsqueeze::<2>();
            let tracked = inputs.each_ref().map(|entries| row(entries).autodiff().require_grad());
            let [obs, action, next] = tracked.clone();
            let gradients = reward.reward(obs, action, next).sum().backward();
            for (which, tracked) in tracked.iter().enumerate() {
                // An input that the reward does not use has no gradient.
                let gradient: Vec<f32> = match tracked.grad(&gradients) {
                    Some(gradient) => gradient.into_data().iter::<f32>().collect(),
                    None => vec![0.0; inputs[which].len()],
                };
                for (entry, gradient) in gradient.iter().enumerate() {
                    let at = |offset: f32| {
                        let mut moved = inputs.clone();
                        moved[which][entry] += offset;
                        f64::from(values(reward.reward(row(&moved[0]), row(&moved[1]), row(&moved[2])))[0])
                    };
                    // Truncation of about 1e-4, rounding of about 1e-6 / 1e-2.
                    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                    let error = (slope - f64::from(*gradient)).abs();
                    assert!(error < 5e-3 * slope.abs().max(1.0), "{slope} by differences, {gradient} by autodiff");
                }
            }
        }
    }
}

#[test]
fn the_pendulums_gradient_is_finite_where_its_angle_is_not_defined() {
    let obs = tensor([[0.0, 0.0, 1.0]]).autodiff().require_grad();
    let gradients = PendulumReward.reward(obs.clone(), tensor([[0.0]]).autodiff(), obs.clone()).sum().backward();
    let gradient: Vec<f32> = obs.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
    assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
    assert!((gradient[2] + 0.2).abs() < 1e-6);
}
