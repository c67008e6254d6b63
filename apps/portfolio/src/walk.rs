//! Walking forward: each year a model of all weeks before it, each week a decision from the information available then.

use std::ops::Range;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation};
use mbrl_model::{MemberRule, Propagation};
use mbrl_plan::{CemConfig, Execute, Mpc, Problem, Replan, Tail};

use crate::{
    account::{Path, trade},
    calibration::{Gaussian, Scores},
    market::{Axes, DECAY, FitPlan, Market, growth, weights},
    prices::{Date, Weeks},
};

/// The minimum number of weeks before the first decision: two years.
const LEAST_WEEKS: usize = 104;

/// The period and the settings of the test.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Trading weeks.
    pub(crate) test: Range<usize>,
    /// Cost per dollar bought or sold.
    pub(crate) cost: f64,
    pub(crate) horizon: usize,
    pub(crate) population: usize,
    pub(crate) particles: usize,
    pub(crate) fit: FitPlan,
}

impl Setup {
    /// Trading from the first day to the last, or to the end; other settings have their defaults.
    pub(crate) fn new(history: &Weeks, assets: &[String], from: Date, until: Option<Date>) -> Result<Self> {
        let test = history.from(from)..until.map_or(history.len(), |until| history.from(until));
        let weeks = test.start;
        ensure!(
            weeks >= LEAST_WEEKS,
            "test-from = {from}: {weeks} weeks of prices before it, expected at least {LEAST_WEEKS} to fit to"
        );
        if let Some(until) = until {
            ensure!(until > from, "test-until = {until}: expected a day after {from}, the first of the test");
        }
        ensure!(!test.is_empty(), "test-from = {from}: no week of prices from it on, expected at least one to test on");
        for (asset, name) in assets.iter().enumerate() {
            let constant = (1..weeks).all(|week| history.returns(week)[asset] == history.returns(0)[asset]);
            ensure!(!constant, "{name}: no variation before {from}; leave it out of the file");
        }
        Ok(Self { test, cost: 0.001, horizon: 3, population: 100, particles: 200, fit: FitPlan::default() })
    }

    /// Whether plans for `n` assets can be made.
    pub(crate) fn check(&self, n: usize) -> Result<()> {
        self.planner(n).map(drop)
    }

    fn planner(&self, n: usize) -> Result<(Mpc, ActionSpace)> {
        let actions = ActionSpace::Box(BoxSpace::new(vec![0.0; n], vec![1.0; n])?);
        let members = 2 * self.fit.members;
        ensure!(
            self.particles > 0 && self.particles.is_multiple_of(members),
            "particles = {}: expected a multiple of {members}, twice the members",
            self.particles
        );
        let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: self.particles };
        let config = CemConfig {
            horizon: self.horizon,
            population: self.population,
            elites: (self.population / 10).max(1),
            iterations: 5,
            // The best portfolios hold nothing of most assets: they lie on the bounds. Not trading is proposed, and should win if nothing is better.
            constrain_variance: false,
            execute: Execute::Best,
            tail: Tail::Last,
            ..CemConfig::default()
        };
        Ok((Mpc::new(Box::new(config.init(&actions, propagation)?), Replan::EveryStep)?, actions))
    }

    /// Whether a model is fitted before a week: before the first of all, and before the first of a year.
    fn begins(&self, history: &Weeks, week: usize) -> bool {
        week == self.test.start || history.dates[week].year != history.dates[week - 1].year
    }
}

/// Predictions of one year of returns.
#[derive(Debug, Clone)]
pub(crate) struct Year {
    pub(crate) year: u16,
    /// For each asset in each week, week by week.
    pub(crate) assets: Scores,
    /// For the assets' mean.
    pub(crate) even: Scores,
}

/// Adds the scores of a week to those of its year.
fn put(years: &mut Vec<Year>, year: u16, predicted: (&[Gaussian], Gaussian), came: &[f64]) {
    if years.last().is_none_or(|last| last.year != year) {
        years.push(Year { year, assets: Scores::default(), even: Scores::default() });
    }
    if let Some(last) = years.last_mut() {
        predicted.0.iter().zip(came).for_each(|(predicted, came)| last.assets.push(*predicted, *came));
        last.even.push(predicted.1, came.iter().sum::<f64>() / came.len() as f64);
    }
}

/// The result of planning with a learned model.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) path: Path,
    /// Target weights of each week, `[n]`.
    pub(crate) targets: Vec<Vec<f64>>,
    pub(crate) years: Vec<Year>,
}

