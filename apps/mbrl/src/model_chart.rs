//! The evaluation of a model as charts, as a picture and as a table.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};
use mbrl_model::{Calibration, ModelEvaluation, StepEvaluation};
use mbrl_policy::write_atomically;

use crate::plot::{Chart, Colour, Key, Legend, Mark, Picture, Points, Size, Style, fixed};

/// Writes a picture: the error over the steps of a roll-out beside two baselines, and the share of observations within the predicted
/// intervals against the nominal share.
pub(crate) fn draw_model(path: &Path, title: &str, evaluation: &ModelEvaluation) -> Result<()> {
    let size = Size::Panel(290.0);
    let (errors, mut legend) = error_chart(size, evaluation);
    let mut charts = vec![("Error after k steps".to_owned(), errors)];
    if let Some((coverage, keys)) = coverage_chart(size, evaluation) {
        charts.push(("Observations within the predicted interval".to_owned(), coverage));
        legend.extend(keys);
    }
    let caption = in_words(evaluation);
    let picture = Picture { title: title.to_owned(), legend, columns: 1, charts, caption };
    write_atomically(path, picture.svg().as_bytes()).context("evaluation of a model")
}

/// Error over steps ahead: averaged over the columns that change, each in units of its standard deviation.
#[derive(Debug, PartialEq)]
pub(crate) struct Errors {
    pub(crate) model: Points,
    /// The error of predicting that nothing changes.
    pub(crate) unchanged: Points,
}

pub(crate) fn errors(evaluation: &ModelEvaluation) -> Errors {
    let over_steps = |figure: fn(&StepEvaluation) -> &[f64]| -> Points {
        evaluation.steps.iter().map(|s| (s.step as f64, evaluation.scaled(figure(s)))).collect()
    };
    Errors { model: over_steps(|s| &s.rmse), unchanged: over_steps(|s| &s.unchanged_rmse) }
}

pub(crate) fn error_chart(size: Size, evaluation: &ModelEvaluation) -> (Chart, Legend) {
    let Errors { model, unchanged } = errors(evaluation);
    let last = model.last().map_or(1.0, |p| p.0);
    let highest = model.iter().chain(&unchanged).map(|p| p.1).filter(|y| y.is_finite()).fold(1.0, f64::max);
    let mut chart = Chart::new(size, "prediction error over steps ahead", "steps ahead", "error / std of the column");
    // From 0 on if there is only one step, which would make an axis without length.
    chart.x_range = Some((0.0, last));
    chart.y_range = Some((0.0, 1.05 * highest));
    chart.hover = model
        .iter()
        .zip(&unchanged)
        .map(|(m, u)| (m.0, format!("{} steps ahead\nmodel {}\nno change {}", m.0, number(m.1), number(u.1))))
        .collect();
    chart.marks = vec![
        Mark::Line(Colour::Muted, Style::Dashed, vec![(0.0, 1.0), (last, 1.0)]),
        Mark::Line(Colour::Series(1), Style::Thick, unchanged.clone()),
        Mark::Line(Colour::Series(0), Style::Thick, model.clone()),
    ];
    if model.len() == 1 {
        chart.marks.push(Mark::Dots(Colour::Series(1), unchanged));
        chart.marks.push(Mark::Dots(Colour::Series(0), model));
    }
    let keys = vec![
        (Key::Line, Colour::Series(0), "model".to_owned()),
        (Key::Line, Colour::Series(1), "predict no change".to_owned()),
        (Key::Dashed, Colour::Muted, "predict the mean of the data".to_owned()),
    ];
    (chart, keys)
}

/// Observed against nominal coverage, averaged over the columns that change: for one step, and for some steps of the roll-outs;
/// `None` if the model predicts no spread.
pub(crate) fn coverage(evaluation: &ModelEvaluation) -> Vec<(String, Points)> {
    let points = |calibration: &Calibration| -> Points {
        let covered = calibration.coverage.iter().map(|level| over_columns(evaluation, level));
        evaluation.levels.iter().copied().zip(covered).collect()
    };
    let one = evaluation.one_step.calibration.iter().map(|c| ("one step, Gaussian".to_owned(), points(c)));
    let count = evaluation.steps.len();
    let mut some: Vec<usize> = [count.div_ceil(4), count].into_iter().filter(|k| *k > 0).collect();
    some.dedup();
    let far = some.into_iter().filter_map(|k| {
        let step = &evaluation.steps[k - 1];
        let name = if step.step == 1 { "1 step".to_owned() } else { format!("{} steps", step.step) };
        step.calibration.as_ref().map(|c| (name + ", particles", points(c)))
    });
    one.chain(far).collect()
}

