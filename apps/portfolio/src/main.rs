//! A portfolio of stocks, planned each week with a model that predicts returns, walking forward through years that the model has not seen.
//!
//! An ensemble is fitted to all weeks before a year, and with it CEM plans the holdings for each week of that year: wealth grows with the
//! stocks, minus the cost of trading. It is compared with equal weights, buying and holding, and the minimum-variance portfolio; its predicted
//! distributions, with those of constant and of moving standard deviations. Nobody should expect to beat equal weights this way, and the program
//! says whether it did. What can be achieved is a correct distribution.
//!
//! Prices are read from a file that you name; the repository has none. These are 20 stocks from 1990 to 2022, in a package of BSD-3 licence:
//!
//! ```sh
//! pip download --no-deps skfolio==1.12.2
//! python3 -m zipfile -e skfolio-1.12.2-py3-none-any.whl skfolio
//! cargo run --release -p mbrl-portfolio -- --prices skfolio/skfolio/datasets/data/sp500_dataset.csv.gz
//! ```
//!
//! (SHA-256 of the wheel 2d324c62a4188dc0b62a713f8d5cea177e208a5b45987e3d3f204dd56d3a669b, of `sp500_dataset.csv.gz`
//! ee21cac28befb1d0a739a9ceb22184f995394726aa0cfde9a21941d1ac04ac0d.) It takes some minutes and leaves `portfolio.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

mod account;
mod calibration;
mod market;
mod prices;
#[cfg(test)]
mod simulate;
mod walk;

use std::{fs, path::PathBuf};

use account::{Figures, Interval, Path};
use anyhow::{Context, Result, bail, ensure};
use calibration::Scores;
use clap::Parser;
use mbrl_env::atomic_file::parent;
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};
use prices::{Date, Prices, Weeks};
use walk::{Planned, Rules, Setup, Simple, Year, planned, rules, simple};

/// Weeks of a block of the bootstrap: half a year.
const BLOCK: usize = 26;
/// Bars of the histograms.
const BINS: usize = 10;