/// Fits, plans and trades.
pub(crate) fn planned(history: &Weeks, setup: &Setup, seed: u64) -> Result<Planned> {
    let n = history.width;
    let mut rng = Rng::new(seed);
    let (mut mpc, actions) = setup.planner(n)?;
    let reward = growth(n, setup.cost);
    let mut held = vec![1.0 / n as f64; n];
    let mut all = Planned { path: Path::default(), targets: Vec::new(), years: Vec::new() };
    let mut known: Option<(Market, Vec<f32>)> = None;
    for week in setup.test.clone() {
        let (market, mut state) = match known.take() {
            Some(known) if !setup.begins(history, week) => known,
            _ => {
                let market = Market::fitted(history, week, &setup.fit, &mut rng)?;
                let state = market.axes().follow(history, week).swap_remove(week);
                (market, state)
            }
        };
        market.axes().hold(&mut state, &held);
        let largest = held.iter().copied().fold(0.0, f64::max);
        // Keeping the holdings, and holding equal parts.
        let keep: Vec<f32> = held.iter().map(|weight| (weight / largest) as f32).collect();
        let proposed = [keep.repeat(setup.horizon), vec![1.0; n * setup.horizon]].concat();
        let proposed = Tensor::<1>::from_floats(&proposed[..], &Device::flex()).reshape([2, setup.horizon, n]);
        let problem = Problem::new(&market, &actions).with_reward(&reward).with_proposals(proposed);
        let target = weights(&mpc.act(&Situation::of(&state), &problem, &mut rng)?.action);
        let forecast = market.forecast(&state)?;

        // The week passes.
        let came = history.returns(week);
        put(&mut all.years, history.dates[week].year, (&forecast.assets, forecast.even), came);
        all.path.push(trade(&mut held, &target, &gross(came), setup.cost));
        all.targets.push(target);
        let next = market.axes().after(&state, came);
        known = Some((market, next));
    }
    Ok(all)
}

fn gross(returns: &[f64]) -> Vec<f64> {
    returns.iter().map(|r| r.exp()).collect()
}

/// Portfolios by rules, with which plans are compared.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Equal parts, restored each week.
    pub(crate) even: Path,
    /// Equal parts once, then left alone.
    pub(crate) kept: Path,
    /// The least variance by past returns, each week.
    pub(crate) steady: Path,
}

/// Trades by rules.
pub(crate) fn rules(history: &Weeks, setup: &Setup) -> Rules {
    let n = history.width;
    let equal = vec![1.0 / n as f64; n];
    let mut held = [equal.clone(), equal.clone(), equal.clone()];
    let mut paths = [Path::default(), Path::default(), Path::default()];
    let mut known: Option<(Axes, Vec<f32>)> = None;
    for week in setup.test.clone() {
        let (axes, state) = match known.take() {
            Some(known) if !setup.begins(history, week) => known,
            _ => {
                let axes = Axes::of(&history.returns[..week * n], n);
                let state = axes.follow(history, week).swap_remove(week);
                (axes, state)
            }
        };
        let targets = [equal.clone(), held[1].clone(), axes.least_variance(&state)];
        for ((held, path), target) in held.iter_mut().zip(&mut paths).zip(&targets) {
            path.push(trade(held, target, &gross(history.returns(week)), setup.cost));
        }
        let next = axes.after(&state, history.returns(week));
        known = Some((axes, next));
    }
    let [even, kept, steady] = paths;
    Rules { even, kept, steady }
}

/// Predictions by normal distributions, with which the ensemble's are compared. Their means are those of the years before.
#[derive(Debug, Clone)]
pub(crate) struct Simple {
    /// With the standard deviation of the years before.
    pub(crate) constant: Vec<Year>,
    /// With one that follows the last weeks: an exponentially weighted moving average (EWMA) of squares.
    pub(crate) moving: Vec<Year>,
}

