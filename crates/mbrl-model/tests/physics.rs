//! Physics with unknown parameters: equations against the worlds that have them, estimates against closed forms and the Cramér–Rao bound.

use mbrl_env::{
    Env, Field, Rng,
    tasks::{self, CartPoleSwingup, Reacher},
};
use mbrl_model::{
    AngleColumn, Angles, Bound, CartPole, Dataset, DcMotor, Device, Draw, Dynamics, EnsembleConfig, Estimate,
    FitConfig, Identification, IdentifyConfig, LearnedModel, MACHINES, ModelError, Named, Num, Parameter, Pendulum,
    Physics, PhysicsModel, Propagation, Residual, Start, Tensor, TwoLinkArm,
    check::{check_dynamics, check_gradients},
    dynamics_fn, fit, identify, machine,
};

fn table(values: &[f32], width: usize) -> Tensor<2> {
    Tensor::<1>::from_floats(values, &Device::flex()).reshape([values.len() / width, width])
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn uniform(rng: &mut Rng, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| rng.uniform(-size, size)).collect()
}

/// Trajectories of a model without noise, and what acted.
struct Motion {
    /// `[E, T + 1, O]`.
    obs: Vec<f64>,
    /// `[E, T, A]`.
    actions: Vec<f32>,
    widths: [usize; 2],
    steps: usize,
}

impl Motion {
    /// From starts `[E, O]` under random actions, each held for `hold` steps.
    fn of(model: &PhysicsModel, starts: &[f32], steps: usize, size: f32, hold: usize, rng: &mut Rng) -> Self {
        let (o, a) = (model.spec().obs, model.spec().action);
        let episodes = starts.len() / o;
        let mut by_step = Vec::new();
        for t in 0..steps {
            match t % hold {
                0 => by_step.extend(uniform(rng, episodes * a, size)),
                _ => by_step.extend_from_within((t - 1) * episodes * a..),
            }
        }
        let actions = Tensor::<1>::from_floats(by_step.as_slice(), &Device::flex()).reshape([steps, episodes, a]);
        let draw = Draw::new(Propagation::MEAN, 0);
        let all = host(model.rollout(Start::States(table(starts, o)), actions, draw).unwrap().obs);
        let obs = (0..episodes)
            .flat_map(|e| (0..=steps).flat_map(move |t| (t * episodes + e) * o..(t * episodes + e + 1) * o));
        let acts = (0..episodes)
            .flat_map(|e| (0..steps).flat_map(move |t| (t * episodes + e) * a..(t * episodes + e + 1) * a));
        Self {
            obs: obs.map(|i| f64::from(all[i])).collect(),
            actions: acts.map(|i| by_step[i]).collect(),
            widths: [o, a],
            steps,
        }
    }

    /// A share of each column's range.
    fn noise(&self, share: f64) -> Vec<f64> {
        let o = self.widths[0];
        let range = |c: usize| {
            let column = || self.obs.iter().skip(c).step_by(o);
            column().fold(f64::MIN, |m, x| m.max(*x)) - column().fold(f64::MAX, |m, x| m.min(*x))
        };
        (0..o).map(|c| share * range(c)).collect()
    }

    /// Measured with noise of these deviations.
    fn measured(&self, noise: &[f64], rng: &mut Rng) -> Dataset {
        let o = self.widths[0];
        let obs: Vec<f64> = self.obs.iter().enumerate().map(|(i, x)| x + noise[i % o] * rng.normal_f64()).collect();
        let episodes = obs.len() / (o * (self.steps + 1));
        let rows = |first: usize| -> Vec<f32> {
            let episode = |e: usize| &obs[(e * (self.steps + 1) + first) * o..][..self.steps * o];
            (0..episodes).flat_map(episode).map(|x| *x as f32).collect()
        };
        let data = Dataset::new(rows(0), self.actions.clone(), rows(1), o, self.widths[1]).unwrap();
        data.with_episodes(&vec![self.steps; episodes]).unwrap()
    }
}

