//! Propagation against closed forms: members that are linear and Gaussian, so that every spread is known.

use burn::module::Param;

use super::*;

/// Two observations, an action that does nothing, and one member for each shift: `o' = decay · o + shift + noise`, each
/// dimension for itself. Also the standard deviation of the noise.
fn linear(decay: f32, shifts: &[[f32; 2]], log_var: f32) -> (Ensemble, f32) {
    let config = EnsembleConfig { members: shifts.len(), hidden: vec![], ..EnsembleConfig::default() };
    let device = Device::flex();
    let mut model = config.init(2, 1, &device, &mut Rng::new(0)).unwrap();
    // Inputs o_0, o_1, a; outputs two changes, two log-variances.
    let weight = [decay - 1.0, 0.0, 0.0, 0.0, 0.0, decay - 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let bias = shifts.iter().flat_map(|shift| [shift[0], shift[1], log_var, log_var]).collect();
    let parameter = |values: Vec<f32>, [inputs, outputs]: [usize; 2]| {
        Param::from_data(TensorData::new(values, [shifts.len(), inputs, outputs]), &device)
    };
    let mut network = model.network.clone();
    network.weights = vec![parameter(weight.repeat(shifts.len()), [3, 4])];
    network.biases = vec![parameter(bias, [1, 4])];
    model.install(network, model.inputs.clone(), model.targets.clone(), (0..shifts.len()).collect());
    let std = model.predict(Tensor::zeros([1, 2], &device), Tensor::zeros([1, 1], &device)).unwrap().aleatoric_std;
    (model, to_vec(std.unwrap())[0])
}

/// Observations `[H+1][P][2]` of one candidate from 0.
fn particles(
    model: &Ensemble,
    members: MemberRule,
    noise: bool,
    particles: usize,
    horizon: usize,
) -> Vec<Vec<[f32; 2]>> {
    let actions = Tensor::zeros([horizon, 1, 1], &Device::flex());
    let draw = Draw::new(Propagation { rule: members, noise, particles }, 5);
    let obs = model.rollout(Start::Situation(Situation::of(&[0.0, 0.0])), actions, draw).unwrap().obs;
    let obs: Vec<[f32; 2]> = to_vec(obs).chunks(2).map(|row| [row[0], row[1]]).collect();
    obs.chunks(particles).map(<[_]>::to_vec).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Covariance of two dimensions over particles.
fn covariance(particles: &[[f32; 2]], i: usize, j: usize) -> f64 {
    let of = |d: usize| particles.iter().map(move |p| f64::from(p[d]));
    let (a, b) = (mean(of(i)), mean(of(j)));
    mean(of(i).zip(of(j)).map(|(x, y)| (x - a) * (y - b)))
}

#[test]
fn spreads_grow_as_the_linear_system_says() {
    let (decay, horizon, rows) = (0.8f32, 6, 20_000);
    let shifts = [[0.3, 0.3], [-0.1, -0.1], [-0.2, -0.2], [0.4, 0.4]];
    let (mut model, std) = linear(decay, &shifts, -3.0);
    let shift = mean(shifts.iter().map(|s| f64::from(s[0])));
    let between = mean(shifts.iter().map(|s| (f64::from(s[0]) - shift).powi(2)));
    let within = f64::from(std).powi(2);
    for engine in [true, false] {
        model.set_engine(engine);
        for (members, noise) in [
            (MemberRule::Ds, true),
            (MemberRule::Ds, false),
            (MemberRule::TsInf, true),
            (MemberRule::TsInf, false),
            (MemberRule::Ts1, true),
        ] {
            let all = particles(&model, members, noise, rows, horizon);
            let (mut expected_mean, mut independent, mut kept) = (0.0, 0.0, 0.0);
            for (k, now) in all.iter().enumerate().skip(1) {
                let decay = f64::from(decay);
                expected_mean = decay * expected_mean + shift;
                // Drawn afresh at each step, or the same over all steps.
                let within = if noise { within } else { 0.0 };
                independent = decay * decay * independent
                    + match members {
                        MemberRule::TsInf => within,
                        _ => within + between,
                    };
                kept = decay * kept + if members == MemberRule::TsInf { 1.0 } else { 0.0 };
                let variance = independent + kept * kept * between;
                // Standard errors: std/√n of the mean, √(2/n) = 1 % of a Gaussian's variance; five of each.
                let bound = 5.0 * (variance / rows as f64).sqrt();
                let found = mean(now.iter().map(|p| f64::from(p[0])));
                assert!(
                    (found - expected_mean).abs() < bound,
                    "{members:?} {noise} step {k}: {found}, {expected_mean}"
                );
                let found = covariance(now, 0, 0);
                assert!((found / variance - 1.0).abs() < 0.05, "{members:?} {noise} step {k}: {found}, {variance}");
            }
        }
    }
}

#[test]
fn distribution_sampling_makes_one_mode_of_two_and_forgets_what_hangs_together() {
    // Two members that say (1, 1) and (−1, −1).
    let (model, std) = linear(1.0, &[[1.0, 1.0], [-1.0, -1.0]], -9.0);
    assert!(std < 0.02);
    let rows = 20_000;
    let near_0 = |p: &[[f32; 2]]| p.iter().filter(|p| p[0].abs() < 0.5).count() as f64 / rows as f64;
    let correlation = |p: &[[f32; 2]]| covariance(p, 0, 1) / (covariance(p, 0, 0) * covariance(p, 1, 1)).sqrt();
    let ts = &particles(&model, MemberRule::TsInf, true, rows, 1)[1];
    assert!(near_0(ts) == 0.0 && correlation(ts) > 0.99);
    let ds = &particles(&model, MemberRule::Ds, true, rows, 1)[1];
    // The same variance, 1 to 5 standard errors of 1 %.
    assert!((covariance(ds, 0, 0) - 1.0).abs() < 0.05);
    // A standard normal lies within ±0.5 with probability 0.3829; standard error 0.0034.
    assert!((near_0(ds) - 0.3829).abs() < 0.017, "{}", near_0(ds));
    // Standard error 0.0071.
    assert!(correlation(ds).abs() < 0.036, "{}", correlation(ds));
}

#[test]
fn a_draw_has_the_mean_and_the_total_spread_of_the_prediction() {
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    let (state, action) = (normal(1, 4, &device, &mut Rng::new(1)), normal(1, 2, &device, &mut Rng::new(2)));
    let one = model.predict(state.clone(), action.clone()).unwrap();
    let (mean, within) = (to_vec(one.mean), to_vec(one.aleatoric_std.unwrap()));
    let between = to_vec(one.epistemic_std.unwrap());
    let rows = 20_000;
    for (engine, noise) in [(true, true), (true, false), (false, true), (false, false)] {
        model.set_engine(engine);
        let draw = Draw::new(Propagation { rule: MemberRule::Ds, noise, particles: 1 }, 5);
        let values = to_vec(
            model.sample(state.clone().repeat_dim(0, rows), action.clone().repeat_dim(0, rows), draw).unwrap().next,
        );
        for d in 0..4 {
            let std = if noise { within[d].hypot(between[d]) } else { between[d] };
            let m = values.iter().skip(d).step_by(4).sum::<f32>() / rows as f32;
            let s = (values.iter().skip(d).step_by(4).map(|v| (v - m).powi(2)).sum::<f32>() / rows as f32).sqrt();
            // Standard error of the mean 0.7 % of the spread, of the spread 0.5 %; five of each.
            assert!(
                (m - mean[d]).abs() < 0.036 * std && (s / std - 1.0).abs() < 0.026,
                "{engine} {noise}: {m} {s}, {std}"
            );
        }
    }
}

#[test]
fn one_member_without_noise_is_followed() {
    let device = Device::flex();
    for head in [Head::Gaussian, Head::Deterministic] {
        let config = EnsembleConfig { members: 1, ..config(Activation::Silu, head) };
        let mut model = ensemble(&config, 4, 2, &device, 4);
        let (states, actions) = (normal(3, 4, &device, &mut Rng::new(1)), normal(3, 2, &device, &mut Rng::new(2)));
        for engine in [true, false] {
            model.set_engine(engine);
            let next = |members| {
                let draw =
                    Draw::new(Propagation { rule: members, noise: head == Head::Deterministic, particles: 1 }, 5);
                to_vec(model.sample(states.clone(), actions.clone(), draw).unwrap().next)
            };
            assert_columns_near(&next(MemberRule::Ds), &next(MemberRule::Expectation), 4);
        }
    }
}

#[test]
fn a_small_spread_beside_a_large_observation_is_seen() {
    // Beside 1e5 an f32 resolves 0.008.
    let (model, _) = linear(1.0, &[[1e-4, 2e-4], [-1e-4, -2e-4]], -9.0);
    let far = Tensor::from_floats([[1e5, -1e5]], &Device::flex());
    let spread = to_vec(model.predict(far, Tensor::zeros([1, 1], &Device::flex())).unwrap().epistemic_std.unwrap());
    assert!((spread[0] - 1e-4).abs() < 1e-8 && (spread[1] - 2e-4).abs() < 1e-8, "{spread:?}");
}

#[cfg(feature = "train")]
#[test]
fn gradients_are_finite_where_members_agree() {
    // The members agree on the first dimension to the bit: a spread of 0, whose root has no gradient.
    let (model, _) = linear(0.5, &[[0.3, 0.1], [0.3, -0.1]], -3.0);
    let device = Device::flex();
    let start = Tensor::from_floats([[1.0, 2.0]], &device).autodiff().require_grad();
    let draw = Draw::new(Propagation { rule: MemberRule::Ds, noise: false, particles: 3 }, 5);
    let plan = Tensor::zeros([2, 1, 1], &device);
    let last = model.rollout(Start::States(start.clone()), plan, draw).unwrap().obs.narrow(0, 2, 1);
    let gradients = last.sum().backward();
    // Spreads are the same everywhere, so two steps halve the start twice, for each of the three particles.
    assert_eq!(to_vec(start.grad(&gradients).unwrap()), [0.75, 0.75]);

    let start = Tensor::from_floats([[1.0, 2.0]], &device).autodiff().require_grad();
    let spread = model.predict(start.clone(), Tensor::zeros([1, 1], &device)).unwrap().epistemic_std.unwrap();
    let gradients = spread.sum().backward();
    assert_eq!(to_vec(start.grad(&gradients).unwrap()), [0.0, 0.0]);
}
