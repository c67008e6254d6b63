//! Discrete actions: sampling planners among choices, against enumeration.

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{ActionSpace, BoxSpace, Reward, Rng, Situation, reward_fn};
use mbrl_model::{Dynamics, Propagation, dynamics_fn};
use mbrl_plan::{
    CemConfig, Execute, IcemConfig, Mpc, MppiConfig, PddmConfig, Plan, Planner, Problem, RandomShootingConfig, Replan,
    SequenceSampler, Shooting, returns,
};

const CHOICES: usize = 3;
const HORIZON: usize = 6;

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// A chain of places 0 to 8. Choice 0 goes back, 1 stays, 2 goes on.
fn chain() -> impl Dynamics {
    dynamics_fn(1, 1, &Device::flex(), |s, a| {
        assert!(host(a.clone()).iter().all(|a| [0.0, 1.0, 2.0].contains(a)), "the model gets choices: {a}");
        (s + a - 1.0).clamp(0.0, 8.0)
    })
}

/// A small reward at the start, a large one at the far end, and a fee for moving: what is near is not what is best.
fn far_is_better() -> impl Reward {
    reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        let at = |place: f32| next.clone().equal_elem(place).float();
        (at(2.0) + at(6.0) * 10.0 - (a - 1.0).abs() * 0.25).squeeze_dim::<1>(1)
    })
}

/// The best return over all sequences of choices.
fn optimum(problem: &Problem<'_>, start: f32) -> f32 {
    let all = CHOICES.pow(HORIZON as u32);
    let choices = |mut n: usize| {
        (0..HORIZON).map(move |_| {
            let choice = n % CHOICES;
            n /= CHOICES;
            choice as f32
        })
    };
    let sequences: Vec<f32> = (0..all).flat_map(choices).collect();
    let candidates = Tensor::from_data(TensorData::new(sequences, [all, HORIZON, 1]), &Device::flex());
    let scored = returns(problem, &Situation::of(&[start]), candidates, Propagation::MEAN, 0).unwrap();
    host(scored.per_particle).into_iter().fold(f32::NEG_INFINITY, f32::max)
}

fn value(problem: &Problem<'_>, start: f32, plan: &Plan) -> f32 {
    let candidate = Tensor::from_data(TensorData::new(plan.actions.clone(), [1, HORIZON, 1]), &Device::flex());
    host(returns(problem, &Situation::of(&[start]), candidate, Propagation::MEAN, 0).unwrap().per_particle)[0]
}

/// Few elites: 13 of the 729 sequences reach the far end from place 1, and the refit must not drown them in those that stay near.
fn cem() -> CemConfig {
    CemConfig { horizon: HORIZON, population: 800, elites: 10, iterations: 10, ..CemConfig::default() }
}

