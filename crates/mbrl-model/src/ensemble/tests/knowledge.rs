//! What is known of a task, on every path: the engine and Burn on each device, steps and gradients, fits on the host and by Burn.

use mbrl_env::{Augment, Features, Knowledge, Known, KnownAt, KnownGrads, Lanes, TILE};

use super::*;

/// Of four columns and two actions: sin(o0 + 2 a1) and o1 · o2.
struct Waves;

impl Features for Waves {
    fn name(&self) -> &str {
        "waves-1"
    }

    fn width(&self) -> usize {
        2
    }

    fn replaces(&self) -> &[usize] {
        &[2]
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        let column = |c: usize| obs.clone().narrow(1, c, 1);
        Tensor::cat(vec![(column(0) + actions.narrow(1, 1, 1) * 2.0).sin(), column(1) * column(2)], 1)
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        for r in 0..TILE {
            out[0][r] = (obs[0][r] + 2.0 * actions[1][r]).sin();
            out[1][r] = obs[1][r] * obs[2][r];
        }
    }

    fn pullback(&self, _: &[Lanes], _: &[Lanes], _: &[Lanes], _: &mut [Lanes], _: &mut [Lanes]) {
        unreachable!("models differentiate tensors")
    }
}

/// Column 1 is a level that goes by itself, the action and what is predicted of column 0; column 3 a clock.
struct Clock;

impl Known for Clock {
    fn name(&self) -> &str {
        "clock-1"
    }

    fn columns(&self) -> &[usize] {
        &[1, 3]
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>) -> Tensor<2> {
        let level =
            obs.clone().narrow(1, 1, 1) * 0.9 + actions.narrow(1, 0, 1) * 0.1 + next.narrow(1, 0, 1).sin() * 0.2;
        Tensor::cat(vec![level, obs.narrow(1, 3, 1) + 0.25], 1)
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], next: &[Lanes], out: &mut [Lanes]) {
        for r in 0..TILE {
            out[0][r] = obs[1][r] * 0.9 + actions[0][r] * 0.1 + next[0][r].sin() * 0.2;
            out[1][r] = obs[3][r] + 0.25;
        }
    }

    fn pullback(&self, _: KnownAt<'_>, _: &[Lanes], _: KnownGrads<'_>) {
        unreachable!("models differentiate tensors")
    }
}

/// Columns 0 and 2, and both actions, change their places or signs; column 1 stays.
pub(super) struct Mirrors;

impl Augment for Mirrors {
    fn name(&self) -> &str {
        "mirrors-1"
    }

    fn copies(&self) -> usize {
        3
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        match copy {
            1 => obs.swap(0, 2),
            2 => (obs[0], obs[2]) = (-obs[0], -obs[2]),
            _ => {}
        }
    }

    fn action(&self, copy: usize, action: &mut [f32]) {
        match copy {
            1 => action.swap(0, 1),
            2 => action.iter_mut().for_each(|a| *a = -*a),
            _ => {}
        }
    }

    fn reward(&self, copy: usize, reward: f32) -> f32 {
        reward + 10.0 * copy as f32
    }
}

pub(super) fn all() -> Knowledge {
    Knowledge::none().with_features(Waves).with_augment(Mirrors).with_known(Clock)
}

/// With statistics that are not the identity.
fn knowing(config: &EnsembleConfig, knowledge: &Knowledge, device: &Device, seed: u64) -> Ensemble {
    let mut rng = Rng::new(seed);
    let mut model = config.init_with(4, 2, knowledge, device, &mut rng).unwrap();
    let mut column = |width: usize, shift: f32, scale: f32| {
        let rows: Vec<f32> = (0..width * 50).map(|_| shift + scale * rng.normal()).collect();
        Normalizer::of(&rows, width)
    };
    let (inputs, targets) = (model.seen.width(), config.targets(model.predicted.count()));
    let (inputs, targets) = (column(inputs, 0.3, 1.7), column(targets, -0.1, 0.4));
    model.install(model.network.clone(), inputs, targets, (0..config.members).collect());
    model
}

