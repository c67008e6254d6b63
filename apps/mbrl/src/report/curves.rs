//! How training went: curves over real steps, and where the time went.

use std::fmt::Write as _;

use super::{
    chart::{Chart, Colour, Mark, Size, Style},
    html::{Key, absent, escape, figure, legend, mean_and_std, number, seconds, table},
    model::GROUND_TRUTH,
    runs::{Group, Run, Times},
};

const STEPS: &str = "real environment steps";
/// Points of a mean curve at most.
const GRID: usize = 400;
/// Up to so many points of a curve are marked one by one.
const FEW: usize = 30;

/// Mean and standard deviation over curves at an x.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    x: f64,
    mean: f64,
    std: f64,
}

/// Where all curves are, from the last beginning to the first end, at every x of any of them; curves run straight between
/// their points. Empty curves are left out.
fn spread(curves: &[Vec<(f64, f64)>]) -> Vec<Spread> {
    let curves: Vec<&Vec<(f64, f64)>> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let from = curves.iter().map(|curve| curve[0].0).fold(f64::NEG_INFINITY, f64::max);
    let to = curves.iter().map(|curve| curve[curve.len() - 1].0).fold(f64::INFINITY, f64::min);
    let mut xs: Vec<f64> = curves.iter().flat_map(|curve| curve.iter().map(|p| p.0)).collect();
    xs.retain(|x| (from..=to).contains(x));
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let every = xs.len().div_ceil(GRID).max(1);
    xs.into_iter()
        .step_by(every)
        .map(|x| {
            let values: Vec<f64> = curves.iter().map(|curve| between(curve, x)).collect();
            let (mean, std) = mean_std(&values);
            Spread { x, mean, std }
        })
        .collect()
}

/// A curve's value at an x that it spans.
fn between(curve: &[(f64, f64)], x: f64) -> f64 {
    let after = curve.partition_point(|p| p.0 < x).min(curve.len() - 1);
    let (right, left) = (curve[after], curve[after.saturating_sub(1)]);
    if right.0 <= x || right.0 <= left.0 {
        return right.1;
    }
    left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0)
}

/// Mean and standard deviation (divided by the number).
pub(super) fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// A group's curves: each seed thin, the mean of several thick in a band of one standard deviation.
fn draw_group(chart: &mut Chart, colour: Colour, name: &str, curves: &[Vec<(f64, f64)>]) {
    let whole: Vec<&Vec<(f64, f64)>> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let told = |x: f64, text: String| (x, format!("step {x}\n{name}: {text}"));
    if whole.is_empty() {
        return;
    }
    if let [curve] = whole[..] {
        chart.marks.push(Mark::Line(colour, Style::Thick, curve.clone()));
        if curve.len() <= FEW {
            chart.marks.push(Mark::Dots(colour, curve.clone()));
        }
        chart.hover.extend(curve.iter().map(|p| told(p.0, number(p.1))));
        return;
    }
    let means = spread(curves);
    let margin = |s: &Spread| (s.x, s.mean - s.std, s.mean + s.std);
    if means.len() > 1 {
        chart.marks.insert(0, Mark::Band(colour, means.iter().map(margin).collect()));
    }
    for curve in &whole {
        chart.marks.push(Mark::Line(colour, Style::Thin, (*curve).clone()));
        if curve.len() == 1 {
            chart.marks.push(Mark::Dots(colour, (*curve).clone()));
        }
    }
    let line: Vec<(f64, f64)> = means.iter().map(|s| (s.x, s.mean)).collect();
    if let [one] = means[..] {
        chart.marks.push(Mark::Whiskers(colour, vec![margin(&one)]));
    }
    if line.len() <= FEW {
        chart.marks.push(Mark::Dots(colour, line.clone()));
    }
    chart.marks.push(Mark::Line(colour, Style::Thick, line));
    let n = whole.len();
    chart.hover.extend(means.iter().map(|s| told(s.x, format!("{} ({n} seeds)", mean_and_std(s.mean, s.std)))));
}

