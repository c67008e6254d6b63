//! The evaluation of a model as a picture and as a table.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result, anyhow};
use mbrl_model::{Calibration, ModelEvaluation, StepEvaluation};
use mbrl_policy::write_atomically;
use plotters::{coord::Shift, element::DashedPathElement, prelude::*};

use crate::chart::{BLUE, ORANGE};

const SIZE: (u32, u32) = (1000, 500);
const GREY: RGBColor = RGBColor(110, 110, 110);
/// From few steps to many.
const SHADES: [RGBColor; 4] =
    [RGBColor(253, 174, 97), RGBColor(116, 173, 209), RGBColor(49, 104, 170), RGBColor(8, 29, 88)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Draws the error over the steps of a roll-out beside two yardsticks, and how many observations the predicted intervals
/// hold against how many they should.
pub(crate) fn draw_model(path: &Path, title: &str, evaluation: &ModelEvaluation) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, evaluation).map_err(|error| anyhow!("drawing the evaluation of a model: {error}"))?;
    write_atomically(path, svg.as_bytes()).context("evaluation of a model")
}

fn draw(svg: &mut String, title: &str, evaluation: &ModelEvaluation) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.titled(title, ("sans-serif", 24))?;
    let (left, right) = panels.split_horizontally(510);
    errors(&left, evaluation)?;
    calibration(&right, evaluation)?;
    area.present()
}

/// Error over steps, mean over columns, each in units of its standard deviation.
fn errors(area: &Area<'_>, evaluation: &ModelEvaluation) -> Drawn {
    let over_steps = |figure: fn(&StepEvaluation) -> &[f64]| {
        let points = evaluation.steps.iter().map(|s| (s.step as f64, evaluation.scaled(figure(s))));
        // A start is known.
        std::iter::once((0.0, 0.0)).chain(points).filter(|p| p.1.is_finite()).collect::<Vec<_>>()
    };
    let model = over_steps(|s| &s.rmse);
    let unchanged = over_steps(|s| &s.unchanged_rmse);
    let horizon = evaluation.steps.len().max(1) as f64;
    let highest = model.iter().chain(&unchanged).fold(1.0, |high: f64, p| high.max(p.1));
    let mut chart = ChartBuilder::on(area)
        .caption("error after k steps", ("sans-serif", 18))
        .margin(12)
        // The last label of the x axis is centred on the edge.
        .margin_right(20)
        .x_label_area_size(45)
        .y_label_area_size(70)
        // The legend lies above the highest point.
        .build_cartesian_2d(0.0..horizon, 0.0..1.4 * highest)?;
    chart
        .configure_mesh()
        .x_desc("k, steps predicted")
        .y_desc("error / standard deviation of the column")
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 15))
        .x_labels(evaluation.steps.len().clamp(2, 10))
        .max_light_lines(1)
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|x| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() })
        .y_label_formatter(&|y| tick(*y))
        .draw()?;
    chart
        .draw_series(DashedLineSeries::new([(0.0, 1.0), (horizon, 1.0)], 6, 4, GREY.stroke_width(2)))?
        .label("predict the mean of the data")
        .legend(|(x, y)| DashedPathElement::new([(x, y), (x + 20, y)], 6, 4, GREY.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(unchanged, ORANGE.stroke_width(2)))?
        .label("predict no change")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], ORANGE.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(model, BLUE.stroke_width(2).filled()).point_size(3))?
        .label("model")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE.stroke_width(2)));
    legend(&mut chart)
}

/// Observed against nominal coverage, mean over columns, after some numbers of steps.
fn calibration(area: &Area<'_>, evaluation: &ModelEvaluation) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("observations within the predicted interval", ("sans-serif", 18))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let percent = |x: &f64| format!("{:.0} %", 100.0 * x);
    chart
        .configure_mesh()
        .x_desc("should be within")
        .y_desc("are within")
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 15))
        .x_labels(6)
        .y_labels(6)
        .max_light_lines(1)
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&percent)
        .y_label_formatter(&percent)
        .draw()?;
    chart
        .draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], GREY.stroke_width(1)))?
        .label("as it should be")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], GREY.stroke_width(1)));
    let shown = some_steps(evaluation.steps.len());
    for (step, shade) in shown.into_iter().zip(SHADES) {
        let Some(calibration) = &evaluation.steps[step - 1].calibration else { continue };
        let covered = calibration.coverage.iter().map(|level| over_columns(evaluation, level));
        let points: Vec<(f64, f64)> =
            evaluation.levels.iter().copied().zip(covered).filter(|p| p.1.is_finite()).collect();
        chart
            .draw_series(LineSeries::new(points, shade.stroke_width(2).filled()).point_size(4))?
            .label(if step == 1 { "after 1 step".into() } else { format!("after {step} steps") })
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], shade.stroke_width(2)));
    }
    if evaluation.steps.iter().all(|s| s.calibration.is_none()) {
        let style = ("sans-serif", 16).into_font().color(&GREY);
        chart.draw_series([Text::new("the model predicts no spread", (0.05, 0.93), style)])?;
        return Ok(());
    }
    legend(&mut chart)
}

