//! Natural policy gradients: gradients, Fisher information and updates against closed forms, what is learned, and how it resumes.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use common::{Point, metrics};
use mbrl_env::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Info, Rng, Situation, Step, TimeLimit, Transition, World,
    check_action,
};
use mbrl_policy::{
    ActMode, Agent, AgentError, BaselineConfig, Learner, Moment, Npg, NpgConfig, Observer, Outcome, Policy, PolicyDraw,
    RandomAgent, Report, ReportKind, RunFiles, StochasticConfig, StochasticPolicy, TrainConfig, Turn, advantages,
    evaluate, start_seeds,
};

/// Says which way to go: the choice that is paid is that of the sign of the observation.
#[derive(Debug, Clone)]
struct Signs {
    spec: EnvSpec,
    rng: Rng,
    x: f32,
}

impl Signs {
    fn new() -> Self {
        let spec = EnvSpec::new("signs", BoxSpace::unbounded(1), ActionSpace::Discrete(3), 0.1);
        Self { spec, rng: Rng::new(0), x: 0.0 }
    }
}

impl Env for Signs {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.rng = seed.map_or_else(|| self.rng.clone(), Rng::new);
        self.x = self.rng.uniform(-1.0, 1.0);
        Ok(vec![self.x])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        let right = if self.x > 0.0 { 2.0 } else { 0.0 };
        let paid = if action[0] == right { 1.0 } else { 0.0 };
        self.x = self.rng.uniform(-1.0, 1.0);
        Ok(Step::new([self.x], paid))
    }
}

/// Policies of both kinds, moved away from where they start.
fn policies() -> Vec<StochasticPolicy> {
    let config = StochasticConfig { hidden: vec![5], initial_log_std: -0.4, ..StochasticConfig::default() };
    let box_space = ActionSpace::Box(BoxSpace::new([-1.0, 0.0], [1.0, 4.0]).unwrap());
    [box_space, ActionSpace::Discrete(3)]
        .into_iter()
        .enumerate()
        .map(|(i, actions)| {
            let spec = EnvSpec::new("test", BoxSpace::unbounded(2), actions, 0.1);
            let mut rng = Rng::new(7 + i as u64);
            let mut policy = config.init(&spec, &mut rng).unwrap();
            let parameters: Vec<f32> = policy.parameters().iter().map(|theta| theta + 0.3 * rng.normal()).collect();
            policy.set_parameters(&parameters);
            policy
        })
        .collect()
}

const ROWS: usize = 6;

