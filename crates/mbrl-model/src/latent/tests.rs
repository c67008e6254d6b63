use burn::tensor::{Tensor, TensorData};
use mbrl_env::{Env, History, Replay, Rng, Situation, Transition, tasks};

use super::*;
use crate::{
    Dataset, Examples, Fit, FitBatch, FitConfig, MemberRule, Propagation,
    check::{check_dynamics, check_gradients},
    fit,
};

fn small(norm: LatentNorm) -> LatentConfig {
    LatentConfig {
        channels: vec![6, 6],
        encoder: vec![24],
        latent: 16,
        norm,
        hidden: vec![32],
        decoder: vec![24],
        window: 4,
        fading: 0.8,
        ..LatentConfig::default()
    }
}

/// The pendulum in 16 × 16 pixels, moved at random.
fn data(episodes: u64, steps: usize) -> Replay {
    let options = serde_json::json!({ "width": 16, "height": 16 });
    let mut env = tasks::make_with("pendulum-pixels", options).unwrap().env;
    let mut replay = Replay::new(256, 1, 10_000).unwrap().in_bytes();
    let mut rng = Rng::new(1);
    for episode in 0..episodes {
        let mut obs = env.reset(Some(episode)).unwrap();
        for _ in 0..steps {
            let action = vec![rng.uniform(-2.0, 2.0)];
            let step = env.step(&action).unwrap();
            let (reward, next_obs) = (step.reward, step.obs);
            let seen =
                Transition { obs, action, reward, next_obs: next_obs.clone(), terminated: false, truncated: false };
            replay.push(&seen).unwrap();
            obs = next_obs;
        }
        replay.end_episode();
    }
    replay
}

fn model(config: LatentConfig) -> LatentModel {
    let options = serde_json::json!({ "width": 16, "height": 16 });
    let task = tasks::make_with("pendulum-pixels", options).unwrap();
    config.init_for(task.env.spec(), &Device::flex(), &mut Rng::new(0)).unwrap()
}

fn fitted(config: LatentConfig, fit_config: &FitConfig) -> LatentModel {
    let mut model = model(config);
    let data = Dataset::of_replay(&data(3, 20), 0).unwrap();
    fit(&mut model, &data, fit_config, &mut Rng::new(2)).unwrap();
    model
}

fn quick() -> FitConfig {
    FitConfig { batch_size: 20, max_steps: 6, holdout: 0.0, bootstrap: false, ..FitConfig::default() }
}

#[test]
fn steps_on_the_host_are_those_of_burn() {
    for (norm, reconstruction, consistency) in [
        (LatentNorm::Layer, 1.0, 0.5),
        (LatentNorm::Simplex, 1.0, 20.0),
        (LatentNorm::Layer, 0.0, 1.0),
        (LatentNorm::Layer, 1.0, 0.0),
    ] {
        let config = LatentConfig { reconstruction, consistency, ..small(norm) };
        let host = fitted(config.clone(), &quick());
        // Clipping that never clips: Burn's autodiff.
        let burn = fitted(config.clone(), &FitConfig { grad_clip: 1e9, ..quick() });
        let before = model(config);
        for ((host, burn), before) in host.network.all().zip(burn.network.all()).zip(before.network.all()) {
            let (host, burn, before) = (host.parameters(), burn.parameters(), before.parameters());
            if reconstruction == 0.0 && host == before {
                // The decoder, of which nothing is asked.
                assert_eq!(burn, before);
                continue;
            }
            let furthest = burn.iter().zip(&before).map(|(x, before)| (x - before).abs()).fold(0.0, f32::max);
            assert!(furthest > 3e-3, "{norm:?}: nothing was learned");
            // Where a gradient is 0 but for rounding, Adam goes either way: the bias before a normalised layer, say.
            let far = host.iter().zip(&burn).filter(|(host, burn)| (*host - *burn).abs() > 2e-4).count();
            let of = host.len();
            assert!(far * 50 <= of, "{norm:?}, {reconstruction}, {consistency}: {far} of {of} apart");
        }
    }
}

#[test]
fn the_loss_is_that_of_burn_and_a_step_goes_down_it_in_every_network() {
    for norm in [LatentNorm::Layer, LatentNorm::Simplex] {
        let before = model(small(norm));
        let data = Dataset::of_replay(&data(3, 20), 0).unwrap();
        let (examples, _) = Fit::prepare(&before, &data).unwrap();
        let rows: Vec<usize> = (0..32).collect();
        let batch = FitBatch::new(&rows, 1, 0);
        let loss = |model: &LatentModel| model.loss(&model.parameters(), &examples, &batch).into_scalar::<f32>();
        let config = FitConfig { learning_rate: 1e-3, ..FitConfig::default() };
        let mut stepper = before.stepper(&examples, &config).unwrap();
        let said = stepper.step(&batch);
        assert!((said - loss(&before)).abs() < 1e-4 * said.abs(), "{said}, in Burn {}", loss(&before));
        let moved = HostNetwork::of(&stepper.parameters());
        let networks: Vec<_> = before.network.all().map(|network| network.parameters()).collect();
        for (i, moved) in moved.all().enumerate() {
            let to = moved.parameters();
            let along = |share: f32| {
                let mut model = before.clone();
                let network = model.network.all_mut().nth(i).unwrap();
                let between: Vec<f32> = networks[i].iter().zip(&to).map(|(a, b)| a + share * (b - a)).collect();
                network.set_parameters(&between);
                model.changed();
                loss(&model)
            };
            let slope = along(0.5) - along(-0.5);
            assert!(slope < 0.0, "{norm:?}, network {i}: the loss rises by {slope}");
        }
    }
}