#[test]
fn every_machine_keeps_the_contract_and_its_gradients_are_differences() {
    let mut rng = Rng::new(0);
    let mut models: Vec<PhysicsModel> = MACHINES
        .iter()
        .map(|(name, _)| PhysicsModel::new(machine(name, None).unwrap(), 0.01, &Device::flex()).unwrap())
        .collect();
    models.push(PhysicsModel::new(Pendulum::gymnasium(), 0.05, &Device::flex()).unwrap());
    for model in models {
        let spec = model.spec();
        // More rows than a tile has.
        let (states, actions) = (uniform(&mut rng, 40 * spec.obs, 1.0), uniform(&mut rng, 40 * spec.action, 1.0));
        let (states, actions) = (table(&states, spec.obs), table(&actions, spec.action));
        check_dynamics(&model, states.clone(), actions.clone()).unwrap();
        check_gradients(&model, states.clone(), actions.clone(), 3e-3).unwrap();
        // The engine's tiles beside Burn's tensors.
        let next = host(model.predict(states.clone(), actions.clone()).unwrap().mean);
        let tensors = model.predict(states.clone().autodiff(), actions.clone().autodiff()).unwrap().mean;
        for (tile, tensor) in next.iter().zip(host(tensors.inner())) {
            assert!((tile - tensor).abs() <= 1e-5 * (1.0 + tile.abs()), "{}: {tile} {tensor}", spec.name);
        }
    }
}

#[test]
fn machines_are_those_of_the_tasks() {
    let device = Device::flex();
    let mut rng = Rng::new(1);
    let near = |model: &PhysicsModel, obs: &[f32], action: &[f32], next: &[f32]| {
        let found = host(model.predict(table(obs, obs.len()), table(action, action.len())).unwrap().mean);
        for (found, next) in found.iter().zip(next) {
            assert!((found - next).abs() < 2e-5 * (1.0 + next.abs()), "{}: {found}, not {next}", model.spec().name);
        }
    };

    let pendulum = PhysicsModel::new(Pendulum::gymnasium(), 0.05, &device).unwrap();
    let mut env = tasks::make("pendulum").unwrap().env;
    let mut obs = env.reset(Some(3)).unwrap();
    for _ in 0..100 {
        let action = [rng.uniform(-3.0, 3.0)];
        let next = env.step(&action).unwrap().obs;
        near(&pendulum, &obs, &action, &next);
        obs = next;
    }

    let cart_pole = pets_cart_pole();
    let mut env = CartPoleSwingup::new();
    let mut obs = env.set_state([0.1, 0.5, -0.3, 1.0]).unwrap();
    for _ in 0..20 {
        let action = [rng.uniform(-1.0, 1.0)];
        let next = env.step(&action).unwrap().obs;
        near(&cart_pole, &obs, &action, &next);
        obs = next;
    }

    let arm = PhysicsModel::new(TwoLinkArm::default(), 0.04, &device).unwrap().with_known("gear", 0.1).unwrap();
    let mut env = Reacher::new();
    let mut obs = env.set_state([0.3, -0.8, 2.0, -3.0, 0.1, 0.1]).unwrap();
    for _ in 0..50 {
        let action = uniform(&mut rng, 2, 1.0);
        let next = env.step(&action).unwrap().obs;
        near(&arm, &obs[..4], &action, &next[..4]);
        obs = next;
    }
}

/// PETS's cart-pole, as the task has it.
fn pets_cart_pole() -> PhysicsModel {
    let values = [10.472, 5.0186, 0.3, 1.0, 1.0, 0.18875 / (5.0186 * 0.09), 9.81, 100.0];
    PhysicsModel::new(CartPole::default(), 0.04, &Device::flex()).unwrap().with_values(&values).unwrap()
}

/// x' = −k x + u, of which k is not known.
struct Decay;