fn legend<'a, 'b: 'a, X, Y>(chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// 1, a quarter, half and all of `steps`, each once.
fn some_steps(steps: usize) -> Vec<usize> {
    let mut some: Vec<usize> =
        [1, steps / 4, steps / 2, steps].into_iter().filter(|k| (1..=steps).contains(k)).collect();
    some.dedup();
    some
}

/// Mean over the columns that change at all.
fn over_columns(evaluation: &ModelEvaluation, figure: &[f64]) -> f64 {
    let moving = figure.iter().zip(&evaluation.column_std).filter(|(_, std)| **std > 0.0);
    let (sum, count) = moving.fold((0.0, 0.0), |(sum, count), (f, _)| (sum + f, count + 1.0));
    sum / count
}

/// The figures of one step for each column, and those of roll-outs over all columns. `columns` are the names, `[O]`.
pub(crate) fn table(evaluation: &ModelEvaluation, columns: &[String]) -> String {
    let one = &evaluation.one_step;
    let levels: Vec<String> =
        evaluation.levels.iter().map(|l| format!("in {} %", (1000.0 * l).round() / 10.0)).collect();
    let covered = |c: Option<&Calibration>, over: &dyn Fn(&[f64]) -> f64| -> Vec<String> {
        (0..levels.len()).map(|l| c.map_or("-".into(), |c| format!("{:.1} %", 100.0 * over(&c.coverage[l])))).collect()
    };
    let maybe = |value: Option<f64>| value.map_or("-".into(), number);

    let mut head: Vec<String> =
        ["column", "error", "no change", "std of data", "aleatoric", "epistemic", "nll"].map(String::from).to_vec();
    head.extend(levels.iter().cloned());
    let mut rows = vec![head];
    for (d, &std) in evaluation.column_std.iter().enumerate() {
        let calibration = one.calibration.as_ref();
        let mut row = vec![
            columns.get(d).cloned().unwrap_or_else(|| format!("obs_{d}")),
            number(one.rmse[d]),
            number(one.unchanged_rmse[d]),
            number(std),
            maybe(one.aleatoric_std.as_ref().map(|s| s[d])),
            maybe(one.epistemic_std.as_ref().map(|s| s[d])),
            maybe(calibration.map(|c| c.nll[d])),
        ];
        row.extend(covered(calibration, &|c| c[d]));
        rows.push(row);
    }
    let mut text = format!("one step ({} transitions)\n", one.rows);
    text.push_str(&aligned(&rows));

    let rewards = evaluation.steps.iter().any(|s| s.reward_rmse.is_some());
    let mut head: Vec<String> = ["steps", "starts", "error", "no change", "predicted std"].map(String::from).to_vec();
    head.extend(levels.iter().cloned());
    head.extend(rewards.then(|| "reward error".into()));
    let mut rows = vec![head];
    for step in &evaluation.steps {
        if !tells(step.step, evaluation.steps.len()) {
            continue;
        }
        let calibration = step.calibration.as_ref();
        let mut row = vec![
            step.step.to_string(),
            step.starts.to_string(),
            number(evaluation.scaled(&step.rmse)),
            number(evaluation.scaled(&step.unchanged_rmse)),
            maybe(calibration.map(|c| evaluation.scaled(&c.std))),
        ];
        row.extend(covered(calibration, &|c| over_columns(evaluation, c)));
        row.extend(rewards.then(|| maybe(step.reward_rmse)));
        rows.push(row);
    }
    let particles = evaluation.propagation.particles;
    let particles = if particles == 1 { "1 particle".into() } else { format!("{particles} particles") };
    // Writing into a string cannot fail.
    let _ = writeln!(text, "\nroll-outs ({particles}; mean over columns, in standard deviations of each)");
    text.push_str(&aligned(&rows));
    if rewards {
        let _ = writeln!(text, "standard deviation of the data's rewards: {}", number(evaluation.reward_std));
    }
    text
}

/// 1, 2, 5, 10, 20, 50, …, and the last.
fn tells(step: usize, steps: usize) -> bool {
    let mut leading = step;
    while leading >= 10 && leading.is_multiple_of(10) {
        leading /= 10;
    }
    step == steps || [1, 2, 5].contains(&leading)
}