/// Predicts the test weeks without a network.
pub(crate) fn simple(history: &Weeks, setup: &Setup) -> Simple {
    let n = history.width;
    // The assets, and their mean.
    let series = |week: usize| -> Vec<f64> {
        let returns = history.returns(week);
        returns.iter().copied().chain([returns.iter().sum::<f64>() / n as f64]).collect()
    };
    let mut all = Simple { constant: Vec::new(), moving: Vec::new() };
    let (mut constant, mut variance) = (Vec::<Gaussian>::new(), Vec::<f64>::new());
    for week in setup.test.clone() {
        if setup.begins(history, week) {
            let past: Vec<Vec<f64>> = (0..week).map(series).collect();
            constant = (0..=n)
                .map(|i| {
                    let mean = past.iter().map(|row| row[i]).sum::<f64>() / week as f64;
                    let variance = past.iter().map(|row| (row[i] - mean).powi(2)).sum::<f64>() / week as f64;
                    Gaussian { mean, std: variance.sqrt() }
                })
                .collect();
            variance = constant.iter().map(|normal| normal.std.powi(2)).collect();
            for row in &past {
                forget(&mut variance, &constant, row);
            }
        }
        let (came, year) = (series(week), history.dates[week].year);
        let moving: Vec<Gaussian> =
            constant.iter().zip(&variance).map(|(normal, v)| Gaussian { std: v.sqrt(), ..*normal }).collect();
        for (years, predicted) in [(&mut all.constant, &constant), (&mut all.moving, &moving)] {
            put(years, year, (&predicted[..n], predicted[n]), &came[..n]);
        }
        forget(&mut variance, &constant, &came);
    }
    all
}

