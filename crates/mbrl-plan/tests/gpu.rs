//! Planning on a GPU: the CPU's plans, up to rounding. On machines without a GPU Mesa's software Vulkan serves.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn, termination_fn};
use mbrl_model::{Angles, Ensemble, EnsembleConfig, MemberRule, Propagation};
use mbrl_plan::{
    CemConfig, Execute, IcemConfig, MppiConfig, PddmConfig, PlanError, Planner, Problem, Proposal,
    RandomShootingConfig, check::check_planner, returns,
};

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// NVIDIA's where this build supports it, else the one that wgpu finds.
fn gpu() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(not(feature = "cuda"))]
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}

/// The same network on the engine of the CPU and on the GPU: weights are drawn on the host.
fn models() -> [Ensemble; 2] {
    [Device::flex(), gpu()].map(|device| {
        let config = EnsembleConfig {
            members: 5,
            hidden: vec![32; 2],
            angles: Angles::radians([1]),
            ..EnsembleConfig::default()
        };
        config.init(3, 2, &device, &mut Rng::new(7)).unwrap()
    })
}

fn actions() -> ActionSpace {
    ActionSpace::Box(BoxSpace::new([-1.0, -0.5], [1.0, 2.0]).unwrap())
}

fn assert_near(gpu: &[f32], cpu: &[f32], bound: f32, what: &str) {
    // Not the largest difference: a maximum hides a NaN.
    let near = gpu.iter().zip(cpu).all(|(a, b)| (a - b).abs() <= bound * (b.abs() / 10.0).max(1.0));
    assert!(gpu.len() == cpu.len() && near, "{what}:\n{gpu:?}\n{cpu:?}");
}

const TS1: Propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 10 };
const RULES: [Propagation; 4] = [
    TS1,
    Propagation { rule: MemberRule::TsInf, noise: true, particles: 5 },
    Propagation { rule: MemberRule::Ds, noise: true, particles: 3 },
    Propagation::MEAN,
];

#[test]
fn returns_are_the_cpus() {
    let reward = reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        -(next.square().sum_dim(1) + a.square().sum_dim(1)).squeeze_dim(1)
    });
    let ends = termination_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).greater_elem(0.4).squeeze_dim(1));
    let actions = actions();
    for propagation in RULES {
        let [cpu, gpu] = models().map(|model| {
            let device = mbrl_model::Dynamics::spec(&model).device.clone();
            let problem =
                Problem::new(&model, &actions).with_reward(&reward).with_termination(&ends).with_discount(0.9);
            let candidates = mbrl_model::uniforms(3, [70, 6 * 2], &device).reshape([70, 6, 2]);
            let scored = returns(&problem, &Situation::of(&[0.1, 2.0, -0.3]), candidates, propagation, 5).unwrap();
            host(scored.per_particle)
        });
        assert!(cpu.iter().any(|r| (r - cpu[0]).abs() > 0.1), "all alike: {cpu:?}");
        assert_near(&gpu, &cpu, 1e-4, &format!("{propagation:?}"));
    }
}

/// A planner of each kind, with a name.
fn planners(propagation: Propagation) -> Vec<(&'static str, Box<dyn Planner>)> {
    fn of<P: Planner + 'static>(planner: Result<P, PlanError>) -> Box<dyn Planner> {
        Box::new(planner.unwrap())
    }
    let (actions, horizon) = (actions(), 5);
    let cem = CemConfig { horizon, population: 60, elites: 10, iterations: 3, ..CemConfig::default() };
    let best = CemConfig { execute: Execute::Best, truncation: f32::INFINITY, constrain_variance: false, ..cem };
    let mppi = MppiConfig {
        horizon,
        control_cost: 0.5,
        adapt_std: true,
        iterations: 3,
        std_range: [0.01, 2.0],
        ..MppiConfig::default()
    };
    let random = |proposal| RandomShootingConfig { horizon, population: 60, iterations: 2, proposal };
    vec![
        ("cem", of(cem.init(&actions, propagation))),
        ("cem, best", of(best.init(&actions, propagation))),
        ("icem", of(IcemConfig { horizon, ..IcemConfig::default() }.init(&actions, propagation))),
        ("mppi", of(mppi.init(&actions, propagation))),
        ("pddm", of(PddmConfig { horizon, ..PddmConfig::default() }.init(&actions, propagation))),
        ("held", of(random(Proposal::Hold { steps: 2 }).init(&actions, propagation))),
        ("coloured", of(random(Proposal::Coloured { exponent: 2.0, std: 0.5 }).init(&actions, propagation))),
    ]
}

#[test]
fn plans_are_the_cpus() {
    let reward = reward_fn(|_, _, next: Tensor<2>| -(next - 0.2).square().sum_dim(1).squeeze_dim::<1>(1));
    let actions = actions();
    let [cpu_model, gpu_model] = models();
    for propagation in RULES {
        for ((name, mut cpu), (_, mut gpu)) in planners(propagation).into_iter().zip(planners(propagation)) {
            let mut rngs = [Rng::new(1), Rng::new(1)];
            // The second plan starts warm.
            for obs in [[0.1, 0.2, 0.3], [0.0, 0.3, 0.2]] {
                let [on_cpu, on_gpu] = [(&mut cpu, &cpu_model), (&mut gpu, &gpu_model)].map(|(planner, model)| {
                    let problem = Problem::new(model, &actions).with_reward(&reward);
                    let rng = &mut rngs[usize::from(!mbrl_model::is_cpu(&mbrl_model::Dynamics::spec(model).device))];
                    let plan = planner.plan(&Situation::of(&obs), &problem, rng).unwrap();
                    planner.advance(1);
                    (plan.actions, plan.best_return)
                });
                assert_near(&on_gpu.0, &on_cpu.0, 1e-3, &format!("{name}, {propagation:?}"));
                assert_near(&[on_gpu.1], &[on_cpu.1], 1e-4, &format!("{name}, {propagation:?}: return"));
            }
        }
    }
}

#[test]
fn planners_keep_their_contract_there() {
    let device = gpu();
    check_planner(
        |actions| {
            CemConfig { horizon: 4, population: 60, elites: 8, ..CemConfig::default() }.init(actions, Propagation::MEAN)
        },
        &device,
    )
    .unwrap();
    check_planner(
        |actions| IcemConfig { horizon: 4, ..IcemConfig::default() }.init(actions, Propagation::MEAN),
        &device,
    )
    .unwrap();
    check_planner(
        |actions| PddmConfig { horizon: 4, ..PddmConfig::default() }.init(actions, Propagation::MEAN),
        &device,
    )
    .unwrap();
    for proposal in [Proposal::Hold { steps: 2 }, Proposal::Coloured { std: 0.5, exponent: 2.0 }] {
        let config = RandomShootingConfig { proposal, ..RandomShootingConfig::default() };
        check_planner(|actions| config.init(actions, Propagation::MEAN), &device).unwrap();
    }
    check_planner(
        |actions| MppiConfig { horizon: 4, ..MppiConfig::default() }.init(actions, Propagation::MEAN),
        &device,
    )
    .unwrap();
}