fn rows(rng: &mut Rng) -> Vec<f32> {
    (0..2 * ROWS).map(|_| rng.normal()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn moved(policy: &StochasticPolicy, direction: &[f64], by: f64) -> StochasticPolicy {
    let parameters: Vec<f32> =
        policy.parameters().iter().zip(direction).map(|(theta, d)| (f64::from(*theta) + by * d) as f32).collect();
    let mut policy = policy.clone();
    policy.set_parameters(&parameters);
    policy
}

#[test]
fn the_score_is_the_gradient_of_the_log_likelihood() {
    let mut rng = Rng::new(1);
    for policy in policies() {
        let obs = rows(&mut rng);
        let drawn = policy.draw(&obs, ActMode::Explore, PolicyDraw::new(3));
        let weights: Vec<f64> = (0..ROWS).map(|_| rng.normal_f64()).collect();
        let score = policy.score(&policy.batch(&obs), &drawn, &weights);
        let value =
            |policy: &StochasticPolicy| dot(&policy.log_probs(&policy.batch(&obs), &drawn), &weights) / ROWS as f64;
        for i in 0..score.len() {
            let mut direction = vec![0.0; score.len()];
            direction[i] = 1.0;
            let difference =
                (value(&moved(&policy, &direction, 1e-2)) - value(&moved(&policy, &direction, -1e-2))) / 2e-2;
            assert!((score[i] - difference).abs() < 2e-3 * (1.0 + difference.abs()), "{i}: {} {difference}", score[i]);
        }
    }
}

/// The Fisher information of a row: the expectation of the outer product of scores. Of a Gaussian by the three nodes of Gauss and Hermite
/// for each entry, which are exact for polynomials of degree five; scores are of degree two.
fn expected_product(policy: &StochasticPolicy, obs: &[f32], direction: &[f64]) -> Vec<f64> {
    let batch = policy.batch(obs);
    let mut actions: Vec<(Vec<f32>, f64)> = Vec::new();
    if policy.log_std().is_empty() {
        for choice in 0..3 {
            let action = vec![choice as f32];
            let p = policy.log_probs(&batch, &action)[0].exp();
            actions.push((action, p));
        }
        assert!((actions.iter().map(|a| a.1).sum::<f64>() - 1.0).abs() < 1e-9);
    } else {
        let mean = policy.draw(obs, ActMode::Evaluate, PolicyDraw::new(0));
        let nodes = [(-(3.0_f32.sqrt()), 1.0 / 6.0), (0.0, 2.0 / 3.0), (3.0_f32.sqrt(), 1.0 / 6.0)];
        for (first, p) in nodes {
            for (second, q) in nodes {
                let at = |i: usize, node: f32| mean[i] + policy.log_std()[i].exp() * node;
                actions.push((vec![at(0, first), at(1, second)], p * q));
            }
        }
    }
    let mut sum = vec![0.0; direction.len()];
    for (action, p) in actions {
        let score = policy.score(&batch, &action, &[1.0]);
        let along = p * dot(&score, direction);
        sum.iter_mut().zip(&score).for_each(|(sum, s)| *sum += along * s);
    }
    sum
}

#[test]
fn fisher_products_are_expectations_of_products_of_scores() {
    let mut rng = Rng::new(2);
    for policy in policies() {
        let obs = rows(&mut rng);
        let direction: Vec<f64> = (0..policy.parameters().len()).map(|_| rng.normal_f64()).collect();
        let found = policy.fisher_product(&policy.batch(&obs), &direction);
        let each: Vec<Vec<f64>> = obs.chunks(2).map(|row| expected_product(&policy, row, &direction)).collect();
        for (i, found) in found.iter().enumerate() {
            let expected = each.iter().map(|row| row[i]).sum::<f64>() / ROWS as f64;
            assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{i}: {found} and {expected}");
        }
    }
}

#[test]
fn the_divergence_is_half_the_square_of_a_small_step_in_the_fisher_metric() {
    let mut rng = Rng::new(3);
    for policy in policies() {
        let obs = rows(&mut rng);
        let batch = policy.batch(&obs);
        assert!(policy.divergence(&batch, &policy, &batch).abs() < 1e-9);
        let direction: Vec<f64> = (0..policy.parameters().len()).map(|_| rng.normal_f64()).collect();
        let square = dot(&direction, &policy.fisher_product(&batch, &direction));
        // Both signs, so that the cubic terms cancel.
        let sum: f64 = [3e-2, -3e-2]
            .into_iter()
            .map(|by| {
                let other = moved(&policy, &direction, by);
                policy.divergence(&batch, &other, &other.batch(&obs))
            })
            .sum();
        let found = sum / 9e-4;
        assert!((found - square).abs() < 0.05 * square, "{found} and {square}");
    }
}

#[test]
fn draws_have_the_probabilities_that_are_said() {
    for policy in policies() {
        let obs = [0.4, -0.9].repeat(20_000);
        let drawn = policy.draw(&obs, ActMode::Explore, PolicyDraw::new(11));
        let one = policy.batch(&obs[..2]);
        if policy.log_std().is_empty() {
            for choice in 0..3 {
                let share = drawn.iter().filter(|a| **a == choice as f32).count() as f64 / 20_000.0;
                let p = policy.log_probs(&one, &[choice as f32])[0].exp();
                // Four standard errors.
                assert!((share - p).abs() < 4.0 * (p * (1.0 - p) / 20_000.0).sqrt(), "{choice}: {share} and {p}");
            }
        } else {
            // The mean log-density is minus the entropy.
            let said = policy.log_probs(&policy.batch(&obs), &drawn).iter().sum::<f64>() / 20_000.0;
            assert!((said + policy.entropy(&one)).abs() < 4.0 / 20_000.0_f64.sqrt(), "{said}");
            let actions = policy.act(&obs, ActMode::Explore, PolicyDraw::new(11));
            assert!(actions.chunks(2).all(|a| (-1.0..=1.0).contains(&a[0]) && (0.0..=4.0).contains(&a[1])));
            assert!(drawn.iter().any(|u| u.abs() > 1.0), "drawn actions are not cut off");
        }
        // Rows stand alone.
        let part = policy.draw(&obs[..2 * 70], ActMode::Explore, PolicyDraw::new(11).from_row(30));
        assert_eq!(part, drawn[30 * drawn.len() / 20_000..][..part.len()]);
    }
}

struct Quiet;

impl Report for Quiet {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

fn small() -> NpgConfig {
    NpgConfig { batch_steps: 40, step_size: 0.05, discount: 0.9, ..NpgConfig::default() }
}

fn networks() -> (StochasticConfig, BaselineConfig) {
    let policy = StochasticConfig { hidden: vec![16], initial_log_std: -0.5, ..StochasticConfig::default() };
    (policy, BaselineConfig { hidden: vec![16], learning_rate: 1e-2, batch_size: 16, ..BaselineConfig::default() })
}

fn npg(config: &NpgConfig, spec: &EnvSpec, slots: usize) -> Npg {
    let (policy, baseline) = networks();
    config.init(spec, &policy, &baseline, &mut Rng::new(5)).unwrap().in_lockstep(slots)
}

/// Of a linear policy with fixed deviation, the natural gradient of the weights is the solution of a least-squares problem: that of the
/// advantages times the noise, `S⁻¹ 1/N Σ A (u − μ) [s, 1]` with `S = 1/N Σ [s, 1] [s, 1]ᵀ`; that of the log of the deviation half
/// its gradient.
#[test]
fn an_update_of_a_linear_policy_is_the_closed_form() {
    let spec = Point::new().spec().clone();
    let policy = StochasticConfig { hidden: vec![], initial_log_std: -0.7, ..StochasticConfig::default() };
    let config = NpgConfig {
        batch_steps: 50,
        step_size: 0.02,
        damping: 1e-9,
        iterations: 30,
        discount: 0.9,
        ..NpgConfig::default()
    };
    let mut agent = config.init(&spec, &policy, &BaselineConfig::default(), &mut Rng::new(2)).unwrap();
    let before = agent.policy().clone();
    let mut rng = Rng::new(4);
    let (mut states, mut actions, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut rewards = Vec::new();
        for t in 0..10 {
            let (x, u) = (rng.uniform(-1.0, 2.0), rng.uniform(-0.9, 0.9));
            let reward = f64::from(x * u) + rng.normal_f64();
            let transition = Transition {
                obs: vec![x],
                action: vec![u],
                reward,
                next_obs: vec![0.0],
                terminated: t == 9,
                truncated: false,
            };
            agent.observe(&transition).unwrap();
            states.push(f64::from(x));
            actions.push(f64::from(u));
            rewards.push(reward);
        }
        // Before its first fit the baseline says 0.
        weights.extend(advantages(&rewards, &[0.0; 11], 0.9, 0.97));
    }
    agent.update(&mut rng, &mut Quiet).unwrap();
    assert_eq!(agent.updates(), 1);

    let n = weights.len() as f64;
    let mean = weights.iter().sum::<f64>() / n;
    let std = (weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n).sqrt();
    let theta: Vec<f64> = before.parameters().into_iter().map(f64::from).collect();
    let [slope, bias, log_std] = theta[..] else { panic!("{theta:?}") };
    let variance = (2.0 * log_std).exp();
    let (mut s, mut b, mut by_log_std) = ([[0.0; 2]; 2], [0.0; 2], 0.0);
    for ((x, u), w) in states.iter().zip(&actions).zip(&weights) {
        let (features, weight) = ([*x, 1.0], (w - mean) / (std + 1e-6));
        let off = u - slope * x - bias;
        for i in 0..2 {
            (0..2).for_each(|j| s[i][j] += features[i] * features[j] / n);
            b[i] += weight * off * features[i] / n;
        }
        by_log_std += weight * (off * off / variance - 1.0) / n;
    }
    let determinant = s[0][0] * s[1][1] - s[0][1] * s[1][0];
    let natural = [
        (s[1][1] * b[0] - s[0][1] * b[1]) / determinant,
        (s[0][0] * b[1] - s[1][0] * b[0]) / determinant,
        0.5 * by_log_std,
    ];
    let gradient = [b[0] / variance, b[1] / variance, by_log_std];
    let length = (0.02 / dot(&gradient, &natural)).sqrt();
    for ((now, before), natural) in agent.policy().parameters().iter().zip(&theta).zip(natural) {
        let step = f64::from(*now) - before;
        assert!((step - length * natural).abs() < 1e-4, "{step} and {}", length * natural);
    }
}

#[test]
fn the_deviation_has_a_floor() {
    let spec = Point::new().spec().clone();
    let config = StochasticConfig { initial_log_std: -3.0, ..StochasticConfig::default() };
    let mut policy = config.init(&spec, &mut Rng::new(0)).unwrap();
    let mut parameters = policy.parameters();
    *parameters.last_mut().unwrap() = -5.0;
    policy.set_parameters(&parameters);
    assert_eq!(policy.log_std(), [-3.0]);
}

/// Two batches: the first fits the baseline, the second ends in one way or the other.
fn after_an_end(terminated: bool) -> Vec<f32> {
    let mut agent = npg(&small(), Point::new().spec(), 1);
    let mut rng = Rng::new(4);
    for batch in 0..2 {
        for t in 0..40 {
            let over = t % 10 == 9;
            let x = rng.uniform(-1.0, 1.0);
            let transition = Transition {
                obs: vec![x],
                action: vec![rng.uniform(-0.9, 0.9)],
                reward: f64::from(x),
                next_obs: vec![x],
                terminated: over && (terminated || batch == 0),
                truncated: over && !terminated && batch == 1,
            };
            agent.observe(&transition).unwrap();
            agent.update(&mut rng, &mut Quiet).unwrap();
        }
    }
    assert_eq!(agent.updates(), 2);
    agent.policy().parameters()
}

#[test]
fn what_was_truncated_would_have_gone_on_and_what_terminated_would_not() {
    assert_ne!(after_an_end(true), after_an_end(false));
    assert_eq!(after_an_end(true), after_an_end(true));
}

#[test]
fn whole_episodes_make_a_batch_and_judging_draws_nothing() {
    let mut agent = npg(&small(), Point::new().spec(), 2);
    let mut rng = Rng::new(0);
    let transition = |x: f32, over: bool| Transition {
        obs: vec![x],
        action: vec![0.5],
        reward: f64::from(x),
        next_obs: vec![x + 0.05],
        terminated: false,
        truncated: over,
    };
    // Environment 0 ends after 42 steps, enough for a batch, 1 after 45: an update waits for both.
    for step in 0..45 {
        if step < 42 {
            agent.observe_in(0, &transition(0.1 * step as f32, step == 41)).unwrap();
        }
        agent.observe_in(1, &transition(-0.1 * step as f32, false)).unwrap();
        agent.update(&mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.updates(), 0, "step {step}");
    }
    // It breaks down there.
    agent.truncate_episode_in(1).unwrap();
    agent.update(&mut rng, &mut Quiet).unwrap();
    assert_eq!(agent.updates(), 1);
    agent.update(&mut rng, &mut Quiet).unwrap();
    assert_eq!(agent.updates(), 1, "the batch is forgotten");

    let situation = [0.4];
    let mut act = |agent: &mut Npg, mode| agent.act(&Situation::of(&situation), mode, &mut rng).unwrap()[0];
    assert_eq!(act(&mut agent, ActMode::Evaluate), act(&mut agent, ActMode::Evaluate));
    assert_ne!(act(&mut agent, ActMode::Explore), act(&mut agent, ActMode::Explore));
    // Several are what each would be alone.
    let mut rngs = [Rng::new(8), Rng::new(9)];
    let turns = |rngs: &mut [Rng; 2]| -> Vec<f32> {
        let turns = rngs.iter_mut().enumerate();
        let turns = turns.map(|(slot, rng)| Turn { slot, situation: Situation::of(&situation), rng }).collect();
        agent.act_batch(turns, ActMode::Explore).unwrap().into_iter().map(|acted| acted.action[0]).collect()
    };
    let both = { turns }(&mut rngs);
    let mut alone = |seed| agent.act(&Situation::of(&situation), ActMode::Explore, &mut Rng::new(seed)).unwrap()[0];
    assert_eq!(both, [alone(8), alone(9)]);
}

#[test]
fn it_learns_real_actions_and_choices() {
    let seeds = start_seeds(3, 10);
    let worlds: [(fn() -> World, f64); 2] =
        [(|| Point::world(15), 0.6), (|| World::from_env(TimeLimit::new(Signs::new(), 15).unwrap()), 0.8)];
    for (world, share) in worlds {
        let spec = world().spec().clone();
        let random = evaluate(&mut world(), &mut RandomAgent::new(spec.actions.clone()), &seeds).unwrap().return_mean();
        let config = NpgConfig { batch_steps: 300, step_size: 0.1, ..small() };
        let mut agent = npg(&config, &spec, 1);
        let mut training = TrainConfig::default().init(6000, 1).unwrap();
        training.run(&mut world(), &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
        assert_eq!(agent.updates(), 20);
        let found = evaluate(&mut world(), &mut agent, &seeds).unwrap().return_mean();
        // The right choice earns 15; straight to the middle costs a few tenths, random moves ten times as much.
        let best = if spec.name == "signs" { 15.0 } else { 0.0 };
        assert!(found > random + share * (best - random), "{}: {found}, random {random}", spec.name);
    }
}

/// Raises a flag at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        self.1.fetch_or(at.env_step == self.0, Ordering::Relaxed);
        Ok(())
    }
}

fn go(folder: &Path, slots: usize, stop_at: u64) -> (Npg, Outcome) {
    let config = TrainConfig {
        environments: slots,
        eval_every: 50,
        eval_episodes: 2,
        checkpoint_episodes: 1,
        ..TrainConfig::default()
    };
    let (policy, baseline) = networks();
    let policy = StochasticConfig { normalize: true, ..policy };
    let agent = small().init(Point::new().spec(), &policy, &baseline, &mut Rng::new(5)).unwrap();
    let mut agent = agent.in_lockstep(slots);
    let mut training = config.init(190, 3).unwrap();
    let (mut files, damaged) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
    assert!(damaged.is_empty());
    let stop = AtomicBool::new(false);
    let mut worlds: Vec<World> = (0..slots).map(|slot| Point::world(if slot % 3 == 2 { 9 } else { 15 })).collect();
    let mut observer = StopAt(stop_at, &stop);
    let outcome = training.run_together(&mut worlds, &mut agent, Some(&mut files), &mut observer, &stop).unwrap();
    (agent, outcome)
}

#[test]
fn stopped_at_any_step_and_resumed_it_goes_on_to_the_same_bits_on_any_number_of_threads() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let bits = |agent: &Npg| agent.policy().parameters().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for slots in [1, 3] {
        let whole = tempfile::tempdir().unwrap();
        let (agent, _) = pool(1).install(|| go(whole.path(), slots, u64::MAX));
        let expected = metrics(whole.path());
        let policy: Vec<_> = expected.iter().filter(|line| line["event"] == "policy").collect();
        assert!(policy.len() >= 2 && policy.iter().all(|line| line["policy/divergence"].is_f64()), "{policy:?}");
        // So small a batch leads too far where steps are not halved.
        let far = policy.iter().filter(|line| line["policy/divergence"].as_f64() > Some(0.05)).count();
        assert_eq!(far, 0, "{policy:?}");
        // In the middle of a batch too.
        for stop_at in [1, 15, 16, 47, 63, 90, 189] {
            let folder = tempfile::tempdir().unwrap();
            let (_, outcome) = pool(2).install(|| go(folder.path(), slots, stop_at));
            assert_eq!(outcome, Outcome::Stopped);
            let (resumed, _) = pool(2).install(|| go(folder.path(), slots, u64::MAX));
            assert_eq!(metrics(folder.path()), expected, "{slots} environments, stopped at step {stop_at}");
            assert_eq!(bits(&resumed), bits(&agent));
        }
    }
}

#[test]
fn bad_settings_are_refused_by_name() {
    let spec = Point::new().spec().clone();
    let (policy, baseline) = networks();
    let told = |config: NpgConfig| config.init(&spec, &policy, &baseline, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(told(NpgConfig { batch_steps: 0, ..small() }).starts_with("batch_steps = 0"));
    assert!(told(NpgConfig { discount: 1.5, ..small() }).starts_with("discount = 1.5"));
    assert!(told(NpgConfig { lambda: f64::NAN, ..small() }).starts_with("lambda = NaN"));
    assert!(told(NpgConfig { step_size: 0.0, ..small() }).starts_with("step_size = 0"));
    assert!(told(NpgConfig { damping: -1.0, ..small() }).starts_with("damping = -1"));
    assert!(told(NpgConfig { iterations: 0, ..small() }).starts_with("iterations = 0"));
    let told = |policy: StochasticConfig| policy.init(&spec, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(told(StochasticConfig { min_log_std: f32::NAN, ..policy.clone() }).starts_with("min_log_std"));
    assert!(told(StochasticConfig { initial_log_std: -4.0, ..policy.clone() }).starts_with("initial_log_std = -4"));
    let unbounded = EnvSpec::new("x", BoxSpace::unbounded(1), ActionSpace::Box(BoxSpace::unbounded(1)), 0.1);
    assert!(policy.init(&unbounded, &mut Rng::new(0)).unwrap_err().to_string().contains("finite bounds"));
    let told = |baseline: BaselineConfig| baseline.init(1, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(told(BaselineConfig { batch_size: 0, ..baseline.clone() }).starts_with("batch_size = 0"));
    assert!(told(BaselineConfig { learning_rate: f32::NAN, ..baseline.clone() }).starts_with("learning_rate"));
}
