//! Evaluation of models: closed forms, starts, look-back, rewards, and what is refused.

use mbrl_env::{AngleColumn, Replay, Rng, Situation, Transition};
use mbrl_model::{
    Calibration, Device, Draw, Dynamics, DynamicsSpec, EnsembleConfig, EvaluateConfig, Imagined, MemberRule,
    ModelError, ModelEvaluation, Prediction, Propagation, Tensor, dynamics_fn, evaluate, fill_normal,
};

/// Episodes of `length` steps of a system `step(s, a, t, rng) -> s'`, from uniform starts under uniform actions.
fn collect<const O: usize>(
    episodes: usize,
    length: usize,
    rng: &mut Rng,
    mut step: impl FnMut([f32; O], f32, &mut Rng) -> [f32; O],
) -> Replay {
    let mut data = Replay::new(O, 1, episodes * length).unwrap();
    for _ in 0..episodes {
        // Multiples of 1/64, so that sums and halves of a few are exact.
        let mut dyadic = || (rng.below(129) as f32 - 64.0) / 64.0;
        let (mut obs, actions) = ([0.0; O].map(|_: f32| dyadic()), (0..length).map(|_| dyadic()).collect::<Vec<_>>());
        for (t, action) in actions.into_iter().enumerate() {
            let next = step(obs, action, rng);
            push(&mut data, &obs, action, f64::from(next[0]), &next, t + 1 == length);
            obs = next;
        }
    }
    data
}

fn push(data: &mut Replay, obs: &[f32], action: f32, reward: f64, next: &[f32], truncated: bool) {
    let (obs, next_obs) = (obs.to_vec(), next.to_vec());
    data.push(&Transition { obs, action: vec![action], reward, next_obs, terminated: false, truncated }).unwrap();
}

fn run(model: &dyn Dynamics, data: &Replay, config: &EvaluateConfig) -> ModelEvaluation {
    evaluate(model, data, config, &mut Rng::new(5)).unwrap()
}

fn spec(state: usize, obs: usize) -> DynamicsSpec {
    DynamicsSpec::new("of a test", state, 1, &Device::flex()).with_obs(obs).with_differentiable(true)
}

/// s'_d = c_d s_d + g_d a + σ_d n, with its exact noise times `scale`.
struct Linear {
    spec: DynamicsSpec,
    scale: f32,
}

const C: [f32; 2] = [0.9, 0.5];
const G: [f32; 2] = [0.5, -1.0];
const NOISE: [f32; 2] = [0.1, 2.0];

impl Linear {
    fn new(scale: f32) -> Self {
        Self { spec: spec(2, 2), scale }
    }

    fn data(episodes: usize, length: usize) -> Replay {
        collect(episodes, length, &mut Rng::new(1), |s, a, rng| {
            [0, 1].map(|d| C[d] * s[d] + G[d] * a + NOISE[d] * rng.normal())
        })
    }

    /// Standard deviation after k steps: the geometric sum of the variances.
    fn std(d: usize, k: usize) -> f64 {
        let square = f64::from(C[d]).powi(2);
        f64::from(NOISE[d]) * (0..k).map(|i| square.powi(i as i32)).sum::<f64>().sqrt()
    }

    fn row(&self, values: [f32; 2]) -> Tensor<2> {
        Tensor::from_floats([values], &self.spec.device)
    }
}

impl Dynamics for Linear {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let rows = states.dims()[0];
        let mean = states * self.row(C) + actions * self.row(G);
        let aleatoric = (self.row(NOISE) * self.scale).repeat_dim(0, rows);
        Ok(Prediction::new(mean).with_aleatoric_std(aleatoric))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let Prediction { mean, aleatoric_std, .. } = self.predict(states, actions)?;
        let mut noise = vec![0.0; mean.dims()[0] * 2];
        fill_normal(draw.key, draw.step, 0, 2, &mut noise);
        let noise = Tensor::<1>::from_floats(&noise[..], &self.spec.device).reshape(mean.dims());
        Ok(Imagined::new(mean + noise * aleatoric_std.unwrap()))
    }
}

/// s_(t+1) = s_t + a_(t-1), and 0 for the action before the first: its state is the observation (times `factor`) and the
/// last action. Rewards are off by a quarter.
struct Delayed {
    spec: DynamicsSpec,
    factor: f32,
}

