//! Steps with a way back: on the host as by Burn's autodiff, and as central differences say.

use mbrl_env::{Features, Knowledge, Known, KnownAt, KnownGrads, Lanes};
use mbrl_model::{
    Angles, Dataset, Device, Draw, Dynamics, Ensemble, EnsembleConfig, FitConfig, Head, MemberRule, ModelError,
    Propagation, Rng, Tensor, dynamics_fn, fit, sample_taped_by_autodiff,
};

const O: usize = 3;
const A: usize = 2;

/// `s₀ · a₁` and `sin s₁`.
struct Pair;

impl Features for Pair {
    fn name(&self) -> &str {
        "pair 1"
    }
    fn width(&self) -> usize {
        2
    }
    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        Tensor::cat(vec![obs.clone().narrow(1, 0, 1) * actions.narrow(1, 1, 1), obs.narrow(1, 1, 1).sin()], 1)
    }
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        for lane in 0..obs[0].len() {
            out[0][lane] = obs[0][lane] * actions[1][lane];
            out[1][lane] = obs[1][lane].sin();
        }
    }
    fn pullback(
        &self,
        obs: &[Lanes],
        actions: &[Lanes],
        grad: &[Lanes],
        grad_obs: &mut [Lanes],
        grad_actions: &mut [Lanes],
    ) {
        for lane in 0..obs[0].len() {
            grad_obs[0][lane] += grad[0][lane] * actions[1][lane];
            grad_actions[1][lane] += grad[0][lane] * obs[0][lane];
            grad_obs[1][lane] += grad[1][lane] * obs[1][lane].cos();
        }
    }
}

/// `s₂' = s₂ / 2 + 0.3 a₀ + s₁ s₀'`.
struct Follows;

impl Known for Follows {
    fn name(&self) -> &str {
        "follows 1"
    }
    fn columns(&self) -> &[usize] {
        &[2]
    }
    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>) -> Tensor<2> {
        obs.clone().narrow(1, 2, 1) * 0.5 + actions.narrow(1, 0, 1) * 0.3 + obs.narrow(1, 1, 1) * next.narrow(1, 0, 1)
    }
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], next: &[Lanes], out: &mut [Lanes]) {
        for lane in 0..obs[0].len() {
            out[0][lane] = obs[2][lane] * 0.5 + actions[0][lane] * 0.3 + obs[1][lane] * next[0][lane];
        }
    }
    fn pullback(&self, at: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>) {
        for (lane, grad) in grad[0].iter().enumerate() {
            into.obs[2][lane] += 0.5 * grad;
            into.obs[1][lane] += at.next[0][lane] * grad;
            into.actions[0][lane] += 0.3 * grad;
            into.next[0][lane] += at.obs[1][lane] * grad;
        }
    }
}

fn normals(rows: usize, width: usize, rng: &mut Rng) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * width).map(|_| rng.normal()).collect();
    Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([rows, width])
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// An ensemble that was fitted a little, so that its statistics are not those of the identity.
fn fitted(config: &EnsembleConfig, knowledge: &Knowledge, seed: u64) -> Ensemble {
    let (device, mut rng) = (Device::flex(), Rng::new(seed));
    let mut model = config.init_with(O, A, knowledge, &device, &mut rng).unwrap();
    let rows = 200;
    let mut column = |width: usize| -> Vec<f32> { (0..rows * width).map(|_| rng.normal()).collect() };
    let (obs, actions, noise) = (column(O), column(A), column(O));
    let next: Vec<f32> = obs.iter().zip(&noise).map(|(s, e)| 0.9 * s + 0.3 * e).collect();
    let data = Dataset::new(obs.clone(), actions, next, O, A)
        .and_then(|data| data.with_rewards(obs.chunks(O).map(|row| 2.0 * row[0] + 1.0).collect::<Vec<_>>()))
        .and_then(|data| data.with_terminated(obs.chunks(O).map(|row| row[1] > 0.8).collect::<Vec<_>>()))
        .unwrap();
    fit(&mut model, &data, &FitConfig { max_epochs: 3, ..FitConfig::default() }, &mut rng).unwrap();
    model
}