#[test]
fn models_keep_the_contract() {
    for norm in [LatentNorm::Layer, LatentNorm::Simplex] {
        let model = fitted(small(norm), &quick());
        let device = Device::flex();
        let replay = data(1, 5);
        let frames: Vec<_> = (0..4).map(|i| replay.observation(i).into_owned()).collect();
        let situations: Vec<Situation<'_>> = frames.iter().map(|frame| Situation::of(frame)).collect();
        let states = model.encode_batch(&situations).unwrap();
        let actions = Tensor::<2>::from_floats([[1.5], [-0.3], [0.0], [2.0]], &device);
        check_dynamics(&model, states.clone(), actions.clone()).unwrap();
        check_gradients(&model, states.clone(), actions.clone(), 1e-2).unwrap();
        // As tensors, with gradients, the same rewards and states.
        let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: 1 }, 0);
        let host = model.sample(states.clone(), actions.clone(), draw).unwrap();
        let tracked = model.sample(states.autodiff(), actions, draw).unwrap();
        for (host, tracked) in [
            (to_vec(host.next), to_vec(tracked.next.inner())),
            (to_vec(host.reward.unwrap()), to_vec(tracked.reward.unwrap().inner())),
        ] {
            assert!(host.iter().zip(&tracked).all(|(a, b)| (a - b).abs() < 1e-4), "{host:?} {tracked:?}");
        }
    }
}

#[test]
fn what_is_planned_from_is_encoded_as_what_was_fitted_to() {
    for frames in [1, 2, 3] {
        let model = fitted(LatentConfig { frames, ..small(LatentNorm::Layer) }, &quick());
        let replay = data(2, 9);
        let set = Dataset::of_replay(&replay, 0).unwrap();
        let (examples, _) = Fit::prepare(&model, &set).unwrap();
        // Windows of 4 of 9 steps: six in each of two episodes.
        assert_eq!(Examples::count(&examples), 12);
        for (window, step) in [(0, 0), (0, 1), (0, 4), (5, 0), (5, 4), (6, 0), (11, 4)] {
            let mut images = Vec::new();
            examples.images(&[window], step, &mut images);
            let expected = model.network.encode(&images);
            let (episode, start) = (window / 6, window % 6 + step);
            let frame = |i: usize| match i {
                9 => replay.get(9 * episode + 8).unwrap().next_obs,
                _ => replay.observation(9 * episode + i).into_owned(),
            };
            let past = History { obs: (0..start).map(frame).collect(), actions: vec![vec![0.0]; start] };
            let now = frame(start);
            let found = model.encode(&Situation { past: &past, ..Situation::of(&now) }).unwrap();
            assert_eq!(to_vec(found), expected, "{frames} frames, window {window}, step {step}");
            let mut newest = Vec::new();
            examples.newest(&[window], step, &mut newest);
            assert!(newest.iter().zip(&now).all(|(newest, now)| (255.0 * (newest + 0.5) - now).abs() < 1e-3));
        }
    }
}

#[test]
fn windows_are_held_out_by_episodes_or_where_they_touch_a_held_row() {
    // Whole episodes, drawn: of ten with 17 windows each, two go into a quarter of the windows.
    let replay = data(10, 20);
    let mut model = model(small(LatentNorm::Layer));
    let fit_config = FitConfig { holdout: 0.25, ..quick() };
    let report = fit(&mut model, &Dataset::of_replay(&replay, 0).unwrap(), &fit_config, &mut Rng::new(1)).unwrap();
    assert_eq!((report.train_rows, report.holdout_rows), (8 * 17, 2 * 17));
    // Rows that were chosen: the second episode, and two rows of the fourth, which five windows of four steps touch.
    let chosen: Vec<usize> = (20..40).chain(70..72).collect();
    let set = Dataset::of_replay(&replay, 0).unwrap().with_holdout(chosen).unwrap();
    let (examples, _) = Fit::prepare(&model, &set).unwrap();
    let held: Vec<usize> = examples.holdout().unwrap().iter().map(|window| examples.windows[*window].row).collect();
    assert_eq!(held, (20..37).chain(67..72).collect::<Vec<usize>>());
}