/// A chart over real steps, from the first one on.
fn over_steps(alt: &str, y: &str, groups: &[Series<'_>]) -> Chart {
    let last = groups.iter().flat_map(|(_, group)| &group.runs).map(Run::env_step).max().unwrap_or(0);
    Chart { x_range: Some((0.0, last.max(1) as f64)), ..Chart::new(Size::Full, alt, STEPS, y) }
}

/// What a group is called in legends.
fn named(group: &Group) -> String {
    match group.runs.len() {
        1 => format!("{}, seed {}", group.name, group.seeds()),
        n => format!("{}, {n} seeds", group.name),
    }
}

fn group_keys(groups: &[Series<'_>]) -> Vec<(Key, Colour, String)> {
    groups.iter().map(|(colour, group)| (Key::Line, *colour, named(group))).collect()
}

fn several(groups: &[Series<'_>]) -> bool {
    groups.iter().any(|(_, group)| group.runs.len() > 1)
}

/// A group in the colour that it has all over the page.
type Series<'a> = (Colour, &'a Group);

/// A part for each task, under its name where there are several: figures of different tasks are not comparable.
fn by_task(groups: &[Group], part: impl Fn(&[Series<'_>]) -> String) -> String {
    let mut tasks: Vec<(&str, Vec<Series<'_>>)> = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let (task, series) = (group.experiment().task.as_str(), (Colour::Series(i), group));
        match tasks.iter_mut().find(|(name, _)| *name == task) {
            Some((_, found)) => found.push(series),
            None => tasks.push((task, vec![series])),
        }
    }
    if let [(_, series)] = &tasks[..] {
        return part(series);
    }
    tasks.iter().map(|(task, series)| format!("<h3>{}</h3>\n{}", escape(task), part(series))).collect()
}

const BAND: &str = "Thick: mean over the seeds, in a band of one standard deviation, where all of them have values; thin: single \
                    seeds. ";

/// Returns of training episodes.
pub(super) fn learning(groups: &[Group]) -> String {
    by_task(groups, learning_of)
}

fn learning_of(groups: &[Series<'_>]) -> String {
    let mut chart = over_steps("return of training episodes over real steps", "return of an episode", groups);
    for (colour, group) in groups {
        let curves: Vec<_> = group.runs.iter().map(Run::returns).collect();
        draw_group(&mut chart, *colour, &group.name, &curves);
    }
    if chart.marks.is_empty() {
        return absent("No whole training episode yet.");
    }
    let caption = format!(
        "Undiscounted sum of the rewards of each whole training episode, exploration included. {}",
        if several(groups) { BAND } else { "" }
    );
    figure(&chart.svg(), &legend(&group_keys(groups)), &caption)
}

/// Returns of evaluations.
pub(super) fn evaluation(groups: &[Group]) -> String {
    by_task(groups, evaluation_of)
}

fn evaluation_of(groups: &[Series<'_>]) -> String {
    let mut chart = over_steps("mean return of evaluations over real steps", "mean return", groups);
    for (colour, group) in groups {
        let curves: Vec<_> = group.runs.iter().map(|run| run.points("eval", "eval/return_mean")).collect();
        if let [run] = &group.runs[..] {
            let whiskers = run.evaluations().map(|line| {
                let (mean, std) = (line.get("eval/return_mean"), line.get("eval/return_std"));
                (line.env_step, mean - std, mean + std)
            });
            let whiskers: Vec<_> = whiskers.filter(|w| w.1.is_finite()).collect();
            if !whiskers.is_empty() {
                chart.marks.push(Mark::Whiskers(*colour, whiskers));
            }
        }
        draw_group(&mut chart, *colour, &group.name, &curves);
    }
    if chart.marks.is_empty() {
        return absent("No evaluation: set train.eval_every in the experiment to have them.");
    }
    let single = groups.iter().any(|(_, group)| group.runs.len() == 1);
    let caption = format!(
        "Mean return of whole episodes from fixed start states, nothing learned. {}{}",
        if single { "Bars: one standard deviation over the episodes of an evaluation. " } else { "" },
        if several(groups) { BAND } else { "" }
    );
    figure(&chart.svg(), &legend(&group_keys(groups)), &caption)
}

/// Errors of the model after each fit.
pub(super) fn model_error(groups: &[Group]) -> String {
    by_task(groups, model_error_of)
}

fn model_error_of(groups: &[Series<'_>]) -> String {
    let mut chart =
        over_steps("mean squared error of the model after each fit over real steps", "mean squared error", groups);
    chart.log_y = true;
    for (colour, group) in groups {
        let positive = |run: &Run, key: &str| -> Vec<(f64, f64)> {
            run.points("fit", key).into_iter().filter(|p| p.1 > 0.0).collect()
        };
        let best: Vec<_> = group.runs.iter().map(|run| positive(run, "model/mse_best")).collect();
        let means = spread(&best).iter().map(|s| (s.x, s.mean)).collect();
        let curves: Vec<_> = group.runs.iter().map(|run| positive(run, "model/mse")).collect();
        let before = chart.marks.len();
        draw_group(&mut chart, *colour, &group.name, &curves);
        // A band of deviations reaches below 0, where a logarithmic axis has nothing.
        chart.marks.retain(|mark| !matches!(mark, Mark::Band(..)));
        if chart.marks.len() > before {
            chart.marks.push(Mark::Line(*colour, Style::Dashed, means));
        }
    }
    if chart.marks.is_empty() {
        let learns = groups.iter().any(|(_, group)| group.experiment().agent.learned_model().is_some());
        return absent(if learns { "No fit yet." } else { GROUND_TRUTH });
    }
    let mut keys = group_keys(groups);
    keys.push((Key::Dashed, Colour::Muted, "best member".to_owned()));
    figure(
        &chart.svg(),
        &legend(&keys),
        "Of the one-step prediction, in the units of the model's targets, on the holdout (on the training data where nothing is \
         held out). Mean over the members, and the best of them; thick: mean over the seeds. Experiments \
         with other targets are not comparable.",
    )
}

type Part = (&'static str, fn(&Times) -> f64);
const PARTS: [Part; 5] = [
    ("simulation", |t| t.simulation),
    ("planning", |t| t.planning),
    ("fitting", |t| t.fitting),
    ("evaluation", |t| t.evaluation),
    ("rest", |t| t.rest),
];

/// Where the wall time went, a bar a run.
pub(super) fn time(groups: &[Group]) -> String {
    let runs: Vec<(&Run, Times)> = groups.iter().flat_map(|g| &g.runs).map(|run| (run, run.times())).collect();
    let longest = runs.iter().map(|(_, times)| times.total).fold(0.0, f64::max);
    if longest <= 0.0 {
        return absent("No episode yet.");
    }
    let estimated = runs.iter().any(|(_, times)| times.estimated);
    let mut bars = String::from(r#"<div class="bars">"#);
    let mut rows = Vec::new();
    for (run, times) in &runs {
        let mut bar =
            format!(r#"<svg class="bar" role="img" aria-label="{}: where the time went">"#, escape(&run.label));
        let mut from = 0.0;
        for (i, (name, part)) in PARTS.iter().enumerate() {
            let width = 100.0 * part(times) / longest;
            // Writing into a string cannot fail.
            let _ = write!(
                bar,
                r#"<rect class="{}" x="{from:.2}%" width="{width:.2}%" height="100%"><title>{name}: {}</title></rect>"#,
                colour(i).class(),
                seconds(part(times))
            );
            from += width;
        }
        bar.push_str("</svg>");
        let _ = write!(bars, "<span>{}</span>{bar}", escape(&run.label));
        let mut row = vec![escape(&run.label)];
        row.extend(PARTS.iter().map(|(name, part)| match (*name, times.estimated) {
            ("simulation", true) => "–".to_owned(),
            ("planning", true) => format!("≈ {}", seconds(part(times))),
            _ => seconds(part(times)),
        }));
        row.push(seconds(times.total));
        rows.push(row);
    }
    let keys: Vec<_> =
        PARTS.iter().enumerate().map(|(i, (name, _))| (Key::Block, colour(i), (*name).to_owned())).collect();
    bars.push_str("</div>");
    let header = ["run", "simulation", "planning", "fitting", "evaluation", "rest", "all"];
    let caption = format!(
        "Wall time of training, evaluations included. Planning: all of the agent's choices of actions in training episodes; \
         rest: resets, records, checkpoints.{}",
        if estimated {
            " Runs of an older version did not measure simulation, which is in the rest, and their planning is estimated \
             from plan/ms."
        } else {
            ""
        }
    );
    figure(&(bars + &table(&header, 1, &rows)), &legend(&keys), &caption)
}

/// Parts of a bar keep clear of the colours of the first experiments' neighbours: the rest is grey.
fn colour(part: usize) -> Colour {
    if part == PARTS.len() - 1 { Colour::Muted } else { Colour::Series(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_lies_where_all_curves_are() {
        let curves = [vec![(0.0, 0.0), (10.0, 10.0)], vec![(5.0, 1.0), (20.0, 1.0)], vec![]];
        let at = |x, mean, std| Spread { x, mean, std };
        assert_eq!(spread(&curves), [at(5.0, 3.0, 2.0), at(10.0, 5.5, 4.5)]);
        assert!(spread(&[vec![], vec![]]).is_empty());
        assert!(spread(&[vec![(1.0, 0.0)], vec![(2.0, 0.0)]]).is_empty());
        assert_eq!(spread(&[vec![(1.0, 4.0)], vec![(1.0, 2.0)]]), [at(1.0, 3.0, 1.0)]);
    }

    #[test]
    fn long_curves_are_thinned() {
        let curve: Vec<_> = (0..3000).map(|x| (f64::from(x), 1.0)).collect();
        let thinned = spread(&[curve.clone(), curve]);
        assert!(thinned.len() <= GRID && thinned.len() > GRID / 2, "{}", thinned.len());
        assert!(thinned.iter().all(|s| s.mean == 1.0 && s.std == 0.0));
    }
}