impl Physics for Decay {
    fn name(&self) -> &str {
        "decay"
    }
    fn parameters(&self) -> Vec<Parameter> {
        vec![Parameter::unknown("rate", "1/s", 1.0)]
    }
    fn state(&self) -> Vec<Field> {
        vec![Field::linear("level", "m")]
    }
    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("inflow", "m/s")]
    }
    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        vec![u["inflow"] - p["rate"] * x["level"]]
    }
}

#[test]
fn the_errors_of_a_decay_are_those_of_the_closed_form() {
    // y_t = x e^{−k h t}, x and k unknown: the Fisher information of two columns of derivatives.
    let (k, x, h, steps, noise) = (0.7, 3.0, 0.1, 30, 0.02);
    let level = |t: usize| x * (-k * h * t as f64).exp();
    let obs: Vec<f32> = (0..=steps).map(|t| level(t) as f32).collect();
    let data = Dataset::new(&obs[..steps], vec![0.0; steps], &obs[1..], 1, 1).unwrap().with_episodes(&[steps]).unwrap();
    let model = PhysicsModel::new(Decay, h, &Device::flex()).unwrap();
    let found = identify(&model, &data, &IdentifyConfig::default().with_noise([noise])).unwrap();
    let by: Vec<[f64; 2]> = (0..=steps).map(|t| [level(t) / x, -h * t as f64 * level(t)]).collect();
    let sum = |i: usize, j: usize| by.iter().map(|row| row[i] * row[j]).sum::<f64>() / (noise * noise);
    let expected = (sum(0, 0) / (sum(0, 0) * sum(1, 1) - sum(0, 1).powi(2))).sqrt();
    let rate = found.estimate("rate").unwrap();
    assert!((rate.value - k).abs() < 1e-5, "{rate:?}");
    assert!((rate.std_error / expected - 1.0).abs() < 1e-4, "{rate:?}, not {expected}");
    assert!(found.converged && found.undetermined.is_empty() && found.transitions == steps);
}

/// How estimates over repetitions compare with the Cramér–Rao bound, and how often their intervals hold the truth: of each unknown parameter.
fn repeated(truth: &PhysicsModel, guess: &PhysicsModel, motion: &Motion, repetitions: u64) -> Vec<(String, f64, f64)> {
    let noise = motion.noise(0.01);
    let exact = vec![0.0; noise.len()];
    let whole = || IdentifyConfig::default().with_window(0);
    let bound =
        identify(truth, &motion.measured(&exact, &mut Rng::new(0)), &whole().with_noise(noise.clone())).unwrap();
    let bounds: Vec<Estimate> = bound.estimates.into_iter().filter(|estimate| estimate.fitted).collect();
    let mut squares = vec![0.0; bounds.len()];
    let mut covered = vec![0.0; bounds.len()];
    for seed in 0..repetitions {
        let data = motion.measured(&noise, &mut Rng::new(100 + seed));
        // The noise is estimated too.
        let found = identify(guess, &data, &whole()).unwrap();
        assert!(found.converged && found.undetermined.is_empty(), "{found:?}");
        for (i, bound) in bounds.iter().enumerate() {
            let truth = truth.value(&bound.name).unwrap();
            let estimate = found.estimate(&bound.name).unwrap();
            squares[i] += (estimate.value - truth).powi(2);
            covered[i] += f64::from(u8::from((estimate.value - truth).abs() <= 1.96 * estimate.std_error));
        }
    }
    let n = repetitions as f64;
    let told = |(i, bound): (usize, &Estimate)| {
        (bound.name.clone(), (squares[i] / n).sqrt() / bound.std_error, covered[i] / n)
    };
    bounds.iter().enumerate().map(told).collect()
}

fn check_repeated(found: &[(String, f64, f64)]) {
    for (name, ratio, covered) in found {
        println!("{name}: RMSE {ratio:.3} of the bound, covered {covered:.3}");
        assert!((0.7..=1.5).contains(ratio), "{name}: RMSE {ratio} of the Cramér–Rao bound");
        assert!((0.9..=0.99).contains(covered), "{name}: {covered} of the intervals hold the truth");
    }
}

