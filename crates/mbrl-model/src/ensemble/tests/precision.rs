//! Roll-outs with products of bfloat16.

use super::*;

/// Three hidden layers: two between them are rounded. Widths odd, even and not of whole panels.
fn wide(config: EnsembleConfig) -> EnsembleConfig {
    EnsembleConfig { hidden: vec![31, 24, 17], ..config }
}

fn rounded(model: &Ensemble) -> Ensemble {
    let mut rounded = model.clone();
    rounded.set_precision(Precision::Bf16);
    rounded
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// Observations and rewards of a roll-out that mixes members by rows.
fn rolled(model: &Ensemble, members: MemberRule, particles: usize) -> Vec<u32> {
    let actions = normal(5 * 700, 2, &Device::flex(), &mut Rng::new(6)).reshape([5, 700, 2]);
    let draw = Draw::new(Propagation { rule: members, noise: true, particles }, 1);
    let all = model.rollout(Start::Situation(Situation::of(&[0.1, -0.2, 0.3, 0.0])), actions, draw).unwrap();
    let reward = all.reward.map(to_vec).unwrap_or_default();
    bits([to_vec(all.obs), reward].concat())
}

#[test]
fn rounded_rollouts_keep_the_contract() {
    let device = Device::flex();
    for activation in [Activation::Silu, Activation::Relu, Activation::Tanh] {
        for head in [Head::Gaussian, Head::Deterministic] {
            let model = rounded(&ensemble(&extended(wide(config(activation, head))), 4, 2, &device, 1));
            let mut rng = Rng::new(2);
            let (states, actions) = (normal(7, model.spec.state, &device, &mut rng), normal(7, 2, &device, &mut rng));
            // `predict` is in f32 whatever is chosen: only the mean is off, by the rounding of a layer.
            check::check_within(&model, states, actions, 0.03).unwrap();
        }
    }
}

#[test]
fn threads_change_no_bit_of_rounded_rollouts() {
    let model = rounded(&ensemble(&extended(wide(config(Activation::Silu, Head::Gaussian))), 4, 2, &Device::flex(), 5));
    let run = |threads, (members, particles)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| rolled(&model, members, particles))
    };
    for rule in [(MemberRule::Ts1, 5), (MemberRule::Ts1, 1), (MemberRule::Ds, 2)] {
        let one = run(1, rule);
        assert!([2, 3].iter().all(|threads| run(*threads, rule) == one), "{rule:?}");
    }
}

