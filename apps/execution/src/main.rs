//! Selling a million shares in five days: a fast sale pushes the price down, a slow one carries the risk that it falls.
//!
//! In the market of Almgren and Chriss (2000), *Optimal execution of portfolio transactions*, J. Risk 3, the optimal schedule is known in closed
//! form for each risk aversion. A planner with the market as its model finds the same schedule, replanning at every step, and the simulated
//! costs agree with the formulas. Run it with `cargo run --release -p mbrl-execution`; it takes some seconds and leaves `execution.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Dynamics, Propagation, dynamics_fn};
use mbrl_plan::{CemConfig, Mpc, Problem, Replan};
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};

/// Number of selling steps.
const STEPS: usize = 10;

#[derive(Debug, Parser)]
#[command(about = "Draws planned schedules of selling beside the optimal ones")]
struct Args {
    /// Risk aversions (1/$), in rising order.
    #[arg(long, value_delimiter = ',', default_value = "1e-8,3e-8,1e-7,3e-7,1e-6")]
    aversion: Vec<f64>,
    /// Number of simulated sales, of five days each, by which schedules are judged.
    #[arg(long, default_value_t = 4000)]
    days: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "execution.svg")]
    out: PathBuf,
}

/// The market of the paper's example, in dollars, shares and days.
#[derive(Debug, Clone, Copy)]
struct Market {
    /// Shares to sell.
    shares: f64,
    /// Length of a step (days).
    tau: f64,
    /// Standard deviation of the price in a day.
    sigma: f64,
    /// Permanent price decrease per share sold.
    permanent: f64,
    /// Half the spread.
    spread: f64,
    /// Temporary price decrease per share per day.
    temporary: f64,
}

const MARKET: Market =
    Market { shares: 1e6, tau: 0.5, sigma: 0.95, permanent: 2.5e-7, spread: 0.0625, temporary: 2.5e-6 };

impl Market {
    /// The temporary impact minus the part of the permanent one that affects only later sales.
    fn adjusted(&self) -> f64 {
        self.temporary - 0.5 * self.permanent * self.tau
    }

    /// Expectation and variance of the cost of selling by a schedule of remaining shares `[STEPS + 1]`.
    fn cost(&self, held: &[f64]) -> [f64; 2] {
        let sold = held.windows(2).map(|pair| pair[0] - pair[1]);
        let impact: f64 = sold.clone().map(|n| self.spread * n.abs() + self.adjusted() / self.tau * n * n).sum();
        let risk: f64 = held[1..].iter().map(|x| x * x).sum();
        [0.5 * self.permanent * self.shares.powi(2) + impact, self.sigma.powi(2) * self.tau * risk]
    }

    /// The optimal schedule for a risk aversion.
    fn optimal(&self, aversion: f64) -> Vec<f64> {
        let square = aversion * self.sigma.powi(2) / self.adjusted();
        let kappa = (0.5 * square * self.tau.powi(2) + 1.0).acosh() / self.tau;
        let end = self.tau * STEPS as f64;
        let at = |j: usize| (kappa * (end - j as f64 * self.tau)).sinh() / (kappa * end).sinh() * self.shares;
        (0..=STEPS).map(at).collect()
    }

    /// Cost of one sale by a schedule in the simulated market: the value at the first price minus the proceeds.
    fn day(&self, held: &[f64], rng: &mut Rng) -> f64 {
        let first = 50.0;
        let (mut price, mut paid) = (first, 0.0);
        for pair in held.windows(2) {
            let sold = pair[0] - pair[1];
            paid += sold * (price - self.spread * sold.signum() - self.temporary * sold / self.tau);
            price += self.sigma * self.tau.sqrt() * rng.normal_f64() - self.permanent * sold;
        }
        first * self.shares - paid
    }
}

