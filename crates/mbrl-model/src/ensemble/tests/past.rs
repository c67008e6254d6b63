//! Models that see more than the present observation.

use super::*;

#[test]
fn a_situation_is_encoded_newest_first_and_its_beginning_repeated() {
    let model = EnsembleConfig { past: 2, hidden: vec![4], ..EnsembleConfig::default() };
    let model = model.init(2, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    assert_eq!((model.spec.state, model.spec.obs), (2 + 2 * 3, 2));
    let mut past = History::default();
    let encoded = |past: &History| to_vec(model.encode(&Situation { past, ..Situation::of(&[9.0, 8.0]) }).unwrap());
    assert_eq!(encoded(&past), [9.0, 8.0, 9.0, 8.0, 0.0, 9.0, 8.0, 0.0]);
    past.push(vec![1.0, 2.0], vec![3.0], 16);
    assert_eq!(encoded(&past), [9.0, 8.0, 1.0, 2.0, 3.0, 1.0, 2.0, 0.0]);
    past.push(vec![4.0, 5.0], vec![6.0], 16);
    assert_eq!(encoded(&past), [9.0, 8.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    past.push(vec![7.0, 7.5], vec![-1.0], 16);
    assert_eq!(encoded(&past), [9.0, 8.0, 7.0, 7.5, -1.0, 4.0, 5.0, 6.0]);

    let refused = |obs: Vec<f32>, action: Vec<f32>| {
        let mut past = History::default();
        past.push(obs, action, 16);
        model.encode(&Situation { past: &past, ..Situation::of(&[9.0, 8.0]) }).unwrap_err().to_string()
    };
    assert_eq!(refused(vec![1.0], vec![0.0]), "past observation has 1, expected 2");
    assert_eq!(refused(vec![1.0, 0.0], vec![]), "past action has 0, expected 1");
    assert!(refused(vec![1.0, f32::NAN], vec![0.0]).contains("past observation"));
}

#[test]
fn a_step_moves_the_present_into_the_past() {
    let device = Device::flex();
    for past in [1, 2, 3] {
        let config = EnsembleConfig { past, ..config(Activation::Silu, Head::Gaussian) };
        let mut model = ensemble(&config, 4, 2, &device, 11);
        let width = 4 + 6 * past;
        let mut rng = Rng::new(1);
        let (states, actions) = (normal(7, width, &device, &mut rng), normal(7, 2, &device, &mut rng));
        for engine in [true, false] {
            model.set_engine(engine);
            let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }, 0);
            let sampled = to_vec(model.sample(states.clone(), actions.clone(), draw).unwrap().next);
            let predicted = model.predict(states.clone(), actions.clone()).unwrap();
            let (old, acts) = (to_vec(states.clone()), to_vec(actions.clone()));
            for next in [sampled, to_vec(predicted.mean)] {
                for (row, next) in next.chunks(width).enumerate() {
                    let old = &old[row * width..(row + 1) * width];
                    assert_eq!(next[4..8], old[..4]);
                    assert_eq!(next[8..10], acts[row * 2..row * 2 + 2]);
                    assert_eq!(next[10..], old[4..width - 6]);
                }
            }
            for spread in [predicted.aleatoric_std.unwrap(), predicted.epistemic_std.unwrap()] {
                assert!(
                    to_vec(spread)
                        .chunks(width)
                        .all(|row| row[..4].iter().all(|s| *s > 0.0) && row[4..] == [0.0].repeat(6 * past))
                );
            }
        }
    }
}

#[test]
fn angles_of_the_past_are_embedded_too() {
    // A whole turn of an angle, now or then, changes nothing but the angle itself.
    let device = Device::flex();
    let mut model = ensemble(&extended(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 11);
    let mut rng = Rng::new(1);
    let (states, actions) = (normal(5, 16, &device, &mut rng), normal(5, 2, &device, &mut rng));
    let turns: Vec<f32> = (0..16).map(|c| if [1, 5, 11].contains(&c) { std::f32::consts::TAU } else { 0.0 }).collect();
    let turned = states.clone() + Tensor::<1>::from_floats(turns.as_slice(), &device).unsqueeze::<2>();
    for engine in [true, false] {
        model.set_engine(engine);
        let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }, 0);
        let step = |states: &Tensor<2>| {
            let step = model.sample(states.clone(), actions.clone(), draw).unwrap();
            to_vec(Tensor::cat(vec![step.next.narrow(1, 0, 4), step.reward.unwrap().unsqueeze_dim(1)], 1))
        };
        for (i, (turned, plain)) in step(&turned).iter().zip(step(&states)).enumerate() {
            let expected = if i % 5 == 1 { plain + std::f32::consts::TAU } else { plain };
            assert!((turned - expected).abs() < 2e-5, "column {}: {turned} and {expected}", i % 5);
        }
    }
}

/// An ensemble with one past step whose roll-outs forget it after the first.
struct Forgetful(Ensemble);

impl Dynamics for Forgetful {
    fn spec(&self) -> &DynamicsSpec {
        self.0.spec()
    }
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        self.0.predict(states, actions)
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        self.0.sample(states, actions, draw)
    }
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        self.0.observe(states)
    }
    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let Start::States(states) = from else { panic!("the check starts from states") };
        let [horizon, _, width] = actions.dims();
        let particles = draw.propagation.particles;
        let mut states = states.repeat_dim(0, particles);
        let mut obs = vec![self.observe(states.clone())];
        for t in 0..horizon {
            let now = actions.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
            let next = self.sample(states, now, draw.later(t))?.next;
            let seen = self.observe(next);
            let rest = Tensor::zeros([seen.dims()[0], width], &self.spec().device);
            states = Tensor::cat(vec![seen.clone(), seen.clone(), rest], 1);
            obs.push(seen);
        }
        Ok(Trajectories::new(Tensor::stack(obs, 0)))
    }
}

#[test]
fn a_rollout_that_forgets_is_found() {
    let device = Device::flex();
    let config = EnsembleConfig { past: 1, ..config(Activation::Silu, Head::Gaussian) };
    let model = ensemble(&config, 4, 2, &device, 11);
    let mut rng = Rng::new(1);
    let (states, actions) = (normal(5, 10, &device, &mut rng), normal(5, 2, &device, &mut rng));
    check::check_dynamics(&model, states.clone(), actions.clone()).unwrap();
    let told = check::check_dynamics(&Forgetful(model), states, actions).unwrap_err().to_string();
    assert!(told.contains("roll-out: observations of step 1"), "{told}");
}