pub(crate) fn coverage_chart(size: Size, evaluation: &ModelEvaluation) -> Option<(Chart, Legend)> {
    let lines = coverage(evaluation);
    if lines.is_empty() {
        return None;
    }
    let mut chart = Chart::new(size, "observed over nominal coverage", "share that should be inside", "share inside");
    let least = evaluation.levels.iter().copied().fold(1.0, f64::min);
    let from = (10.0 * least - 1e-9).floor() / 10.0 - 0.1;
    let from = from.max(0.0);
    (chart.percent_x, chart.percent_y) = (true, true);
    chart.x_range = Some((from, 1.0));
    chart.y_range = Some((0.0, 1.03));
    chart.marks.push(Mark::Line(Colour::Muted, Style::Dashed, vec![(from, from), (1.0, 1.0)]));
    let mut keys = Vec::new();
    for (i, (name, points)) in lines.into_iter().enumerate() {
        // Not the colours of the errors, which are drawn beside it.
        let colour = Colour::Series(2 + i);
        chart.hover.extend(points.iter().map(|p| {
            let share = |v: f64| fixed(100.0 * v, 0);
            (p.0, format!("{} % should be inside\n{name}: {} %", share(p.0), share(p.1)))
        }));
        chart.marks.push(Mark::Line(colour, Style::Thick, points.clone()));
        chart.marks.push(Mark::Dots(colour, points));
        keys.push((Key::Line, colour, name));
    }
    keys.push((Key::Dashed, Colour::Muted, "as it should be".to_owned()));
    Some((chart, keys))
}

/// What the two charts show, with remarks.
pub(crate) fn in_words(evaluation: &ModelEvaluation) -> String {
    let particles = evaluation.propagation.particles;
    let mut text = format!(
        "Roll-outs under the recorded actions from {} instants, {}. Errors: root mean squared error of the particles' mean, \
         averaged over the columns that change, each in units of its standard deviation.",
        evaluation.steps.first().map_or(0, |step| step.starts),
        if particles == 1 { "1 particle".to_owned() } else { format!("{particles} particles") },
    );
    let lines = coverage(evaluation);
    if lines.is_empty() {
        text.push_str(" The model predicts no spread: there is nothing to calibrate.");
        return text;
    }
    text.push_str(
        " Intervals: the share of observations inside the model's central intervals, over the share that should be; below \
         the dashed line the model is too sure of itself.",
    );
    let noisy = evaluation.one_step.aleatoric_std.iter().flatten().any(|std| *std > 0.0);
    let flat = |points: &Points| points.iter().all(|p| (p.1 - points[0].1).abs() < 0.05);
    if !noisy && lines.iter().skip(1).any(|(_, points)| flat(points)) {
        text.push_str(
            " Flat lines: this model knows no noise, so its particles differ by their member alone. Intervals of all levels \
             then lie between the same few predictions, and hold about the same share.",
        );
    }
    text
}

/// Mean over the columns that change.
fn over_columns(evaluation: &ModelEvaluation, figure: &[f64]) -> f64 {
    let moving = figure.iter().zip(&evaluation.column_std).filter(|(_, std)| **std > 0.0);
    let (sum, count) = moving.fold((0.0, 0.0), |(sum, count), (f, _)| (sum + f, count + 1.0));
    sum / count
}

/// The one-step figures of each column, and the figures of roll-outs over all columns. `columns` are the names, `[O]`.
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

/// Columns as wide as their widest entry: the first left-aligned, the others right-aligned.
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