#[test]
fn planners_find_the_best_of_all_sequences() {
    let (model, reward, actions) = (chain(), far_is_better(), ActionSpace::Discrete(CHOICES));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let base = cem;
    let planners: [(&str, Box<dyn Planner>); 7] = [
        ("cem", Box::new(base().init(&actions, Propagation::MEAN).unwrap())),
        ("cem, best", {
            let config = CemConfig { execute: Execute::Best, ..base() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
        ("cem, not truncated", {
            let config = CemConfig { truncation: f32::INFINITY, ..base() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
        ("pddm", {
            let config = PddmConfig { horizon: HORIZON, iterations: 6, beta: 1.0, kappa: 2.0, ..PddmConfig::default() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
        ("icem", {
            let config = IcemConfig { horizon: HORIZON, population: 800, iterations: 10, ..IcemConfig::default() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
        ("mppi", {
            let config =
                MppiConfig { horizon: HORIZON, population: 800, iterations: 10, kappa: 2.0, ..MppiConfig::default() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
        ("random", {
            // Of 20,000 draws one of 729 sequences is missed with a probability of 10⁻¹².
            let config =
                RandomShootingConfig { horizon: HORIZON, population: 20_000, ..RandomShootingConfig::default() };
            Box::new(config.init(&actions, Propagation::MEAN).unwrap())
        }),
    ];
    for (name, mut planner) in planners {
        for start in [1.0, 3.0, 5.0, 8.0] {
            let best = optimum(&problem, start);
            let found = (0..10).filter(|&seed| {
                planner.reset();
                let plan = planner.plan(&Situation::of(&[start]), &problem, &mut Rng::new(seed)).unwrap();
                let planned = value(&problem, start, &plan);
                assert!(planned <= best + 1e-5, "{name} from {start}: {planned} of at best {best}");
                (planned - best).abs() < 1e-5 && (plan.best_return - best).abs() < 1e-5
            });
            // Of 50 seeds each planner finds it from each start with 42 at least; the others end on a lesser summit.
            let found = found.count();
            assert!(found >= 6, "{name} from {start}: found by {found} of 10");
        }
    }
}

#[test]
fn control_hands_out_choices() {
    let (model, reward, actions) = (chain(), far_is_better(), ActionSpace::Discrete(CHOICES));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let mut mpc = Mpc::new(Box::new(cem().init(&actions, Propagation::MEAN).unwrap()), Replan::EveryStep).unwrap();
    let (mut place, mut rng) = (1.0f32, Rng::new(0));
    for _ in 0..10 {
        let action = mpc.act(&Situation::of(&[place]), &problem, &mut rng).unwrap().action;
        assert!(actions.contains(&action), "{action:?}");
        place = (place + action[0] - 1.0).clamp(0.0, 8.0);
    }
    assert_eq!(place, 6.0);
}

#[test]
fn cems_mean_is_the_frequency_of_each_choice_among_the_elites() {
    let (model, actions) = (chain(), ActionSpace::Discrete(CHOICES));
    // All sequences are worth the same: of equals the first are elites, and all are.
    let flat = reward_fn(|_, a: Tensor<2>, _| a.squeeze_dim::<1>(1) * 0.0);
    let problem = Problem::new(&model, &actions).with_reward(&flat);
    let config =
        CemConfig { horizon: 2, population: 3000, elites: 3000, iterations: 1, alpha: 0.0, ..CemConfig::default() };
    let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
    planner.plan(&Situation::of(&[3.0]), &problem, &mut Rng::new(0)).unwrap();
    for step in planner.sampler().mean().chunks(CHOICES) {
        // Frequencies: they sum to 1, and from equal numbers each choice comes up in a third, to within 4 standard errors.
        assert!((step.iter().map(|m| 0.5 * (m + 1.0)).sum::<f32>() - 1.0).abs() < 1e-5, "{step:?}");
        assert!(step.iter().all(|m| (0.5 * (m + 1.0) - 1.0 / 3.0).abs() < 0.035), "{step:?}");
    }
    for (variance, mean) in planner.sampler().variance().iter().zip(planner.sampler().mean()) {
        let p = 0.5 * (mean + 1.0);
        assert!((variance - 4.0 * p * (1.0 - p)).abs() < 1e-5);
    }
}

/// Asks for what it was made with, and writes down what it is told.
#[derive(Debug)]
struct Scripted {
    asked: Vec<f32>,
    told: Vec<f32>,
}

impl SequenceSampler for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn shape(&self) -> [usize; 2] {
        [1, CHOICES]
    }
    fn iterations(&self) -> usize {
        1
    }
    fn begin(&mut self) {}
    fn ask(&mut self, _: usize, device: &Device, _: &mut Rng) -> Tensor<3> {
        let count = self.asked.len() / CHOICES;
        Tensor::from_data(TensorData::new(self.asked.clone(), [count, 1, CHOICES]), device)
    }
    fn tell(&mut self, _: usize, candidates: Tensor<3>, _: &[f32]) -> Result<(), mbrl_plan::PlanError> {
        self.told = host(candidates);
        Ok(())
    }
    fn solution(&self) -> Vec<f32> {
        vec![0.2, 0.2, 0.1]
    }
    fn advance(&mut self, _: usize) {}
    fn reset(&mut self) {}
}

#[test]
fn samplers_are_told_of_choices() {
    let (model, reward, actions) = (chain(), far_is_better(), ActionSpace::Discrete(CHOICES));
    let mut problem = Problem::new(&model, &actions).with_reward(&reward);
    problem.proposals = Some(Tensor::from_floats([[[0.0]]], &Device::flex()));
    // The last one's choice would be another one after clipping.
    let asked = vec![0.1, 0.3, 0.2, -0.1, -0.2, -0.3, 2.0, 1.0, 3.0];
    let mut planner = Shooting::new(Scripted { asked, told: Vec::new() }, Propagation::MEAN).unwrap();
    let plan = planner.plan(&Situation::of(&[5.0]), &problem, &mut Rng::new(0)).unwrap();
    let one_hot = [[-1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, -1.0, -1.0]];
    assert_eq!(planner.sampler().told, one_hot.concat());
    assert_eq!(plan.actions, [0.0], "the first of equals");
    assert_eq!(plan.best_return, 9.75, "on to 6");
    problem.proposals = Some(Tensor::from_floats([[[3.0]]], &Device::flex()));
    let error = planner.plan(&Situation::of(&[5.0]), &problem, &mut Rng::new(0)).unwrap_err().to_string();
    assert_eq!(error, "proposals = 3: expected a choice from 0 to 2");
}

#[test]
fn another_number_of_choices_is_refused() {
    let (model, reward) = (chain(), far_is_better());
    let three = ActionSpace::Discrete(CHOICES);
    let mut planner = CemConfig::default().init(&three, Propagation::MEAN).unwrap();
    for other in [ActionSpace::Discrete(4), ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap())] {
        let problem = Problem::new(&model, &other).with_reward(&reward);
        let error = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap_err().to_string();
        assert!(error.starts_with("width of the action space = "), "{error}");
    }
}
