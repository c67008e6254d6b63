//! The collector: the same bits on any number of threads.

use mbrl_env::{Env, EnvError, Noise, Replay, Rng, Simulator, Transition, collect, collect_with, tasks};

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn simulator(task: &str) -> Box<dyn Simulator> {
    tasks::make(task).unwrap().env.into_simulator().unwrap()
}

fn noisy_cartpole() -> Box<dyn Simulator> {
    // Episodes of many lengths, and draws of its own.
    Box::new(Noise::new(simulator("cartpole")).on_actions([0.2]).unwrap())
}

fn random(_: &[f32], rng: &mut Rng) -> Vec<f32> {
    vec![rng.uniform(-1.0, 1.0)]
}

#[test]
fn any_number_of_threads_gives_the_same_episodes_in_order() {
    let collected = |threads| on_threads(threads, || collect(&noisy_cartpole(), 10..60, random).unwrap());
    let one = collected(1);
    assert_eq!(one.len(), 50);
    for threads in [2, 3, 8] {
        assert_eq!(collected(threads), one, "{threads} threads");
    }
    let lengths: Vec<usize> = one.iter().map(Vec::len).collect();
    assert!(lengths.iter().any(|length| *length != lengths[0]), "{lengths:?}");
}

#[test]
fn an_episode_depends_on_its_own_seed_alone() {
    let sim = noisy_cartpole();
    let all = collect(&sim, 0..20, random).unwrap();
    for seed in [0, 7, 19] {
        assert_eq!(collect(&sim, [seed], random).unwrap(), [all[seed as usize].clone()]);
    }
    let backwards = collect(&sim, (0..20).rev(), random).unwrap();
    assert!(backwards.iter().rev().eq(&all));
    assert_ne!(all[0], all[1]);
    assert!(collect(&sim, [], random).unwrap().is_empty());
}

#[test]
fn episodes_are_whole_and_those_of_stepping_by_hand() {
    let episodes = collect(&noisy_cartpole(), 0..10, |obs, _| vec![obs[2] + 0.5 * obs[3]]).unwrap();
    let mut env = noisy_cartpole();
    for (seed, episode) in episodes.iter().enumerate() {
        let mut obs = env.reset(Some(seed as u64)).unwrap();
        for (index, transition) in episode.iter().enumerate() {
            let action = vec![obs[2] + 0.5 * obs[3]];
            let step = env.step(&action).unwrap();
            let (terminated, truncated) = (step.terminated, step.truncated);
            let expected =
                Transition { obs, action, reward: step.reward, next_obs: step.obs.clone(), terminated, truncated };
            assert_eq!(*transition, expected);
            assert_eq!(transition.episode_over(), index + 1 == episode.len());
            obs = step.obs;
        }
    }
}

#[test]
fn a_policy_that_remembers_starts_afresh_in_each_episode() {
    let reacher = || simulator("reacher");
    let counting = || {
        let mut steps = 0.0;
        move |_: &[f32], _: &mut Rng| {
            steps += 0.001;
            vec![steps, 0.0]
        }
    };
    let episodes = on_threads(2, || collect_with(&reacher(), 0..6, counting).unwrap());
    for episode in &episodes {
        assert!(episode.iter().enumerate().all(|(i, t)| (t.action[0] - 0.001 * (i + 1) as f32).abs() < 1e-5));
    }
}

#[test]
fn the_policys_draws_are_not_the_environments() {
    let first = |_: &[f32], rng: &mut Rng| vec![rng.uniform(-1.0, 1.0)];
    let episodes = collect(&simulator("pendulum"), 0..5, first).unwrap();
    for (seed, episode) in episodes.iter().enumerate() {
        assert_ne!(episode[0].action[0], Rng::new(seed as u64).uniform(-1.0, 1.0));
    }
}

#[test]
fn a_policy_may_use_the_threads_itself() {
    // While a worker waits for its policy, rayon may let it begin with the work of another.
    let halves = |obs: &[f32], _: &mut Rng| {
        let (a, b) = rayon::join(|| obs[2], || 0.5 * obs[3]);
        vec![a + b]
    };
    let alone = on_threads(1, || collect(&noisy_cartpole(), 0..20, halves).unwrap());
    assert_eq!(on_threads(4, || collect(&noisy_cartpole(), 0..20, halves).unwrap()), alone);
}

#[test]
fn an_error_is_that_of_the_first_episode_that_fails() {
    let pendulum = || simulator("pendulum");
    // Every episode fails, with an action whose width is told by the start.
    let wrong = |obs: &[f32], _: &mut Rng| vec![0.0; 2 + usize::from(obs[0] > 0.0)];
    let expected = 2 + usize::from(pendulum().reset(Some(3)).unwrap()[0] > 0.0);
    for threads in [1, 4] {
        match on_threads(threads, || collect(&pendulum(), 3..40, wrong)) {
            Err(EnvError::Width { expected: 1, actual, .. }) => assert_eq!(actual, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn episodes_go_into_a_replay_as_episodes() {
    let episodes = collect(&noisy_cartpole(), 0..8, random).unwrap();
    let mut replay = Replay::new(4, 1, 10_000).unwrap();
    // An episode that was broken off does not swallow the next one.
    replay.push(&Transition { terminated: false, truncated: false, ..episodes[0][0].clone() }).unwrap();
    for episode in &episodes {
        replay.push_episode(episode).unwrap();
    }
    let lengths: Vec<usize> = replay.episodes().map(|range| range.len()).collect();
    assert_eq!(lengths[1..], episodes.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(replay.get(1), Some(episodes[0][0].clone()));
    // One without a flag at its end, too.
    replay.push_episode(&episodes[0][..2]).unwrap();
    replay.push_episode(&episodes[1][..3]).unwrap();
    assert_eq!(replay.episodes().map(|range| range.len()).skip(9).collect::<Vec<_>>(), [2, 3]);
    let mut bad = episodes[0].clone();
    bad[1].action = vec![];
    assert!(matches!(replay.push_episode(&bad), Err(EnvError::Width { .. })));
}