#[test]
fn parts_of_a_rounded_population_are_parts_of_the_whole() {
    let device = Device::flex();
    let model = rounded(&ensemble(&wide(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 5));
    let actions = normal(4 * 75, 2, &device, &mut Rng::new(6)).reshape([4, 75, 2]);
    for (members, particles) in [(MemberRule::TsInf, 10), (MemberRule::TsInf, 1), (MemberRule::Expectation, 1)] {
        let draw = Draw::new(Propagation { rule: members, noise: true, particles }, 1);
        let run = |from: usize, count: usize, draw| {
            let here = Start::Situation(Situation::of(&[0.0; 4]));
            let all = model.rollout(here, actions.clone().narrow(1, from, count), draw).unwrap();
            all.obs.reshape([5, particles, count * 4])
        };
        let whole = run(0, 75, draw);
        for (from, count) in [(0, 32), (30, 45), (7, 1)] {
            let chunk = run(from, count, draw.in_chunk(Chunk { first: from, population: 75 }));
            let same = whole.clone().narrow(2, from * 4, count * 4);
            assert_eq!(bits(to_vec(chunk)), bits(to_vec(same)), "{members:?}");
        }
    }
}

#[test]
fn rounding_is_off_until_chosen_and_off_again_after() {
    let device = Device::flex();
    let model = ensemble(&wide(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 5);
    assert_eq!(model.precision(), Precision::F32);
    let before = rolled(&model, MemberRule::TsInf, 5);
    let mut changed = rounded(&model);
    let coarse = rolled(&changed, MemberRule::TsInf, 5);
    assert_ne!(coarse, before);
    changed.set_precision(Precision::F32);
    assert_eq!(rolled(&changed, MemberRule::TsInf, 5), before);
    // With nothing between hidden layers there is nothing to round; nor is there without the engine.
    for hidden in [vec![], vec![24]] {
        let flat = ensemble(&EnsembleConfig { hidden, ..config(Activation::Silu, Head::Gaussian) }, 4, 2, &device, 5);
        assert_eq!(rolled(&rounded(&flat), MemberRule::Ts1, 5), rolled(&flat, MemberRule::Ts1, 5));
    }
    let mut tensors = model;
    tensors.set_engine(false);
    assert_eq!(rolled(&rounded(&tensors), MemberRule::Ts1, 5), rolled(&tensors, MemberRule::Ts1, 5));
}

#[test]
fn predictions_and_gradients_are_not_rounded() {
    let device = Device::flex();
    let model = ensemble(&wide(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 5);
    let coarse = rounded(&model);
    let (states, actions) = (normal(9, 4, &device, &mut Rng::new(1)), normal(9, 2, &device, &mut Rng::new(2)));
    let mean = |m: &Ensemble| bits(to_vec(m.predict(states.clone(), actions.clone()).unwrap().mean));
    assert_eq!(mean(&coarse), mean(&model));
    let draw = Draw::new(Propagation::MEAN, 0);
    let step = |m: &Ensemble, states: Tensor<2>| to_vec(m.sample(states, actions.clone(), draw).unwrap().next);
    let tracked = || Tensor::from_data(states.to_data(), &device.clone().autodiff());
    let tracked_actions = Tensor::<2>::from_data(actions.to_data(), &device.clone().autodiff());
    let with_gradients =
        |m: &Ensemble| to_vec(m.sample(tracked(), tracked_actions.clone(), draw).unwrap().next.inner());
    assert_eq!(bits(with_gradients(&coarse)), bits(with_gradients(&model)));
    assert_ne!(step(&coarse, states.clone()), step(&model, states.clone()));
}

#[test]
fn one_rounded_step_is_as_near_as_its_layer() {
    // One rounded layer between ReLUs, which enlarge no gap: of the sum over its inputs it is off by (2⁻⁷ and a little) of the
    // terms' magnitudes, and the last layer hands that on with its weights' magnitudes.
    let device = Device::flex();
    let plain = EnsembleConfig {
        members: 1,
        hidden: vec![40, 33],
        angles: Angles::NONE,
        ..config(Activation::Relu, Head::Deterministic)
    };
    let model = ensemble(&plain, 4, 2, &device, 3);
    let (states, actions) = (normal(200, 4, &device, &mut Rng::new(1)), normal(200, 2, &device, &mut Rng::new(2)));
    let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: 1 }, 0);
    let step = |m: &Ensemble| to_vec(m.sample(states.clone(), actions.clone(), draw).unwrap().next);
    let (exact, coarse) = (step(&model), step(&rounded(&model)));

    let layer = |l: usize| -> Tensor<2> { model.network.weights[l].val().squeeze_dim(0) };
    let bias: Tensor<2> = model.network.biases[0].val().reshape([1, 40]);
    let hidden = activation::relu(model.network_inputs(states.clone(), actions.clone()).matmul(layer(0)) + bias);
    let terms = hidden.abs().matmul(layer(1).abs());
    let bound = terms.matmul(layer(2).abs()) * model.device_weights.target_std.clone() * (1.01 / 128.0);
    let mut nearest_to_bound = 0f32;
    for ((exact, coarse), bound) in exact.iter().zip(&coarse).zip(to_vec(bound)) {
        let gap = (exact - coarse).abs();
        // And the last bits of f32 in what it is added to.
        assert!(gap <= bound + 1e-6 * (1.0 + exact.abs()), "{exact} and {coarse}, at most {bound} apart");
        nearest_to_bound = nearest_to_bound.max(gap / bound);
    }
    assert!(nearest_to_bound > 1e-3, "no rounding at all? {nearest_to_bound}");
}

#[test]
fn the_precision_stays_and_is_not_saved() {
    let device = Device::flex();
    let shape = wide(config(Activation::Silu, Head::Gaussian));
    let fine = ensemble(&shape, 4, 2, &device, 5);
    let coarse = rounded(&fine);
    assert_eq!(coarse.save().unwrap(), fine.save().unwrap());
    let expected = rolled(&coarse, MemberRule::Ts1, 5);
    let mut other = rounded(&ensemble(&shape, 4, 2, &device, 6));
    other.load(&fine.save().unwrap()).unwrap();
    assert_eq!(rolled(&other, MemberRule::Ts1, 5), expected);
    // What was saved rounded is read in f32 where nothing else is chosen.
    let mut other = ensemble(&shape, 4, 2, &device, 6);
    other.load(&coarse.save().unwrap()).unwrap();
    assert_eq!(rolled(&other, MemberRule::Ts1, 5), rolled(&fine, MemberRule::Ts1, 5));

    let mut again = coarse;
    again.reinitialize(&mut Rng::new(9));
    assert_eq!(again.precision(), Precision::Bf16);
    let mut plain = again.clone();
    plain.set_precision(Precision::F32);
    assert_ne!(rolled(&again, MemberRule::Ts1, 5), rolled(&plain, MemberRule::Ts1, 5));
}
