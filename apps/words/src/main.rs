//! A token model as a dynamics model: p(next token | tokens before, what I choose), and text that is planned to meet a constraint.
//!
//! A small character model is counted from a text on the machine. As a [`Dynamics`], its state is the last characters, an action is the rank of
//! the next one (0 for the most likely), and a step earns the logarithm of its probability; forbidden characters cost. A planner writes with it,
//! one character at a time; for comparison, texts are drawn from the model, at the same cost, until one happens to meet the constraint. Run it
//! with `cargo run --release -p mbrl-words`; it takes a minute and leaves `words.svg`. It claims nothing about language models beyond that.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

mod tokens;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use mbrl_env::{ActionSpace, Rng, Situation};
use mbrl_model::{Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction, Propagation};
use mbrl_plan::{CemConfig, Mpc, Problem, Replan};
use plot::{Chart, Colour, Key, Mark, Picture, Size, Style};
use tokens::{CONTEXT, Ngrams, TOKENS, text, tokens};

/// Number of ranks among which an action chooses.
const RANKS: usize = 10;
/// Cost of a forbidden character.
const FINE: f64 = 20.0;
const POPULATION: usize = 64;
const ITERATIONS: usize = 3;
const HORIZON: usize = 8;

#[derive(Debug, Parser)]
#[command(
    about = "Draws how often text meets a constraint that is planned with a token model, and that is drawn from it"
)]
struct Args {
    /// The text to learn from; its last tenth is held out. Every Debian system has this one (package base-files).
    #[arg(long, default_value = "/usr/share/common-licenses/GPL-3")]
    text: PathBuf,
    /// Forbidden letters, one set for each point of the picture.
    #[arg(long, value_delimiter = ',', default_value = "e,et,eta,etao")]
    without: Vec<String>,
    /// Number of beginnings to continue from.
    #[arg(long, default_value_t = 20)]
    beginnings: usize,
    /// Number of characters to write.
    #[arg(long, default_value_t = 40)]
    length: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "words.svg")]
    out: PathBuf,
}

/// The token model as dynamics.
struct Writer {
    spec: DynamicsSpec,
    ngrams: Ngrams,
    forbidden: [bool; TOKENS],
}

impl Writer {
    fn new(ngrams: Ngrams, without: &str) -> Self {
        let mut forbidden = [false; TOKENS];
        tokens(without).into_iter().filter(|token| *token < 26).for_each(|token| forbidden[token as usize] = true);
        Self { spec: DynamicsSpec::new("writer", CONTEXT, 1, &Device::flex()), ngrams, forbidden }
    }

    /// The token of a rank after a context, and its reward.
    fn chosen(&self, context: &[u8], rank: usize) -> (u8, f64) {
        let next = self.ngrams.next(context);
        let mut order: [u8; TOKENS] = std::array::from_fn(|i| i as u8);
        order.sort_by(|a, b| next[*b as usize].total_cmp(&next[*a as usize]));
        let token = order[rank.min(RANKS - 1)];
        let fine = if self.forbidden[token as usize] { FINE } else { 0.0 };
        (token, next[token as usize].ln() - fine)
    }

    fn meets(&self, written: &[u8]) -> bool {
        written.iter().all(|token| !self.forbidden[*token as usize])
    }

    /// Next states, and the rewards of the steps.
    fn step(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<(Tensor<2>, Tensor<1>), ModelError> {
        let [rows, width] = states.dims();
        for (what, expected, actual) in
            [("columns of states", CONTEXT, width), ("columns of actions", 1, actions.dims()[1])]
        {
            if expected != actual {
                return Err(ModelError::Width { what, expected, actual });
            }
        }
        let host = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        let (states, actions) = (host(states), host(actions));
        let (mut next, mut earned) = (Vec::with_capacity(states.len()), Vec::with_capacity(rows));
        for (row, action) in states.chunks(CONTEXT).zip(&actions) {
            let context: Vec<u8> = row.iter().map(|token| token.clamp(0.0, TOKENS as f32 - 1.0) as u8).collect();
            let (token, worth) = self.chosen(&context, action.max(0.0) as usize);
            next.extend(context[1..].iter().chain([&token]).map(|token| f32::from(*token)));
            earned.push(worth as f32);
        }
        let device = &self.spec.device;
        Ok((
            Tensor::from_data(TensorData::new(next, [rows, CONTEXT]), device),
            Tensor::from_data(TensorData::new(earned, [rows]), device),
        ))
    }
}

impl Dynamics for Writer {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        Ok(Prediction::new(self.step(states, actions)?.0))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
        let (next, earned) = self.step(states, actions)?;
        Ok(Imagined::new(next).with_reward(earned))
    }
}

