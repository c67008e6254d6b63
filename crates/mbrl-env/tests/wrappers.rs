//! Wrappers: what they change, what they leave, and that snapshots hold all of it.

use mbrl_env::{
    ActionLimits, ActionRepeat, ActionSpace, BoxSpace, Delay, Env, EnvError, EnvSpec, Noise, Rng, Simulator, Step,
    TimeLimit, World, WrappersConfig, check,
    tasks::{self, CartPole, CliffConfig, Pendulum, PointMass},
};

#[test]
fn every_wrapper_keeps_the_contracts() {
    let make = |name| tasks::make(name).unwrap().env.into_simulator().unwrap();
    let limited = || make("pendulum");
    let mut wrapped: Vec<Box<dyn Simulator>> = vec![
        Box::new(ActionRepeat::new(limited(), 3).unwrap()),
        Box::new(ActionRepeat::new(make("cartpole"), 4).unwrap()),
        Box::new(TimeLimit::new(ActionRepeat::new(CartPole::new(), 2).unwrap(), 30).unwrap()),
        Box::new(Noise::new(limited()).on_observations([0.1, 0.1, 1.0]).unwrap()),
        Box::new(Noise::new(limited()).on_actions([0.5]).unwrap()),
        Box::new(Noise::new(limited()).on_observations([0.0; 3]).unwrap().on_actions([3.0]).unwrap()),
        Box::new(Delay::actions(limited(), 4)),
        Box::new(Delay::observations(limited(), 4)),
        Box::new(Delay::observations(make("cartpole"), 2)),
        Box::new(Delay::actions(limited(), 0)),
        Box::new(Delay::actions(
            Delay::observations(Noise::new(ActionRepeat::new(limited(), 2).unwrap()).on_actions([0.3]).unwrap(), 2),
            3,
        )),
    ];
    for sim in &mut wrapped {
        check::check_env(sim).unwrap();
        check::check_simulator(sim).unwrap();
    }
}

/// Observations, rewards and flags of an episode under given actions.
fn trace(env: &mut dyn Env, seed: u64, actions: &[Vec<f32>]) -> (Vec<Vec<f32>>, Vec<f64>, Vec<bool>) {
    let mut trace = (vec![env.reset(Some(seed)).unwrap()], vec![], vec![]);
    for action in actions {
        let step = env.step(action).unwrap();
        trace.0.push(step.obs);
        trace.1.push(step.reward);
        trace.2.push(step.terminated);
        if step.terminated || step.truncated {
            break;
        }
    }
    trace
}

fn actions(n: usize, width: usize) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(8);
    (0..n).map(|_| (0..width).map(|_| rng.uniform(-1.0, 1.0)).collect()).collect()
}

#[test]
fn a_repeated_action_is_the_action_given_again() {
    let actions = actions(20, 1);
    let doubled: Vec<Vec<f32>> = actions.iter().flat_map(|action| [action.clone(), action.clone()]).collect();
    let (obs, rewards, _) = trace(&mut Pendulum::new(), 3, &doubled);
    let (held_obs, held_rewards, _) = trace(&mut ActionRepeat::new(Pendulum::new(), 2).unwrap(), 3, &actions);
    assert_eq!(held_obs, obs.into_iter().step_by(2).collect::<Vec<_>>());
    assert_eq!(held_rewards, rewards.chunks(2).map(|pair| pair[0] + pair[1]).collect::<Vec<_>>());
    assert!(matches!(ActionRepeat::new(Pendulum::new(), 0), Err(EnvError::Config { field: "repeat", .. })));
}