/// Four significant digits, with an exponent if there would be many zeros.
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
    use crate::plot::tests::{Read, assert_near};

    /// An oscillator under a random force, observed together with a column that never changes.
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
        assert!(
            ["predict no change", "20 steps, particles", "oscillator", "share inside"].iter().all(|t| svg.contains(t))
        );
        let text = table(&found, &names);
        // Heads, three columns; heads, k = 1, 2, 5, 10 and 20; two lines above them and an empty one.
        assert_eq!(text.lines().count(), 2 + 3 + 1 + 2 + 5, "{text}");
        assert!(text.contains("in 95 %") && text.contains("speed") && !text.contains("NaN"), "{text}");

        // A model without spread; episodes too short for the horizon; a single step.
        let model = dynamics_fn(3, 1, &Device::flex(), |s, _| s);
        for horizon in [1, 100] {
            let config = EvaluateConfig { horizon, ..EvaluateConfig::default() };
            let found = evaluate(&model, &data(2), &config, &mut Rng::new(0)).unwrap();
            draw_model(&path, "given", &found).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().contains("predict no change"));
            assert!(in_words(&found).contains("The model predicts no spread"));
            assert!(table(&found, &[]).contains("obs_2"));
        }
    }

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let text = [0.0, 1.0, -0.012_345, 123.456, 98_765.4, 1e-5, 3e7, f64::NAN].map(number);
        assert_eq!(text, ["0", "1.000", "-0.0123", "123.5", "98765", "1.00e-5", "3.00e7", "NaN"]);
    }

    /// An episode of s' = s + a beside a constant column, and a model that applies only half of the action: after k
    /// steps its error is k/2, and that of "no change" is k.
    fn half() -> ModelEvaluation {
        let mut data = Replay::new(2, 1, 10).unwrap();
        for t in 0..4_u8 {
            let s = f32::from(t);
            data.push(&Transition {
                obs: vec![s, 5.0],
                action: vec![1.0],
                reward: 0.0,
                next_obs: vec![s + 1.0, 5.0],
                terminated: false,
                truncated: t == 3,
            })
            .unwrap();
        }
        let shift = |s, a: burn::tensor::Tensor<2>| s + burn::tensor::Tensor::cat(vec![a.clone() * 0.5, a * 0.0], 1);
        let model = dynamics_fn(2, 1, &Device::flex(), shift);
        let config = EvaluateConfig { horizon: 4, ..EvaluateConfig::default() };
        evaluate(&model, &data, &config, &mut Rng::new(0)).unwrap()
    }

    #[test]
    fn errors_are_those_of_the_model_in_units_of_the_column() {
        let found = half();
        // Standard deviation of 1, 2, 3, 4.
        let std = 1.25_f64.sqrt();
        let line = |of: f64| -> Points { (1..=4).map(|k| (f64::from(k), of * f64::from(k) / std)).collect() };
        let Errors { model, unchanged } = errors(&found);
        assert_near(&model, &line(0.5), (0.0, 1e-6));
        assert_near(&unchanged, &line(1.0), (0.0, 1e-6));
        let svg = error_chart(Size::Small, &found).0.svg();
        let read = Read::new(&svg, false, false);
        assert_near(&read.line("line thick c0"), &line(0.5), (0.01, 0.01));
        assert_near(&read.line("line thick c1"), &line(1.0), (0.01, 0.01));
        assert_near(&read.line("line dashed muted"), &[(0.0, 1.0), (4.0, 1.0)], (0.01, 0.01));
    }

    #[test]
    fn coverage_is_drawn_as_it_was_found() {
        let mut found = half();
        assert!(coverage_chart(Size::Small, &found).is_none() && in_words(&found).contains("no spread"));
        // The constant column is left out of the mean.
        let with = |shares: [f64; 4]| {
            Some(Calibration {
                coverage: shares.map(|share| vec![share, 1.0]).to_vec(),
                width: vec![vec![1.0; 2]; 4],
                nll: vec![0.0; 2],
                std: vec![1.0; 2],
            })
        };
        found.one_step.calibration = with([0.3, 0.4, 0.6, 0.7]);
        found.steps[0].calibration = with([0.31; 4]);
        found.steps[3].calibration = with([0.2, 0.5, 0.8, 0.9]);
        let line = |shares: [f64; 4]| -> Points { found.levels.iter().copied().zip(shares).collect() };
        let lines = coverage(&found);
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["one step, Gaussian", "1 step, particles", "4 steps, particles"]);
        assert_eq!(lines[2].1, line([0.2, 0.5, 0.8, 0.9]));
        let svg = coverage_chart(Size::Small, &found).unwrap().0.svg();
        let read = Read::new(&svg, false, false);
        assert_near(&read.line("line thick c2"), &line([0.3, 0.4, 0.6, 0.7]), (0.01, 0.01));
        assert_near(&read.line("line thick c4"), &line([0.2, 0.5, 0.8, 0.9]), (0.01, 0.01));
        // A flat line is explained if each member of the model is certain.
        assert!(in_words(&found).contains("Flat lines"));
        found.one_step.aleatoric_std = Some(vec![0.1, 0.0]);
        assert!(!in_words(&found).contains("Flat lines"));
    }

    #[test]
    fn some_of_many_steps() {
        assert_eq!((1..=70).filter(|k| tells(*k, 70)).collect::<Vec<_>>(), [1, 2, 5, 10, 20, 50, 70]);
    }
}