/// The market as a model: the held share and the step; an action is the share of it to sell. In the last step everything is sold.
fn model() -> impl Dynamics {
    dynamics_fn(2, 1, &Device::flex(), |states: Tensor<2>, actions: Tensor<2>| {
        let (held, step) = (states.clone().narrow(1, 0, 1), states.narrow(1, 1, 1));
        let last = step.clone().greater_elem(STEPS as f32 - 1.5).float();
        let kept = (actions.clamp(0.0, 1.0).neg() + 1.0) * (last.neg() + 1.0);
        Tensor::cat(vec![held * kept, step + 1.0], 1)
    })
}

/// Plans and sells; returns the shares that remain after each step.
fn planned(aversion: f64, rng: &mut Rng) -> Result<Vec<f64>> {
    let Market { shares, tau, sigma, spread, .. } = MARKET;
    // In units of the cost of selling all at once, so that costs are of order 1.
    let unit = MARKET.adjusted() / tau * shares * shares;
    let [of_spread, of_risk] = [spread * shares / unit, aversion * sigma.powi(2) * tau * shares * shares / unit];
    let reward = reward_fn(move |obs: Tensor<2>, _, next: Tensor<2>| {
        let (before, after) = (obs.narrow(1, 0, 1), next.narrow(1, 0, 1));
        let sold = before - after.clone();
        let cost = sold.clone().square() + sold.abs() * of_spread as f32 + after.square() * of_risk as f32;
        cost.neg().squeeze_dim::<1>(1)
    });
    let (model, actions) = (model(), ActionSpace::Box(BoxSpace::new([0.0], [1.0])?));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig { horizon: STEPS, population: 200, elites: 20, iterations: 8, ..CemConfig::default() };
    let mut mpc = Mpc::new(Box::new(config.init(&actions, Propagation::MEAN)?), Replan::EveryStep)?;
    let mut held = vec![1.0];
    for step in 0..STEPS {
        let now = held[step];
        let share = mpc.act(&Situation::of(&[now as f32, step as f32]), &problem, rng)?.action[0];
        held.push(if step + 1 == STEPS { 0.0 } else { now * (1.0 - f64::from(share.clamp(0.0, 1.0))) });
    }
    Ok(held.into_iter().map(|held| held * shares).collect())
}

/// A schedule, and its cost by the formulas and in the simulated market: mean and variance.
struct Judged {
    held: Vec<f64>,
    cost: [f64; 2],
    simulated: [f64; 2],
}

impl Judged {
    fn of(held: Vec<f64>, days: usize, rng: &mut Rng) -> Self {
        let costs: Vec<f64> = (0..days).map(|_| MARKET.day(&held, rng)).collect();
        let mean = costs.iter().sum::<f64>() / days as f64;
        let variance = costs.iter().map(|cost| (cost - mean).powi(2)).sum::<f64>() / (days as f64 - 1.0).max(1.0);
        Self { cost: MARKET.cost(&held), held, simulated: [mean, variance] }
    }

