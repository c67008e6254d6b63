//! First-order against zeroth-order methods: evaluations to reach a tolerance, over the dimension.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use mbrl_env::Rng;
use mbrl_plan::{
    CemConfig, IcemConfig, MppiConfig, RandomShootingConfig,
    optimize::{AscendConfig, Found, Objective, Region, Stop, ascend, search},
};
use rayon::prelude::*;

use crate::{
    counted, median,
    plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style},
};

/// Maximum number of evaluations.
const BUDGET: u64 = 300_000;
/// The loss to reach.
const TOLERANCE: f32 = 1e-2;

/// A loss with its minimum, 0, at 0.5 in all dimensions, or at 1 for Rosenbrock's.
#[derive(Debug, Clone, Copy)]
enum Function {
    /// Axes of curvatures from 1 to 100.
    Quadratic,
    /// A curved valley, from 2 dimensions on.
    Rosenbrock,
    /// A parabola with a grid of local minima.
    Rastrigin,
}

impl Function {
    const ALL: [Self; 3] = [Self::Quadratic, Self::Rosenbrock, Self::Rastrigin];

    fn name(self) -> &'static str {
        match self {
            Self::Quadratic => "quadratic, condition 100",
            Self::Rosenbrock => "Rosenbrock",
            Self::Rastrigin => "Rastrigin",
        }
    }

    /// Losses `[K]` of parameters `[K, D]`.
    fn loss(self, x: Tensor<2>) -> Tensor<1> {
        let [_, d] = x.dims();
        let sum = |x: Tensor<2>| x.sum_dim(1).squeeze_dim::<1>(1);
        match self {
            Self::Quadratic => {
                let curvature: Vec<f32> = (0..d).map(|i| 100f32.powf(i as f32 / (d - 1) as f32)).collect();
                let curvature = Tensor::<1>::from_floats(curvature.as_slice(), &x.device()).unsqueeze::<2>();
                sum((x - 0.5).square() * curvature)
            }
            Self::Rosenbrock => {
                let (now, next) = (x.clone().narrow(1, 0, d - 1), x.narrow(1, 1, d - 1));
                sum((next - now.clone().square()).square() * 100.0 + (now - 1.0).square())
            }
            Self::Rastrigin => {
                let y = x - 0.5;
                sum(y.clone().square() + ((y * std::f32::consts::TAU).cos().neg() + 1.0) * 10.0)
            }
        }
    }

    /// The search begins at a random point in [−2, 2]^D: from the diagonal, where all minima are, steps of equal length in all dimensions
    /// would lead straight to them. In units of 4, the minimum is about one initial standard deviation of the samplers
    /// away. If it were further away, they would shrink before they get there.
    fn region(dimensions: usize, rng: &mut Rng) -> Region {
        let centre = (0..dimensions).map(|_| rng.uniform(-2.0, 2.0)).collect();
        Region { centre, scale: vec![4.0; dimensions], bounded: false, device: Device::flex() }
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Random,
    Cem,
    Icem,
    Mppi,
    Adam,
}

impl Method {
    const ALL: [Self; 5] = [Self::Random, Self::Cem, Self::Icem, Self::Mppi, Self::Adam];

    fn name(self) -> &'static str {
        match self {
            Self::Random => "random search",
            Self::Cem => "CEM",
            Self::Icem => "iCEM",
            Self::Mppi => "MPPI",
            Self::Adam => "gradients (Adam, 8 starts)",
        }
    }
}

/// Number of evaluations that one method needs; `None` if the budget does not suffice.
fn evaluations(method: Method, function: Function, dimensions: usize, seed: u64) -> Result<Option<u64>> {
    let rng = &mut Rng::new(seed);
    let region = Function::region(dimensions, rng);
    let stop = Stop { evaluations: BUDGET, value: -TOLERANCE };
    let objective = move |x: Tensor<2>| -function.loss(x);
    let found = best(method, &objective, &region, stop, dimensions, rng)?;
    Ok((found.value >= stop.value).then_some(found.evaluations))
}