#[test]
fn a_repetition_tells_the_mean_of_what_the_steps_inside_tell() {
    /// Counts its steps, and tells their number; `rare` at even ones alone.
    #[derive(Debug, Clone)]
    struct Counting(Pendulum, f64);
    impl Env for Counting {
        fn spec(&self) -> &EnvSpec {
            self.0.spec()
        }
        fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
            self.1 = 0.0;
            self.0.reset(seed)
        }
        fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
            self.1 += 1.0;
            let step = self.0.step(action)?.with_info("count", self.1).with_terminated(self.1 == 5.0);
            let reward = step.reward;
            let step = step.with_info("paid", reward);
            Ok(if self.1 % 2.0 == 0.0 { step.with_info("rare", 10.0 * self.1) } else { step })
        }
    }
    let mut env = ActionRepeat::new(Counting(Pendulum::new(), 0.0), 3).unwrap();
    env.reset(Some(1)).unwrap();
    let told = |step: &Step, name: &str| step.info[name];
    // 1, 2, 3, and then 4, 5, where the episode ends.
    let step = env.step(&[0.5]).unwrap();
    assert_eq!((told(&step, "count"), told(&step, "rare")), (2.0, 20.0));
    assert!((told(&step, "paid") - step.reward / 3.0).abs() < 1e-12);
    let step = env.step(&[0.5]).unwrap();
    assert_eq!((told(&step, "count"), told(&step, "rare")), (4.5, 40.0));
    assert!(step.terminated && (told(&step, "paid") - step.reward / 2.0).abs() < 1e-12);
}

#[test]
fn a_repetition_stops_at_an_end_and_at_a_limit_inside() {
    // Two steps before the edge of the hill; after the fall a further one would be an error.
    let mut cliff = CliffConfig::default().init().unwrap();
    cliff.set_state(1.85).unwrap();
    let step = ActionRepeat::new(cliff, 5).unwrap().step(&[1.0]).unwrap();
    // Heights of 1.95 m and, past the edge, −2 m.
    assert!(step.terminated && (step.reward + 0.05).abs() < 1e-6, "{step:?}");

    let limits = |limit_inside: bool| {
        let mut env: Box<dyn Env> = if limit_inside {
            Box::new(ActionRepeat::new(TimeLimit::new(Pendulum::new(), 7).unwrap(), 3).unwrap())
        } else {
            Box::new(TimeLimit::new(ActionRepeat::new(Pendulum::new(), 3).unwrap(), 7).unwrap())
        };
        env.reset(Some(0)).unwrap();
        (1..).find(|_| env.step(&[0.0]).unwrap().truncated)
    };
    // 3 + 3 + 1 steps inside, or seven decisions.
    assert_eq!((limits(true), limits(false)), (Some(3), Some(7)));
}

#[test]
fn noise_has_the_standard_deviations_asked_for_and_leaves_the_truth_alone() {
    let n = 4000;
    let actions = vec![vec![0.0, 0.0]; n];
    let still = |std: f32| Noise::new(PointMass::new()).on_observations([std, 0.0, 2.0 * std, 0.0]).unwrap();
    let (clean, clean_rewards, _) = trace(&mut PointMass::new(), 1, &actions);
    let (seen, rewards, _) = trace(&mut still(0.1), 1, &actions);
    // The environment inside is not touched: rewards are of the true state, columns without noise are exact.
    assert_eq!(rewards, clean_rewards);
    for (column, std) in [(0, 0.1), (1, 0.0), (2, 0.2), (3, 0.0)] {
        let errors: Vec<f64> = seen.iter().zip(&clean).map(|(s, c)| f64::from(s[column] - c[column])).collect();
        let mean = errors.iter().sum::<f64>() / n as f64;
        let measured = (errors.iter().map(|e| e * e).sum::<f64>() / n as f64).sqrt();
        // Standard errors: std/√n of the mean, std/√(2n) of the deviation; four of each.
        assert!(mean.abs() <= 0.064 * std && (measured - std).abs() <= 0.045 * std, "{column}: {mean} {measured}");
    }
    // Columns with noise have lost their bounds, the others have not.
    let env = still(0.1);
    assert_eq!(env.spec().obs.high()[..2], [f32::INFINITY, 1.0]);
    assert_eq!(env.spec().obs.low()[..2], [f32::NEG_INFINITY, -1.0]);
}

