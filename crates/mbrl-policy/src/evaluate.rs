//! Evaluating an agent: whole episodes from fixed start states, without learning.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use mbrl_env::{Rng, Transition, World};

use crate::{
    ActMode, Agent, AgentError, EpisodeSummary,
    means::Means,
    world::{Episode, Seat, step_together},
};

/// One evaluation episode.
#[derive(Debug, Clone)]
pub struct EvaluationEpisode {
    /// The seed of its start state.
    pub seed: u64,
    /// Its result.
    pub summary: EpisodeSummary,
    /// All its steps.
    pub transitions: Vec<Transition>,
}

/// What an evaluation found.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Its episodes, in the order of their seeds.
    pub episodes: Vec<EvaluationEpisode>,
    /// Wall time.
    pub elapsed: Duration,
}

impl Evaluation {
    /// Those that did not break down: all averages are over them.
    fn whole(&self) -> impl Iterator<Item = &EpisodeSummary> + '_ {
        self.episodes.iter().map(|episode| &episode.summary).filter(|summary| summary.is_whole())
    }

    /// Episodes that broke down.
    #[must_use]
    pub fn breakdowns(&self) -> usize {
        self.episodes.len() - self.whole().count()
    }

    /// Steps whose plan failed, over all episodes.
    #[must_use]
    pub fn failed_plans(&self) -> u64 {
        self.episodes.iter().map(|episode| episode.summary.failed_plans).sum()
    }

    /// Undiscounted return of each episode that did not break down.
    pub fn returns(&self) -> impl Iterator<Item = f64> + '_ {
        self.whole().map(|summary| summary.total_reward)
    }

    /// Mean return; NaN where every episode broke down.
    #[must_use]
    pub fn return_mean(&self) -> f64 {
        self.returns().sum::<f64>() / self.returns().count() as f64
    }

    /// Standard deviation of the returns over these episodes (divided by their number, not one less).
    #[must_use]
    pub fn return_std(&self) -> f64 {
        let mean = self.return_mean();
        (self.returns().map(|r| (r - mean).powi(2)).sum::<f64>() / self.returns().count() as f64).sqrt()
    }

    /// Mean number of steps.
    #[must_use]
    pub fn length_mean(&self) -> f64 {
        self.whole().map(|summary| summary.length as f64).sum::<f64>() / self.whole().count() as f64
    }

    /// What `metrics.jsonl` records of it.
    #[must_use]
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let numbers = [
            ("eval/return_mean", self.return_mean()),
            ("eval/return_std", self.return_std()),
            ("eval/return_min", self.returns().fold(f64::INFINITY, f64::min)),
            ("eval/return_max", self.returns().fold(f64::NEG_INFINITY, f64::max)),
            ("eval/length_mean", self.length_mean()),
            ("eval/episodes", self.episodes.len() as f64),
            ("eval/breakdowns", self.breakdowns() as f64),
            ("eval/failed_plans", self.failed_plans() as f64),
            ("eval/time_s", self.elapsed.as_secs_f64()),
        ];
        let mut info = Means::default();
        for (name, mean) in self.whole().flat_map(|summary| &summary.info) {
            info.add(&format!("reward/{name}"), *mean);
        }
        numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(info.take()).collect()
    }
}

/// The most episodes of an evaluation: all their steps are kept in memory.
pub const MAX_EPISODES: usize = 100_000;

/// The seeds of `episodes` start states. The same `seed` gives the same start states for every agent, and more
/// episodes begin with the same ones. None of them is drawn by a [`Training`](crate::Training) with this seed.
#[must_use]
pub fn start_seeds(seed: u64, episodes: usize) -> Vec<u64> {
    // A domain of its own: a run with the same seed must not be judged on the start states that it learns from.
    let mut rng = Rng::new(seed ^ u64::from_be_bytes(*b"evaluate"));
    (0..episodes).map(|_| rng.key()).collect()
}

/// Runs one episode from each start seed and learns nothing. What the agent draws depends on the start seed alone, so
/// an evaluation is a function of the agent and the seeds, and disturbs no other stream of random numbers.
///
/// An episode that breaks down ([`EpisodeSummary::breakdown`]) ends there, as truncated; it is counted, and left out of all means.
/// Steps whose plan failed are counted too. Both give a warning.
///
/// The agent forgets its running episode: evaluate between episodes. The environment must end its episodes: a task
/// without an end state needs a [`TimeLimit`](mbrl_env::TimeLimit).
///
/// # Errors
/// [`AgentError::Config`] without seeds or with more than [`MAX_EPISODES`]; errors of the agent or the environment.
pub fn evaluate(world: &mut World, agent: &mut dyn Agent, seeds: &[u64]) -> Result<Evaluation, AgentError> {
    evaluate_watched(world, agent, seeds, &mut |_| {})
}

/// [`evaluate`], reporting each episode as it ends.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_watched(
    world: &mut World,
    agent: &mut dyn Agent,
    seeds: &[u64],
    watch: &mut dyn FnMut(&EvaluationEpisode),
) -> Result<Evaluation, AgentError> {
    evaluate_stoppable(world, agent, seeds, &AtomicBool::new(false), watch)
}