/// For one set of letters: how often texts met the constraint, and their reward per character if they did.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    met: f64,
    log_likelihood: f64,
}

impl Found {
    fn of(texts: &[Option<f64>]) -> Self {
        let met: Vec<f64> = texts.iter().flatten().copied().collect();
        let mean = if met.is_empty() { f64::NAN } else { met.iter().sum::<f64>() / met.len() as f64 };
        Self { met: met.len() as f64 / texts.len() as f64, log_likelihood: mean }
    }
}

/// Writes a text by planning.
fn planned(writer: &Writer, beginning: &[u8], length: usize, rng: &mut Rng) -> Result<Vec<u8>> {
    let actions = ActionSpace::Discrete(RANKS);
    let config = CemConfig {
        horizon: HORIZON,
        population: POPULATION,
        elites: 8,
        iterations: ITERATIONS,
        ..CemConfig::default()
    };
    let mut mpc = Mpc::new(Box::new(config.init(&actions, Propagation::MEAN)?), Replan::EveryStep)?;
    let problem = Problem::new(writer, &actions);
    let mut written = beginning.to_vec();
    for _ in 0..length {
        let context = &written[written.len() - CONTEXT..];
        let obs: Vec<f32> = context.iter().map(|token| f32::from(*token)).collect();
        let rank = mpc.act(&Situation::of(&obs), &problem, rng)?.action[0];
        let (token, _) = writer.chosen(context, rank as usize);
        written.push(token);
    }
    Ok(written.split_off(beginning.len()))
}

/// Draws a text from the model.
fn drawn(writer: &Writer, beginning: &[u8], length: usize, rng: &mut Rng) -> Vec<u8> {
    let mut written = beginning.to_vec();
    for _ in 0..length {
        let next = writer.ngrams.next(&written[written.len() - CONTEXT..]);
        let mut luck = rng.uniform_f64(0.0, 1.0);
        let token = next.iter().position(|probability| {
            luck -= probability;
            luck < 0.0
        });
        written.push(token.unwrap_or(TOKENS - 1) as u8);
    }
    written.split_off(beginning.len())
}

/// The logarithm of a text's probability, per character.
fn likelihood(writer: &Writer, beginning: &[u8], written: &[u8]) -> f64 {
    let all = [beginning, written].concat();
    let at = |end: usize| writer.ngrams.next(&all[end - CONTEXT..end])[all[end] as usize].ln();
    (beginning.len()..all.len()).map(at).sum::<f64>() / written.len() as f64
}