impl Delayed {
    fn new(factor: f32) -> Self {
        Self { spec: spec(2, 1), factor }
    }

    fn data() -> Replay {
        let mut data = Replay::new(1, 1, 300).unwrap();
        let mut rng = Rng::new(3);
        for length in [40, 7, 60, 2] {
            let (mut s, mut last) = (0.5, 0.0);
            for t in 0..length {
                let action = rng.below(9) as f32 - 4.0;
                push(&mut data, &[s], action, f64::from(s + last), &[s + last], t + 1 == length);
                (s, last) = (s + last, action);
            }
        }
        data
    }
}

impl Dynamics for Delayed {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let rows = states.dims()[0];
        let moved = states.clone().narrow(1, 0, 1) + states.narrow(1, 1, 1) * self.factor;
        let std = Tensor::from_floats([[0.5, 9.0]], &self.spec.device).repeat_dim(0, rows);
        Ok(Prediction::new(Tensor::cat(vec![moved, actions], 1)).with_aleatoric_std(std))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
        let next = self.predict(states, actions)?.mean;
        let reward = self.observe(next.clone()).squeeze_dim(1) + 0.25;
        Ok(Imagined::new(next).with_reward(reward))
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        let last = situation.past.actions.last().map_or(0.0, |a| a[0]);
        Ok(Tensor::from_floats([[situation.obs[0] * self.factor, last]], &self.spec.device))
    }

    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states.narrow(1, 0, 1) / self.factor
    }
}

#[test]
fn the_truth_has_no_error_at_any_step() {
    let truth = |s: [f32; 2], a: f32| [0.5 * s[0] + a, s[1] - 0.5 * a];
    // More starts than one batch holds: 9 instants · 100 particles · 2 columns each.
    let data = collect(3000, 8, &mut Rng::new(0), |s, a, _| truth(s, a));
    let model = dynamics_fn(2, 1, &Device::flex(), |s: Tensor<2>, a: Tensor<2>| {
        let device = s.device();
        s * Tensor::from_floats([[0.5, 1.0]], &device) + a * Tensor::from_floats([[1.0, -0.5]], &device)
    });
    let found = run(&model, &data, &EvaluateConfig { horizon: 8, starts: 5000, ..EvaluateConfig::default() });
    assert_eq!(found.steps.len(), 8);
    for step in &found.steps {
        assert_eq!((step.starts, &step.rmse), (3000, &vec![0.0; 2]), "step {}", step.step);
        // Nothing else is right: starts and actions are of order 1.
        assert!(step.unchanged_rmse.iter().all(|e| *e > 0.2), "{:?}", step.unchanged_rmse);
        assert!(step.calibration.is_none() && step.reward_rmse.is_none());
    }
    assert_eq!((found.one_step.rows, &found.one_step.rmse), (10_000, &vec![0.0; 2]));
    assert!(found.one_step.aleatoric_std.is_none() && found.one_step.calibration.is_none());
    assert_eq!(found.scaled(&found.column_std), 1.0);
}

/// 2Φ(z) − 1 at half the quantiles of the default levels: z = 0.3372, 0.6408, 0.8224, 0.9800.
const HALVED: [f64; 4] = [0.2641, 0.4783, 0.5892, 0.6729];