/// Columns as wide as their widest entry: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "  {:<1$}", row[0], width(0));
        row.iter().enumerate().skip(1).for_each(|(c, entry)| text.push_str(&format!("  {entry:>0$}", width(c))));
        text.push('\n');
    }
    text
}

/// A label of an axis, without the zeros at its end.
fn tick(value: f64) -> String {
    if value < 1e4 { format!("{}", (1e6 * value).round() / 1e6) } else { format!("{value:.0e}") }
}

/// Four digits that matter, with an exponent where there would be many zeros.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if !(1e-3..1e5).contains(&v) => format!("{value:.2e}"),
        v => format!("{value:.0$}", (3 - v.log10().floor() as i32).clamp(0, 4) as usize),
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::{Replay, Rng, Transition};
    use mbrl_model::{Dataset, Device, EnsembleConfig, EvaluateConfig, FitConfig, dynamics_fn, evaluate, fit};

    use super::*;

    /// An oscillator under a random force, observed with a column that never changes.
    fn data(episodes: u64) -> Replay {
        let mut data = Replay::new(3, 1, 10_000).unwrap();
        for episode in 0..episodes {
            let mut rng = Rng::new(episode);
            let mut s = [rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)];
            for t in 0..60 {
                let a = rng.uniform(-1.0, 1.0);
                let speed = 0.98 * s[1] + 0.2 * (a - s[0].sin()) + 0.02 * rng.normal();
                let next = [s[0] + 0.2 * speed, speed];
                data.push(&Transition {
                    obs: vec![s[0], s[1], 3.0],
                    action: vec![a],
                    reward: 0.0,
                    next_obs: vec![next[0], next[1], 3.0],
                    terminated: false,
                    truncated: t == 59,
                })
                .unwrap();
                s = next;
            }
        }
        data
    }

    fn learned() -> ModelEvaluation {
        let mut rng = Rng::new(0);
        let train = data(20);
        let c = train.columns();
        let data_set = Dataset::new(c.obs.into_owned(), c.actions.into_owned(), c.next_obs.into_owned(), 3, 1).unwrap();
        let config = EnsembleConfig { hidden: vec![32, 32], ..EnsembleConfig::default() };
        let mut model = config.init(3, 1, &Device::flex(), &mut rng).unwrap();
        fit(
            &mut model,
            &data_set,
            &FitConfig { max_epochs: 15, holdout: 0.0, batch_size: 64, ..FitConfig::default() },
            &mut rng,
        )
        .unwrap();
        evaluate(&model, &data(40), &EvaluateConfig::default(), &mut rng).unwrap()
    }

    #[test]
    fn pictures_and_tables_of_learned_and_given_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evaluation.svg");
        let names = ["angle", "speed", "goal"].map(String::from);

        let found = learned();
        draw_model(&path, "oscillator", &found).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(["predict no change", "after 20 steps", "oscillator", "are within"].iter().all(|t| svg.contains(t)));
        let text = table(&found, &names);
        // Heads, three columns; heads, k = 1, 2, 5, 10 and 20; two lines over them and an empty one.
        assert_eq!(text.lines().count(), 2 + 3 + 1 + 2 + 5, "{text}");
        assert!(text.contains("in 95 %") && text.contains("speed") && !text.contains("NaN"), "{text}");

        // A model without spread; episodes too short for the horizon; a single step.
        let model = dynamics_fn(3, 1, &Device::flex(), |s, _| s);
        for horizon in [1, 100] {
            let config = EvaluateConfig { horizon, ..EvaluateConfig::default() };
            let found = evaluate(&model, &data(2), &config, &mut Rng::new(0)).unwrap();
            draw_model(&path, "given", &found).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().contains("the model predicts no spread"));
            assert!(table(&found, &[]).contains("obs_2"));
        }
    }

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let text = [0.0, 1.0, -0.012_345, 123.456, 98_765.4, 1e-5, 3e7, f64::NAN].map(number);
        assert_eq!(text, ["0", "1.000", "-0.0123", "123.5", "98765", "1.00e-5", "3.00e7", "NaN"]);
    }

    #[test]
    fn some_of_many_steps() {
        assert_eq!(some_steps(20), [1, 5, 10, 20]);
        assert_eq!(some_steps(3), [1, 3]);
        assert_eq!((some_steps(1), some_steps(0)), (vec![1], vec![]));
        assert_eq!((1..=70).filter(|k| tells(*k, 70)).collect::<Vec<_>>(), [1, 2, 5, 10, 20, 50, 70]);
    }
}