fn best(
    method: Method,
    objective: &impl Objective,
    region: &Region,
    stop: Stop,
    dimensions: usize,
    rng: &mut Rng,
) -> Result<Found> {
    // Populations grow with the dimension, as all of these methods need; only `stop` ends the search.
    let (population, iterations) = (400 + 4 * dimensions, usize::MAX);
    let elites = population / 5;
    let found = match method {
        Method::Random => {
            let config = RandomShootingConfig { iterations, ..RandomShootingConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Cem => {
            // Slow cooling: otherwise the Gaussian shrinks before it has moved along Rosenbrock's valley, and stays where it is.
            let config = CemConfig { population, elites, iterations, alpha: 0.8, ..CemConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Icem => {
            // Populations that do not shrink, as for the others.
            let config =
                IcemConfig { population, elites, iterations, population_decay: 1.0, ..IcemConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Mppi => {
            let config = MppiConfig { population, iterations, ..MppiConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Adam => ascend(objective, region, &AscendConfig::default(), stop, rng),
    };
    Ok(found?)
}

pub(crate) fn run(path: &Path, quick: bool) -> Result<()> {
    let dimensions: &[usize] = if quick { &[2, 5, 10] } else { &[2, 5, 10, 20, 50, 100, 200] };
    let seeds = if quick { 1 } else { 5 };
    println!(
        "evaluations until the loss is {TOLERANCE} (median of {seeds} seeds, at most {BUDGET}; nothing: not reached)"
    );
    let mut curves = Vec::new();
    for function in Function::ALL {
        println!("{}", function.name());
        for method in Method::ALL {
            let mut points = Points::new();
            let mut missed = None;
            for &d in dimensions {
                let counts: Vec<Option<u64>> = (0..seeds)
                    .into_par_iter()
                    .map(|seed| evaluations(method, function, d, seed))
                    .collect::<Result<_>>()?;
                // A seed that does not reach the tolerance counts as infinity.
                let middle = median(counts.iter().map(|c| c.map_or(f64::INFINITY, |c| c as f64)).collect());
                if middle.is_finite() {
                    points.push((d as f64, middle));
                } else if missed.is_none() {
                    missed = Some(d as f64);
                }
            }
            let numbers: Vec<String> = points.iter().map(|(d, n)| format!("{d}: {n:.0}")).collect();
            println!("  {:<28} {}", method.name(), numbers.join("  "));
            curves.push(Curve { function, method, points, missed });
        }
    }
    fs::write(path, picture(&curves, seeds).svg()).with_context(|| path.display().to_string())?;
    println!("picture: {}", path.display());
    Ok(())
}

struct Curve {
    function: Function,
    method: Method,
    /// Dimensions and evaluations.
    points: Points,
    /// The first number of dimensions for which the budget does not suffice.
    missed: Option<f64>,
}

fn picture(curves: &[Curve], seeds: u64) -> Picture {
    let charts = Function::ALL.into_iter().map(|function| {
        let alt = format!("evaluations over dimensions, {}", function.name());
        let mut chart = Chart::new(Size::Panel(250.0), alt, "dimensions", "evaluations");
        (chart.log_x, chart.log_y) = (true, true);
        chart.x_range = Some((1.8, 230.0));
        chart.y_range = Some((10.0, 1.5 * BUDGET as f64));
        for curve in curves.iter().filter(|curve| curve.function as usize == function as usize) {
            let colour = Colour::Series(curve.method as usize);
            chart.marks.push(Mark::Line(colour, Style::Thick, curve.points.clone()));
            chart.marks.push(Mark::Dots(colour, curve.points.clone()));
            if let Some(d) = curve.missed {
                let end = (d, BUDGET as f64);
                let from = curve.points.iter().copied().rfind(|p| p.0 < d);
                chart.marks.push(Mark::Line(colour, Style::Dashed, from.into_iter().chain([end]).collect()));
                chart.marks.push(Mark::Crosses(colour, vec![end]));
            }
        }
        (function.name().to_owned(), chart)
    });
    let mut legend: Vec<_> = Method::ALL
        .into_iter()
        .map(|method| (Key::Line, Colour::Series(method as usize), method.name().to_owned()))
        .collect();
    legend.push((Key::Cross, Colour::Muted, format!("not within {BUDGET} evaluations")));
    Picture {
        title: format!("Evaluations until the loss is {TOLERANCE}"),
        legend,
        columns: 1,
        charts: charts.collect(),
        caption: format!(
            "Median of {}: one that does not arrive counts as infinitely many, of which there is no mean. A gradient with \
             its value counts as two. Samplers: populations of 400 + 4 per dimension, a fifth of them elites; CEM with \u{3b1} = 0.8. Searches \
             begin somewhere in [\u{2212}2, 2] in each dimension.",
            counted(seeds)
        ),
    }
}