#[test]
fn a_pendulum_is_identified_at_the_cramer_rao_bound() {
    let model = || PhysicsModel::new(Pendulum::default(), 0.05, &Device::flex()).unwrap();
    let mut rng = Rng::new(5);
    let truth = model().with_unknown("mass", 0.6).unwrap().with_unknown("length", 0.7).unwrap();
    let truth = truth.with_unknown("friction", 0.15).unwrap();
    // 8 trajectories of 25 transitions.
    let motion = Motion::of(&truth, &uniform(&mut rng, 16, 2.0), 25, 3.0, 5, &mut rng);
    check_repeated(&repeated(&truth, &model(), &motion, 200));
}

#[test]
fn a_cart_pole_is_identified_at_the_cramer_rao_bound() {
    let model = || PhysicsModel::new(CartPole::default(), 0.04, &Device::flex()).unwrap();
    let mut rng = Rng::new(6);
    let values = [1.5, 0.4, 0.3, 0.8, 0.03, 1.0 / 3.0, 9.81, 1.0];
    let truth = model().with_values(&values).unwrap();
    let motion = Motion::of(&truth, &uniform(&mut rng, 32, 1.5), 25, 15.0, 5, &mut rng);
    check_repeated(&repeated(&truth, &model(), &motion, 200));
}

fn undetermined(found: &Identification) -> Vec<String> {
    found.undetermined.iter().map(ToString::to_string).collect()
}

#[test]
fn what_the_data_do_not_determine_is_named() {
    let model = PhysicsModel::new(Pendulum::default(), 0.05, &Device::flex()).unwrap();
    let mut rng = Rng::new(2);
    // Without a torque mass and friction may both be doubled.
    let motion = Motion::of(&model, &uniform(&mut rng, 16, 2.0), 25, 0.0, 1, &mut rng);
    let data = motion.measured(&motion.noise(0.01), &mut rng);
    let found = identify(&model, &data, &IdentifyConfig::default()).unwrap();
    for (name, told) in [("mass", false), ("friction", false), ("length", true)] {
        let estimate = found.estimate(name).unwrap();
        assert_eq!(estimate.std_error.is_finite(), told, "{estimate:?}");
    }
    assert_eq!(undetermined(&found).len(), 1);
    let told = &undetermined(&found)[0];
    assert!(
        told.starts_with("mass, friction: nothing that was measured tells mass × 2 with friction × 2 apart"),
        "{told}"
    );
    let ratio = found.model.value("friction").unwrap() / found.model.value("mass").unwrap();
    assert!((ratio - 0.1).abs() < 0.02, "their ratio is determined: {ratio}");
    // With the mass weighed, everything is.
    let found = identify(&model.clone().with_known("mass", 1.0).unwrap(), &data, &IdentifyConfig::default()).unwrap();
    assert!(found.undetermined.is_empty() && found.estimate("friction").unwrap().std_error < 0.02, "{found:?}");
    assert_eq!(found.estimate("mass").unwrap().std_error, 0.0);

    // At rest, hanging, nothing tells anything.
    let motion = Motion::of(&model, &[0.0; 4], 20, 0.0, 1, &mut rng);
    let data = motion.measured(&[0.01, 0.01], &mut rng);
    let found = identify(&model, &data, &IdentifyConfig::default()).unwrap();
    assert!(!found.undetermined.is_empty());
    assert!(found.estimate("mass").unwrap().std_error.is_infinite());

    // A speed alone tells three numbers of a motor's five; a measured current all.
    let motor = PhysicsModel::new(DcMotor::default(), 0.01, &Device::flex()).unwrap();
    let motion = Motion::of(&motor, &uniform(&mut rng, 8, 100.0), 40, 12.0, 8, &mut rng);
    let data = motion.measured(&motion.noise(0.005), &mut rng);
    let found = identify(&motor, &data, &IdentifyConfig::default()).unwrap();
    assert_eq!(found.undetermined.len(), 2, "{:?}", undetermined(&found));
    let motor = PhysicsModel::new(DcMotor::with_current(), 0.01, &Device::flex()).unwrap();
    let starts: Vec<f32> = (0..8).flat_map(|_| [rng.uniform(-100.0, 100.0), 0.0]).collect();
    let motion = Motion::of(&motor, &starts, 40, 12.0, 8, &mut rng);
    let data = motion.measured(&motion.noise(0.002), &mut rng);
    let found = identify(&motor, &data, &IdentifyConfig::default()).unwrap();
    for name in ["torque_constant", "resistance", "inertia"] {
        let estimate = found.estimate(name).unwrap();
        let truth = motor.value(name).unwrap();
        assert!(
            (estimate.value - truth).abs() < 4.0 * estimate.std_error && estimate.std_error < 0.2 * truth,
            "{estimate:?}"
        );
    }
}