#[test]
fn noise_on_actions_moves_what_is_at_rest_and_goes_on_between_episodes() {
    // Noise around noisy sensors is other noise: without a stream of its own the two would be equal, and this twice the one.
    let twice = |own: bool| {
        let inside = Noise::new(PointMass::new());
        let inside = if own { inside.of_sensors() } else { inside }.on_observations([1.0; 4]).unwrap();
        Noise::new(inside).on_observations([1.0; 4]).unwrap().reset(Some(3)).unwrap()
    };
    let (start, once) = (PointMass::new().reset(Some(3)).unwrap(), {
        Noise::new(PointMass::new()).on_observations([1.0; 4]).unwrap().reset(Some(3)).unwrap()
    });
    let doubled = |seen: &[f32]| {
        seen.iter()
            .zip(&start)
            .zip(&once)
            .all(|((seen, start), once)| (seen - start - 2.0 * (once - start)).abs() < 1e-5)
    };
    assert!(doubled(&twice(false)) && !doubled(&twice(true)));
    let noisy = || Noise::new(PointMass::new()).on_actions([0.2, 0.0]).unwrap();
    let rest = vec![vec![0.0, 0.0]; 30];
    let (obs, ..) = trace(&mut noisy(), 1, &rest);
    assert!(obs[30][0] != obs[0][0] && obs[30][1] == obs[0][1]);
    // Another seed, and another episode without one, have other noise.
    let moved = |obs: &[Vec<f32>]| obs[30][2];
    assert_ne!(moved(&trace(&mut noisy(), 2, &rest).0), moved(&obs));
    let mut env = noisy();
    assert_eq!(trace(&mut env, 1, &rest).0, obs);
    env.reset(None).unwrap();
    let last = rest.iter().map(|action| env.step(action).unwrap().obs).last().unwrap();
    assert_ne!(last[2], moved(&obs));
}

#[test]
fn the_noise_does_not_repeat_the_draws_of_the_start() {
    // The second number drawn is the start's speed there and the noise on the second column here: of the same random bits,
    // both would have the same sign.
    let (n, mut products) = (2000, 0.0);
    for seed in 0..n {
        let start = Pendulum::new().reset(Some(seed)).unwrap();
        let seen = Noise::new(Pendulum::new()).on_observations([0.0, 1.0, 0.0]).unwrap().reset(Some(seed)).unwrap();
        products += f64::from(start[2]) * 3.0_f64.sqrt() * f64::from(seen[1] - start[1]);
    }
    // A correlation of 0 within 4/√n.
    let correlation = products / n as f64;
    assert!(correlation.abs() < 4.0 / (n as f64).sqrt(), "{correlation}");
}

#[test]
fn bad_noise_is_named() {
    for std in [vec![-0.1, 0.0, 0.0], vec![f32::NAN, 0.0, 0.0], vec![0.0, f32::INFINITY, 0.0]] {
        let refused = Noise::new(Pendulum::new()).on_observations(std);
        assert!(matches!(refused, Err(EnvError::Config { field: "observation_noise", .. })));
    }
    // Pixels are whole numbers; a world of pixels says so before its first step.
    let pixels = || mbrl_env::tasks::make("pendulum-pixels").unwrap().env;
    let width = pixels().spec().obs.width();
    assert!(Noise::new(pixels()).on_observations(vec![0.0; width]).is_ok());
    let config = mbrl_env::WrappersConfig { observation_noise: mbrl_env::NoiseStd::All(0.5), ..Default::default() };
    let refused = config.apply(pixels()).unwrap_err().to_string();
    assert!(refused.starts_with("observation_noise = 0.5: expected 0 for a picture"), "{refused}");
    assert!(matches!(Noise::new(Pendulum::new()).on_observations([0.1]), Err(EnvError::Width { expected: 3, .. })));
    assert!(matches!(Noise::new(Pendulum::new()).on_actions([-1.0]), Err(EnvError::Config { .. })));
    assert!(matches!(Noise::new(Choice::new()).on_actions([0.1]), Err(EnvError::Config { field: "action_noise", .. })));
}

#[test]
fn delayed_actions_are_the_same_actions_later() {
    let (given, delay) = (actions(30, 1), 3);
    let shifted: Vec<Vec<f32>> = std::iter::repeat_n(vec![0.0], delay).chain(given[..27].to_vec()).collect();
    for _ in 0..2 {
        // The second time from a used queue: reset empties it.
        let mut env = Delay::actions(Pendulum::new(), delay);
        env.reset(Some(1)).unwrap();
        env.step(&[2.0]).unwrap();
        assert_eq!(trace(&mut env, 5, &given), trace(&mut Pendulum::new(), 5, &shifted));
    }
}