#[test]
fn rewards_are_foreseen_and_frames_decoded() {
    let config = LatentConfig { window: 5, hidden: vec![64], encoder: vec![64], ..small(LatentNorm::Layer) };
    let mut model = model(config);
    let set = Dataset::of_replay(&data(12, 60), 0).unwrap();
    let fit_config = FitConfig { batch_size: 64, max_steps: 500, max_epochs: 1000, ..quick() };
    let report = fit(&mut model, &set, &fit_config, &mut Rng::new(3)).unwrap();
    // In standard deviations of the rewards, over five steps.
    assert!(report.column_errors[1] < 0.25, "{report:?}");
    // Of an episode that was not seen.
    let fresh = data(13, 60);
    let at = |i: usize| fresh.get(12 * 60 + i).unwrap();
    let past = History { obs: vec![at(0).obs], actions: vec![at(0).action] };
    let now = at(1).obs;
    let actions: Vec<f32> = (1..6).map(|i| at(i).action[0]).collect();
    let plan = Tensor::<3>::from_data(TensorData::new(actions, [5, 1, 1]), &Device::flex());
    let from = Start::Situation(Situation { past: &past, ..Situation::of(&now) });
    let seen = model.rollout(from, plan, Draw::new(Propagation::MEAN, 0)).unwrap();
    let frames = model.reconstruct(seen.obs.squeeze_dim(1)).unwrap();
    assert_eq!(frames.dims(), [6, 256]);
    let frames = to_vec(frames);
    let apart = |frame: &[f32], seen: &[f32]| -> f32 { frame.iter().zip(seen).map(|(a, b)| (a - b).powi(2)).sum() };
    // The frame five steps on is nearer to what is predicted than to a flat gray of its own level.
    let later = at(6).obs;
    let flat = [later.iter().sum::<f32>() / 256.0; 256];
    let [predicted, flat] = [apart(&frames[5 * 256..], &later), apart(&flat, &later)];
    assert!(predicted < flat, "{predicted} {flat}");
}

#[test]
fn bytes_give_back_the_same_bits_and_others_are_refused() {
    let first = fitted(small(LatentNorm::Layer), &quick());
    let bytes = first.save().unwrap();
    let mut other = model(small(LatentNorm::Layer));
    other.load(&bytes).unwrap();
    assert_eq!(other.statistics, first.statistics);
    assert_eq!(other.save().unwrap(), bytes);
    for cut in [0, 7, 30, bytes.len() / 2, bytes.len() - 1] {
        let mut broken = model(small(LatentNorm::Layer));
        let untouched = broken.save().unwrap();
        assert!(broken.load(&bytes[..cut]).is_err(), "{cut}");
        assert_eq!(broken.save().unwrap(), untouched);
    }
    let error = model(small(LatentNorm::Simplex)).load(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("stored weights: weights of a latent model LatentConfig"), "{error}");
    // A later fit keeps the statistics, fresh weights forget them.
    let before = other.statistics;
    fit(&mut other, &Dataset::of_replay(&data(5, 30), 0).unwrap(), &quick(), &mut Rng::new(5)).unwrap();
    assert_eq!(other.statistics, before);
    other.reinitialize(&mut Rng::new(0));
    assert_eq!(other.statistics, None);
}

#[test]
fn images_of_another_size_are_refused_by_name() {
    let mut model = model(small(LatentNorm::Layer));
    let told = model.encode(&Situation::of(&[0.0; 100])).unwrap_err().to_string();
    assert_eq!(told, "pixels of the observed image = 100: expected 256");
    let mut frame = vec![0.0; 256];
    frame[3] = f32::NAN;
    assert!(model.encode(&Situation::of(&frame)).unwrap_err().to_string().contains("observed image"));
    let wrong =
        Dataset::new(vec![0.0; 60], vec![0.0; 20], vec![0.0; 60], 3, 1).unwrap().with_rewards(vec![0.0; 20]).unwrap();
    let told = fit(&mut model, &wrong, &quick(), &mut Rng::new(0)).unwrap_err().to_string();
    assert_eq!(told, "pixels of the observed images = 3: expected 256");
    let no_rewards = Dataset::new(vec![0.0; 2560], vec![0.0; 10], vec![0.0; 2560], 256, 1).unwrap();
    let told = fit(&mut model, &no_rewards, &quick(), &mut Rng::new(0)).unwrap_err().to_string();
    assert_eq!(told, "the model learns rewards, the data has none");
    // Episodes that are too short have no window.
    let short = Dataset::of_replay(&data(5, 3), 0).unwrap();
    let told = fit(&mut model, &short, &quick(), &mut Rng::new(0)).unwrap_err().to_string();
    assert_eq!(told, "examples to fit = 0: expected at least 2");

    let options = serde_json::json!({ "width": 20, "height": 16 });
    let task = tasks::make_with("pendulum-pixels", options).unwrap();
    let told = small(LatentNorm::Layer).init_for(task.env.spec(), &Device::flex(), &mut Rng::new(0)).unwrap_err();
    let rule = "sides that are multiples of 8 pixels (patch = 4, doubled by each further of 2 convolutions)";
    assert_eq!(told.to_string(), format!("image = 20 × 16: expected {rule}"));
    let told =
        LatentConfig { latent: 12, norm: LatentNorm::Simplex, ..LatentConfig::default() }.validate().unwrap_err();
    assert_eq!(told.to_string(), "latent = 12: expected a multiple of 8 with norm = \"simplex\"");
}