#[test]
fn a_parameter_at_the_end_of_the_search_is_no_finding() {
    let motor = PhysicsModel::new(DcMotor::default(), 0.01, &Device::flex()).unwrap();
    let motor = motor.with_known("torque_constant", 0.05).unwrap().with_known("resistance", 1.0).unwrap();
    let found_at = |found: &Identification, name: &str| {
        let estimate = found.estimate(name).unwrap();
        (estimate.at_bound, estimate.std_error, estimate.value)
    };
    let mut rng = Rng::new(5);
    let without = motor.clone().with_known("coulomb_friction", 0.0).unwrap();
    let motion = Motion::of(&without, &uniform(&mut rng, 8, 50.0), 60, 5.0, 10, &mut rng);
    let noise = motion.noise(0.002);
    let config = IdentifyConfig::default().with_noise(noise.clone());
    let mut at_zero = 0;
    for _ in 0..6 {
        // A friction that is not there goes down as far as the search does, where chance does not give it the other sign.
        let found = identify(&motor, &motion.measured(&noise, &mut rng), &config).unwrap();
        let (bound, error, value) = found_at(&found, "coulomb_friction");
        if bound == Some(Bound::Lower) {
            at_zero += 1;
            assert!(error.is_finite() && error > value && error < 0.05, "{:?}", found.estimates);
        }
        assert_eq!(found_at(&found, "inertia").0, None, "{:?}", found.estimates);
    }
    assert!((1..6).contains(&at_zero), "{at_zero}");
    // Guesses from which the search may not go as far as the truth: what it stops at is not taken for found.
    let data = motion.measured(&noise, &mut rng);
    for (name, factor, bound) in [("inertia", 1e7, Bound::Lower), ("viscous_friction", 1e-7, Bound::Upper)] {
        let known = ["inertia", "viscous_friction"].iter().fold(without.clone(), |model, known| {
            let value = model.value(known).unwrap();
            model.with_known(known, value).unwrap()
        });
        let guess = known.clone().with_unknown(name, factor * known.value(name).unwrap()).unwrap();
        let found = identify(&guess, &data, &config).unwrap();
        let (at, error, _) = found_at(&found, name);
        assert_eq!((at, error), (Some(bound), f64::INFINITY), "{:?}", found.estimates);
    }
}