#[test]
fn delayed_observations_are_the_same_observations_later() {
    let (given, delay) = (actions(30, 1), 3);
    let (obs, rewards, ends) = trace(&mut CartPole::new(), 5, &given);
    let (seen, seen_rewards, seen_ends) = trace(&mut Delay::observations(CartPole::new(), delay), 5, &given);
    // Rewards and the end come in time; the last three observations never do.
    assert_eq!((seen_rewards, seen_ends), (rewards, ends));
    let expected: Vec<Vec<f32>> =
        std::iter::repeat_n(obs[0].clone(), delay).chain(obs.clone()).take(obs.len()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_refused_step_does_not_move_the_queue() {
    let mut env = Delay::actions(TimeLimit::new(Pendulum::new(), 2).unwrap(), 1);
    env.reset(Some(0)).unwrap();
    env.step(&[1.0]).unwrap();
    env.step(&[-1.0]).unwrap();
    let before = env.save();
    assert!(matches!(env.step(&[0.5]), Err(EnvError::NeedsReset { .. })));
    assert!(matches!(env.step(&[f32::NAN]), Err(EnvError::NonFinite { .. })));
    env.restore(&before).unwrap();
    env.reset(Some(0)).unwrap();
    assert_eq!(env.step(&[1.0]).unwrap().obs, {
        let mut plain = Pendulum::new();
        plain.reset(Some(0)).unwrap();
        plain.step(&[0.0]).unwrap().obs
    });
}

#[test]
fn another_delays_snapshot_is_refused() {
    let saved = |mut env: Delay<Pendulum>| {
        env.reset(Some(0)).unwrap();
        env.save()
    };
    let mut env = Delay::actions(Pendulum::new(), 2);
    env.restore(&saved(env.clone())).unwrap();
    for other in [Delay::actions(Pendulum::new(), 3), Delay::observations(Pendulum::new(), 2)] {
        assert!(matches!(env.restore(&saved(other)), Err(EnvError::ForeignSnapshot { .. })));
    }
}

#[test]
fn info_comes_through() {
    let mut plain = PointMass::new();
    plain.reset(Some(0)).unwrap();
    let expected = plain.step(&[0.0, 0.0]).unwrap().info;
    assert!(expected.contains_key("distance"));
    let noisy = Noise::new(PointMass::new()).on_observations([1.0; 4]).unwrap();
    let mut env = Delay::observations(ActionRepeat::new(noisy, 1).unwrap(), 2);
    env.reset(Some(0)).unwrap();
    assert_eq!(env.step(&[0.0, 0.0]).unwrap().info, expected);
}

/// Observations and rewards of 20 steps of a task, wrapped as plain data says.
fn wrapped(task: &str, config: &str) -> (EnvSpec, Vec<Vec<f32>>, Vec<f64>) {
    let config: WrappersConfig = serde_json::from_str(config).unwrap();
    let mut world = config.apply(tasks::make(task).unwrap().env).unwrap();
    let (obs, rewards, _) = trace(&mut world, 3, &actions(20, 2));
    (world.spec().clone(), obs, rewards)
}

#[test]
fn each_setting_of_the_wrappers_does_what_its_wrapper_does() {
    let (spec, obs, rewards) = wrapped("point-mass", "{}");
    let by_hand = |env: &mut dyn Env| trace(env, 3, &actions(20, 2));
    let plain = || PointMass::new();
    assert_eq!((&obs, &rewards), (&by_hand(&mut plain()).0, &by_hand(&mut plain()).1));
    let seen = |std: [f32; 4]| Noise::new(plain()).on_observations(std).unwrap();
    let done = |std: [f32; 2]| Noise::new(plain()).on_actions(std).unwrap();
    let weak = BoxSpace::new([-0.2, 0.1], [0.2, 0.1]).unwrap();
    let (x, y) = (spec.action_names()[0].clone(), spec.action_names()[1].clone());
    let by_name = format!(r#"{{ "action_limits": {{ "{y}": [0.1, 0.1], "{x}": [-0.2, 0.2] }} }}"#);
    let same = BoxSpace::symmetric(2, 0.2).unwrap();
    let cases: [(&str, Box<dyn Env>); 11] = [
        (r#"{ "action_limits": [-0.2, 0.2] }"#, Box::new(ActionLimits::clip(plain(), same).unwrap())),
        (
            r#"{ "action_limits": [[-0.2, 0.2], [0.1, 0.1]] }"#,
            Box::new(ActionLimits::clip(plain(), weak.clone()).unwrap()),
        ),
        (&by_name, Box::new(ActionLimits::clip(plain(), weak).unwrap())),
        (r#"{ "action_repeat": 3 }"#, Box::new(ActionRepeat::new(plain(), 3).unwrap())),
        (r#"{ "observation_noise": 0.1 }"#, Box::new(seen([0.1; 4]))),
        (r#"{ "observation_noise": [0.1, 0, 0.2, 0] }"#, Box::new(seen([0.1, 0.0, 0.2, 0.0]))),
        (r#"{ "action_noise": 0.3 }"#, Box::new(done([0.3; 2]))),
        (r#"{ "action_noise": [0.3, 0.0] }"#, Box::new(done([0.3, 0.0]))),
        (r#"{ "action_delay": 2 }"#, Box::new(Delay::actions(plain(), 2))),
        (r#"{ "observation_delay": 2 }"#, Box::new(Delay::observations(plain(), 2))),
        (
            r#"{ "action_repeat": 2, "observation_noise": 0.1, "action_noise": 0.2, "observation_delay": 1, "action_delay": 3 }"#,
            {
                let repeated = ActionRepeat::new(plain(), 2).unwrap();
                let noisy = Noise::new(repeated).on_observations([0.1; 4]).unwrap().on_actions([0.2; 2]).unwrap();
                Box::new(Delay::observations(Delay::actions(noisy, 3), 1))
            },
        ),
    ];
    for (config, mut env) in cases {
        let (wrapped_spec, wrapped_obs, wrapped_rewards) = wrapped("point-mass", config);
        assert_ne!(wrapped_obs, obs, "{config} changes nothing");
        let (expected_obs, expected_rewards, _) = by_hand(&mut env);
        assert_eq!((wrapped_obs, wrapped_rewards), (expected_obs, expected_rewards), "{config}");
        let repeat = if config.contains("repeat\": 3") {
            3
        } else if config.contains("repeat") {
            2
        } else {
            1
        };
        assert_eq!(wrapped_spec.max_steps, Some(100_u32.div_ceil(repeat)), "{config}");
        assert_eq!(wrapped_spec.control_period, spec.control_period * f64::from(repeat));
        assert_eq!(wrapped_spec.fields, spec.fields);
    }
}

#[test]
fn wrappers_leave_simulators_simulators_and_refuse_what_they_cannot_do() {
    let all = r#"{ "action_repeat": 2, "observation_noise": 0.1, "action_noise": 0.2, "observation_delay": 1, "action_delay": 3 }"#;
    let config: WrappersConfig = serde_json::from_str(all).unwrap();
    let mut world = config.apply(tasks::make("pendulum").unwrap().env).unwrap();
    check::check_env(&mut world).unwrap();
    check::check_simulator(world.simulator_mut().unwrap()).unwrap();
    let machine = config.apply(World::from_env(Pendulum::new())).unwrap();
    assert!(machine.simulator().is_none());

    let refused = |config: &str| {
        let config: WrappersConfig = serde_json::from_str(config).unwrap();
        config.apply(tasks::make("pendulum").unwrap().env).map(drop).unwrap_err()
    };
    assert!(matches!(refused(r#"{ "action_repeat": 0 }"#), EnvError::Config { field: "action_repeat", .. }));
    assert!(matches!(
        refused(r#"{ "observation_delay": 9223372036854775807 }"#),
        EnvError::Config { field: "observation_delay", .. }
    ));
    for (limits, words) in [
        ("[-3, 1]", "`torque` from -3 to 1: expected limits within its own, -2 and 2"),
        ("[1, -1]", "low 1 is above high -1"),
        ("[[-1, 1], [-1, 1]]", "2 entries, expected 1"),
        (r#"{ "force": [-1, 1] }"#, "no action is called `force`; there are: torque"),
    ] {
        let told = refused(&format!(r#"{{ "action_limits": {limits} }}"#)).to_string();
        assert!(told.contains(words), "{told}");
    }
    assert!(matches!(refused(r#"{ "observation_noise": -1 }"#), EnvError::Config { .. }));
    assert!(matches!(refused(r#"{ "observation_noise": [0.1] }"#), EnvError::Width { expected: 3, actual: 1, .. }));
    assert!(matches!(refused(r#"{ "action_noise": [0.1, 0.1] }"#), EnvError::Width { expected: 1, actual: 2, .. }));
    for (text, words) in
        [(r#"{ "repeat": 2 }"#, "unknown field `repeat`"), (r#"{ "action_noise": "much" }"#, "a number, or")]
    {
        let told = serde_json::from_str::<WrappersConfig>(text).unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    }
    assert!(WrappersConfig::default().is_default() && !config.is_default());
}

/// The pendulum under a motor that its specification gives no limits.
#[derive(Clone)]
struct Unlimited {
    pendulum: Pendulum,
    spec: EnvSpec,
}

impl Unlimited {
    fn new() -> Self {
        let pendulum = Pendulum::new();
        let mut spec = pendulum.spec().clone();
        spec.actions = ActionSpace::Box(BoxSpace::unbounded(1));
        Self { pendulum, spec }
    }
}

impl Env for Unlimited {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.pendulum.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.pendulum.step(action)
    }
}

#[test]
fn actions_without_limits_are_checked_and_get_them() {
    check::check_env(&mut Unlimited::new()).unwrap();
    let told = Unlimited::new().spec().require_limited_actions().unwrap_err().to_string();
    assert!(told.contains("no limits for torque") && told.contains("wrappers.action_limits"), "{told}");
    assert!(ActionLimits::rescale(Unlimited::new()).is_err());

    let limited = ActionLimits::clip(Unlimited::new(), BoxSpace::symmetric(1, 1.0).unwrap()).unwrap();
    limited.spec().require_limited_actions().unwrap();
    let mut scaled = ActionLimits::rescale(limited.clone()).unwrap();
    let mut limited = limited;
    check::check_env(&mut limited).unwrap();
    // The range [−1, 1] is its own: nothing changes.
    let steps = actions(20, 1);
    assert_eq!(trace(&mut scaled, 3, &steps), trace(&mut limited, 3, &steps));
    check::check_simulator(&mut ActionLimits::rescale(Pendulum::new()).unwrap()).unwrap();
    let mut scaled = ActionLimits::rescale(Pendulum::new()).unwrap();
    let doubled: Vec<Vec<f32>> = steps.iter().map(|a| vec![2.0 * a[0].clamp(-1.0, 1.0)]).collect();
    assert_eq!(trace(&mut scaled, 3, &steps), trace(&mut Pendulum::new(), 3, &doubled));
}

/// One of three actions; nothing happens.
struct Choice(EnvSpec);

impl Choice {
    fn new() -> Self {
        let obs = Pendulum::new().spec().obs.clone();
        Self(EnvSpec::new("choice", obs, ActionSpace::Discrete(3), 0.1))
    }
}

impl Env for Choice {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }

    fn reset(&mut self, _: Option<u64>) -> Result<Vec<f32>, EnvError> {
        Ok(vec![0.0; 3])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        assert!(self.0.actions.contains(action));
        Ok(Step::new([0.0; 3], 0.0))
    }
}

#[test]
fn a_delay_of_choices_starts_with_the_first_choice() {
    let mut env = Delay::actions(Choice::new(), 1);
    env.reset(None).unwrap();
    env.step(&[2.0]).unwrap();
    env.step(&[2.0]).unwrap();
}