/// Plain, with everything else that a model can have, and with columns that are angles, known ones among them.
fn configs() -> Vec<EnsembleConfig> {
    let mut configs = Vec::new();
    for head in [Head::Gaussian, Head::Deterministic] {
        let plain = config(Activation::Silu, head);
        let jump = |column: usize| AngleColumn { column, turn: 2.5, wraps: true };
        let angles = Angles::Columns(vec![jump(0), jump(3)]);
        let turning = EnsembleConfig { angles, no_delta: vec![1, 2], ..extended(plain.clone()) };
        configs.extend([EnsembleConfig { reward: true, ..plain.clone() }, turning, plain]);
    }
    configs
}

#[test]
fn knowing_models_keep_the_contract_on_every_device() {
    for device in devices() {
        for config in configs() {
            for knowledge in [Knowledge::none().with_features(Waves), Knowledge::none().with_known(Clock), all()] {
                let model = knowing(&config, &knowledge, &device, 1);
                let (width, rows) = (model.spec.state, 7);
                let mut rng = Rng::new(2);
                let (states, actions) = (normal(rows, width, &device, &mut rng), normal(rows, 2, &device, &mut rng));
                check::check_dynamics(&model, states.clone(), actions.clone()).unwrap();
                let mut tensors = model.clone();
                tensors.set_engine(false);
                check::check_dynamics(&tensors, states.clone(), actions.clone()).unwrap();
                #[cfg(feature = "train")]
                if config.angles == Angles::NONE || config.past == 0 {
                    // Not where a difference steps over a jump.
                    check::check_gradients(&tensors, states.clone(), actions.clone(), 1e-2).unwrap();
                }
                for rule in [MemberRule::Expectation, MemberRule::Ts1, MemberRule::TsInf, MemberRule::Ds] {
                    let draw = Draw::new(Propagation { rule, noise: true, particles: 1 }, 3);
                    let step = |m: &Ensemble| m.sample(states.clone(), actions.clone(), draw).unwrap();
                    let (fused, looped) = (step(&model), step(&tensors));
                    assert_columns_near(&to_vec(fused.next), &to_vec(looped.next), width);
                    if let (Some(fused), Some(looped)) = (fused.reward, looped.reward) {
                        assert_columns_near(&to_vec(fused), &to_vec(looped), 1);
                    }
                }
            }
        }
    }
}

#[test]
fn known_columns_are_filled_in_by_hand_at_every_step() {
    for device in devices() {
        for config in configs() {
            for engine in [true, false] {
                let mut model = knowing(&config, &all(), &device, 5);
                model.set_engine(engine && is_cpu(&device));
                let (rows, horizon) = (37, 4);
                let mut rng = Rng::new(6);
                let states = normal(rows, model.spec.state, &device, &mut rng);
                let plan = normal(horizon * rows, 2, &device, &mut rng).reshape([horizon, rows, 2]);
                for (rule, particles) in [(MemberRule::TsInf, 5), (MemberRule::Ts1, 1), (MemberRule::Ds, 2)] {
                    let draw = Draw::new(Propagation { rule, noise: true, particles }, 3);
                    let obs = model.rollout(Start::States(states.clone()), plan.clone(), draw).unwrap().obs;
                    let (obs, acts) = (to_vec(obs), to_vec(plan.clone()));
                    let all = rows * particles;
                    for t in 0..horizon {
                        for row in 0..all {
                            let [now, next] = [t, t + 1].map(|t| &obs[(t * all + row) * 4..][..4]);
                            let push = acts[(t * rows + row % rows) * 2];
                            let level = now[1] * 0.9 + push * 0.1 + next[0].sin() * 0.2;
                            assert!((next[1] - level).abs() < 1e-5 * level.abs().max(1.0), "{next:?} after {now:?}");
                            assert!((next[3] - now[3] - 0.25).abs() < 1e-5, "{next:?} after {now:?}");
                        }
                    }
                }
                let actions = plan.clone().narrow(0, 0, 1).squeeze_dim::<2>(0);
                let said = model.predict(states.clone(), actions.clone()).unwrap();
                let sure = |spread: Tensor<2>, columns: &[usize]| {
                    let width = spread.dims()[1];
                    let values = to_vec(spread);
                    values
                        .chunks(width)
                        .all(|row| columns.iter().all(|c| row[*c] == 0.0) && row[0] > 0.0 && row[2] > 0.0)
                };
                assert!(sure(said.epistemic_std.unwrap(), &[1, 3]));
                assert!(said.aleatoric_std.is_none_or(|spread| sure(spread, &[1, 3])));
            }
        }
    }
}

