//! Learning curves as SVG files.

use std::path::Path;

use anyhow::{Context, Result};
use mbrl_policy::write_atomically;

use crate::{
    plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style},
    record::{EpisodeLine, Record},
    report::{BAND, LEAST_SPAN, STEPS, draw_group},
};

/// Draws one run: the return of each episode, and the best so far.
pub(crate) fn draw_run(path: &Path, title: &str, record: &Record) -> Result<()> {
    let returns: Points = finite(&record.episodes).collect();
    let best: Points = returns
        .iter()
        .scan(f64::NEG_INFINITY, |best, (step, r)| {
            *best = best.max(*r);
            Some((*step, *best))
        })
        .collect();
    let mut chart = frame(&[record]);
    chart.marks = vec![
        Mark::Line(Colour::Series(1), Style::Thick, best),
        Mark::Line(Colour::Series(0), Style::Thin, returns.clone()),
        Mark::Dots(Colour::Series(0), returns),
    ];
    let legend = vec![
        (Key::Dot, Colour::Series(0), "episode".to_owned()),
        (Key::Line, Colour::Series(1), "best so far".to_owned()),
    ];
    let cut = (record.cut > 0).then(|| "The last episode was cut by the budget of steps and is left out.".to_owned());
    let broken = (record.breakdowns > 0).then(|| match record.breakdowns {
        1 => "1 episode broke down and is left out.".to_owned(),
        n => format!("{n} episodes broke down and are left out."),
    });
    let caption = broken.into_iter().chain(cut).collect::<Vec<_>>().join(" ");
    write(path, Picture { title: title.to_owned(), legend, columns: 1, charts: vec![(String::new(), chart)], caption })
}

/// Draws several runs of one experiment: each seed as a thin line, their mean within its interval.
pub(crate) fn draw_runs(path: &Path, title: &str, records: &[Record]) -> Result<()> {
    let curves: Vec<Points> = records.iter().map(|record| finite(&record.episodes).collect()).collect();
    let mut chart = frame(&records.iter().collect::<Vec<_>>());
    draw_group(&mut chart, Colour::Series(0), "", &curves);
    let legend = vec![
        (Key::Line, Colour::Series(0), format!("mean of {} seeds", records.len())),
        (Key::Band, Colour::Series(0), "95 % bootstrap interval".to_owned()),
        (Key::Thin, Colour::Series(0), "single seeds".to_owned()),
    ];
    let charts = vec![(String::new(), chart)];
    write(path, Picture { title: title.to_owned(), legend, columns: 1, charts, caption: BAND.trim().to_owned() })
}

fn frame(records: &[&Record]) -> Chart {
    let steps = records.iter().flat_map(|record| &record.episodes).map(|e| e.env_step as f64);
    Chart {
        x_range: Some((0.0, steps.fold(1.0, f64::max))),
        least_span: LEAST_SPAN,
        ..Chart::new(Size::Panel(330.0), "returns over real steps", STEPS, "return of an episode (sum of rewards)")
    }
}

fn write(path: &Path, picture: Picture) -> Result<()> {
    write_atomically(path, picture.svg().as_bytes()).context("learning curve")
}

fn finite(episodes: &[EpisodeLine]) -> impl Iterator<Item = (f64, f64)> + '_ {
    episodes.iter().filter(|e| e.total_reward.is_finite()).map(|e| (e.env_step as f64, e.total_reward))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::{Read, assert_near};

    fn record(episodes: &[(u64, f64)]) -> Record {
        let episodes =
            episodes.iter().map(|&(env_step, total_reward)| EpisodeLine { env_step, total_reward }).collect();
        Record { episodes, ..Record::default() }
    }

    fn drawn(draw: impl FnOnce(&Path) -> Result<()>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        draw(&path).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn pictures_are_drawn_for_any_record() {
        for episodes in [&[][..], &[(200, 3.0)], &[(200, 3.0), (400, f64::NAN), (600, -8.0)]] {
            let svg = drawn(|path| draw_run(path, "t", &record(episodes)));
            assert!(svg.contains("real environment steps") && svg.contains("best so far") && !svg.contains("NaN"));
            let svg = drawn(|path| draw_runs(path, "t", &[record(episodes), record(episodes)]));
            assert!(svg.contains("mean of 2 seeds") && !svg.contains("NaN"));
        }
        let cut = Record { cut: 1, ..record(&[(200, 3.0)]) };
        assert!(drawn(|path| draw_run(path, "t", &cut)).contains("cut by the budget"));
    }

    #[test]
    fn a_run_is_drawn_as_its_returns_and_the_best_of_them() {
        let svg = drawn(|path| draw_run(path, "t", &record(&[(200, -1700.0), (400, -100.0), (600, -300.0)])));
        let read = Read::new(&svg, false, false);
        let exact = (2.0, 5.0);
        assert_near(&read.line("line thin c0"), &[(200.0, -1700.0), (400.0, -100.0), (600.0, -300.0)], exact);
        assert_near(&read.line("line thick c1"), &[(200.0, -1700.0), (400.0, -100.0), (600.0, -100.0)], exact);
        // With a minus sign, and as short as possible.
        assert!(svg.contains(">\u{2212}1000<") && !svg.contains("1000.0"));
    }

    #[test]
    fn seeds_are_drawn_as_their_mean_between_lowest_and_highest() {
        let records = [&[(200, 1.0), (400, 5.0)], &[(200, 2.0), (400, 7.0)], &[(200, 6.0), (400, 9.0)]];
        let svg = drawn(|path| draw_runs(path, "t", &records.map(|episodes| record(episodes))));
        let read = Read::new(&svg, false, false);
        let exact = (2.0, 0.05);
        assert_near(&read.line("line thick c0"), &[(200.0, 3.0), (400.0, 7.0)], exact);
        assert_near(&read.line("band c0"), &[(200.0, 6.0), (400.0, 9.0), (400.0, 5.0), (200.0, 1.0)], exact);
        assert_eq!(read.lines("line thin c0").len(), 3);
    }
}
