//! Shared set-up of the benches: the shapes used in published work, with random weights and inputs.

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{ActionSpace, BoxSpace, Knowledge, Rng, Situation, reward_fn};
use mbrl_model::{Activation, Ensemble, EnsembleConfig, Head, MemberRule, Precision, Propagation};
use mbrl_plan::{CemConfig, PddmConfig, Planner, Problem};

/// One ensemble and the number of rows per member in a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Stable name, part of the bench's id.
    pub name: &'static str,
    /// Members, `E`.
    pub members: usize,
    /// Rows per member, `N`.
    pub rows: usize,
    /// Width of an observation.
    pub obs: usize,
    /// Width of an action.
    pub action: usize,
    /// Hidden layers.
    pub hidden: &'static [usize],
    /// Activation between layers.
    pub activation: Activation,
    /// Last layer.
    pub head: Head,
}

/// PETS's and PDDM's networks, as in the comparison with other frameworks. The numbers count rows per member.
pub const SHAPES: [Shape; 4] = [
    Shape {
        name: "halfcheetah-5x2000",
        members: 5,
        rows: 2000,
        obs: 17,
        action: 6,
        hidden: &[200; 4],
        activation: Activation::Silu,
        head: Head::Gaussian,
    },
    Shape {
        name: "halfcheetah-5x100",
        members: 5,
        rows: 100,
        obs: 17,
        action: 6,
        hidden: &[200; 4],
        activation: Activation::Silu,
        head: Head::Gaussian,
    },
    Shape {
        name: "cartpole-5x1400",
        members: 5,
        rows: 1400,
        obs: 4,
        action: 1,
        hidden: &[200; 4],
        activation: Activation::Silu,
        head: Head::Gaussian,
    },
    Shape {
        name: "hand-3x700",
        members: 3,
        rows: 700,
        obs: 46,
        action: 24,
        hidden: &[500; 2],
        activation: Activation::Relu,
        head: Head::Deterministic,
    },
];

/// The GPUs that this build supports, by the suffix of their benches: `plan-cuda`, `fit-wgpu`.
#[must_use]
pub fn gpus() -> Vec<(&'static str, Device)> {
    vec![
        #[cfg(feature = "wgpu")]
        ("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        ("cuda", Device::cuda(0)),
    ]
}

impl Shape {
    /// The ensemble, with random weights.
    #[must_use]
    pub fn ensemble(&self, device: &Device) -> Ensemble {
        self.knowing(&Knowledge::none(), device)
    }

    /// The same with the knowledge of a task.
    #[must_use]
    pub fn knowing(&self, knowledge: &Knowledge, device: &Device) -> Ensemble {
        EnsembleConfig {
            members: self.members,
            hidden: self.hidden.to_vec(),
            activation: self.activation,
            head: self.head,
            weight_decay: Vec::new(),
            ..EnsembleConfig::default()
        }
        .init_with(self.obs, self.action, knowledge, device, &mut Rng::new(0))
        .expect("a valid configuration")
    }

    /// Floating-point operations of the matrix products in one forward pass of all rows: two per multiply-add.
    #[must_use]
    pub fn flop(&self) -> u64 {
        let outputs = if self.head == Head::Gaussian { 2 * self.obs } else { self.obs };
        let widths: Vec<usize> =
            [self.obs + self.action].into_iter().chain(self.hidden.iter().copied()).chain([outputs]).collect();
        let macs: usize = widths.windows(2).map(|w| w[0] * w[1]).sum();
        (2 * self.members * self.rows * macs) as u64
    }
}

/// One control step from nothing: every iteration of the planner, every roll-out step, sampling, rewards, refit.
#[allow(missing_debug_implementations, reason = "planners have none")]
pub struct ControlStep {
    /// Stable name, part of the bench's id.
    pub name: String,
    /// Number of model steps that it takes: one particle, one step of the horizon.
    pub model_steps: u64,
    shape: Shape,
    model: Ensemble,
    planner: Box<dyn Planner>,
    actions: ActionSpace,
    rng: Rng,
}

impl ControlStep {
    /// PETS's and PDDM's, as in the comparison with other frameworks.
    #[must_use]
    pub fn all(precision: Precision, device: &Device) -> Vec<Self> {
        Self::with_population(1, precision, device)
    }

    /// The same with 16 times the candidates, named `…-x16`: enough to keep all cores of a GPU busy.
    #[must_use]
    pub fn large(precision: Precision, device: &Device) -> Vec<Self> {
        Self::with_population(16, precision, device)
    }

    fn with_population(times: usize, precision: Precision, device: &Device) -> Vec<Self> {
        let step = |name: &str, shape: Shape, model_steps, planner: &dyn Fn(&ActionSpace) -> Box<dyn Planner>| {
            let name = if times == 1 { name.to_owned() } else { format!("{name}-x{times}") };
            let actions = ActionSpace::Box(BoxSpace::symmetric(shape.action, 1.0).expect("bounds"));
            let mut model = shape.ensemble(device);
            model.set_precision(precision);
            let model_steps = model_steps * times as u64;
            Self { name, model_steps, shape, model, planner: planner(&actions), actions, rng: Rng::new(0) }
        };
        let pets = |horizon: usize| {
            let (population, elites) = (350 * times, 35 * times);
            let config = CemConfig { horizon, population, elites, variance_stop: 0.0, ..CemConfig::default() };
            let particles = Propagation { rule: MemberRule::Ts1, noise: true, particles: 20 };
            move |actions: &ActionSpace| -> Box<dyn Planner> {
                Box::new(config.init(actions, particles).expect("a planner"))
            }
        };
        let pddm = move |actions: &ActionSpace| -> Box<dyn Planner> {
            let every_member = Propagation { rule: MemberRule::TsInf, noise: false, particles: 3 };
            let population = 700 * times;
            let config = PddmConfig { horizon: 7, population, kappa: 20.0, beta: 0.6, ..PddmConfig::default() };
            Box::new(config.init(actions, every_member).expect("a planner"))
        };
        vec![
            step("pets-cartpole", SHAPES[2], 5 * 350 * 20 * 15, &pets(15)),
            step("pets-halfcheetah", SHAPES[0], 5 * 350 * 20 * 30, &pets(30)),
            step("pddm-hand", SHAPES[3], 3 * 700 * 7, &pddm),
        ]
    }

    /// Takes it.
    pub fn run(&mut self) {
        // The reward of the comparison with other frameworks: −|s'|² − 0.01 |a|².
        let reward = reward_fn(|_, actions: Tensor<2>, next: Tensor<2>| {
            (next.square().sum_dim(1) + actions.square().sum_dim(1) * 0.01).neg().squeeze_dim(1)
        });
        let problem = Problem::new(&self.model, &self.actions).with_reward(&reward);
        let obs = vec![0.1; self.shape.obs];
        self.planner.reset();
        self.planner.plan(&Situation::of(&obs), &problem, &mut self.rng).expect("a plan");
    }
}

/// Standard normal rows.
#[must_use]
pub fn normal(rows: usize, width: usize, seed: u64, device: &Device) -> Tensor<2> {
    let mut rng = Rng::new(seed);
    let values: Vec<f32> = (0..rows * width).map(|_| rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}
