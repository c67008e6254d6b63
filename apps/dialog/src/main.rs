//! A planned dialogue: book a table for a user whose wishes are hidden and whose words are misheard.
//!
//! The user's answers are a dynamics model, learned from transcripts by counting: p(answer | what was said so far, what I say). A planner
//! chooses what to say next, so that few turns lead to a right booking. It is compared with the planner with the user's true probabilities,
//! a handwritten policy, and random acts. Run it with `cargo run --release -p mbrl-dialog`; it takes a minute or two and leaves `dialog.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

mod model;
mod user;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use mbrl_env::{ActionSpace, Env, Rng};
use mbrl_model::{MemberRule, Propagation};
use mbrl_plan::{Mpc, RandomShootingConfig, Replan};
use mbrl_policy::{Evaluation, Goal, MpcAgent, RandomAgent, evaluate, start_seeds};
use model::{TalkingOn, UserModel};
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};
use user::{ACTS, Act, Answer, Dialogue, MOST_TURNS, SLOTS, Transcript, User};

#[derive(Debug, Parser)]
#[command(about = "Draws how well dialogues go that are planned with a learned model of the user")]
struct Args {
    /// Numbers of transcripts to learn from, in rising order.
    #[arg(long, value_delimiter = ',', default_value = "20,100,500,2000")]
    transcripts: Vec<usize>,
    /// Number of dialogues by which each way to talk is judged.
    #[arg(long, default_value_t = 400)]
    dialogues: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "dialog.svg")]
    out: PathBuf,
}

/// The outcome of dialogues.
#[derive(Debug, Clone, Copy)]
struct Talk {
    /// The share that ended with what the user wanted.
    success: f64,
    /// Mean number of turns.
    turns: f64,
    /// Mean return.
    worth: f64,
}

impl Talk {
    fn of(ends: &[(f64, usize, f64)]) -> Self {
        let mean = |of: fn(&(f64, usize, f64)) -> f64| ends.iter().map(of).sum::<f64>() / ends.len() as f64;
        Self {
            success: mean(|end| f64::from(u8::from(end.0 > 0.0))),
            turns: mean(|end| end.1 as f64),
            worth: mean(|end| end.2),
        }
    }

    fn of_evaluation(evaluation: &Evaluation) -> Self {
        let ends = evaluation.episodes.iter().map(|episode| {
            let last = episode.transitions.last().map_or(0.0, |last| last.reward);
            (last, episode.transitions.len(), episode.summary.total_reward)
        });
        Self::of(&ends.collect::<Vec<_>>())
    }
}

/// A planner with a model of the user.
fn planned(user: User, dialogues: usize) -> Result<Talk> {
    let actions = ActionSpace::Discrete(ACTS);
    // One act ahead, tried on 128 users: everything after it depends on the answer, and is part of the value.
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 128 };
    let config = RandomShootingConfig { horizon: 1, population: 40, ..RandomShootingConfig::default() };
    let mpc = Mpc::new(Box::new(config.init(&actions, propagation)?), Replan::EveryStep)?;
    let goal = Goal::of_model().with_terminal_value(Arc::new(TalkingOn));
    let mut agent = MpcAgent::new(UserModel::new(user), goal, actions, mpc);
    Ok(Talk::of_evaluation(&evaluate(&mut Dialogue::world()?, &mut agent, &start_seeds(0, dialogues))?))
}