#[test]
fn the_exact_noise_is_calibrated_and_half_of_it_is_not() {
    // Every start is an episode of its own, so that starts are independent. Standard errors over n of them: √(p(1−p)/n) of a
    // coverage, √(½/n) of the likelihood (½z² has variance ½), 1/√(2n) of a deviation, relative to it. 4.5 of
    // each: one comparison in 150 000 goes wrong by chance, and about 250 are made.
    let (n, rows, errors) = (4000.0_f64, 10_000.0_f64, 4.5);
    let data = Linear::data(4000, 8);
    let config = EvaluateConfig { horizon: 8, starts: 4000, ..EvaluateConfig::default() };
    let near = |what: &str, value: f64, wanted: f64, tolerance: f64| {
        assert!((value - wanted).abs() <= tolerance, "{what}: {value}, expected {wanted} ± {tolerance}");
    };
    for (scale, expected) in [(1.0, [0.5, 0.8, 0.9, 0.95]), (0.5, HALVED)] {
        let found = run(&Linear::new(scale), &data, &config);
        let scale = f64::from(scale);
        // Mean of ½ ln(2π s²) + e² / 2s² for errors of deviation σ, where s = scale · σ.
        let nll = |std: f64| 0.5 * (std::f64::consts::TAU * (scale * std).powi(2)).ln() + 0.5 / scale.powi(2);
        for step in &found.steps {
            let (k, calibration) = (step.step, step.calibration.as_ref().unwrap());
            for d in 0..2 {
                let std = Linear::std(d, k);
                let what = |name: &str| format!("scale {scale}, {name} of column {d} after {k} steps");
                // The mean of 100 particles adds a hundredth to the variance.
                near(&what("rmse"), step.rmse[d] / std, 1.0, errors / (2.0 * n).sqrt() + 0.005);
                // Means over 4000 starts of deviations of 100 particles: off by 7 % / √4000, and 0.25 % low.
                near(&what("std"), calibration.std[d] / (scale * std), 1.0, 0.0025 + errors * 0.0011);
                // Deviations of 100 particles cost (101/100 · 99/97 − 1)/2 · 1/scale² in the second term and gain 0.005 in the
                // first.
                let cost = 0.0154 / scale.powi(2) - 0.005;
                let spread = errors * (0.5 / n).sqrt() / scale.powi(2);
                near(&what("nll"), calibration.nll[d], nll(std) + cost, 1.1 * spread);
                for (l, wanted) in expected.iter().enumerate() {
                    // Particle quantiles in the tails lie up to 3.5 % too far out on average and scatter, which is what makes
                    // the exact noise covered exactly; half of it gains up to 0.013.
                    let bias = if scale == 1.0 { 0.0 } else { 0.013 };
                    let tolerance = errors * (wanted * (1.0 - wanted) / n).sqrt() + bias;
                    near(&what("coverage"), calibration.coverage[l][d], *wanted, tolerance);
                    let gaussian = [1.349, 2.563, 3.290, 3.920][l] * scale * std;
                    near(&what("width"), calibration.width[l][d] / gaussian, 1.02, 0.03);
                }
            }
        }
        // One step has no particles.
        let one = &found.one_step;
        let calibration = one.calibration.as_ref().unwrap();
        assert!(one.epistemic_std.is_none());
        for d in 0..2 {
            let std = Linear::std(d, 1);
            near("rmse of one step", one.rmse[d] / std, 1.0, errors / (2.0 * rows).sqrt());
            near("aleatoric std", one.aleatoric_std.as_ref().unwrap()[d], scale * std, 1e-6);
            near("std of one step", calibration.std[d], scale * std, 1e-6);
            near("nll of one step", calibration.nll[d], nll(std), errors * (0.5 / rows).sqrt() / scale.powi(2));
            for (l, wanted) in expected.iter().enumerate() {
                let tolerance = errors * (wanted * (1.0 - wanted) / rows).sqrt();
                near("coverage of one step", calibration.coverage[l][d], *wanted, tolerance);
            }
        }
    }
}

/// A model that once, in one column of one row, says nothing.
struct Silent(Linear);

impl Silent {
    fn hide(&self, states: Tensor<2>) -> Tensor<2> {
        let [rows, width] = states.dims();
        let mut hidden = vec![0.0; rows * width];
        hidden[0] = f32::NAN;
        states + Tensor::<1>::from_floats(&hidden[..], &self.0.spec.device).reshape([rows, width])
    }
}

impl Dynamics for Silent {
    fn spec(&self) -> &DynamicsSpec {
        &self.0.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let mut all = self.0.predict(states, actions)?;
        all.mean = self.hide(all.mean);
        Ok(all)
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let mut all = self.0.sample(states, actions, draw)?;
        all.next = self.hide(all.next);
        Ok(all)
    }
}