#[test]
fn known_columns_take_no_part_in_what_is_learned() {
    let device = Device::flex();
    let model = knowing(&config(Activation::Silu, Head::Gaussian), &all(), &device, 1);
    assert_eq!((model.predicted.columns.as_slice(), model.spec.known.as_slice()), (&[0, 2][..], &[1, 3][..]));
    assert_eq!(model.targets.mean().len(), 2);
    assert_eq!(model.network.max_log_var.val().dims(), [1, 1, 2]);
    assert_eq!(model.network.biases.last().unwrap().val().dims()[2], 4);
    // An angle that is known jumps as it is told to.
    let jump = |column: usize| AngleColumn { column, turn: 2.5, wraps: true };
    let angles = Angles::Columns(vec![jump(0), jump(3)]);
    let model = knowing(&EnsembleConfig { angles, ..config(Activation::Silu, Head::Gaussian) }, &all(), &device, 1);
    assert_eq!(model.wraps.iter().map(|wrap| wrap.column).collect::<Vec<_>>(), [0]);
}

#[test]
fn knowing_models_are_stored_by_what_they_know() {
    for device in devices() {
        let model = knowing(&config(Activation::Silu, Head::Gaussian), &all(), &device, 4);
        let bytes = model.save().unwrap();
        let fresh =
            |knowledge: Knowledge| model.config.init_with(4, 2, &knowledge, &device, &mut Rng::new(99)).unwrap();
        let mut back = fresh(all());
        back.load(&bytes).unwrap();
        let (states, actions) = (normal(3, 4, &device, &mut Rng::new(1)), normal(3, 2, &device, &mut Rng::new(2)));
        let of = |m: &Ensemble| to_vec(m.predict(states.clone(), actions.clone()).unwrap().mean);
        assert_eq!(of(&model), of(&back));
        let told = fresh(Knowledge::none().with_features(Waves)).load(&bytes).unwrap_err().to_string();
        assert!(told.contains("the known columns `clock-1` ([1, 3]), expected no known columns"), "{told}");
        let told = back.load(&fresh(Knowledge::none().with_features(Waves)).save().unwrap()).unwrap_err().to_string();
        assert!(told.contains("no known columns, expected the known columns `clock-1`"), "{told}");
        // Symmetries give the same weights no other meaning.
        fresh(Knowledge::none().with_features(Waves).with_known(Clock)).load(&bytes).unwrap();
        back.reinitialize(&mut Rng::new(1));
        assert!(back.features().is_some() && back.symmetries().is_some() && back.known().is_some());
    }
}

#[test]
fn what_is_known_must_fit_the_observation() {
    let config = EnsembleConfig { no_delta: vec![], ..config(Activation::Silu, Head::Gaussian) };
    let told = config.init_with(3, 2, &all(), &Device::flex(), &mut Rng::new(1)).unwrap_err().to_string();
    assert_eq!(told, "known = [1, 3]: expected some of the 3 columns of the observation, not all, in rising order");
    // What is known is not predicted, so no error of it could count more.
    let config = EnsembleConfig { emphasis: Emphasis { columns: vec![0, 3], weight: 2.0 }, ..config };
    let told = config.init_with(4, 2, &all(), &Device::flex(), &mut Rng::new(1)).unwrap_err().to_string();
    assert_eq!(told, "emphasis.columns = column 3: expected columns that are predicted: this one is known");
}

#[cfg(feature = "train")]
pub(super) mod fitting {
    use super::*;
    use crate::{Dataset, Fit, FitBatch, FitConfig, fit};

    pub(in super::super) fn data(rows: usize, seed: u64) -> Dataset {
        let mut rng = Rng::new(seed);
        let mut column =
            |width: usize, shift: f32| -> Vec<f32> { (0..rows * width).map(|_| shift + rng.normal()).collect() };
        let (obs, actions, next, rewards) = (column(4, 2.0), column(2, -1.0), column(4, 1.0), column(1, 0.5));
        let ends: Vec<bool> = obs.chunks(4).map(|row| row[0] > 2.5).collect();
        let data = Dataset::new(obs, actions, next, 4, 2).unwrap();
        data.with_rewards(rewards).unwrap().with_terminated(ends).unwrap()
    }

