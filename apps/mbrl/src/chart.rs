//! Learning curves as SVG.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use mbrl_policy::write_atomically;
use plotters::prelude::*;

use crate::record::{EpisodeLine, Record};

const SIZE: (u32, u32) = (800, 500);
pub(crate) const BLUE: RGBColor = RGBColor(31, 119, 180);
pub(crate) const ORANGE: RGBColor = RGBColor(255, 127, 14);

/// Draws one run: the return of each episode, and the best so far.
pub(crate) fn draw_run(path: &Path, title: &str, record: &Record) -> Result<()> {
    let returns: Vec<(f64, f64)> = finite(&record.episodes).collect();
    let best: Vec<(f64, f64)> = returns
        .iter()
        .scan(f64::NEG_INFINITY, |best, (step, r)| {
            *best = best.max(*r);
            Some((*step, *best))
        })
        .collect();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = frame(&area, title, &returns).map_err(drawing)?;
        chart
            .draw_series(LineSeries::new(best, ORANGE.stroke_width(2)))
            .map_err(drawing)?
            .label("best so far")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], ORANGE.stroke_width(2)));
        chart
            .draw_series(LineSeries::new(returns.iter().copied(), BLUE.stroke_width(1)))
            .map_err(drawing)?
            .label("episode")
            .legend(|(x, y)| Circle::new((x + 9, y), 3, BLUE.filled()));
        chart.draw_series(returns.iter().map(|p| Circle::new(*p, 3, BLUE.filled()))).map_err(drawing)?;
        legend(&mut chart).map_err(drawing)?;
        area.present().map_err(drawing)?;
    }
    write_atomically(path, svg.as_bytes()).context("learning curve")
}

/// Draws several runs of one experiment: the median over runs of the return of the last finished episode, in a band
/// from the lowest to the highest.
pub(crate) fn draw_runs(path: &Path, title: &str, records: &[Record]) -> Result<()> {
    let band = band(records);
    let all: Vec<(f64, f64)> = band.iter().flat_map(|b| [(b.step, b.low), (b.step, b.high)]).collect();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = frame(&area, title, &all).map_err(drawing)?;
        let outline = band.iter().map(|b| (b.step, b.high)).chain(band.iter().rev().map(|b| (b.step, b.low)));
        chart
            .draw_series([Polygon::new(outline.collect::<Vec<_>>(), BLUE.mix(0.2).filled())])
            .map_err(drawing)?
            .label("lowest to highest")
            .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], BLUE.mix(0.2).filled()));
        chart
            .draw_series(LineSeries::new(band.iter().map(|b| (b.step, b.median)), BLUE.stroke_width(2)))
            .map_err(drawing)?
            .label(format!("median of {} seeds", records.len()))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
        legend(&mut chart).map_err(drawing)?;
        area.present().map_err(drawing)?;
    }
    write_atomically(path, svg.as_bytes()).context("learning curve")
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

fn frame<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>,
    title: &str,
    points: &[(f64, f64)],
) -> Drawn<Chart<'a, 'b>> {
    area.fill(&WHITE)?;
    let last = points.iter().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) =
        points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-6);
    // As many digits as ten labels within the range need.
    let digits = (1.0 - (high - low + 2.0 * margin).log10().floor()).clamp(0.0, 9.0) as usize;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 24))
        .margin(12)
        // The last label of the x axis is centred on the edge.
        .margin_right(30)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("real environment steps")
        .y_desc("return of an episode (sum of rewards)")
        .axis_desc_style(("sans-serif", 18))
        .label_style(("sans-serif", 16))
        .max_light_lines(2)
        .light_line_style(BLACK.mix(0.06))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{:.digits$}", y + 0.0).replace('-', "\u{2212}"))
        .draw()?;
    Ok(chart)
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Drawn<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(("sans-serif", 16))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn drawing(error: DrawingAreaErrorKind<std::io::Error>) -> anyhow::Error {
    anyhow!("drawing the learning curve: {error}")
}

fn finite(episodes: &[EpisodeLine]) -> impl Iterator<Item = (f64, f64)> + '_ {
    episodes.iter().filter(|e| e.total_reward.is_finite()).map(|e| (e.env_step as f64, e.total_reward))
}

#[derive(Debug, PartialEq)]
struct Band {
    step: f64,
    low: f64,
    median: f64,
    high: f64,
}

/// At every step at which an episode of any run ended, from the first step on by which all have ended one.
fn band(records: &[Record]) -> Vec<Band> {
    let mut steps: Vec<u64> = records.iter().flat_map(|r| r.episodes.iter().map(|e| e.env_step)).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
        .into_iter()
        .filter_map(|step| {
            let mut returns: Vec<f64> = records
                .iter()
                .filter_map(|r| r.episodes.iter().rev().find(|e| e.env_step <= step).map(|e| e.total_reward))
                .filter(|r| r.is_finite())
                .collect();
            if returns.len() < records.len() {
                return None;
            }
            returns.sort_by(f64::total_cmp);
            Some(Band { step: step as f64, low: *returns.first()?, median: median(&returns)?, high: *returns.last()? })
        })
        .collect()
}

/// The median of sorted values.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[half]),
        _ => Some(0.5 * (sorted[half - 1] + sorted[half])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(episodes: &[(u64, f64)]) -> Record {
        let episodes =
            episodes.iter().map(|&(env_step, total_reward)| EpisodeLine { env_step, total_reward }).collect();
        Record { episodes, cut: 0, evaluation: None }
    }

    #[test]
    fn a_band_begins_where_all_runs_have_a_return() {
        let records = [record(&[(10, 1.0), (30, 5.0)]), record(&[(20, 3.0), (30, 4.0)])];
        assert_eq!(
            band(&records),
            [
                Band { step: 20.0, low: 1.0, median: 2.0, high: 3.0 },
                Band { step: 30.0, low: 4.0, median: 4.5, high: 5.0 },
            ]
        );
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 7.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 7.0]), Some(3.0));
    }

    #[test]
    fn pictures_are_drawn_for_any_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        for episodes in [&[][..], &[(200, 3.0)], &[(200, 3.0), (400, f64::NAN), (600, -8.0)]] {
            draw_run(&path, "t", &record(episodes)).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(svg.contains("real environment steps") && svg.contains("best so far"));
            draw_runs(&path, "t", &[record(episodes), record(episodes)]).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().contains("median of 2 seeds"));
        }
        // Labels as long as they need be, with a minus: longer ones run into the axis' name.
        draw_run(&path, "t", &record(&[(200, -1700.0), (400, -100.0)])).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.lines().any(|line| line.trim() == "\u{2212}1000") && !svg.contains("1000.0"));
    }
}