/// A step of the moving average.
fn forget(variance: &mut [f64], around: &[Gaussian], came: &[f64]) {
    for ((variance, normal), came) in variance.iter_mut().zip(around).zip(came) {
        *variance = DECAY * *variance + (1.0 - DECAY) * (came - normal.mean).powi(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::Interval,
        simulate::{Kind, weeks},
    };

    fn setup(history: &Weeks, test: Range<usize>, cost: f64) -> Setup {
        let names: Vec<String> = (0..history.width).map(|i| format!("asset {i}")).collect();
        let whole = Setup::new(history, &names, history.dates[test.start], None).unwrap();
        let fit = FitPlan { hidden: 16, steps: 300, ..FitPlan::default() };
        assert_eq!(test.start, whole.test.start);
        Setup { test, cost, horizon: 2, population: 60, particles: 100, fit }
    }

    /// Prices after a day are replaced by others: every decision up to that day, and every prediction, stays the same, to the bit.
    #[test]
    fn nothing_is_decided_by_what_comes_later() {
        let history = weeks(&Kind::Momentum { phi: 0.5 }, 3, 190, 1);
        let mut setup = setup(&history, 130..190, 0.0);
        setup.fit.steps = 100;
        let before = planned(&history, &setup, 0).unwrap();
        // A rule that only keeps its holdings decides nothing.
        assert!(before.path.turnover.iter().sum::<f64>() > 10.0, "{:?}", before.path.turnover);
        let logs = |years: &[Year]| years.iter().flat_map(|year| year.assets.logs.clone()).collect::<Vec<f64>>();
        // In the week before a year begins, in its first, and in some others.
        let begins = (131..190).find(|week| setup.begins(&history, *week)).unwrap();
        for changed in [begins - 1, begins].into_iter().chain((135..185).step_by(10)) {
            let mut other = history.clone();
            let mut rng = Rng::new(9);
            other.returns[changed * 3..].iter_mut().for_each(|r| *r = 0.05 * rng.normal_f64());
            let after = planned(&other, &setup, 0).unwrap();
            let decided = changed - 130 + 1;
            assert_eq!(before.targets[..decided], after.targets[..decided]);
            assert_ne!(before.targets[decided..], after.targets[decided..]);
            let scored = 3 * (decided - 1);
            assert_eq!(logs(&before.years)[..scored], logs(&after.years)[..scored]);
            let (rules_before, rules_after) = (rules(&history, &setup), rules(&other, &setup));
            assert_eq!(rules_before.steady.growth[..decided - 1], rules_after.steady.growth[..decided - 1]);
            assert_eq!(rules_before.steady.turnover[..decided], rules_after.steady.turnover[..decided]);
        }
    }

    /// By hand, for the first two weeks of the test and the second asset.
    #[test]
    fn simple_predictions_are_of_the_weeks_before() {
        let history = weeks(&Kind::Momentum { phi: 0.5 }, 3, 140, 1);
        // Two weeks of the same year.
        let first = (105..130).find(|week| history.dates[*week].year == history.dates[week + 1].year).unwrap();
        let found = simple(&history, &setup(&history, first..140, 0.001));
        let past: Vec<f64> = (0..first).map(|week| history.returns(week)[1]).collect();
        let mean = past.iter().sum::<f64>() / first as f64;
        let variance = past.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / first as f64;
        let followed = |variance: f64, r: &f64| 0.94 * variance + 0.06 * (r - mean).powi(2);
        let mut moving = past.iter().fold(variance, followed);
        for week in [first, first + 1] {
            let came = history.returns(week)[1];
            for (years, variance) in [(&found.constant, variance), (&found.moving, moving)] {
                let expected = Gaussian { mean, std: variance.sqrt() }.log_density(came);
                assert!((years[0].assets.logs[3 * (week - first) + 1] - expected).abs() < 1e-9);
            }
            moving = followed(moving, &came);
        }
    }

    #[test]
    fn all_goes_into_what_grows_where_trading_is_free() {
        let history = weeks(&Kind::Growing { drift: 0.01 }, 3, 340, 2);
        let found = planned(&history, &setup(&history, 330..340, 0.0), 0).unwrap();
        let mean = found.targets.iter().map(|target| target[0]).sum::<f64>() / 10.0;
        assert!(mean > 0.95, "{:?}", found.targets);
    }

    /// A week determines half of the next one: plans beat equal parts, by more than the interval of the difference.
    #[test]
    fn what_can_be_foreseen_is_earned() {
        let history = weeks(&Kind::Momentum { phi: 0.5 }, 3, 470, 3);
        let setup = setup(&history, 320..470, 0.001);
        let found = planned(&history, &setup, 0).unwrap();
        let even = rules(&history, &setup).even;
        let difference: Vec<f64> = found.path.growth.iter().zip(&even.growth).map(|(a, b)| a - b).collect();
        let interval = Interval::of(&difference, 8);
        assert!(interval.low > 0.002, "{interval:?}");
        // The ensemble predicts it, and the others do not.
        let score = |years: &[Year]| {
            let logs: Vec<f64> = years.iter().flat_map(|year| year.assets.logs.clone()).collect();
            logs.iter().sum::<f64>() / logs.len() as f64
        };
        let simple = simple(&history, &setup);
        assert!(score(&found.years) > score(&simple.constant) + 0.05, "{}", score(&found.years));
    }

    /// Unpredictable prices: predicted intervals contain the shares that they should, and trading costs prevent trades.
    #[test]
    fn noise_is_called_noise() {
        let history = weeks(&Kind::Noise, 4, 800, 4);
        let mut setup = setup(&history, 500..800, 0.02);
        setup.fit.steps = 200;
        let found = planned(&history, &setup, 0).unwrap();
        let mut scores = Scores::default();
        found.years.iter().for_each(|year| scores.extend(&year.assets));
        // 1200 returns: standard errors of 1.4, 1.2 and 0.6 %, and what the moving averages add by chance.
        for (share, error) in [(0.5, 0.05), (0.8, 0.04), (0.95, 0.025)] {
            assert!((scores.coverage(share) - share).abs() < error, "{share}: {}", scores.coverage(share));
        }
        assert!(found.path.turnover.iter().sum::<f64>() < 1.5, "{:?}", found.path.turnover);
        for years in [simple(&history, &setup).constant, simple(&history, &setup).moving] {
            let mut scores = Scores::default();
            years.iter().for_each(|year| scores.extend(&year.assets));
            assert!((scores.coverage(0.8) - 0.8).abs() < 0.04, "{}", scores.coverage(0.8));
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let history = weeks(&Kind::Momentum { phi: 0.5 }, 3, 140, 5);
        let mut setup = setup(&history, 120..140, 0.001);
        setup.fit.steps = 20;
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| planned(&history, &setup, 3)).unwrap()
        };
        let (one, three) = (with(1), with(3));
        assert_eq!(one.targets, three.targets);
        assert_eq!(one.path, three.path);
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let mut history = weeks(&Kind::Noise, 2, 150, 6);
        let names = ["A".to_owned(), "B".to_owned()];
        let told = |history: &Weeks, from: Date| Setup::new(history, &names, from, None).unwrap_err().to_string();
        assert!(told(&history, history.dates[50]).contains("50 weeks of prices before it, expected at least 104"));
        assert!(told(&history, "2050-01-01".parse().unwrap()).contains("no week of prices from it on"));
        history.returns.iter_mut().skip(1).step_by(2).take(120).for_each(|r| *r = 0.0);
        assert!(told(&history, history.dates[110]).starts_with("B: no variation before"));
        let setup = Setup { particles: 7, ..Setup::new(&history, &names, history.dates[130], None).unwrap() };
        assert!(
            planned(&history, &setup, 0).unwrap_err().to_string().starts_with("particles = 7: expected a multiple")
        );
    }
}
