//! Linear-quadratic problems with their exact optimum, for planners to be measured against.
#![allow(dead_code, reason = "each test file uses a part of it")]

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{ActionSpace, BoxSpace, Reward, Rng, reward_fn};
use mbrl_model::{Dynamics, dynamics_fn};

/// x' = A x + B u, with cost x'ᵀ x' + r uᵀ u a step, over a horizon.
#[derive(Debug, Clone)]
pub(crate) struct Lq {
    pub(crate) name: &'static str,
    /// `[S, S]` and `[S, A]`, row by row.
    pub(crate) a: Vec<f64>,
    pub(crate) b: Vec<f64>,
    pub(crate) r: f64,
    pub(crate) start: Vec<f64>,
    pub(crate) horizon: usize,
    /// Bounds of every action are ±limit: inactive at the optimum.
    pub(crate) limit: f64,
}

impl Lq {
    /// The three systems of the bar: a double integrator, and random stable systems.
    pub(crate) fn all() -> [Self; 3] {
        [
            Self::double_integrator(),
            Self::random("4 states, 2 inputs", 4, 2, 1),
            Self::random("20 states, 6 inputs", 20, 6, 2),
        ]
    }

    pub(crate) fn double_integrator() -> Self {
        let dt = 0.2;
        Self {
            name: "double integrator",
            a: vec![1.0, dt, 0.0, 1.0],
            b: vec![0.0, dt],
            r: 0.1,
            start: vec![1.0, 0.5],
            horizon: 12,
            limit: 4.5,
        }
    }

    /// A has a spectral radius of 0.9 or less: its largest absolute row sum is scaled to a value that this bounds.
    pub(crate) fn random(name: &'static str, states: usize, inputs: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut a: Vec<f64> = (0..states * states).map(|_| rng.normal_f64()).collect();
        for i in 0..states {
            a[i * states + i] += 2.0 * (states as f64).sqrt();
        }
        let norm = a.chunks(states).map(|row| row.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
        a.iter_mut().for_each(|v| *v *= 0.9 / norm);
        let b = (0..states * inputs).map(|_| 0.5 * rng.normal_f64()).collect();
        let start = (0..states).map(|_| rng.normal_f64()).collect();
        Self { name, a, b, r: 0.1, start, horizon: 12, limit: 2.0 }
    }

    pub(crate) fn states(&self) -> usize {
        self.start.len()
    }

    pub(crate) fn inputs(&self) -> usize {
        self.b.len() / self.states()
    }

    /// A x + B u.
    pub(crate) fn step(&self, x: &[f64], u: &[f64]) -> Vec<f64> {
        let (n, m) = (self.states(), self.inputs());
        let row = |i: usize| {
            (0..n).map(|j| self.a[i * n + j] * x[j]).sum::<f64>()
                + (0..m).map(|j| self.b[i * m + j] * u[j]).sum::<f64>()
        };
        (0..n).map(row).collect()
    }

    /// Cost of actions `[H, A]`, in double precision.
    pub(crate) fn cost(&self, actions: &[f64]) -> f64 {
        let mut x = self.start.clone();
        let mut total = 0.0;
        for u in actions.chunks(self.inputs()) {
            x = self.step(&x, u);
            total += x.iter().map(|v| v * v).sum::<f64>() + self.r * u.iter().map(|v| v * v).sum::<f64>();
        }
        total
    }

    /// The optimal actions `[H, A]` without bounds. The cost is a quadratic of the actions, c + gᵀu + ½ uᵀHu: g and H come of
    /// differences, which are exact for a quadratic, and H u = −g is solved by Cholesky's factors.
    pub(crate) fn optimum(&self) -> Vec<f64> {
        let n = self.horizon * self.inputs();
        let at = |entries: &[(usize, f64)]| {
            let mut u = vec![0.0; n];
            entries.iter().for_each(|&(i, v)| u[i] += v);
            self.cost(&u)
        };
        let zero = at(&[]);
        let single: Vec<f64> = (0..n).map(|i| at(&[(i, 1.0)])).collect();
        let g: Vec<f64> = (0..n).map(|i| (single[i] - at(&[(i, -1.0)])) / 2.0).collect();
        let mut l = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let h = at(&[(i, 1.0), (j, 1.0)]) - single[i] - single[j] + zero;
                let s = h - (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum::<f64>();
                l[i * n + j] = if i == j { s.sqrt() } else { s / l[j * n + j] };
            }
        }
        let mut u = vec![0.0; n];
        for i in 0..n {
            u[i] = (-g[i] - (0..i).map(|k| l[i * n + k] * u[k]).sum::<f64>()) / l[i * n + i];
        }
        for i in (0..n).rev() {
            u[i] = (u[i] - (i + 1..n).map(|k| l[k * n + i] * u[k]).sum::<f64>()) / l[i * n + i];
        }
        u
    }

    pub(crate) fn model(&self, device: &Device) -> impl Dynamics + use<> {
        let (n, m) = (self.states(), self.inputs());
        // Row vectors: x' = x Aᵀ + u Bᵀ.
        let transposed = |v: &[f64], rows: usize, cols: usize| {
            let t: Vec<f32> = (0..cols * rows).map(|i| v[(i % rows) * cols + i / rows] as f32).collect();
            Tensor::<2>::from_data(TensorData::new(t, [cols, rows]), device)
        };
        let (a, b) = (transposed(&self.a, n, n), transposed(&self.b, n, m));
        dynamics_fn(n, m, device, move |s, u| s.matmul(a.clone()) + u.matmul(b.clone()))
    }

    pub(crate) fn reward(&self) -> impl Reward + use<> {
        let r = self.r as f32;
        reward_fn(move |_, u: Tensor<2>, next: Tensor<2>| {
            -(next.square().sum_dim(1) + u.square().sum_dim(1) * r).squeeze_dim::<1>(1)
        })
    }

    pub(crate) fn actions(&self) -> ActionSpace {
        ActionSpace::Box(BoxSpace::symmetric(self.inputs(), self.limit as f32).unwrap())
    }

    pub(crate) fn observation(&self) -> Vec<f32> {
        self.start.iter().map(|&x| x as f32).collect()
    }

    /// How far the cost of planned actions `[H, A]` is above the optimum, as a fraction of it.
    pub(crate) fn excess(&self, planned: &[f32]) -> f64 {
        let planned: Vec<f64> = planned.iter().map(|&u| f64::from(u)).collect();
        self.cost(&planned) / self.cost(&self.optimum()) - 1.0
    }
}

#[test]
fn the_optimum_is_one_and_within_the_bounds() {
    for lq in Lq::all() {
        let best = lq.optimum();
        let largest = best.iter().fold(0.0f64, |m, u| m.max(u.abs()));
        assert!(largest < 0.9 * lq.limit, "{}: an action of {largest}, bounds ±{}", lq.name, lq.limit);
        let least = lq.cost(&best);
        for i in 0..best.len() {
            for h in [-1e-2, 1e-2] {
                let mut other = best.clone();
                other[i] += h;
                // The curvature in each action is at least 2 r, so the cost rises by at least r h².
                assert!(lq.cost(&other) - least > 0.99 * lq.r * h * h, "{}: action {i}", lq.name);
            }
        }
        let idle = lq.cost(&vec![0.0; best.len()]);
        assert!(least < 0.9 * idle, "{}: {least} against {idle} of doing nothing", lq.name);
    }
}