    fn objective(&self, aversion: f64) -> f64 {
        self.cost[0] + aversion * self.cost[1]
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut rng = Rng::new(args.seed);
    let mut judged = Vec::new();
    for &aversion in &args.aversion {
        let optimal = Judged::of(MARKET.optimal(aversion), args.days, &mut rng);
        let plan = Judged::of(planned(aversion, &mut rng)?, args.days, &mut rng);
        let even: Vec<f64> = (0..=STEPS).map(|j| MARKET.shares * (1.0 - j as f64 / STEPS as f64)).collect();
        let even = Judged::of(even, args.days, &mut rng);
        let (best, found) = (optimal.objective(aversion), plan.objective(aversion));
        println!(
            "aversion {aversion:.0e}: cost and risk {best:.0} in closed form, planned {found:.0} (+{:.2} %), evenly {:.0}; \
             simulated mean {:.0} of {:.0}, deviation {:.0} of {:.0}",
            100.0 * (found / best - 1.0),
            even.objective(aversion),
            plan.simulated[0],
            plan.cost[0],
            plan.simulated[1].sqrt(),
            plan.cost[1].sqrt()
        );
        judged.push((optimal, plan));
    }
    fs::write(&args.out, picture(&args, &judged).svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

fn picture(args: &Args, judged: &[(Judged, Judged)]) -> Picture {
    let mut held = Chart::new(Size::Panel(300.0), "shares held", "step", "million shares");
    let mut frontier =
        Chart::new(Size::Panel(300.0), "cost against risk", "standard deviation (million $)", "cost (million $)");
    for (i, (optimal, plan)) in judged.iter().enumerate() {
        let points = |held: &[f64]| held.iter().enumerate().map(|(j, x)| (j as f64, x / 1e6)).collect::<Points>();
        held.marks.push(Mark::Line(Colour::Series(i), Style::Thin, points(&optimal.held)));
        held.marks.push(Mark::Dots(Colour::Series(i), points(&plan.held)));
    }
    let point = |of: &Judged| (of.cost[1].sqrt() / 1e6, of.cost[0] / 1e6);
    let mut line: Points = judged.iter().map(|(optimal, _)| point(optimal)).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    frontier.marks.push(Mark::Line(Colour::Muted, Style::Thin, line));
    for (i, (_, plan)) in judged.iter().enumerate() {
        frontier.marks.push(Mark::Dots(Colour::Series(i), vec![point(plan)]));
        let simulated = (plan.simulated[1].sqrt() / 1e6, plan.simulated[0] / 1e6);
        frontier.marks.push(Mark::Rings(Colour::Series(i), vec![simulated]));
    }
    let mut legend = vec![
        (Key::Line, Colour::Muted, "closed form".to_owned()),
        (Key::Ring, Colour::Muted, "simulated market".to_owned()),
    ];
    legend.extend(
        args.aversion
            .iter()
            .enumerate()
            .map(|(i, aversion)| (Key::Dot, Colour::Series(i), format!("planned, aversion {aversion:.0e} / $"))),
    );
    Picture {
        title: "Selling a million shares in five days: planned schedules beside the closed form".into(),
        legend,
        columns: 2,
        charts: vec![("How much is left".into(), held), ("What it costs, and how sure that is".into(), frontier)],
        caption: "The market of Almgren and Chriss's example: impact for good and while selling, half a spread of 1/16 $. CEM replans at each step.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schedule_near_the_closed_form_is_better() {
        let mut rng = Rng::new(1);
        for aversion in [1e-8, 1e-7, 1e-6] {
            let objective = |held: &[f64]| {
                let [cost, variance] = MARKET.cost(held);
                cost + aversion * variance
            };
            let best = MARKET.optimal(aversion);
            assert!((best[0] - 1e6).abs() < 1e-3 && best[STEPS].abs() < 1e-3);
            for _ in 0..200 {
                let mut other = best.clone();
                other[1..STEPS].iter_mut().for_each(|x| *x += 1e4 * rng.normal_f64());
                assert!(objective(&other) >= objective(&best), "{other:?}");
            }
        }
    }

    #[test]
    fn without_chance_the_simulated_market_pays_what_the_formulas_say_exactly() {
        let calm = Market { sigma: 0.0, ..MARKET };
        let even: Vec<f64> = (0..=STEPS).map(|j| calm.shares * (1.0 - j as f64 / STEPS as f64)).collect();
        for held in [MARKET.optimal(1e-8), MARKET.optimal(1e-6), even] {
            let ([cost, variance], paid) = (calm.cost(&held), calm.day(&held, &mut Rng::new(0)));
            assert!((paid / cost - 1.0).abs() < 1e-9 && variance == 0.0, "{paid}, not {cost}");
            let judged = Judged { cost: [3.0, 2.0], held, simulated: [0.0; 2] };
            assert_eq!(judged.objective(0.5), 4.0);
        }
    }

    #[test]
    fn the_simulated_market_pays_what_the_formulas_say() {
        let held = MARKET.optimal(1e-7);
        let judged = Judged::of(held, 20_000, &mut Rng::new(2));
        let error = (judged.cost[1] / 20_000.0).sqrt();
        assert!((judged.simulated[0] - judged.cost[0]).abs() < 4.0 * error, "{:?}", judged.simulated);
        assert!((judged.simulated[1] / judged.cost[1] - 1.0).abs() < 0.05, "{:?}", judged.simulated);
    }
}
