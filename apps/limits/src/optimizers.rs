//! First against zeroth order: evaluations to reach a tolerance, against dimension.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use mbrl_env::Rng;
use mbrl_plan::{
    CemConfig, IcemConfig, MppiConfig, RandomShootingConfig,
    optimize::{AscendConfig, Found, Objective, Region, Stop, ascend, search},
};
use plotters::prelude::*;
use rayon::prelude::*;

use crate::{drawing, median};

/// No more evaluations than this.
const BUDGET: u64 = 300_000;
/// The loss must fall to this.
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

    /// The search begins somewhere in [−2, 2]^D: on the diagonal, where all minima are, steps of equal length in all dimensions
    /// would lead straight to them. In units of 4, the minimum is about one of the standard deviations away that samplers begin
    /// with. Further away they would shrink before they get there.
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

/// Evaluations that one method needs; `None` where the budget does not do.
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
    // Populations grow with the dimension, as all of these need; nothing but `stop` ends the search.
    let (population, iterations) = (400 + 4 * dimensions, usize::MAX);
    let elites = population / 5;
    let found = match method {
        Method::Random => {
            let config = RandomShootingConfig { iterations, ..RandomShootingConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Cem => {
            // Smoothed as much as iCEM.
            let config = CemConfig { population, elites, iterations, alpha: 0.5, ..CemConfig::for_search() };
            search(&mut config.sampler(dimensions)?, objective, region, stop, rng)
        }
        Method::Icem => {
            // Populations that do not shrink, as those of the others.
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
            let mut points = Vec::new();
            for &d in dimensions {
                let counts: Vec<Option<u64>> = (0..seeds)
                    .into_par_iter()
                    .map(|seed| evaluations(method, function, d, seed))
                    .collect::<Result<_>>()?;
                // A seed that does not arrive counts as infinity.
                let middle = median(counts.iter().map(|c| c.map_or(f64::INFINITY, |c| c as f64)).collect());
                if middle.is_finite() {
                    points.push((d as f64, middle));
                }
            }
            let numbers: Vec<String> = points.iter().map(|(d, n)| format!("{d}: {n:.0}")).collect();
            println!("  {:<28} {}", method.name(), numbers.join("  "));
            curves.push((function, method, points));
        }
    }
    draw(path, &curves)?;
    println!("picture: {}", path.display());
    Ok(())
}

type Curve = (Function, Method, Vec<(f64, f64)>);

fn draw(path: &Path, curves: &[Curve]) -> Result<()> {
    let area = SVGBackend::new(path, (1260, 460)).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    for (panel, function) in area.split_evenly((1, 3)).iter().zip(Function::ALL) {
        let mut chart = ChartBuilder::on(panel)
            .caption(function.name(), ("sans-serif", 20))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(75)
            .build_cartesian_2d((1.8f64..230.0).log_scale(), (10f64..BUDGET as f64 * 1.5).log_scale())
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .x_desc(format!("dimensions (no point: not within {BUDGET})"))
            .y_desc(format!("evaluations to a loss of {TOLERANCE}"))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .light_line_style(BLACK.mix(0.05))
            .draw()
            .map_err(drawing)?;
        for (_, method, points) in curves.iter().filter(|(f, _, _)| *f as usize == function as usize) {
            let colour = Palette99::pick(*method as usize).to_rgba();
            let series =
                chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2))).map_err(drawing)?;
            series
                .label(method.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, colour.filled()))).map_err(drawing)?;
        }
        if matches!(function, Function::Quadratic) {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .label_font(("sans-serif", 13))
                .background_style(WHITE.mix(0.85))
                .draw()
                .map_err(drawing)?;
        }
    }
    area.present().map_err(drawing)
}