#[test]
fn one_value_that_is_not_finite_is_seen_in_every_figure_of_its_column() {
    let found = run(&Silent(Linear::new(1.0)), &Linear::data(50, 4), &EvaluateConfig::default());
    let steps = found.steps.iter().map(|step| (&step.rmse, &step.calibration));
    for (rmse, calibration) in steps.chain([(&found.one_step.rmse, &found.one_step.calibration)]) {
        let Calibration { coverage, width, nll, .. } = calibration.as_ref().unwrap();
        for figure in coverage.iter().chain(width).chain([rmse, nll]) {
            assert!(figure[0].is_nan() && figure[1].is_finite(), "{figure:?}");
        }
    }
}

#[test]
fn starts_lie_within_their_episodes_and_short_episodes_count_as_far_as_they_go() {
    let mut data = Replay::new(1, 1, 100).unwrap();
    // The last one is still running.
    for (length, ends) in [(3, true), (10, true), (5, true), (2, false)] {
        for t in 0..length {
            let s = t as f32;
            push(&mut data, &[s], 1.0, 0.0, &[s + 1.0], ends && t + 1 == length);
        }
    }
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    let config = EvaluateConfig { horizon: 5, ..EvaluateConfig::default() };
    let found = run(&model, &data, &config);
    // Six starts with five steps in the second episode, one each in the others, of 3, 5 and 2 steps.
    assert_eq!(found.steps.iter().map(|s| s.starts).collect::<Vec<_>>(), [9, 9, 8, 7, 7]);
    assert!(found.steps.iter().all(|s| s.rmse == [0.0] && s.unchanged_rmse == [s.step as f64]));
    assert_eq!(found.one_step.rows, 20);
    // Where no episode is long enough there are as many steps as the longest has.
    let found = run(&model, &data, &EvaluateConfig { horizon: 50, ..config.clone() });
    assert_eq!(found.steps.iter().map(|s| s.starts).collect::<Vec<_>>(), [4, 4, 3, 2, 2, 1, 1, 1, 1, 1]);
    // Fewer where fewer are asked for.
    let found = run(&model, &data, &EvaluateConfig { starts: 4, rows: 6, ..config });
    assert_eq!((found.steps[0].starts, found.one_step.rows), (4, 6));
}

#[test]
fn a_model_that_looks_back_sees_its_episode_and_no_other() {
    let config = EvaluateConfig { horizon: 6, ..EvaluateConfig::default() };
    let found = run(&Delayed::new(1.0), &Delayed::data(), &config);
    for step in &found.steps {
        assert_eq!((&step.rmse, step.reward_rmse), (&vec![0.0], Some(0.25)), "step {}", step.step);
    }
    // Of a state of two columns, one is observed, and so is its spread.
    assert_eq!((&found.one_step.rmse, found.one_step.aleatoric_std), (&vec![0.0], Some(vec![0.5])));
    // A state in other units than the observation: its spread says nothing about that.
    let found = run(&Delayed::new(2.0), &Delayed::data(), &config);
    assert!(found.steps.iter().all(|s| s.rmse == [0.0]));
    assert!(found.one_step.aleatoric_std.is_none() && found.one_step.calibration.is_none());
}

#[test]
fn the_same_seed_gives_the_same_figures_on_any_number_of_threads() {
    let mut rng = Rng::new(2);
    let config = EnsembleConfig { members: 3, hidden: vec![32, 32], ..EnsembleConfig::default() };
    let model = config.init(2, 1, &Device::flex(), &mut rng).unwrap();
    let data = Linear::data(40, 30);
    let config = EvaluateConfig { horizon: 4, starts: 50, rows: 80, ..EvaluateConfig::default() };
    let run = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| evaluate(&model, &data, &config, &mut Rng::new(seed)).unwrap())
    };
    assert_eq!(run(1, 7), run(2, 7));
    assert_ne!(run(2, 7), run(2, 8));
    // TS∞ with the members' noise, on a multiple of the three members.
    let found = run(2, 7);
    assert_eq!(found.propagation, Propagation { rule: MemberRule::TsInf, noise: true, particles: 102 });
    let one = &found.one_step;
    assert!(one.aleatoric_std.is_some() && one.epistemic_std.is_some() && found.steps[0].calibration.is_some());
    // One particle has no spread; one step still has.
    let config = EvaluateConfig { propagation: Some(Propagation::MEAN), ..config.clone() };
    let found = evaluate(&model, &data, &config, &mut Rng::new(7)).unwrap();
    assert!(found.steps[0].calibration.is_none() && found.one_step.calibration.is_some());
}