#[test]
fn noise_is_estimated_and_what_the_equations_lack_shows() {
    let truth = PhysicsModel::new(Pendulum::default(), 0.05, &Device::flex()).unwrap();
    let mut rng = Rng::new(3);
    let motion = Motion::of(&truth, &uniform(&mut rng, 12, 2.0), 50, 3.0, 5, &mut rng);
    let noise = [0.03, 0.2];
    let data = motion.measured(&noise, &mut rng);
    let found = identify(&truth, &data, &IdentifyConfig::default()).unwrap();
    for (c, noise) in noise.iter().enumerate() {
        // 306 measurements of a column: 4 % is one standard deviation.
        assert!((found.noise[c] / noise - 1.0).abs() < 0.12, "{:?}", found.noise);
        assert!(found.correlation[c].abs() < 0.2, "{:?}", found.correlation);
    }
    // Of short windows a quarter of the measurements goes into first states: the noise is not taken for smaller.
    let found = identify(&truth, &data, &IdentifyConfig::default().with_window(3)).unwrap();
    for (c, noise) in noise.iter().enumerate() {
        assert!((found.noise[c] / noise - 1.0).abs() < 0.1, "{:?}", found.noise);
    }
    // A rod is no bob.
    let rod = PhysicsModel::new(Pendulum::rod(), 0.05, &Device::flex()).unwrap();
    let rod = rod.with_known("length", 1.0).unwrap().with_known("friction", 0.1).unwrap();
    let found = identify(&rod, &data, &IdentifyConfig::default()).unwrap();
    assert!(found.correlation[0] > 0.5, "{:?}", found.correlation);
}

#[test]
fn transitions_alone_tell_it_too_where_the_noise_is_known() {
    let truth = PhysicsModel::new(Pendulum::default(), 0.05, &Device::flex()).unwrap();
    let mut rng = Rng::new(4);
    let motion = Motion::of(&truth, &uniform(&mut rng, 800, 2.0), 1, 3.0, 1, &mut rng);
    let noise = [0.002, 0.01];
    let data = motion.measured(&noise, &mut rng);
    let guess = truth.clone().with_unknown("mass", 3.0).unwrap().with_unknown("length", 0.3).unwrap();
    let found = identify(&guess, &data, &IdentifyConfig::default().with_noise(noise)).unwrap();
    for name in ["mass", "length"] {
        let estimate = found.estimate(name).unwrap();
        assert!((estimate.value - 1.0).abs() < 4.0 * estimate.std_error && estimate.std_error < 0.1, "{estimate:?}");
    }
    let told = identify(&guess, &data, &IdentifyConfig::default()).unwrap_err().to_string();
    assert!(
        told.contains("noise = to be estimated from windows of 1 transitions: expected windows of at least 2"),
        "{told}"
    );
}