/// [`evaluate_watched`] until `stop` is raised: then the episodes that had ended by then, in the order of the seeds.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_stoppable(
    world: &mut World,
    agent: &mut dyn Agent,
    seeds: &[u64],
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&EvaluationEpisode),
) -> Result<Evaluation, AgentError> {
    ended_until(std::slice::from_mut(world), agent, seeds, stop, watch)
}

/// Refuses a number of episodes that cannot be evaluated.
pub(crate) fn check_episodes(episodes: usize) -> Result<(), AgentError> {
    if (1..=MAX_EPISODES).contains(&episodes) {
        return Ok(());
    }
    Err(AgentError::Config { field: "episodes", value: episodes.to_string(), rule: "1 to 100000 episodes to evaluate" })
}

/// [`evaluate`] in several environments of one kind side by side, as many as the agent [can act in](Agent::slots): the same
/// evaluation, since each episode depends on its start seed alone, in less time.
///
/// # Errors
/// As [`evaluate`]; [`AgentError::Config`] without a world.
pub fn evaluate_together(
    worlds: &mut [World],
    agent: &mut dyn Agent,
    seeds: &[u64],
    watch: &mut dyn FnMut(&EvaluationEpisode),
) -> Result<Evaluation, AgentError> {
    ended_until(worlds, agent, seeds, &AtomicBool::new(false), watch)
}

/// An episode from each of `seeds`, at most one per world, in lockstep; `None` where `stop` was raised.
fn episodes_together(
    worlds: &mut [World],
    agent: &mut dyn Agent,
    seeds: &[u64],
    stop: &AtomicBool,
    trouble: &mut Option<AgentError>,
) -> Result<Option<Vec<EvaluationEpisode>>, AgentError> {
    // A child of the start's stream, so that the agent does not draw the numbers that made the start state.
    let mut rngs: Vec<Rng> = seeds.iter().map(|seed| Rng::new(*seed).split()).collect();
    let mut episodes = Vec::with_capacity(seeds.len());
    for (slot, (world, seed)) in worlds.iter_mut().zip(seeds).enumerate() {
        episodes.push((Episode::reset(world, *seed, 0)?, Vec::<Transition>::new(), false));
        agent.begin_episode_in(slot);
    }
    let mut step = 0;
    while episodes.iter().any(|(.., over)| !over) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let running: Vec<usize> = (0..episodes.len()).filter(|slot| !episodes[*slot].2).collect();
        let all = episodes.iter_mut().zip(&mut *worlds).zip(&mut rngs).enumerate();
        let seats = all.filter(|(_, (((.., over), _), _))| !*over);
        let seats = seats.map(|(slot, (((episode, ..), world), rng))| Seat { slot, world, episode, rng }).collect();
        let stepped = step_together(seats, agent, ActMode::Evaluate, step)?;
        for (slot, stepped) in running.into_iter().zip(stepped) {
            let (_, transitions, over) = &mut episodes[slot];
            match stepped {
                Some((transition, _)) => {
                    *over = transition.episode_over();
                    transitions.push(transition);
                }
                None => {
                    *over = true;
                    if let Some(last) = transitions.last_mut() {
                        last.truncated = true;
                    }
                }
            }
        }
        step += 1;
    }
    let finish = |(seed, (mut episode, transitions, _)): (&u64, (Episode, Vec<Transition>, bool))| {
        let first = episode.trouble();
        *trouble = trouble.take().or(first);
        EvaluationEpisode { seed: *seed, summary: episode.finish(), transitions }
    };
    Ok(Some(seeds.iter().zip(episodes).map(finish).collect()))
}

/// As [`evaluate`]; `None` where `stop` was raised before it was done.
pub(crate) fn evaluate_until(
    worlds: &mut [World],
    agent: &mut dyn Agent,
    seeds: &[u64],
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&EvaluationEpisode),
) -> Result<Option<Evaluation>, AgentError> {
    let evaluation = ended_until(worlds, agent, seeds, stop, watch)?;
    Ok((evaluation.episodes.len() == seeds.len()).then_some(evaluation))
}

/// The episodes that had ended before `stop` was raised.
fn ended_until(
    worlds: &mut [World],
    agent: &mut dyn Agent,
    seeds: &[u64],
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&EvaluationEpisode),
) -> Result<Evaluation, AgentError> {
    check_episodes(seeds.len())?;
    let together = worlds.len().min(agent.slots());
    if together == 0 {
        return Err(AgentError::Config { field: "worlds", value: "0".into(), rule: "at least one environment" });
    }
    let start = Instant::now();
    let mut episodes: Vec<EvaluationEpisode> = Vec::with_capacity(seeds.len());
    let mut trouble = None;
    for seeds in seeds.chunks(together) {
        let Some(more) = episodes_together(&mut worlds[..together], agent, seeds, stop, &mut trouble)? else {
            break;
        };
        more.iter().for_each(&mut *watch);
        episodes.extend(more);
    }
    agent.begin_episode();
    let evaluation = Evaluation { episodes, elapsed: start.elapsed() };
    if let Some(first) = trouble {
        tracing::warn!(
            "evaluation: {} of {} episodes broke down, {} plans failed; first: {first}",
            evaluation.breakdowns(),
            evaluation.episodes.len(),
            evaluation.failed_plans()
        );
    }
    Ok(evaluation)
}
