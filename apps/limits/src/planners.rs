//! Horizon × action dimension × planner, with an equal budget of model steps.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};
use mbrl_plan::{
    Aggregate, CemConfig, GradientConfig, IcemConfig, MppiConfig, PlannerConfig, Problem, RandomShootingConfig,
    Refinement,
};
use plotters::prelude::*;
use rayon::prelude::*;

use crate::{drawing, median};

/// Sequences that a plan may score, gradients counted as two.
const BUDGET: usize = 2_000;
/// Control period (s), and the weight of a squared force.
const DT: f64 = 0.2;
const EFFORT: f64 = 0.1;

/// The planners, in the order of the panels, for one horizon.
fn planners(horizon: usize) -> [(&'static str, PlannerConfig); 5] {
    let (iterations, population) = (10, BUDGET / 10);
    let elites = population / 10;
    let random = RandomShootingConfig { horizon, population: BUDGET, ..RandomShootingConfig::default() };
    // Nothing but the budget ends it.
    let variance_stop = 0.0;
    let cem = CemConfig { horizon, population, iterations, elites, variance_stop, ..CemConfig::default() };
    // Populations that do not shrink, for the same budget as CEM's. The best forces fade within some steps: of the authors'
    // exponents the least suits them best.
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
    // Four starts, and twice the price for value and gradient.
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
/// The carts do not touch each other, so the optimum is that of one cart, by Riccati's recursion, for each of them.
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

    /// Cost to go of one cart: xᵀPx, less the cost of the state that it starts from.
    fn optimum(&self) -> f64 {
        let mut p = [[0.0; 2]; 2];
        for _ in 0..self.horizon {
            // q: the state's own cost and what follows; then one step back.
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

    /// The share of what can be gained over doing nothing that one plan gains: 1 is the optimum, 0 is nothing.
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
    println!("share of the possible gain that one plan of {BUDGET} sequences reaches (median of {seeds} seeds)");
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
                let gain = median(gains);
                row.push_str(&format!("{gain:>7.3}"));
                cells.push((name, horizon, d, gain));
            }
            println!("{row}");
        }
    }
    draw(path, &names, horizons, dimensions, &cells)?;
    println!("picture: {}", path.display());
    Ok(())
}

/// Name of the planner, horizon, dimensions, gain.
type Cell = (&'static str, usize, usize, f64);

fn draw(path: &Path, names: &[&'static str], horizons: &[usize], dimensions: &[usize], cells: &[Cell]) -> Result<()> {
    let area = SVGBackend::new(path, (1500, 380)).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    let area = area
        .titled(
            &format!("share of the possible gain that one plan reaches, {BUDGET} sequences each; below 0: worse than no force"),
            ("sans-serif", 20),
        )
        .map_err(drawing)?;
    for (panel, name) in area.split_evenly((1, names.len())).iter().zip(names) {
        let (columns, rows) = (dimensions.len() as f64, horizons.len() as f64);
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 18))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(45)
            .build_cartesian_2d(0.0..columns, 0.0..rows)
            .map_err(drawing)?;
        let at = |x: &f64, values: &[usize]| {
            values.get(*x as usize).filter(|_| (x.fract() - 0.5).abs() < 1e-6).map(usize::to_string).unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(2 * dimensions.len() + 1)
            .y_labels(2 * horizons.len() + 1)
            .x_label_formatter(&|x| at(x, dimensions))
            .y_label_formatter(&|y| at(y, horizons))
            .x_desc("action dimensions")
            .y_desc("horizon (steps)")
            .axis_desc_style(("sans-serif", 14))
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(drawing)?;
        for (_, horizon, d, gain) in cells.iter().filter(|cell| cell.0 == *name) {
            let x = dimensions.iter().position(|v| v == d).unwrap_or_default() as f64;
            let y = horizons.iter().position(|v| v == horizon).unwrap_or_default() as f64;
            // From pale to dark blue.
            let share = gain.clamp(0.0, 1.0).powi(3);
            let mix = |from: f64, to: f64| (from + (to - from) * share) as u8;
            let colour = RGBColor(mix(247.0, 8.0), mix(251.0, 69.0), mix(255.0, 148.0));
            chart.draw_series([Rectangle::new([(x, y), (x + 1.0, y + 1.0)], colour.filled())]).map_err(drawing)?;
            let ink = if share > 0.5 { &WHITE } else { &BLACK };
            let style = ("sans-serif", 13).into_font().color(ink).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Center,
            ));
            chart.draw_series([Text::new(format!("{gain:.2}"), (x + 0.5, y + 0.5), style)]).map_err(drawing)?;
        }
    }
    area.present().map_err(drawing)
}
