//! The course of training: curves over real steps, and how the time was spent.

use std::fmt::Write as _;

use super::{
    html::{absent, escape, figure, interval, legend, number, seconds, table},
    model::without_model,
    runs::{Group, Line, Run, Times},
};
use crate::compare::Baseline;
use crate::plot::{Bootstrap, Chart, Colour, Estimate, Key, Legend, Mark, Points, Size, Style, mean};

pub(crate) const STEPS: &str = "real environment steps";
/// Maximum number of points of a mean curve.
const GRID: usize = 400;
/// Up to this many points of a curve are marked individually.
const FEW: usize = 30;
/// An axis of returns spans at least this share of their magnitude.
pub(crate) const LEAST_SPAN: f64 = 0.1;

/// The mean over curves at an x, with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct At {
    pub(crate) x: f64,
    pub(crate) mean: f64,
    /// For several curves.
    pub(crate) interval: Option<(f64, f64)>,
}

/// Means where all curves are defined, from the last beginning to the first end, at every x of any of them; curves are interpolated
/// linearly between their points. Empty curves are left out.
pub(crate) fn means(curves: &[Points]) -> Vec<At> {
    let curves: Vec<&Points> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let from = curves.iter().map(|curve| curve[0].0).fold(f64::NEG_INFINITY, f64::max);
    let to = curves.iter().map(|curve| curve[curve.len() - 1].0).fold(f64::INFINITY, f64::min);
    let mut xs: Vec<f64> = curves.iter().flat_map(|curve| curve.iter().map(|p| p.0)).collect();
    xs.retain(|x| (from..=to).contains(x));
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let every = xs.len().div_ceil(GRID).max(1);
    let bootstrap = Bootstrap::new(curves.len());
    xs.into_iter()
        .step_by(every)
        .map(|x| {
            let values: Vec<f64> = curves.iter().map(|curve| between(curve, x)).collect();
            let Estimate { mean, interval } = bootstrap.estimate(&values);
            At { x, mean, interval }
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

/// A group's curves: each seed thin, the mean of several thick in the band of its interval.
pub(crate) fn draw_group(chart: &mut Chart, colour: Colour, name: &str, curves: &[Points]) {
    let whole: Vec<&Points> = curves.iter().filter(|curve| !curve.is_empty()).collect();
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
    let means = means(curves);
    let band: Vec<_> = means.iter().filter_map(|at| at.interval.map(|(low, high)| (at.x, low, high))).collect();
    match band[..] {
        [one] => chart.marks.push(Mark::Whiskers(colour, vec![one])),
        _ => chart.marks.insert(0, Mark::Band(colour, band)),
    }
    for curve in &whole {
        chart.marks.push(Mark::Line(colour, Style::Thin, (*curve).clone()));
        if curve.len() == 1 {
            chart.marks.push(Mark::Dots(colour, (*curve).clone()));
        }
    }
    let line: Points = means.iter().map(|at| (at.x, at.mean)).collect();
    if line.len() <= FEW {
        chart.marks.push(Mark::Dots(colour, line.clone()));
    }
    chart.marks.push(Mark::Line(colour, Style::Thick, line));
    let n = whole.len();
    chart.hover.extend(means.iter().map(|at| {
        let ends = at.interval.map_or(String::new(), |ends| format!(" ({})", interval(ends)));
        told(at.x, format!("{}{ends}, {n} seeds", number(at.mean)))
    }));
}

/// A chart over real steps, from the first one on.
fn over_steps(alt: &str, y: &str, groups: &[Series<'_>]) -> Chart {
    let last = groups.iter().flat_map(|(_, group)| &group.runs).map(Run::env_step).max().unwrap_or(0);
    let x_range = Some((0.0, last.max(1) as f64));
    Chart { x_range, least_span: LEAST_SPAN, ..Chart::new(Size::Full, alt, STEPS, y) }
}

/// A line where the random steps end, if all runs have the same such step.
fn mark_first_fit(chart: &mut Chart, groups: &[Series<'_>]) -> bool {
    let fits: Vec<Option<f64>> = groups.iter().flat_map(|(_, group)| &group.runs).map(Run::first_fit).collect();
    let all_at = fits[0].filter(|first| fits.iter().all(|fit| *fit == Some(*first)));
    chart.marks.extend(all_at.map(|at| Mark::Rule(at, "first fit".to_owned())));
    all_at.is_some()
}

/// The name of a group in legends.
fn named(group: &Group) -> String {
    match group.runs.len() {
        1 => format!("{}, seed {}", group.name, group.seeds()),
        n => format!("{}, {n} seeds", group.name),
    }
}

fn group_keys(groups: &[Series<'_>]) -> Legend {
    groups.iter().map(|(colour, group)| (Key::Line, *colour, named(group))).collect()
}

fn several(groups: &[Series<'_>]) -> bool {
    groups.iter().any(|(_, group)| group.runs.len() > 1)
}

/// A group in its colour, the same on the whole page.
type Series<'a> = (Colour, &'a Group);

/// A part for each task, under its name if there are several: figures of different tasks are not comparable.
fn by_task(groups: &[Group], part: impl Fn(&str, &[Series<'_>]) -> String) -> String {
    let mut tasks: Vec<(String, Vec<Series<'_>>)> = Vec::new();
    for group in groups {
        let (task, series) = (group.task(), (Colour::Series(group.colour), group));
        match tasks.iter_mut().find(|(name, _)| *name == task) {
            Some((_, found)) => found.push(series),
            None => tasks.push((task, vec![series])),
        }
    }
    if let [(task, series)] = &tasks[..] {
        return part(task, series);
    }
    tasks.iter().map(|(task, series)| format!("<h3>{}</h3>\n{}", escape(task), part(task, series))).collect()
}

/// What the marks of several seeds mean.
pub(crate) const BAND: &str = "Thick: mean over the seeds, in the band of its 95 % bootstrap interval, where all of them have values \
                               (of two or three seeds the band reaches from the lowest to the highest); thin: single seeds. ";

/// Returns of training episodes.
pub(super) fn learning(groups: &[Group]) -> String {
    by_task(groups, |_, series| learning_of(series))
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
    let random = if mark_first_fit(&mut chart, groups) { " Up to the first fit actions are random." } else { "" };
    let caption = format!(
        "Undiscounted sum of the rewards of each whole training episode, exploration included.{random} {}",
        if several(groups) { BAND } else { "" }
    );
    figure(&chart.svg(), &legend(&group_keys(groups)), &caption)
}

/// Returns of evaluations; baselines are horizontal lines.
pub(super) fn evaluation(groups: &[Group], baselines: &[Baseline]) -> String {
    by_task(groups, |task, series| {
        let figures: Vec<&Baseline> =
            baselines.iter().filter(|figure| figure.task.as_ref().is_none_or(|of| of == task)).collect();
        evaluation_of(series, &figures) + &outcome_of(series)
    })
}

/// The first figure by which a task is judged besides the return, for example a share; empty for most tasks.
fn outcome_of(groups: &[Series<'_>]) -> String {
    let judged: Vec<Vec<_>> =
        groups.iter().map(|(_, group)| group.runs.iter().filter_map(Run::outcome_curve).collect()).collect();
    let Some(name) = judged.iter().flatten().map(|(name, _)| *name).next() else { return String::new() };
    let mut chart = over_steps(&format!("{name} over real steps"), name, groups);
    if name.ends_with("(%)") {
        chart.y_range = Some((0.0, 103.0));
    }
    for ((colour, group), judged) in groups.iter().zip(judged) {
        let curves: Vec<Points> = judged.into_iter().map(|(_, points)| points).collect();
        draw_group(&mut chart, *colour, &group.name, &curves);
    }
    let caption =
        format!("What the episodes of the evaluations came to: {name}. {}", if several(groups) { BAND } else { "" });
    figure(&chart.svg(), &legend(&group_keys(groups)), &caption)
}

/// The mean of an evaluation, and its interval from the spread of its episodes: ± 1.96 standard errors.
pub(super) fn of_episodes(line: &Line) -> Estimate {
    let [mean, std, n] = ["eval/return_mean", "eval/return_std", "eval/episodes"].map(|key| line.get(key));
    // The recorded standard deviation is computed with n, not with n − 1.
    let half = 1.96 * std / (n - 1.0).sqrt();
    Estimate { mean, interval: (n > 1.0 && half.is_finite()).then_some((mean - half, mean + half)) }
}

fn evaluation_of(groups: &[Series<'_>], figures: &[&Baseline]) -> String {
    let (baselines, methods): (Vec<Series<'_>>, Vec<Series<'_>>) =
        groups.iter().copied().partition(|(_, group)| group.is_baseline);
    // Without anything else to show, they are curves like any other.
    let (baselines, groups) = if methods.is_empty() { (Vec::new(), groups) } else { (baselines, &methods[..]) };
    let mut chart = over_steps("mean return of evaluations over real steps", "mean return", groups);
    let mut keys = group_keys(groups);
    let free = methods.iter().chain(&baselines).map(|(_, group)| group.colour + 1).max().unwrap_or(0);
    for (colour, name, value) in levels(&baselines, figures, free) {
        let across = chart.x_range.map_or(Vec::new(), |(from, to)| vec![(from, value), (to, value)]);
        chart.marks.push(Mark::Line(colour, Style::Dashed, across));
        keys.push((Key::Dashed, colour, format!("{name}: {}", number(value))));
    }
    let lines = chart.marks.len();
    for (colour, group) in groups {
        let curves: Vec<_> = group.runs.iter().map(|run| run.points("eval", "eval/return_mean")).collect();
        if let [run] = &group.runs[..] {
            let ends = |line: &Line| of_episodes(line).interval.map(|(low, high)| (line.env_step, low, high));
            let whiskers: Vec<_> = run.evaluations().filter_map(ends).collect();
            if !whiskers.is_empty() {
                chart.marks.push(Mark::Whiskers(*colour, whiskers));
            }
        }
        draw_group(&mut chart, *colour, &group.name, &curves);
    }
    if chart.marks.len() == lines {
        return absent("No evaluation: set train.eval_every in the experiment to have them.");
    }
    let single = groups.iter().any(|(_, group)| group.runs.len() == 1);
    let caption = format!(
        "Mean return of whole episodes from fixed start states, nothing learned. {}{}{}",
        if lines > 0 { "Dashed: baselines, of several seeds the mean of their last evaluations. " } else { "" },
        if single {
            "Bars of a single run: 95 % interval of the mean over the start states of an evaluation (1.96 standard errors); \
             it says nothing of other seeds. "
        } else {
            ""
        },
        if several(groups) { BAND } else { "" }
    );
    figure(&chart.svg(), &legend(&keys), &caption)
}

/// The levels of baselines: the mean of the last evaluations of those with runs, and figures, in colours from the first free one
/// on.
fn levels(baselines: &[Series<'_>], figures: &[&Baseline], free: usize) -> Vec<(Colour, String, f64)> {
    let last = |group: &Group| -> Vec<f64> {
        let runs = group.runs.iter().filter_map(Run::evaluation);
        runs.map(|line| line.get("eval/return_mean")).filter(|value| value.is_finite()).collect()
    };
    let of_runs = baselines.iter().map(|(colour, group)| (*colour, named(group), mean(&last(group))));
    let of_figures =
        figures.iter().zip(free..).map(|(figure, n)| (Colour::Series(n), figure.name.clone(), figure.value));
    of_runs.chain(of_figures).filter(|(_, _, value)| value.is_finite()).collect()
}

/// Errors of the model after each fit.
pub(super) fn model_error(groups: &[Group]) -> String {
    by_task(groups, |_, series| model_error_of(series))
}

fn model_error_of(groups: &[Series<'_>]) -> String {
    let mut chart =
        over_steps("mean squared error of the model after each fit over real steps", "mean squared error", groups);
    chart.log_y = true;
    for (colour, group) in groups {
        let positive =
            |run: &Run, key: &str| -> Points { run.points("fit", key).into_iter().filter(|p| p.1 > 0.0).collect() };
        let best: Vec<_> = group.runs.iter().map(|run| positive(run, "model/mse_best")).collect();
        let best = means(&best).iter().map(|at| (at.x, at.mean)).collect();
        let curves: Vec<_> = group.runs.iter().map(|run| positive(run, "model/mse")).collect();
        let before = chart.marks.len();
        draw_group(&mut chart, *colour, &group.name, &curves);
        if chart.marks.len() > before {
            chart.marks.push(Mark::Line(*colour, Style::Dashed, best));
        }
    }
    if chart.marks.is_empty() {
        let learns = groups.iter().any(|(_, group)| group.experiment().agent.learned_model().is_some());
        let truth = groups.iter().all(|(_, group)| group.experiment().agent.ground_truth().is_some());
        return absent(if learns { "No fit yet." } else { without_model(truth) });
    }
    let mut keys = group_keys(groups);
    keys.push((Key::Dashed, Colour::Muted, "best member".to_owned()));
    let caption = format!(
        "Of the one-step prediction, in the units of the model's targets, on the holdout (on the training data where nothing is \
         held out). Mean over the members; dashed: the best of them, mean over the seeds. {}Experiments with other targets are \
         not comparable.",
        if several(groups) { BAND } else { "" }
    );
    figure(&chart.svg(), &legend(&keys), &caption)
}

type Part = (&'static str, fn(&Times) -> f64);
const PARTS: [Part; 5] = [
    ("simulation", |t| t.simulation),
    ("acting", |t| t.acting),
    ("fitting", |t| t.fitting),
    ("evaluation", |t| t.evaluation),
    ("rest", |t| t.rest),
];

/// How the wall-clock time was spent, one bar per run.
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
            ("acting", true) => format!("≈ {}", seconds(part(times))),
            _ => seconds(part(times)),
        }));
        row.push(seconds(times.total));
        rows.push(row);
    }
    let keys: Vec<_> =
        PARTS.iter().enumerate().map(|(i, (name, _))| (Key::Block, colour(i), (*name).to_owned())).collect();
    bars.push_str("</div>");
    let header = ["run", "simulation", "acting", "fitting", "evaluation", "rest", "all"];
    let caption = format!(
        "Wall time of training, evaluations included. Acting: all of the agent's choices of actions in training episodes, by \
         plans or by a policy; rest: updates of a policy, resets, records, checkpoints.{}",
        if estimated {
            " Runs of an older version did not measure simulation, which is in the rest, and their acting is estimated \
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

    use super::super::runs::tests::run;
    use crate::plot::tests::{Read, assert_near};

    #[test]
    fn a_mean_lies_where_all_curves_are() {
        let curves = [vec![(0.0, 0.0), (10.0, 10.0)], vec![(5.0, 1.0), (20.0, 1.0)], vec![]];
        let at = |x, mean, low, high| At { x, mean, interval: Some((low, high)) };
        assert_eq!(means(&curves), [at(5.0, 3.0, 1.0, 5.0), at(10.0, 5.5, 1.0, 10.0)]);
        assert!(means(&[vec![], vec![]]).is_empty());
        assert!(means(&[vec![(1.0, 0.0)], vec![(2.0, 0.0)]]).is_empty());
        assert_eq!(means(&[vec![(1.0, 4.0)], vec![(1.0, 2.0)]]), [at(1.0, 3.0, 2.0, 4.0)]);
        assert_eq!(between(&[(2.0, 0.0), (10.0, 8.0)], 4.0), 2.0);
        assert_eq!(means(&[vec![(1.0, 4.0)]]), [At { x: 1.0, mean: 4.0, interval: None }]);
    }

    #[test]
    fn long_curves_are_thinned() {
        let curve: Vec<_> = (0..3000).map(|x| (f64::from(x), 1.0)).collect();
        let thinned = means(&[curve.clone(), curve]);
        assert!(thinned.len() <= GRID && thinned.len() > GRID / 2, "{}", thinned.len());
        assert!(thinned.iter().all(|at| at.mean == 1.0 && at.interval == Some((1.0, 1.0))));
    }

    fn episode(step: u64, paid: f64) -> String {
        format!(
            r#"{{"event":"episode","env_step":{step},"wall_s":1,"episode/return":{paid},"episode/length":200,"episode/cut":0}}"#
        )
    }

    fn group(runs: &[Vec<String>]) -> Group {
        let runs = runs.iter().map(|lines| run(&lines.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        Group::new("smoke".into(), runs, 0)
    }

    /// Three seeds whose mean, lowest and highest differ: -9, -6 and 0 at step 200, -3, 0 and 30 at step 400.
    fn three() -> Group {
        group(&[[-9.0, 0.0], [-6.0, 30.0], [0.0, -3.0]].map(|[a, b]| vec![episode(200, a), episode(400, b)]))
    }

    #[test]
    fn the_learning_curve_is_the_mean_in_its_interval_with_every_seed() {
        let html = learning(&[three()]);
        let read = Read::new(&html, false, false);
        assert_near(&read.line("line thick c0"), &[(200.0, -5.0), (400.0, 9.0)], (1.0, 0.2));
        let band = [(200.0, 0.0), (400.0, 30.0), (400.0, -3.0), (200.0, -9.0)];
        assert_near(&read.line("band c0"), &band, (1.0, 0.2));
        let thin = read.lines("line thin c0");
        assert_eq!(thin.len(), 3);
        assert_near(&thin[1], &[(200.0, -6.0), (400.0, 30.0)], (1.0, 0.2));
        assert!(html.contains("smoke, 3 seeds") && html.contains("95 % bootstrap interval"), "{html}");
    }

    fn evaluated(step: u64, mean: f64) -> String {
        format!(
            r#"{{"event":"eval","env_step":{step},"wall_s":2,"eval/return_mean":{mean},"eval/return_std":4.0,"eval/episodes":17}}"#
        )
    }

    #[test]
    fn evaluations_of_one_run_stand_between_the_ends_of_their_interval() {
        let lines = vec![episode(200, 0.0), evaluated(200, 174.0), episode(400, 0.0), evaluated(400, 175.0)];
        let html = evaluation(&[group(&[lines])], &[]);
        let read = Read::new(&html, false, false);
        assert_near(&read.line("line thick c0"), &[(200.0, 174.0), (400.0, 175.0)], (1.0, 0.2));
        // 1.96 · 4 / √16.
        assert_eq!(of_episodes(run(&[&evaluated(200, 174.0)]).evaluation().unwrap()).interval, Some((172.04, 175.96)));
        let path = html.split(r#"line whisker c0" d="M"#).nth(1).unwrap();
        let low: f64 = path.split([' ', 'h']).nth(1).unwrap().parse().unwrap();
        let dots: Vec<f64> =
            html.split("cy=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        // In the units of the axis: the two means are one apart.
        assert!(((low - dots[0]) / (dots[0] - dots[1]) - 1.96).abs() < 0.05, "{low} {dots:?}");
        // A single episode has no interval; several seeds have one over the seeds.
        let one = evaluated(200, 1.0).replace("17", "1");
        assert_eq!(of_episodes(run(&[&one]).evaluation().unwrap()).interval, None);
        let seeds = [1.0, 2.0, 6.0].map(|mean| vec![episode(200, 0.0), evaluated(200, mean), evaluated(400, mean)]);
        let html = evaluation(&[group(&seeds)], &[]);
        assert_near(&Read::new(&html, false, false).line("line thick c0"), &[(200.0, 3.0), (400.0, 3.0)], (1.0, 0.1));
    }

    #[test]
    fn baselines_are_lines_all_across_and_methods_are_not() {
        let curve = |last| vec![vec![episode(400, 0.0), evaluated(200, 0.0), evaluated(400, last)]];
        let mut groups = [group(&curve(10.0)), group(&curve(30.0))];
        (groups[1].is_baseline, groups[1].colour) = (true, 1);
        let figure = |value| Baseline { name: "random".into(), task: None, value, outcomes: Vec::new() };
        let elsewhere = Baseline { task: Some("cartpole".into()), ..figure(50.0) };
        let html = evaluation(&groups, &[elsewhere, figure(-10.0)]);
        let read = Read::new(&html, false, false);
        let exact = (2.0, 0.2);
        assert_near(&read.line("line thick c0"), &[(200.0, 0.0), (400.0, 10.0)], exact);
        assert_near(&read.line("line dashed c1"), &[(0.0, 30.0), (400.0, 30.0)], exact);
        assert_near(&read.line("line dashed c2"), &[(0.0, -10.0), (400.0, -10.0)], exact);
        assert!(html.contains("random: \u{2212}10.00") && !html.contains("line thick c1"), "{html}");
        // Alone, it is a curve.
        let html = evaluation(&groups[1..], &[]);
        assert!(html.contains("line thick c1") && !html.contains("dashed"), "{html}");
    }

    #[test]
    fn the_model_error_is_that_of_all_members_and_dashed_that_of_the_best() {
        let fit = |step: u64, mse: f64, best: f64| {
            format!(r#"{{"event":"fit","env_step":{step},"wall_s":2,"model/mse":{mse},"model/mse_best":{best}}}"#)
        };
        let lines = vec![episode(400, 0.0), fit(200, 0.2, 0.02), fit(400, 0.05, 0.01)];
        let html = model_error(&[group(&[lines])]);
        let read = Read::new(&html, false, true);
        assert_near(&read.line("line thick c0"), &[(200.0, 0.2), (400.0, 0.05)], (1.0, 0.003));
        assert_near(&read.line("line dashed c0"), &[(200.0, 0.02), (400.0, 0.01)], (1.0, 0.000_5));
    }

    #[test]
    fn bars_are_as_wide_as_the_times_they_stand_for() {
        let lines = [
            r#"{"event":"episode","env_step":200,"wall_s":10.0,"episode/env_s":1.0,"episode/act_s":4.0}"#.to_owned(),
            r#"{"event":"fit","env_step":200,"wall_s":18.0,"model/fit_s":2.0}"#.to_owned(),
            r#"{"event":"eval","env_step":200,"wall_s":20.0,"eval/time_s":3.0}"#.to_owned(),
        ];
        let half = lines[..1].to_vec();
        let html = time(&[group(&[lines.to_vec(), half])]);
        let widths: Vec<f64> =
            html.split(" width=\"").skip(1).map(|rest| rest.split('%').next().unwrap().parse().unwrap()).collect();
        assert_eq!(widths, [5.0, 20.0, 10.0, 15.0, 50.0, 5.0, 20.0, 0.0, 0.0, 25.0]);
        let row: String = ["1.0 s", "4.0 s", "2.0 s", "3.0 s", "10.0 s", "20.0 s"]
            .map(|cell| format!(r#"<td class="number">{cell}</td>"#))
            .concat();
        assert!(html.contains(&row), "{html}");
    }
}
