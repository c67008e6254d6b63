//! Episodes on all threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::{Env, EnvError, Rng, Simulator, Step, Transition, rng::Purpose};

/// Collects one episode for each seed, on all threads of the current rayon pool.
///
/// The policy gets an observation `[O]` and a generator, and returns an action `[A]`. Episode i depends on seed i alone: the
/// seed resets the environment, and a separate stream of it feeds the policy. Results come in the order of the seeds, with
/// the same bits on any number of threads and whatever the other seeds are. Where the policy remembers something within an
/// episode, see [`collect_with`].
///
/// The simulator is cloned and not changed itself. Its episodes must end, for example by a [`TimeLimit`](crate::TimeLimit).
///
/// ```
/// use mbrl_env::{Env, Replay, collect, tasks};
///
/// let task = tasks::make("reacher")?;
/// let spec = task.env.spec();
/// let actions = spec.actions.clone();
/// let episodes = collect(task.env.require_simulator()?, 0..20, |_obs, rng| actions.sample(rng).expect("bounded"))?;
/// assert!(episodes.iter().all(|episode| episode.len() == 50));
///
/// let mut replay = Replay::new(spec.obs.width(), spec.actions.width(), 10_000)?;
/// for episode in &episodes {
///     replay.push_episode(episode)?;
/// }
/// assert_eq!((replay.len(), replay.episodes().count()), (1000, 20));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// # Errors
/// What the environment returns: [`EnvError::Width`] for an action of the wrong width, for example. Where several
/// episodes fail, the error is that of the first of them.
pub fn collect<P>(
    sim: &(impl Simulator + ?Sized),
    seeds: impl IntoIterator<Item = u64>,
    policy: P,
) -> Result<Vec<Vec<Transition>>, EnvError>
where
    P: Fn(&[f32], &mut Rng) -> Vec<f32> + Sync,
{
    collect_with(sim, seeds, || &policy)
}

/// As [`collect`], with a new policy for each episode: for policies that remember something, as filtered noise does.
///
/// ```
/// use mbrl_env::{Rng, collect_with, tasks};
///
/// // Torques that change slowly.
/// let task = tasks::make("pendulum")?;
/// let episodes = collect_with(task.env.require_simulator()?, 0..4, || {
///     let mut torque = 0.0;
///     move |_obs: &[f32], rng: &mut Rng| {
///         torque = 0.9 * torque + 0.5 * rng.normal();
///         vec![torque]
///     }
/// })?;
/// assert_eq!(episodes.len(), 4);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// # Errors
/// As [`collect`].
pub fn collect_with<P>(
    sim: &(impl Simulator + ?Sized),
    seeds: impl IntoIterator<Item = u64>,
    make_policy: impl Fn() -> P + Sync,
) -> Result<Vec<Vec<Transition>>, EnvError>
where
    P: FnMut(&[f32], &mut Rng) -> Vec<f32>,
{
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let workers = rayon::current_num_threads().min(seeds.len());
    let clones = (0..workers).map(|_| sim.boxed_clone()).collect();
    on_all_threads(clones, &seeds, make_policy)
}

/// As [`collect_with`], for environments that cannot be cloned: `make` makes one for each thread. Processes then run in parallel.
///
/// ```
/// use mbrl_env::{Rng, collect, collect_in, tasks};
///
/// let pushes = || |_obs: &[f32], rng: &mut Rng| vec![rng.uniform(-1.0, 1.0)];
/// let episodes = collect_in(|| Ok(tasks::make("cartpole")?.env), 0..4, pushes)?;
/// // The same as from clones of one.
/// let cartpole = tasks::make("cartpole")?;
/// assert_eq!(episodes, collect(cartpole.env.require_simulator()?, 0..4, pushes())?);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// # Errors
/// Those of `make`, and as [`collect`].
pub fn collect_in<E, P>(
    make: impl Fn() -> Result<E, EnvError> + Sync,
    seeds: impl IntoIterator<Item = u64>,
    make_policy: impl Fn() -> P + Sync,
) -> Result<Vec<Vec<Transition>>, EnvError>
where
    E: Env,
    P: FnMut(&[f32], &mut Rng) -> Vec<f32>,
{
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let workers = rayon::current_num_threads().min(seeds.len());
    // In parallel, because it may take long.
    let envs = (0..workers).into_par_iter().map(|_| make()).collect::<Result<Vec<E>, _>>()?;
    on_all_threads(envs, &seeds, make_policy)
}

/// One episode for each seed, run by workers with one environment each.
fn on_all_threads<E, P>(
    envs: Vec<E>,
    seeds: &[u64],
    make_policy: impl Fn() -> P + Sync,
) -> Result<Vec<Vec<Transition>>, EnvError>
where
    E: Env,
    P: FnMut(&[f32], &mut Rng) -> Vec<f32>,
{
    // Episodes differ in length: each worker takes the next one when it is done.
    let next = AtomicUsize::new(0);
    let work = |mut env: E| {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&seed) = seeds.get(index) else { return done };
            done.push((index, episode(&mut env, seed, make_policy())));
        }
    };
    let mut episodes: Vec<_> = envs.into_par_iter().flat_map_iter(work).collect();
    episodes.sort_unstable_by_key(|(index, _)| *index);
    episodes.into_iter().map(|(_, episode)| episode).collect()
}

fn episode(
    env: &mut impl Env,
    seed: u64,
    mut policy: impl FnMut(&[f32], &mut Rng) -> Vec<f32>,
) -> Result<Vec<Transition>, EnvError> {
    let mut rng = Rng::beside(seed, Purpose::Policy);
    let mut obs = env.reset(Some(seed))?;
    let mut transitions = Vec::new();
    loop {
        let action = policy(&obs, &mut rng);
        let Step { obs: next_obs, reward, terminated, truncated, .. } = env.step(&action)?;
        let following = next_obs.clone();
        transitions.push(Transition { obs, action, reward, next_obs, terminated, truncated });
        if terminated || truncated {
            return Ok(transitions);
        }
        obs = following;
    }
}