fn configs() -> Vec<(EnsembleConfig, Knowledge)> {
    let base =
        EnsembleConfig { members: 4, hidden: vec![20, 20], normalize_targets: true, ..EnsembleConfig::default() };
    vec![
        (base.clone(), Knowledge::none()),
        (EnsembleConfig { reward: true, termination: true, elites: 3, ..base.clone() }, Knowledge::none()),
        (
            EnsembleConfig { head: Head::Deterministic, reward: true, no_delta: vec![0], ..base.clone() },
            Knowledge::none(),
        ),
        (
            EnsembleConfig { angles: Angles::Columns(vec![mbrl_env::AngleColumn::radians(1)]), ..base.clone() },
            Knowledge::none().with_features(Pair),
        ),
        (EnsembleConfig { reward: true, no_delta: vec![0], ..base.clone() }, Knowledge::none().with_known(Follows)),
        (EnsembleConfig { members: 1, ..base }, Knowledge::none().with_features(Pair).with_known(Follows)),
    ]
}

fn draws() -> Vec<Draw> {
    let propagation = |rule, noise, particles| Draw::new(Propagation { rule, noise, particles }, 7).at_step(3);
    vec![
        propagation(MemberRule::Expectation, false, 1),
        propagation(MemberRule::Expectation, true, 1),
        propagation(MemberRule::Ts1, true, 1),
        propagation(MemberRule::Ts1, false, 1),
        propagation(MemberRule::TsInf, true, 12),
        propagation(MemberRule::Ds, true, 1),
    ]
}

fn near(what: &str, found: &[f32], wanted: &[f32], share: f32) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let scale = wanted.iter().fold(1e-3f32, |scale, value| scale.max(value.abs()));
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= share * scale, "{what}: {found}, expected {wanted}; magnitude {scale}");
    }
}

#[test]
fn the_host_goes_as_burn_does_and_back() {
    for (trial, (config, knowledge)) in configs().into_iter().enumerate() {
        let model = fitted(&config, &knowledge, trial as u64);
        for draw in draws() {
            let what = format!("{config:?} under {draw:?}");
            // Not a whole tile, and members get unequal shares.
            let (rows, mut rng) = (36 + 13 * usize::from(draw.propagation.particles == 1), Rng::new(5));
            let (states, actions) = (normals(rows, O, &mut rng), normals(rows, A, &mut rng));
            let (next, reward) = (normals(rows, O, &mut rng), normals(rows, 1, &mut rng).reshape([rows]));
            let host = model.sample_taped(states.clone(), actions.clone(), draw).unwrap();
            let burn = sample_taped_by_autodiff(&model, states.clone(), actions.clone(), draw).unwrap();
            let plain = model.sample(states, actions, draw).unwrap();
            near(&what, &to_vec(host.imagined.next.clone()), &to_vec(burn.imagined.next), 1e-5);
            near(&what, &to_vec(host.imagined.next), &to_vec(plain.next), 1e-5);
            assert_eq!(host.imagined.reward.is_some(), config.reward, "{what}");
            if let (Some(host), Some(burn)) = (host.imagined.reward, burn.imagined.reward) {
                near(&what, &to_vec(host), &to_vec(burn), 1e-5);
            }
            if let (Some(host), Some(burn)) = (host.imagined.terminated, burn.imagined.terminated) {
                assert_eq!(host.into_data(), burn.into_data(), "{what}");
            }
            let host = host.pullback.pull(next.clone(), Some(reward.clone())).unwrap();
            let burn = burn.pullback.pull(next, Some(reward)).unwrap();
            for (host, burn) in host.into_iter().zip(burn) {
                near(&what, &to_vec(host), &to_vec(burn), 1e-4);
            }
        }
    }
}

