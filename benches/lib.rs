//! Shared set-up of the benches: the shapes that published work uses, with random weights and inputs.

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::Rng;
use mbrl_model::{Activation, Ensemble, EnsembleConfig, Head};

/// One ensemble and the number of rows a member that a comparison uses.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Stable name, part of the bench's id.
    pub name: &'static str,
    /// Members, `E`.
    pub members: usize,
    /// Rows a member, `N`.
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

/// PETS's and PDDM's networks, as in the comparison with other frameworks. The numbers count rows a member.
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

impl Shape {
    /// The ensemble, with random weights.
    #[must_use]
    pub fn ensemble(&self, device: &Device) -> Ensemble {
        EnsembleConfig {
            members: self.members,
            hidden: self.hidden.to_vec(),
            activation: self.activation,
            head: self.head,
            weight_decay: Vec::new(),
            ..EnsembleConfig::default()
        }
        .init(self.obs, self.action, device, &mut Rng::new(0))
        .expect("a valid configuration")
    }

    /// Floating-point operations of the matrix products of one forward pass of all rows: two a multiply-add.
    #[must_use]
    pub fn flop(&self) -> u64 {
        let outputs = if self.head == Head::Gaussian { 2 * self.obs } else { self.obs };
        let widths: Vec<usize> =
            [self.obs + self.action].into_iter().chain(self.hidden.iter().copied()).chain([outputs]).collect();
        let macs: usize = widths.windows(2).map(|w| w[0] * w[1]).sum();
        (2 * self.members * self.rows * macs) as u64
    }
}

/// Standard normal rows.
#[must_use]
pub fn normal(rows: usize, width: usize, seed: u64, device: &Device) -> Tensor<2> {
    let mut rng = Rng::new(seed);
    let values: Vec<f32> = (0..rows * width).map(|_| rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}