#[derive(Debug, Parser)]
#[command(
    about = "Draws how planned portfolios did beside simple rules, and whether what was predicted of returns was right"
)]
struct Args {
    /// Prices: a CSV file, gzipped or not, with a column of dates (2011-01-03) and one for each asset.
    #[arg(long)]
    prices: PathBuf,
    /// The first trading day; the model is fitted to the data before it, and again each year.
    #[arg(long, default_value = "2011-01-01")]
    test_from: Date,
    /// The day before which trading ends (default: the end of the file).
    #[arg(long)]
    test_until: Option<Date>,
    /// Cost of buying or selling, in hundredths of a percent.
    #[arg(long, default_value_t = 10.0)]
    cost: f64,
    /// Planning horizon in weeks, 1 to 52.
    #[arg(long, default_value_t = 3)]
    horizon: usize,
    /// Number of runs with different seeds, one after another.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "portfolio.svg")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!((0.0..1000.0).contains(&args.cost), "cost = {}: expected hundredths of a percent, 0 to 1000", args.cost);
    ensure!((1..=52).contains(&args.horizon), "horizon = {}: expected 1 to 52 weeks", args.horizon);
    ensure!(args.seeds > 0, "seeds = 0: expected at least 1");
    let after_last = args.seed.checked_add(args.seeds);
    let after_last = after_last.with_context(|| format!("seed = {}: expected one that others follow", args.seed))?;
    let folder = parent(&args.out);
    ensure!(folder.is_dir(), "out = {}: expected a file in a folder that is there; make it first", args.out.display());
    if !args.prices.exists() {
        bail!(prices::help(&args.prices));
    }
    let prices = Prices::read(&args.prices)?;
    let history = Weeks::of(&prices);
    let setup = Setup::new(&history, &prices.assets, args.test_from, args.test_until)?;
    let setup = Setup { cost: 1e-4 * args.cost, horizon: args.horizon, ..setup };
    setup.check(prices.width())?;
    let (first, last) = (history.dates[setup.test.start], history.dates[setup.test.end]);
    println!(
        "{} assets, {} days; traded in {} weeks from {first} to {last}, at a cost of {} hundredths of a percent",
        prices.width(),
        prices.dates.len(),
        setup.test.len(),
        args.cost
    );
    let (rules, simple) = (rules(&history, &setup), simple(&history, &setup));
    let mut runs = Vec::new();
    for seed in args.seed..after_last {
        runs.push(planned(&history, &setup, seed)?);
    }
    let years = last.years() - first.years();
    let verdict = tell_wealth(&args, &runs, &rules, years);
    tell_calibration(&runs, &simple, prices.width());
    let picture = picture(&history, &setup, &runs, &rules, &simple, &verdict);
    fs::write(&args.out, picture.svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

/// Growth of each week minus that of equal weights, in percent per year.
fn beside(path: &Path, even: &Path, years: f64) -> Interval {
    let differences: Vec<f64> = path.growth.iter().zip(&even.growth).map(|(a, b)| a - b).collect();
    Interval::of(&differences, BLOCK).times(100.0 * differences.len() as f64 / years)
}

/// The mean of the seeds, week by week.
fn mean_path(runs: &[Planned]) -> Path {
    let mean = |of: fn(&Path) -> &[f64]| -> Vec<f64> {
        let weeks = of(&runs[0].path).len();
        (0..weeks).map(|week| runs.iter().map(|run| of(&run.path)[week]).sum::<f64>() / runs.len() as f64).collect()
    };
    Path { growth: mean(|path| &path.growth), turnover: mean(|path| &path.turnover) }
}

/// Prints the development of wealth, and says in a sentence whether plans beat equal weights.
fn tell_wealth(args: &Args, runs: &[Planned], rules: &Rules, years: f64) -> String {
    println!(
        "\n{:22} {:>9} {:>10} {:>7} {:>9} {:>9} {:>7}   growth beside equal weights (95 %)",
        "", "per year", "volatility", "Sharpe", "drawdown", "turnover", "wealth"
    );
    let row = |name: &str, figures: Figures, difference: Option<Interval>| {
        let Figures { annual, volatility, sharpe, drawdown, turnover, wealth } = figures;
        let difference =
            difference.map_or(String::new(), |d| format!("{:+.1} % ({:+.1} to {:+.1})", d.mean, d.low, d.high));
        println!(
            "{name:22} {:>7.1} % {:>8.1} % {sharpe:>7.2} {:>7.1} % {turnover:>9.1} {wealth:>7.2}   {difference}",
            100.0 * annual,
            100.0 * volatility,
            100.0 * drawdown
        );
    };
    let figures: Vec<Figures> = runs.iter().map(|run| Figures::of(&run.path, years)).collect();
    for (i, (run, figures)) in runs.iter().zip(&figures).enumerate() {
        let name = format!("planned, seed {}", args.seed + i as u64);
        row(&name, *figures, Some(beside(&run.path, &rules.even, years)));
    }
    row("equal weights", Figures::of(&rules.even, years), None);
    for (name, path) in [("bought and held", &rules.kept), ("least variance", &rules.steady)] {
        row(name, Figures::of(path, years), Some(beside(path, &rules.even, years)));
    }
    if runs.len() > 1 {
        let range = |of: fn(&Figures) -> f64| {
            let mut all: Vec<f64> = figures.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            let median = 0.5 * (all[(all.len() - 1) / 2] + all[all.len() / 2]);
            format!("{median:.2} ({:.2} to {:.2})", all[0], all[all.len() - 1])
        };
        println!(
            "planned, median of {} seeds (least to most): {} % per year, Sharpe ratio {}, turnover {}",
            runs.len(),
            range(|f| 100.0 * f.annual),
            range(|f| f.sharpe),
            range(|f| f.turnover)
        );
    }
    let all = beside(&mean_path(runs), &rules.even, years);
    let said = match (all.holds_zero(), all.mean > 0.0) {
        (true, _) => "No edge: the interval holds 0",
        (false, true) => "Plans beat equal weights",
        (false, false) => "Plans lose against equal weights",
    };
    let verdict = format!(
        "Growth of plans less that of equal weights: {:+.1} % per year, 95 % interval {:+.1} to {:+.1}. {said}.",
        all.mean, all.low, all.high
    );
    println!("{verdict}");
    verdict
}

/// The predictions of all seeds, year by year.
fn pooled(runs: &[Planned]) -> Vec<Year> {
    let mut years = runs[0].years.clone();
    for run in &runs[1..] {
        for (year, other) in years.iter_mut().zip(&run.years) {
            year.assets.extend(&other.assets);
            year.even.extend(&other.even);
        }
    }
    years
}

fn whole(years: &[Year], of: fn(&Year) -> &Scores) -> Scores {
    let mut all = Scores::default();
    years.iter().for_each(|year| all.extend(of(year)));
    all
}

/// Mean log scores of each week over its assets.
fn weekly(years: &[Year], assets: usize) -> Vec<f64> {
    let logs: Vec<f64> = years.iter().flat_map(|year| &year.assets.logs).copied().collect();
    logs.chunks(assets).map(|week| week.iter().sum::<f64>() / assets as f64).collect()
}

/// Prints how accurate the predictions were.
fn tell_calibration(runs: &[Planned], simple: &Simple, assets: usize) {
    let ensemble = pooled(runs);
    let all = [("ensemble", &ensemble), ("constant normal", &simple.constant), ("EWMA normal", &simple.moving)];
    println!(
        "\nshare of weekly returns in the predicted intervals, and mean log score (nats per return; higher is better)"
    );
    println!("{:18} {:>26}   {:>26}   {:>9}", "", "stocks: 50 %, 80 %, 95 %", "their mean: 50, 80, 95 %", "log score");
    for (name, years) in all {
        let [stocks, even] = [whole(years, |year| &year.assets), whole(years, |year| &year.even)];
        let shares =
            |of: &Scores| [0.5, 0.8, 0.95].map(|share| format!("{:.1}", 100.0 * of.coverage(share))).join(", ");
        println!("{name:18} {:>26}   {:>26}   {:>9.4}", shares(&stocks), shares(&even), stocks.log_score());
    }
    for (name, other) in [("constant normal", &simple.constant), ("EWMA normal", &simple.moving)] {
        let other = weekly(other, assets);
        let mut gains = vec![0.0; other.len()];
        for run in runs {
            for ((gain, ours), theirs) in gains.iter_mut().zip(weekly(&run.years, assets)).zip(&other) {
                *gain += (ours - theirs) / runs.len() as f64;
            }
        }
        let gain = Interval::of(&gains, BLOCK);
        println!(
            "log score of the ensemble less that of the {name}: {:+.4} (95 %: {:+.4} to {:+.4})",
            gain.mean, gain.low, gain.high
        );
    }
    println!("\nyear   in 95 % intervals: ensemble, constant, EWMA   log score: ensemble, constant, EWMA");
    for ((ours, constant), moving) in ensemble.iter().zip(&simple.constant).zip(&simple.moving) {
        let three = [ours, constant, moving];
        let covered = three.map(|year| format!("{:.1} %", 100.0 * year.assets.coverage(0.95))).join(", ");
        let scores = three.map(|year| format!("{:.3}", year.assets.log_score())).join(", ");
        println!("{}   {covered:>43}   {scores:>34}", ours.year);
    }
}

fn picture(history: &Weeks, setup: &Setup, runs: &[Planned], rules: &Rules, simple: &Simple, verdict: &str) -> Picture {
    let mut wealth = Chart::new(Size::Panel(290.0), "wealth over the years", "year", "wealth, of 1");
    wealth.log_y = true;
    let line = |path: &Path| -> Points {
        let dates = &history.dates[setup.test.start..];
        dates.iter().zip(path.wealth()).map(|(date, wealth)| (date.years(), wealth)).collect()
    };
    for run in runs {
        wealth.marks.push(Mark::Line(Colour::Series(0), Style::Thin, line(&run.path)));
    }
    wealth.marks.push(Mark::Line(Colour::Ink, Style::Thick, line(&rules.even)));
    wealth.marks.push(Mark::Line(Colour::Muted, Style::Thin, line(&rules.kept)));
    wealth.marks.push(Mark::Line(Colour::Series(3), Style::Thin, line(&rules.steady)));

    let ensemble = pooled(runs);
    let three =
        [(&ensemble, Colour::Series(0)), (&simple.constant, Colour::Series(1)), (&simple.moving, Colour::Series(2))];
    let mut covered = Chart::new(Size::Panel(290.0), "share in predicted intervals", "year", "share of returns");
    (covered.percent_y, covered.y_range) = (true, Some((0.4, 1.0)));
    let mut pits =
        Chart::new(Size::Panel(290.0), "histogram of PITs", "predicted share below", "returns, over what should be");
    pits.x_range = Some((0.0, 1.0));
    let mut scores = Chart::new(Size::Panel(290.0), "log scores", "year", "log score less the constant normal's");
    let ends: Vec<f64> =
        [ensemble.first(), ensemble.last()].iter().flatten().map(|year| f64::from(year.year)).collect();
    for share in [0.5, 0.95] {
        let level = ends.iter().map(|x| (*x, share)).collect();
        covered.marks.push(Mark::Line(Colour::Muted, Style::Dashed, level));
    }
    pits.marks.push(Mark::Line(Colour::Muted, Style::Dashed, vec![(0.0, 1.0), (1.0, 1.0)]));
    for (years, colour) in three {
        for share in [0.5, 0.95] {
            let points: Points = years.iter().map(|year| (f64::from(year.year), year.assets.coverage(share))).collect();
            covered.marks.push(Mark::Line(colour, Style::Thin, points));
        }
        let bars = whole(years, |year| &year.assets).histogram(BINS);
        let edge = |i: usize| i as f64 / BINS as f64;
        let steps = bars.iter().enumerate().flat_map(|(i, bar)| [(edge(i), *bar), (edge(i + 1), *bar)]).collect();
        pits.marks.push(Mark::Line(colour, Style::Thin, steps));
        let gains: Points = years
            .iter()
            .zip(&simple.constant)
            .map(|(year, base)| (f64::from(year.year), year.assets.log_score() - base.assets.log_score()))
            .collect();
        scores.marks.push(Mark::Line(colour, Style::Thin, gains));
    }
    let seeds = if runs.len() > 1 { format!(", {} seeds", runs.len()) } else { String::new() };
    let key = |colour, name: &str| (Key::Thin, colour, name.to_owned());
    Picture {
        title: "A portfolio planned with an ensemble that predicts weekly returns".into(),
        legend: vec![
            key(Colour::Series(0), &format!("planned, and the ensemble's predictions{seeds}")),
            (Key::Line, Colour::Ink, "equal weights".to_owned()),
            key(Colour::Muted, "bought and held"),
            key(Colour::Series(3), "least variance"),
            key(Colour::Series(1), "constant normal"),
            key(Colour::Series(2), "EWMA normal"),
            (Key::Dashed, Colour::Muted, "as it should be".to_owned()),
        ],
        columns: 2,
        charts: vec![
            ("Wealth after costs".into(), wealth),
            ("In the 50 and 95 % intervals".into(), covered),
            ("Where returns fell".into(), pits),
            ("How likely returns were made".into(), scores),
        ],
        caption: format!("{} assets, a decision each week, with a model of the years before. {verdict}", history.width),
    }
}