    /// A data set with every copy of every row.
    fn all_copies(of: &Dataset) -> Dataset {
        let (mut obs, mut actions, mut next, mut rewards) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for copy in 0..3 {
            let map = |rows: &[f32], width: usize, f: &dyn Fn(&mut [f32])| {
                let mut rows = rows.to_vec();
                rows.chunks_mut(width).for_each(f);
                rows
            };
            obs.extend(map(of.obs(), 4, &|row| Mirrors.observation(copy, row)));
            next.extend(map(of.next_obs(), 4, &|row| Mirrors.observation(copy, row)));
            actions.extend(map(of.actions(), 2, &|row| Mirrors.action(copy, row)));
            rewards.extend(of.rewards().unwrap().iter().map(|r| Mirrors.reward(copy, *r)));
        }
        let ends = of.terminated().unwrap().repeat(3);
        Dataset::new(obs, actions, next, 4, 2).unwrap().with_rewards(rewards).unwrap().with_terminated(ends).unwrap()
    }

    fn learning_all() -> EnsembleConfig {
        EnsembleConfig {
            reward: true,
            termination: true,
            normalize_targets: true,
            ..config(Activation::Silu, Head::Gaussian)
        }
    }

    fn without_symmetries() -> Knowledge {
        Knowledge::none().with_features(Waves).with_known(Clock)
    }