#[test]
fn the_way_back_is_that_of_central_differences() {
    for (config, knowledge) in &configs()[3..] {
        let model = fitted(&EnsembleConfig { reward: true, ..config.clone() }, knowledge, 9);
        let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }, 3);
        let (rows, mut rng) = (9, Rng::new(1));
        let inputs = [normals(rows, O, &mut rng), normals(rows, A, &mut rng)];
        let (weights, of_reward) = (normals(rows, O, &mut rng), normals(rows, 1, &mut rng).reshape([rows]));
        // Per row, as rows are independent.
        let value = |[states, actions]: [Tensor<2>; 2]| -> Vec<f32> {
            let step = model.sample(states, actions, draw).unwrap();
            let reward = step.reward.unwrap() * of_reward.clone();
            to_vec((step.next * weights.clone()).sum_dim(1).reshape([rows]) + reward)
        };
        let [states, actions] = inputs.clone();
        let taped = model.sample_taped(states, actions, draw).unwrap();
        let gradients = taped.pullback.pull(weights.clone(), Some(of_reward.clone())).unwrap();
        for (side, gradient) in gradients.into_iter().enumerate() {
            let (width, gradient) = (inputs[side].dims()[1], to_vec(gradient));
            for column in 0..width {
                let moved = |by: f32| {
                    let nudge: Vec<f32> = (0..width).map(|c| if c == column { by } else { 0.0 }).collect();
                    let nudge = Tensor::<1>::from_floats(nudge.as_slice(), &Device::flex()).reshape([1, width]);
                    let mut moved = inputs.clone();
                    moved[side] = moved[side].clone() + nudge;
                    value(moved)
                };
                let (up, down) = (moved(1e-2), moved(-1e-2));
                let wanted: Vec<f32> = up.iter().zip(&down).map(|(up, down)| (up - down) / 2e-2).collect();
                let found: Vec<f32> = gradient.iter().skip(column).step_by(width).copied().collect();
                near(&format!("column {column} of input {side}"), &found, &wanted, 0.02);
            }
        }
    }
}

#[test]
fn a_fit_is_seen_by_the_next_step_and_wrong_sizes_are_refused() {
    let config = &configs()[0].0;
    let mut model = fitted(config, &Knowledge::none(), 2);
    let draw = Draw::new(Propagation::MEAN, 0);
    let (rows, mut rng) = (4, Rng::new(1));
    let (states, actions) = (normals(rows, O, &mut rng), normals(rows, A, &mut rng));
    let next =
        |model: &Ensemble| to_vec(model.sample_taped(states.clone(), actions.clone(), draw).unwrap().imagined.next);
    let before = next(&model);
    model.reinitialize(&mut rng);
    assert_ne!(before, next(&model));
    let taped = model.sample_taped(states.clone(), actions.clone(), draw).unwrap();
    let error = taped.pullback.pull(normals(rows + 1, O, &mut rng), None).unwrap_err();
    assert_eq!(error.to_string(), "rows of the gradient of the next states = 5: expected 4");
    // Rows of nothing are no error.
    let none = |width| Tensor::<2>::zeros([0, width], &Device::flex());
    assert_eq!(model.sample_taped(none(O), none(A), draw).unwrap().imagined.next.dims()[0], 0);
}

#[test]
fn any_differentiable_model_has_a_way_back_and_others_say_that_they_have_none() {
    let device = Device::flex();
    let model = dynamics_fn(2, 2, &device, |s, a| s.clone() * s + a * 3.0);
    let draw = Draw::new(Propagation::MEAN, 0);
    let (s, a) = (Tensor::from_floats([[1.0, -2.0]], &device), Tensor::from_floats([[0.5, 0.5]], &device));
    let taped = model.sample_taped(s, a, draw).unwrap();
    assert_eq!(to_vec(taped.imagined.next), [2.5, 5.5]);
    let [s, a] = taped.pullback.pull(Tensor::from_floats([[1.0, 10.0]], &device), None).unwrap();
    assert_eq!((to_vec(s), to_vec(a)), (vec![2.0, -40.0], vec![3.0, 30.0]));

    // Where nothing depends on anything, nothing comes back.
    let model = dynamics_fn(2, 2, &device, |s: Tensor<2>, _| s.zeros_like());
    let zeros = |width| Tensor::<2>::zeros([1, width], &device);
    let taped = model.sample_taped(zeros(2), zeros(2), draw).unwrap();
    let [s, a] = taped.pullback.pull(zeros(2) + 1.0, None).unwrap();
    assert_eq!((to_vec(s), to_vec(a)), (vec![0.0; 2], vec![0.0; 2]));

    let task = mbrl_env::tasks::make("pendulum").unwrap();
    let model = mbrl_model::SimulatorModel::new(task.env.into_simulator().unwrap(), &device);
    let spec = model.spec();
    let error = model.sample_taped(zeros(spec.state), zeros(spec.action), draw).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported { .. }), "{error}");
}