fn main() -> Result<()> {
    let args = Args::parse();
    let source = fs::read_to_string(&args.text)
        .with_context(|| format!("{}: --text names a text to learn from", args.text.display()))?;
    let all = tokens(&source);
    if all.len() < 2000 || args.length == 0 || args.beginnings == 0 {
        bail!("{}: {} characters, expected 2,000 or more, and something to write", args.text.display(), all.len());
    }
    let (learned, held_out) = all.split_at(all.len() * 9 / 10);
    println!("perplexity on the last tenth of {} ({} characters learned from):", args.text.display(), learned.len());
    for order in 0..=CONTEXT {
        println!("  contexts of {order}: {:.2}", Ngrams::of(learned, order).perplexity(held_out));
    }
    let ngrams = Ngrams::of(learned, CONTEXT);
    // As many draws as planning costs.
    let draws = POPULATION * ITERATIONS * HORIZON;
    let mut points = Vec::new();
    for without in &args.without {
        let writer = Writer::new(ngrams.clone(), without);
        let mut rng = Rng::new(args.seed);
        let (mut by_plan, mut by_draws, mut example) = (Vec::new(), Vec::new(), String::new());
        for i in 0..args.beginnings {
            let from = i * (held_out.len() - CONTEXT) / args.beginnings;
            let beginning = &held_out[from..from + CONTEXT];
            let judged = |written: &[u8]| writer.meets(written).then(|| likelihood(&writer, beginning, written));
            let written = planned(&writer, beginning, args.length, &mut rng)?;
            by_plan.push(judged(&written));
            if i == 0 {
                example = format!("{}|{}", text(beginning), text(&written));
            }
            let best = (0..draws).filter_map(|_| judged(&drawn(&writer, beginning, args.length, &mut rng)));
            by_draws.push(best.reduce(f64::max));
        }
        let (plan, draw) = (Found::of(&by_plan), Found::of(&by_draws));
        println!(
            "without `{without}`: planned {:.2} ({:.2} per character), the best of {draws} draws {:.2} ({:.2}); \"{example}\"",
            plan.met, plan.log_likelihood, draw.met, draw.log_likelihood
        );
        points.push((plan, draw));
    }
    fs::write(&args.out, picture(&args, &points).svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

fn picture(args: &Args, points: &[(Found, Found)]) -> Picture {
    let chart = |heading: &str, label: &str, of: fn(&Found) -> f64| {
        let mut chart = Chart::new(Size::Panel(280.0), heading, "set of letters", label);
        for (which, colour) in [Colour::Series(0), Colour::Series(1)].into_iter().enumerate() {
            let points = points
                .iter()
                .enumerate()
                .map(|(i, (plan, draw))| ((i + 1) as f64, of(if which == 0 { plan } else { draw })));
            let points: Vec<(f64, f64)> = points.filter(|(_, y)| y.is_finite()).collect();
            chart.marks.push(Mark::Line(colour, Style::Thin, points.clone()));
            chart.marks.push(Mark::Dots(colour, points));
        }
        (heading.to_owned(), chart)
    };
    Picture {
        title: "Writing without some letters, with a model of the next character".into(),
        legend: vec![
            (Key::Dot, Colour::Series(0), "planned".into()),
            (Key::Dot, Colour::Series(1), "the best of as many draws as planning costs".into()),
        ],
        columns: 2,
        charts: vec![
            chart("Constraint met", "share of texts", |found| found.met),
            chart("Likelihood where it was met", "ln p per character", |found| found.log_likelihood),
        ],
        caption: format!(
            "{} characters after each of {} beginnings; sets of letters that must not be used, from 1 on: {}.",
            args.length,
            args.beginnings,
            args.without.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use mbrl_model::check::check_dynamics;

    use super::*;

    #[test]
    fn it_keeps_the_contract_and_earns_what_the_model_says() {
        let learned = tokens(&"the quick brown fox jumps over the lazy dog. ".repeat(20));
        let writer = Writer::new(Ngrams::of(&learned, CONTEXT), "z");
        let device = Device::flex();
        let states = Tensor::from_floats([[19.0, 7.0, 4.0, 26.0, 16.0], [4.0, 26.0, 11.0, 0.0, 25.0]], &device);
        check_dynamics(&writer, states, Tensor::from_floats([[0.0], [3.0]], &device)).unwrap();
        // After "the q" comes "u"; after "e la" comes "z", which is forbidden.
        let context = tokens("the q");
        let next = writer.ngrams.next(&context);
        let mut likeliest: Vec<f64> = next.to_vec();
        likeliest.sort_by(|a, b| b.total_cmp(a));
        for (rank, probability) in likeliest[..RANKS].iter().enumerate() {
            let (token, worth) = writer.chosen(&context, rank);
            let fine = if text(&[token]) == "z" { FINE } else { 0.0 };
            assert!(next[token as usize] == *probability && worth == probability.ln() - fine, "rank {rank}");
        }
        // Higher ranks count as the last one.
        assert_eq!(writer.chosen(&context, RANKS + 3), writer.chosen(&context, RANKS - 1));
        // A text's likelihood is per written character.
        let after = tokens("he qu");
        let both = next[20].ln() + writer.ngrams.next(&after)[8].ln();
        assert!((likelihood(&writer, &context, &tokens("ui")) - 0.5 * both).abs() < 1e-12);
        let (token, worth) = writer.chosen(&tokens("the q"), 0);
        assert!(text(&[token]) == "u" && worth > -0.2);
        let (token, worth) = writer.chosen(&tokens("he la"), 0);
        assert!(text(&[token]) == "z" && worth < -FINE + 0.1);
    }
}