    #[test]
    fn statistics_are_those_over_all_copies() {
        let config = learning_all();
        let init = |knowledge| config.init_with(4, 2, &knowledge, &Device::flex(), &mut Rng::new(0)).unwrap();
        let settings = FitConfig { max_steps: 1, max_epochs: 1, ..FitConfig::default() };
        let (mut drawn, mut stored) = (init(all()), init(without_symmetries()));
        fit(&mut drawn, &data(90, 1), &settings, &mut Rng::new(1)).unwrap();
        fit(&mut stored, &all_copies(&data(90, 1)), &settings, &mut Rng::new(1)).unwrap();
        for (a, b) in [(&drawn.inputs, &stored.inputs), (&drawn.targets, &stored.targets)] {
            for (a, b) in a.mean().iter().chain(a.std()).zip(b.mean().iter().chain(b.std())) {
                assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} and {b}");
            }
        }
        // Those of the rewards, 10 apart, show best.
        assert!(drawn.targets.std()[2] > 8.0);
    }

    #[test]
    fn each_row_of_a_batch_is_a_copy_of_its_transition() {
        let config = learning_all();
        for (device, knowledge) in devices().into_iter().map(|device| (device, all())) {
            let model = config.init_with(4, 2, &knowledge, &device, &mut Rng::new(0)).unwrap();
            let plain = config.init_with(4, 2, &without_symmetries(), &device, &mut Rng::new(0)).unwrap();
            let few = data(40, 1);
            let (examples, statistics) = model.prepare(&few).unwrap();
            // Where every copy is a row, standardised in the same way.
            let (stored, of_all) = plain.prepare(&all_copies(&few)).unwrap();
            let _ = (statistics, of_all);
            let [table, said] = [&stored.pairs().inputs, &stored.pairs().targets].map(|t| to_vec(t.clone()));
            let (width, outputs) = (model.seen.width(), 4);
            let rows: Vec<usize> = (0..5 * 64).map(|i| (i * 7 + i / 9) % 40).collect();
            let drawn = |key: u64, step: u32| {
                let copies = examples.copies().unwrap();
                let batch = FitBatch::new(&rows, 1, key).at_step(step);
                let [inputs, targets] = copies.draw(&batch, &|_| unreachable!("no state is predicted"));
                let mut counts = [0; 3];
                let mut chosen = Vec::new();
                for (i, &row) in rows.iter().enumerate() {
                    let [x, y] = [&inputs[i * width..][..width], &targets[i * outputs..][..outputs]];
                    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
                    let copy = (0..3).find(|copy| {
                        let at = copy * 40 + row;
                        near(x, &table[at * width..][..width]) && near(y, &said[at * outputs..][..outputs])
                    });
                    let copy = copy.unwrap_or_else(|| panic!("row {i} is no copy of transition {row}"));
                    counts[copy] += 1;
                    chosen.push(copy);
                }
                // 107 expected of each, standard deviation 8.4.
                assert!(counts.iter().all(|count| (73..140).contains(count)), "{counts:?}");
                chosen
            };
            let first = drawn(7, 3);
            assert_eq!(first, drawn(7, 3));
            assert_ne!(first, drawn(7, 4));
            assert_ne!(first, drawn(8, 3));
        }
    }

    #[test]
    fn a_fit_on_the_host_is_burns_fit_and_threads_change_no_bit() {
        let device = Device::flex();
        let knowledges = [all(), Knowledge::none().with_augment(Mirrors), without_symmetries()];
        for (knowledge, hallucinated_steps) in
            knowledges.into_iter().zip([0, 0, 0]).chain([(all(), 4), (Knowledge::none(), 4)])
        {
            for head in [Head::Gaussian, Head::Deterministic] {
                let config = EnsembleConfig { head, hallucinated_steps, ..learning_all() };
                let fitted = |engine: bool, threads: usize| {
                    let mut model = config.init_with(4, 2, &knowledge, &device, &mut Rng::new(3)).unwrap();
                    model.set_engine(engine);
                    let settings = FitConfig { batch_size: 50, max_epochs: 4, ..FitConfig::default() };
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let data = data(300, 4).with_episodes(&[70, 30, 200]).unwrap();
                    let report = pool.install(|| fit(&mut model, &data, &settings, &mut Rng::new(5))).unwrap();
                    let weights: Vec<f32> = model.network.weights.iter().flat_map(|w| to_vec(w.val())).collect();
                    (report, weights)
                };
                let (host, burn) = (fitted(true, 2), fitted(false, 2));
                assert_eq!((host.0.epochs, host.0.steps), (burn.0.epochs, burn.0.steps));
                let near = |a: f32, b: f32| (a - b).abs() <= 1e-3 * b.abs().max(0.1);
                assert!(near(host.0.train_loss, burn.0.train_loss), "{:?} and {:?}", host.0, burn.0);
                for (host, burn) in host.0.column_errors.iter().zip(&burn.0.column_errors) {
                    assert!(near(*host, *burn), "{host} and {burn} of {config:?}");
                }
                let bits = |weights: Vec<f32>| weights.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(host.1), bits(fitted(true, 1).1));
            }
        }
    }

    #[test]
    fn the_past_is_copied_with_the_present() {
        use mbrl_env::{Replay, Transition};
        let config = EnsembleConfig { past: 1, ..config(Activation::Silu, Head::Gaussian) };
        let model = config.init_with(4, 2, &all(), &Device::flex(), &mut Rng::new(0)).unwrap();
        let mut replay = Replay::new(4, 2, 10).unwrap();
        let mut rng = Rng::new(1);
        for _ in 0..3 {
            let mut row = |width: usize| (0..width).map(|_| rng.normal()).collect::<Vec<f32>>();
            let (obs, action, next_obs) = (row(4), row(2), row(4));
            let t = Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated: false };
            replay.push(&t).unwrap();
        }
        let data = Dataset::of_replay(&replay, 1).unwrap();
        let (examples, _) = model.prepare(&data).unwrap();
        let copies = examples.copies().unwrap();
        for copy in 0..3 {
            let all = copies.all.copied(copy, &Mirrors, &copies.shaper);
            let mut expected = data.past().to_vec();
            for pair in expected.chunks_mut(6) {
                let (obs, action) = pair.split_at_mut(4);
                Mirrors.observation(copy, obs);
                Mirrors.action(copy, action);
            }
            assert_eq!(&*all.past, expected);
        }
        let batch = FitBatch::new(&[0, 1, 2], 1, 5);
        assert_eq!(batch.size(), 3);
    }

    #[test]
    fn data_with_an_offset_is_not_in_the_tasks_units() {
        let offset = data(10, 1).with_offset([0.0, 5.0, 0.0, 0.0]).unwrap();
        for (knowledge, field) in [
            (Knowledge::none().with_features(Waves), "features"),
            (Knowledge::none().with_augment(Mirrors), "symmetries"),
            (Knowledge::none().with_known(Clock), "known"),
        ] {
            let mut model = learning_all().init_with(4, 2, &knowledge, &Device::flex(), &mut Rng::new(0)).unwrap();
            let told = fit(&mut model, &offset, &FitConfig::default(), &mut Rng::new(0)).unwrap_err().to_string();
            assert!(told.starts_with(&format!("{field} = data with an offset")), "{told}");
        }
    }
}
