//! Columns that a task knows, in an ensemble: where they decide whether anything is learned, and where they count for nothing.
#![cfg(feature = "train")]

use burn::tensor::TensorData;
use mbrl_env::{Device, Knowledge, Known, KnownAt, KnownGrads, Lanes, Replay, Rng, Tensor, Transition};
use mbrl_model::{
    Dataset, Draw, Dynamics, Ensemble, EnsembleConfig, EvaluateConfig, FitConfig, Head, MemberRule, Propagation, Start,
    evaluate, fit,
};

/// Column 1 is a chaotic signal, `g' = 1 − 2 g²`, in [−1, 1].
struct Signal;

impl Known for Signal {
    fn name(&self) -> &str {
        "signal-1"
    }

    fn columns(&self) -> &[usize] {
        &[1]
    }

    fn tensor(&self, obs: Tensor<2>, _: Tensor<2>, _: Tensor<2>) -> Tensor<2> {
        obs.narrow(1, 1, 1).square() * -2.0 + 1.0
    }

    fn tile(&self, obs: &[Lanes], _: &[Lanes], _: &[Lanes], out: &mut [Lanes]) {
        for (out, g) in out[0].iter_mut().zip(&obs[1]) {
            *out = g * g * -2.0 + 1.0;
        }
    }

    fn pullback(&self, at: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>) {
        for ((sum, grad), g) in into.obs[1].iter_mut().zip(&grad[0]).zip(&at.obs[1]) {
            *sum -= 4.0 * g * grad;
        }
    }
}

fn signal() -> Knowledge {
    Knowledge::none().with_known(Signal)
}

/// The signal pushes x by 0.2, the action by 0.1.
fn step([x, g]: [f32; 2], action: f32) -> [f32; 2] {
    [x + 0.2 * g + 0.1 * action, 1.0 - 2.0 * g * g]
}

/// Episodes of 20 steps; the signal starts anywhere.
fn episodes(count: usize, seed: u64) -> Replay {
    let (mut rng, mut replay) = (Rng::new(seed), Replay::new(2, 1, count * 20).unwrap());
    for _ in 0..count {
        let mut now = [rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)];
        for t in 0..20 {
            let action = rng.uniform(-1.0, 1.0);
            let next = step(now, action);
            let t = Transition {
                obs: now.to_vec(),
                action: vec![action],
                reward: 0.0,
                next_obs: next.to_vec(),
                terminated: false,
                truncated: t == 19,
            };
            replay.push(&t).unwrap();
            now = next;
        }
    }
    replay
}

fn config() -> EnsembleConfig {
    EnsembleConfig {
        members: 2,
        hidden: vec![24, 24],
        head: Head::Deterministic,
        normalize_targets: true,
        ..EnsembleConfig::default()
    }
}

fn fitted(config: &EnsembleConfig, knowledge: &Knowledge) -> Ensemble {
    let mut model = config.init_with(2, 1, knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
    let data = Dataset::of_replay(&episodes(30, 2), 0).unwrap();
    fit(&mut model, &data, &FitConfig { max_epochs: 100, ..FitConfig::default() }, &mut Rng::new(3)).unwrap();
    model
}

#[test]
fn what_no_model_can_foresee_is_foreseen_where_it_is_known() {
    // Of x after twelve steps: an error of the signal doubles with each of them, so that one of 1e-3 ends at the signal's own size;
    // where the signal is known there is only rounding to double.
    let off = |knowledge: &Knowledge| {
        let model = fitted(&config(), knowledge);
        let settings = EvaluateConfig {
            horizon: 12,
            propagation: Some(Propagation::MEAN),
            levels: vec![],
            ..EvaluateConfig::default()
        };
        let found = evaluate(&model, &episodes(20, 9), &settings, &mut Rng::new(0)).unwrap();
        found.steps[11].rmse.clone()
    };
    let [with, without] = [off(&signal()), off(&Knowledge::none())];
    assert!(with[0] < 0.05 && with[1] < 0.02, "{with:?}");
    assert!(without[0] > 0.2 && without[1] > 0.3, "{without:?}");
}

#[test]
fn known_columns_count_in_no_error() {
    let with = fitted(&config(), &signal());
    let data = Dataset::of_replay(&episodes(30, 2), 0).unwrap();
    // Errors of the fit are of x alone.
    let mut again = config().init_with(2, 1, &signal(), &Device::flex(), &mut Rng::new(1)).unwrap();
    let report =
        fit(&mut again, &data, &FitConfig { max_epochs: 2, ..FitConfig::default() }, &mut Rng::new(3)).unwrap();
    assert_eq!((report.column_errors.len(), report.errors.len()), (1, 2));
    // The evaluation names them, and leaves them out where columns are put together.
    let found = evaluate(&with, &episodes(5, 9), &EvaluateConfig::default(), &mut Rng::new(0)).unwrap();
    assert_eq!(found.known, [1]);
    let scaled = found.scaled(&found.steps[3].rmse);
    assert_eq!(scaled, found.steps[3].rmse[0] / found.column_std[0]);
}

#[test]
fn gradients_of_a_plan_flow_through_known_columns() {
    let model = fitted(&EnsembleConfig { head: Head::Gaussian, ..config() }, &signal());
    let device = Device::flex();
    let states = Tensor::<2>::from_floats([[0.3, 0.2], [-0.4, 0.6]], &device);
    let plan: Vec<f32> = (0..6).map(|i| 0.3 * i as f32 - 0.7).collect();
    let plan = Tensor::<3>::from_data(TensorData::new(plan, [3, 2, 1]), &device);
    let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: true, particles: 2 }, 5);
    // Of the start and of the plan; the tracked ones go by Burn, the others by the engine.
    let value = |states: Tensor<2>, plan: Tensor<3>| {
        let obs = model.rollout(Start::States(states), plan, draw).unwrap().obs;
        (obs.clone().narrow(0, 2, 2).square() * obs.narrow(0, 1, 2)).sum()
    };
    let s = states.clone().autodiff().require_grad();
    let a = plan.clone().autodiff().require_grad();
    let gradients = value(s.clone(), a.clone()).backward();
    let host = |x: Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<f32>>();
    let of_states = host(s.grad(&gradients).unwrap());
    let of_plan = host(a.grad(&gradients).unwrap().reshape([6, 1]));
    let largest = of_states.iter().chain(&of_plan).fold(0f32, |m, g| m.max(g.abs()));
    let near = |found: f32, up: Tensor<1>, down: Tensor<1>| {
        let wanted = (up.into_scalar::<f32>() - down.into_scalar::<f32>()) / 4e-3;
        assert!((found - wanted).abs() < 0.02 * largest, "{found}, central difference {wanted}");
    };
    for (i, found) in of_states.into_iter().enumerate() {
        let nudge = |by: f32| {
            let nudge: Vec<f32> = (0..4).map(|j| if i == j { by } else { 0.0 }).collect();
            states.clone() + Tensor::<2>::from_data(TensorData::new(nudge, [2, 2]), &device)
        };
        near(found, value(nudge(2e-3), plan.clone()), value(nudge(-2e-3), plan.clone()));
    }
    for (i, found) in of_plan.into_iter().enumerate() {
        let nudge = |by: f32| {
            let nudge: Vec<f32> = (0..6).map(|j| if i == j { by } else { 0.0 }).collect();
            plan.clone() + Tensor::<3>::from_data(TensorData::new(nudge, [3, 2, 1]), &device)
        };
        near(found, value(states.clone(), nudge(2e-3)), value(states.clone(), nudge(-2e-3)));
    }
}