#[test]
fn the_trainer_of_every_model_fits_physics_too_and_it_is_stored() {
    let device = Device::flex();
    let truth = PhysicsModel::new(Pendulum::default(), 0.05, &device).unwrap();
    let truth = truth.with_values(&[0.7, 0.8, 0.1, 9.81]).unwrap();
    let mut rng = Rng::new(7);
    let motion = Motion::of(&truth, &uniform(&mut rng, 40, 2.0), 25, 3.0, 5, &mut rng);
    let data = motion.measured(&[0.0, 0.0], &mut rng).with_holdout((400..500).collect::<Vec<_>>()).unwrap();
    let mut model = PhysicsModel::new(Pendulum::default(), 0.05, &device).unwrap();
    let settings = FitConfig { learning_rate: 0.03, batch_size: 64, max_epochs: 60, ..FitConfig::default() };
    let report = fit(&mut model, &data, &settings, &mut rng).unwrap();
    // 21 windows of 5 steps in an episode of 25.
    assert_eq!((report.train_rows, report.holdout_rows), (16 * 21, 4 * 21));
    for (name, value) in [("mass", 0.7), ("length", 0.8), ("friction", 0.1)] {
        assert!((model.value(name).unwrap() / value - 1.0).abs() < 0.03, "{model:?}");
    }
    let stored = model.save().unwrap();
    let mut again = PhysicsModel::new(Pendulum::default(), 0.05, &device).unwrap();
    again.load(&stored).unwrap();
    assert_eq!(again.values(), model.values());
    again.reinitialize(&mut rng);
    assert_eq!(again.value("mass").unwrap(), 1.0);
    let mut other = PhysicsModel::new(CartPole::default(), 0.05, &device).unwrap();
    let told = other.load(&stored).unwrap_err().to_string();
    assert!(
        told.contains("parameters mass, length, friction, gravity: those of another model than cart-pole"),
        "{told}"
    );
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let device = Device::flex();
    let pendulum = || PhysicsModel::new(Pendulum::default(), 0.05, &device).unwrap();
    let told = |result: Result<PhysicsModel, ModelError>| result.unwrap_err().to_string();
    assert_eq!(
        told(pendulum().with_known("lenght", 1.0)),
        "parameter `lenght`: expected one of `mass`, `length`, `friction`, `gravity`; did you mean `length`?"
    );
    assert_eq!(
        told(pendulum().with_known("mass", -1.0)),
        "parameter = mass of -1: expected a finite number of at least 0"
    );
    assert!(told(pendulum().with_unknown("mass", 0.0)).contains("expected a positive finite number to begin with"));
    assert!(told(PhysicsModel::new(Pendulum::default(), 0.0, &device)).starts_with("period = 0: expected"));
    let told = machine("dc-moter", None).unwrap_err().to_string();
    assert!(told.contains("model = dc-moter: expected one of pendulum, ") && told.contains("dc-motor"), "{told}");

    let known = ["mass", "length", "friction"].iter().fold(pendulum(), |m, name| m.with_known(name, 1.0).unwrap());
    let data = Dataset::new(vec![0.1; 40], vec![0.0; 20], vec![0.1; 40], 2, 1).unwrap().with_episodes(&[20]).unwrap();
    let told = |model: &PhysicsModel, config: IdentifyConfig| identify(model, &data, &config).unwrap_err().to_string();
    assert!(told(&known, IdentifyConfig::default()).contains("parameters = all known"));
    assert!(
        told(&pendulum(), IdentifyConfig::default().with_noise([0.1])).contains("columns of noise = 1: expected 2")
    );
    assert!(told(&pendulum(), IdentifyConfig::default().with_noise([0.1, 0.0])).contains("noise = 0"));
    // Nothing moves: that is no measurement of motion, whatever its noise.
    for config in [IdentifyConfig::default(), IdentifyConfig::default().with_noise([0.1, 0.1])] {
        let told = told(&pendulum(), config);
        assert!(told.starts_with("data = observations that never change: expected a log in which"), "{told}");
    }
    // Every window of five rows touches one that is held out: nothing is left to fit to.
    let held: Vec<usize> = (0..20).step_by(5).collect();
    let data = data.clone().with_holdout(held).unwrap();
    let mut model = pendulum().with_unknown("mass", 1.0).unwrap().with_window(5);
    let told = fit(&mut model, &data, &FitConfig::default(), &mut Rng::new(0)).unwrap_err();
    assert!(matches!(told, ModelError::TooLittleData { actual: 0, needed: 1 }), "{told}");
    let few = Dataset::new([0.1; 2], [0.0], [0.1; 2], 2, 1).unwrap();
    let told = identify(&pendulum(), &few, &IdentifyConfig::default().with_noise([0.1, 0.1])).unwrap_err();
    assert!(matches!(told, ModelError::TooLittleData { actual: 1, needed: 2 }), "{told}");
}

/// Root mean squares of what a model is off after one step, over the root mean square of each column's change.
fn off(model: &dyn Dynamics, data: &Dataset) -> f32 {
    let o = data.obs_width();
    let next = host(model.predict(table(data.obs(), o), table(data.actions(), data.action_width())).unwrap().mean);
    let rms = |of: &[f32], c: usize| {
        let squares = of.iter().zip(data.next_obs()).skip(c).step_by(o).map(|(x, y)| (x - y).powi(2));
        (squares.sum::<f32>() / data.len() as f32).sqrt()
    };
    (0..o).map(|c| rms(&next, c) / rms(data.obs(), c)).sum::<f32>() / o as f32
}

