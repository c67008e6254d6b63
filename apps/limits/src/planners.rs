//! Horizon × action dimension × planner, with an equal budget of model steps.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};
use mbrl_plan::{
    Aggregate, CemConfig, GradientConfig, IcemConfig, MppiConfig, PlannerConfig, Problem, RandomShootingConfig,
    Refinement,
};
use rayon::prelude::*;

use crate::counted;
use crate::plot::{Chart, Colour, Estimate, Key, Mark, Picture, Points, Size, Style, estimate};

/// Number of sequences that a plan may score; a gradient counts as two.
const BUDGET: usize = 2_000;
/// Control period (s), and the weight of a squared force.
const DT: f64 = 0.2;
const EFFORT: f64 = 0.1;

/// The planners, in the order of the panels, for one horizon.
fn planners(horizon: usize) -> [(&'static str, PlannerConfig); 5] {
    let (iterations, population) = (10, BUDGET / 10);
    let elites = population / 10;
    let random = RandomShootingConfig { horizon, population: BUDGET, ..RandomShootingConfig::default() };
    // Only the budget ends it.
    let variance_stop = 0.0;
    let cem = CemConfig { horizon, population, iterations, elites, variance_stop, ..CemConfig::default() };
    // Populations that do not shrink, for the same budget as CEM's. The best forces fade within a few steps: the smallest of the
    // authors' exponents suits them best.
    let icem = IcemConfig {
        horizon,
        population,
        iterations,
        elites,
        population_decay: 1.0,
        noise_exponent: 0.25,
        ..IcemConfig::default()
    };
    let mppi = MppiConfig { horizon, population, iterations, ..MppiConfig::for_search() };
    // Four starts, and twice the cost for value and gradient.
    let gradient = GradientConfig { horizon, starts: 4, iterations: BUDGET / 8, ..GradientConfig::default() };
    [
        ("random shooting", random.into()),
        ("CEM", cem.into()),
        ("iCEM", icem.into()),
        ("MPPI", mppi.into()),
        ("gradient", gradient.into()),
    ]
}

/// A swarm of carts, each to be brought to rest at 0: x' = x + v dt, v' = v + u dt; cost x² + v² + effort · u² per step.
/// The carts do not interact, so the optimum of each is that of a single cart, by Riccati's recursion.
#[derive(Debug)]
struct Swarm {
    start: Vec<[f64; 2]>,
    horizon: usize,
}

impl Swarm {
    fn new(carts: usize, horizon: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let start = (0..carts).map(|_| [rng.uniform_f64(-1.0, 1.0), rng.uniform_f64(-0.5, 0.5)]).collect();
        Self { start, horizon }
    }

    /// Cost-to-go of one cart: xᵀPx, without the cost of its start state.
    fn optimum(&self) -> f64 {
        let mut p = [[0.0; 2]; 2];
        for _ in 0..self.horizon {
            // q: the state's own cost plus the cost that follows; then one step back.
            let q = [[p[0][0] + 1.0, p[0][1]], [p[1][0], p[1][1] + 1.0]];
            let (bq0, bq1) = (DT * q[1][0], DT * q[1][1]);
            let k = [bq0 / (EFFORT + bq1 * DT), (bq0 * DT + bq1) / (EFFORT + bq1 * DT)];
            let qa = [[q[0][0], q[0][0] * DT + q[0][1]], [q[1][0], q[1][0] * DT + q[1][1]]];
            let aqa = [[qa[0][0], qa[0][1]], [DT * qa[0][0] + qa[1][0], DT * qa[0][1] + qa[1][1]]];
            let bqa = [bq0, bq0 * DT + bq1];
            for i in 0..2 {
                for j in 0..2 {
                    p[i][j] = aqa[i][j] - bqa[i] * k[j];
                }
            }
        }
        let cost = |[x, v]: [f64; 2]| x * (p[0][0] * x + p[0][1] * v) + v * (p[1][0] * x + p[1][1] * v);
        self.start.iter().map(|s| cost(*s)).sum()
    }

    /// Cost of actions `[H, carts]`.
    fn cost(&self, actions: &[f32]) -> f64 {
        let mut states = self.start.clone();
        let mut total = 0.0;
        for forces in actions.chunks(states.len()) {
            for (s, u) in states.iter_mut().zip(forces) {
                let u = f64::from(*u);
                *s = [s[0] + DT * s[1], s[1] + DT * u];
                total += s[0] * s[0] + s[1] * s[1] + EFFORT * u * u;
            }
        }
        total
    }

    /// The gain of one plan over doing nothing, as a share of the largest possible gain: 1 is the optimum, 0 is nothing.
    fn gain(&self, planner: &PlannerConfig, seed: u64) -> Result<f64> {
        let carts = self.start.len();
        let device = Device::flex();
        let dt = DT as f32;
        let model = dynamics_fn(2 * carts, carts, &device, move |s: Tensor<2>, u| {
            let (x, v) = (s.clone().narrow(1, 0, carts), s.narrow(1, carts, carts));
            Tensor::cat(vec![x + v.clone() * dt, v + u * dt], 1)
        });
        let reward = reward_fn(|_, u: Tensor<2>, next: Tensor<2>| {
            -(next.square().sum_dim(1) + u.square().sum_dim(1) * EFFORT as f32).squeeze_dim::<1>(1)
        });
        let actions = ActionSpace::Box(BoxSpace::symmetric(carts, 6.0)?);
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let obs: Vec<f32> =
            self.start.iter().map(|s| s[0]).chain(self.start.iter().map(|s| s[1])).map(|v| v as f32).collect();
        let mut planner = planner.init(&actions, Propagation::MEAN, Aggregate::Mean, &Refinement::off())?;
        let planned = planner.plan(&Situation::of(&obs), &problem, &mut Rng::new(seed))?.actions;
        let idle = self.cost(&vec![0.0; planned.len()]);
        Ok((idle - self.cost(&planned)) / (idle - self.optimum()))
    }
}

pub(crate) fn run(path: &Path, quick: bool) -> Result<()> {
    let horizons: &[usize] = if quick { &[5, 20] } else { &[5, 10, 20, 40, 80] };
    let dimensions: &[usize] = if quick { &[1, 5] } else { &[1, 2, 5, 10, 20, 50] };
    let seeds = if quick { 1 } else { 5 };
    println!("share of the possible gain that one plan of {BUDGET} sequences reaches (mean of {seeds} seeds)");
    let mut cells = Vec::new();
    let names = planners(1).map(|(name, _)| name);
    for (which, name) in names.into_iter().enumerate() {
        println!(
            "{name}\n  horizon \\ dimensions {}",
            dimensions.iter().map(|d| format!("{d:>7}")).collect::<String>()
        );
        for &horizon in horizons {
            let (_, planner) = &planners(horizon)[which];
            let mut row = format!("  {horizon:>20} ");
            for &d in dimensions {
                let gains: Vec<f64> = (0..seeds)
                    .into_par_iter()
                    .map(|seed| Swarm::new(d, horizon, seed).gain(planner, seed))
                    .collect::<Result<_>>()?;
                let gain = estimate(&gains).context("no seeds")?;
                row.push_str(&format!("{:>7.3}", gain.mean));
                cells.push(Cell { name, horizon, dimensions: d, gain });
            }
            println!("{row}");
        }
    }
    fs::write(path, picture(&names, horizons, dimensions, &cells, seeds).svg())
        .with_context(|| path.display().to_string())?;
    println!("picture: {}", path.display());
    Ok(())
}

/// The gain of one planner on one problem.
struct Cell {
    name: &'static str,
    horizon: usize,
    dimensions: usize,
    gain: Estimate,
}

fn picture(names: &[&str], horizons: &[usize], dimensions: &[usize], cells: &[Cell], seeds: u64) -> Picture {
    let ends = |values: &[usize]| (values[0] as f64, values[values.len() - 1] as f64);
    let charts = horizons.iter().map(|&horizon| {
        let alt = format!("share of the possible gain over action dimensions, horizon {horizon}");
        let mut chart = Chart::new(Size::Panel(230.0), alt, "action dimensions", "share of the gain");
        let (first, last) = ends(dimensions);
        chart.log_x = true;
        chart.percent_y = true;
        chart.x_range = Some((0.9 * first, 1.1 * last));
        chart.y_range = Some((-0.1, 1.04));
        let level = |y| Mark::Line(Colour::Muted, Style::Dashed, vec![(0.9 * first, y), (1.1 * last, y)]);
        chart.marks.extend([level(0.0), level(1.0)]);
        for (i, name) in names.iter().enumerate() {
            let colour = Colour::Series(i);
            let of = cells.iter().filter(|cell| cell.name == *name && cell.horizon == horizon);
            let band = of.clone().filter_map(|cell| {
                let (low, high) = cell.gain.interval?;
                Some((cell.dimensions as f64, low, high))
            });
            let points: Points = of.clone().map(|cell| (cell.dimensions as f64, cell.gain.mean)).collect();
            chart.marks.push(Mark::Band(colour, band.collect()));
            chart.marks.push(Mark::Line(colour, Style::Thick, points.clone()));
            chart.marks.push(Mark::Dots(colour, points));
        }
        (format!("horizon of {horizon} steps"), chart)
    });
    let mut legend: Vec<_> =
        names.iter().enumerate().map(|(i, name)| (Key::Line, Colour::Series(i), (*name).to_owned())).collect();
    legend.push((Key::Dashed, Colour::Muted, "no force (0 %) and the optimum (100 %)".to_owned()));
    Picture {
        title: "What one plan gains, on a linear-quadratic problem".to_owned(),
        legend,
        columns: 2,
        charts: charts.collect(),
        caption: format!(
            "Carts to be brought to rest, one action dimension each: linear motion, quadratic cost, so the optimum is known exactly \
             (Riccati) and gradients meet no local minimum. Share of what the optimum gains over no force that one plan of {BUDGET} \
             sequences gains, a gradient counted as two; below 0 % it is worse than no force, and cut off. Mean over \
             {}, in the band of its 95 % bootstrap interval.",
            counted(seeds)
        ),
    }
}
