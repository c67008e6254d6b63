//! What a replay of a million transitions takes. A test of its own: it reads the memory of the whole process.

use mbrl_env::{Replay, Transition};

const MILLION: usize = 1_000_000;

/// Bytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap()
}

/// Widths of the hopper and of the pendulum, in episodes of 200 steps. The memory of the process tells of the first alone: the second lies in
/// what the first has left.
#[test]
fn a_million_transitions_take_what_is_said_and_no_more() {
    for (obs, action, bytes) in [(11, 3, 110), (3, 1, 38)] {
        let mut replay = Replay::new(obs, action, MILLION).unwrap();
        assert_eq!((replay.bytes_per_transition(), replay.allocated()), (bytes, 0), "nothing before the first one");
        #[cfg(target_os = "linux")]
        let before = resident();
        let mut transition = Transition {
            obs: vec![0.5; obs],
            action: vec![0.25; action],
            reward: 1.0,
            next_obs: vec![0.75; obs],
            terminated: false,
            truncated: false,
        };
        // Episodes are few, but their list grows by doubling.
        let episodes = |count: usize| 8 * (2 * count.div_ceil(200) + 64);
        for step in 1..=MILLION + 1000 {
            transition.truncated = step % 200 == 0;
            replay.push(&transition).unwrap();
            if step == 100_000 {
                let most = 2 * step * bytes + episodes(step);
                assert!(replay.allocated() <= most, "{} of {most} after {step}", replay.allocated());
            }
        }
        assert_eq!(replay.len(), MILLION);
        let most = MILLION * bytes + episodes(MILLION + 1000);
        assert!((MILLION * bytes..=most).contains(&replay.allocated()), "{} of {most}", replay.allocated());
        #[cfg(target_os = "linux")]
        {
            let taken = resident().saturating_sub(before);
            println!("{obs} + {action}: {bytes} B per transition, {} MB more in memory", taken / MILLION);
            let expected = 0.9 * (MILLION * bytes) as f64..1.1 * most as f64;
            assert!(obs == 3 || expected.contains(&(taken as f64)), "{taken} bytes in memory, expected {expected:?}");
        }
    }
}