/// The policy that a programmer would write: ask for each until something is heard, repeat it until it is right, then book.
fn by_hand(dialogues: usize) -> Result<Talk> {
    let mut ends = Vec::new();
    for seed in start_seeds(0, dialogues) {
        let mut env = Dialogue::new()?;
        env.reset(Some(seed))?;
        let (mut heard, mut sure) = ([false; SLOTS], [false; SLOTS]);
        let mut all = 0.0;
        for turn in 1..=MOST_TURNS as usize {
            let act = match (0..SLOTS).find(|&slot| !sure[slot]) {
                Some(slot) if heard[slot] => Act::Confirm(slot),
                Some(slot) => Act::Ask(slot),
                None => Act::Book,
            };
            let step = env.step(&[act.code()])?;
            all += step.reward;
            match (act, Answer::of(step.obs[0])) {
                (_, Answer::Value(slot, _)) => heard[slot] = true,
                (Act::Confirm(slot), Answer::Yes) => sure[slot] = true,
                (Act::Confirm(slot), Answer::No) => heard[slot] = false,
                _ => {}
            }
            if step.terminated || turn == MOST_TURNS as usize {
                ends.push((step.reward, turn, all));
                break;
            }
        }
    }
    Ok(Talk::of(&ends))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let told = |name: &str, talk: Talk| {
        println!("{name}: success {:.3}, turns {:.2}, return {:.2}", talk.success, talk.turns, talk.worth);
        talk
    };
    let mut random = RandomAgent::new(ActionSpace::Discrete(ACTS));
    let random = evaluate(&mut Dialogue::world()?, &mut random, &start_seeds(0, args.dialogues))?;
    let random = told("random acts", Talk::of_evaluation(&random));
    let hand = told("written by hand", by_hand(args.dialogues)?);
    let truth = told("planned with the true user", planned(User::real(), args.dialogues)?);
    let mut rng = Rng::new(args.seed);
    let most = args.transcripts.iter().copied().max().unwrap_or(0);
    let transcripts: Vec<Transcript> = (0..most).map(|_| Transcript::random(&User::real(), &mut rng)).collect();
    let mut learned = Vec::new();
    for &count in &args.transcripts {
        let user = User::learned(&transcripts[..count]);
        learned
            .push((count as f64, told(&format!("planned after {count} transcripts"), planned(user, args.dialogues)?)));
    }
    let picture = picture(
        &args,
        &learned,
        [("planned with the true user", truth), ("written by hand", hand), ("random acts", random)],
    );
    fs::write(&args.out, picture.svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

fn picture(args: &Args, learned: &[(f64, Talk)], others: [(&str, Talk); 3]) -> Picture {
    let colours = [Colour::Ink, Colour::Series(1), Colour::Muted];
    let chart = |heading: &str, label: &str, of: fn(&Talk) -> f64| {
        let mut chart = Chart::new(Size::Panel(280.0), heading, "transcripts", label);
        chart.log_x = true;
        let ends = [learned.first(), learned.last()].into_iter().flatten().map(|(count, _)| *count);
        let ends: Vec<f64> = ends.collect();
        for ((_, talk), colour) in others.iter().zip(colours) {
            chart.marks.push(Mark::Line(colour, Style::Dashed, ends.iter().map(|x| (*x, of(talk))).collect()));
        }
        let points: Points = learned.iter().map(|(count, talk)| (*count, of(talk))).collect();
        chart.marks.push(Mark::Line(Colour::Series(0), Style::Thin, points.clone()));
        chart.marks.push(Mark::Dots(Colour::Series(0), points));
        (heading.to_owned(), chart)
    };
    let lines = others.iter().zip(colours).map(|((name, _), colour)| (Key::Dashed, colour, (*name).to_owned()));
    Picture {
        title: "Planning what to say with a model of the user that was learned from transcripts".into(),
        legend: [(Key::Dot, Colour::Series(0), "planned with the learned user".to_owned())]
            .into_iter()
            .chain(lines)
            .collect(),
        columns: 3,
        charts: vec![
            chart("Right bookings", "share", |talk| talk.success),
            chart("Turns", "turns per dialogue", |talk| talk.turns),
            chart("Return", "mean return", |talk| talk.worth),
        ],
        caption: format!(
            "{} dialogues each. Three things to agree on, four values each; 10, 20 or 30 % of the answers are misheard. A right \
             booking pays 20, a wrong one costs 20, each turn 1.",
            args.dialogues
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialogues_succeed_whose_last_turn_pays() {
        let talk = Talk::of(&[(19.0, 5, 15.0), (-21.0, 3, -23.0), (-1.0, 20, -20.0), (19.0, 8, 12.0)]);
        assert_eq!((talk.success, talk.turns, talk.worth), (0.5, 9.0, -4.0));
    }
}