#[test]
fn physics_with_a_residual_beats_both_where_the_physics_is_wrong() {
    let device = Device::flex();
    let mut rng = Rng::new(8);
    let truth = PhysicsModel::new(CartPole::default(), 0.04, &device).unwrap();
    let truth = truth.with_values(&[1.0, 0.3, 0.5, 1.5, 0.1, 1.0 / 3.0, 9.81, 1.0]).unwrap();
    let motion = |rng: &mut Rng, episodes: usize| Motion::of(&truth, &uniform(rng, 4 * episodes, 1.5), 25, 5.0, 5, rng);
    let data = motion(&mut rng, 12).measured(&[1e-3, 1e-3, 5e-3, 5e-3], &mut rng);
    let fresh = motion(&mut rng, 40).measured(&[0.0; 4], &mut rng);

    // Wrong on purpose: both frictions are overlooked.
    let wrong = truth.clone().with_known("cart_friction", 0.0).unwrap().with_known("hinge_friction", 0.0).unwrap();
    let base = identify(&wrong, &data, &IdentifyConfig::default().with_window(5)).unwrap().model;
    let config = EnsembleConfig {
        members: 3,
        hidden: vec![32, 32],
        normalize_targets: true,
        angles: Angles::radians([1]),
        ..EnsembleConfig::default()
    };
    let settings = FitConfig { batch_size: 32, max_epochs: 150, patience: 15, ..FitConfig::default() };
    let mut ensemble = config.init(4, 1, &device, &mut Rng::new(1)).unwrap();
    let mut joined = Residual::new(base.clone(), ensemble.clone()).unwrap();
    fit(&mut ensemble, &data, &settings, &mut Rng::new(2)).unwrap();
    fit(&mut joined, &data, &settings, &mut Rng::new(2)).unwrap();
    let [physics, learned, both] = [off(&base, &fresh), off(&ensemble, &fresh), off(&joined, &fresh)];
    println!("physics {physics:.4}, ensemble {learned:.4}, both {both:.4}");
    assert!(both < 0.8 * physics && both < 0.8 * learned, "physics {physics}, ensemble {learned}, both {both}");

    let (states, actions) = (table(&fresh.obs()[..160], 4), table(&fresh.actions()[..40], 1));
    check_dynamics(&joined, states.clone(), actions.clone()).unwrap();
    check_gradients(&joined, states, actions, 3e-3).unwrap();
    let stored = joined.save().unwrap();
    let mut again = joined.clone();
    again.reinitialize(&mut rng);
    assert_ne!(off(&again, &fresh), both);
    again.load(&stored).unwrap();
    assert_eq!(off(&again, &fresh), both);
}

#[test]
fn a_residual_of_angles_that_jump_goes_the_short_way() {
    // A wheel that turns by 0.3 per step, seen within ±π; the base says 0.2.
    let device = Device::flex();
    let mut rng = Rng::new(9);
    let obs = uniform(&mut rng, 600, std::f32::consts::PI);
    let wrap = |x: f32| x - std::f32::consts::TAU * (x / std::f32::consts::TAU).round();
    let next: Vec<f32> = obs.iter().map(|x| wrap(x + 0.3)).collect();
    let data = Dataset::new(obs, vec![0.0; 600], next, 1, 1).unwrap();
    let wraps = AngleColumn { wraps: true, ..AngleColumn::radians(0) };
    let config = EnsembleConfig {
        members: 2,
        hidden: vec![16],
        angles: Angles::Columns(vec![wraps]),
        ..EnsembleConfig::default()
    };
    let base = dynamics_fn(1, 1, &device, |s, _| s + 0.2);
    let mut model = Residual::new(base, config.init(1, 1, &device, &mut rng).unwrap()).unwrap();
    fit(&mut model, &data, &FitConfig { batch_size: 32, max_epochs: 30, ..FitConfig::default() }, &mut rng).unwrap();
    for at in [-3.0, -1.0, 0.0, 2.0, 3.1] {
        let next = host(model.predict(table(&[at], 1), table(&[0.0], 1)).unwrap().mean)[0];
        assert!(wrap(next - at - 0.3).abs() < 0.03, "{at} -> {next}");
    }
}