#[test]
fn other_columns_no_data_and_uneven_particles_are_refused() {
    let model = dynamics_fn(2, 1, &Device::flex(), |s, _| s);
    let config = EvaluateConfig::default();
    let refused = |data: &Replay, config: &EvaluateConfig| evaluate(&model, data, config, &mut Rng::new(0));
    let empty = Replay::new(2, 1, 10).unwrap();
    assert_eq!(
        refused(&empty, &config).unwrap_err().to_string(),
        "an evaluation of a model: 0 transitions, at least 1 are needed"
    );
    let wide = Replay::new(3, 1, 10).unwrap();
    assert!(matches!(refused(&wide, &config), Err(ModelError::Width { expected: 2, actual: 3, .. })));
    let wide = Replay::new(2, 2, 10).unwrap();
    assert!(matches!(refused(&wide, &config), Err(ModelError::Width { expected: 1, actual: 2, .. })));
    assert!(matches!(refused(&empty, &EvaluateConfig { horizon: 0, ..config }), Err(ModelError::Config { .. })));
    // What the propagation asks of the members is the model's to say.
    let ensemble = EnsembleConfig { members: 3, hidden: vec![8], ..EnsembleConfig::default() };
    let ensemble = ensemble.init(2, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let uneven = Propagation { rule: MemberRule::TsInf, noise: true, particles: 100 };
    let config = EvaluateConfig { propagation: Some(uneven), ..EvaluateConfig::default() };
    let result = evaluate(&ensemble, &Linear::data(1, 30), &config, &mut Rng::new(0));
    assert!(matches!(result, Err(ModelError::Config { field: "particles", .. })), "{result:?}");
}

/// A compass in degrees that is turned by its action, wide of the mark by `off`, and never takes a turn off.
struct Compass {
    spec: DynamicsSpec,
    off: f32,
}

impl Dynamics for Compass {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let mean = states + actions + self.off;
        let std = mean.zeros_like() + 3.0;
        Ok(Prediction::new(mean).with_aleatoric_std(std))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let next = self.predict(states, actions)?.mean;
        let noise = draw.normals(next.dims(), &self.spec.device) * 3.0;
        // Some particles are shown on the other side of the jump.
        Ok(Imagined::new(next + noise.clone() + noise.greater_elem(0.0).float() * 360.0))
    }
}

#[test]
fn errors_of_an_angle_that_wraps_are_the_short_way_round() {
    let mut data = Replay::new(1, 1, 100).unwrap();
    let mut rng = Rng::new(0);
    let mut angle = 300.0f32;
    for t in 0..100 {
        let action = 20.0 * rng.normal();
        let next = (angle + action).rem_euclid(360.0);
        push(&mut data, &[angle], action, 0.0, &[next], t == 99);
        angle = next;
    }
    let near = |a: f64, b: f64, by: f64| assert!((a - b).abs() < by, "{a} and {b}");
    for wraps in [true, false] {
        let spec = DynamicsSpec::new("compass", 1, 1, &Device::flex()).with_stochastic(true);
        let spec = spec.with_angles([AngleColumn { column: 0, turn: 360.0, wraps }]);
        let found =
            run(&Compass { spec, off: 2.0 }, &data, &EvaluateConfig { horizon: 1, ..EvaluateConfig::default() });
        let (one, step) = (&found.one_step, &found.steps[0]);
        if wraps {
            near(one.rmse[0], 2.0, 1e-3);
            near(one.unchanged_rmse[0], 20.0, 4.0);
            // The mean of 100 particles, off by 3/√100 more.
            near(step.rmse[0], 2.0, 0.2);
            near(step.unchanged_rmse[0], 20.0, 4.0);
            // The half in the middle of a normal lies within 0.674 deviations.
            let calibration = step.calibration.as_ref().unwrap();
            near(calibration.std[0], 3.0, 0.1);
            near(calibration.width[0][0], 2.0 * 0.674 * 3.0, 0.2);
        } else {
            assert!(one.rmse[0] > 20.0 && step.rmse[0] > 100.0, "the test sees no jumps");
        }
    }
}
