//! Replay: order, episodes and sampling against a plain list, and its file form.

use std::{io, path::Path};

use mbrl_env::{BoxSpace, EnvError, Replay, Rng, Transition};
use proptest::prelude::*;

/// A transition that can be told from all others: its number is in every column.
fn transition(number: usize, ends: bool) -> Transition {
    let x = number as f32;
    Transition {
        obs: vec![x, -x],
        action: vec![x + 0.25],
        reward: number as f64 / 3.0,
        next_obs: vec![x + 1.0, -x - 1.0],
        terminated: ends && number.is_multiple_of(2),
        truncated: ends && !number.is_multiple_of(4),
    }
}

fn filled(capacity: usize, lengths: &[usize]) -> Replay {
    let mut replay = Replay::new(2, 1, capacity).unwrap();
    let mut number = 0;
    for length in lengths {
        for step in 0..*length {
            // Every third episode is broken off without a flag.
            replay.push(&transition(number, step + 1 == *length && length % 3 != 0)).unwrap();
            number += 1;
        }
        replay.end_episode();
    }
    replay
}

/// Which episode each pushed transition belongs to.
fn owners(lengths: &[usize]) -> Vec<usize> {
    lengths.iter().enumerate().flat_map(|(episode, length)| vec![episode; *length]).collect()
}

proptest! {
    #[test]
    fn the_ring_is_the_tail_of_what_was_pushed(lengths in prop::collection::vec(1_usize..9, 0..12), capacity in 1_usize..40) {
        let replay = filled(capacity, &lengths);
        let pushed: usize = lengths.iter().sum();
        let dropped = pushed.saturating_sub(capacity);
        prop_assert_eq!(replay.len(), pushed - dropped);

        // Chronological, in every column.
        let columns = replay.columns();
        for position in 0..replay.len() {
            let number = dropped + position;
            prop_assert_eq!(&columns.obs[2 * position..2 * position + 2], &[number as f32, -(number as f32)]);
            let row = replay.get(position).unwrap();
            let expected = transition(number, row.episode_over());
            prop_assert_eq!(row, expected);
        }
        prop_assert_eq!(replay.get(replay.len()), None);
        prop_assert_eq!(&replay.gather(0..replay.len()), &columns);

        // Episodes tile all positions, and each is one of the pushed episodes.
        let owners = owners(&lengths);
        let mut next = 0;
        for episode in replay.episodes() {
            prop_assert_eq!(episode.start, next);
            prop_assert!(!episode.is_empty());
            let owner = owners[dropped + episode.start];
            prop_assert!(episode.clone().all(|position| owners[dropped + position] == owner));
            next = episode.end;
            prop_assert!(owners.get(dropped + next) != Some(&owner));
        }
        prop_assert_eq!(next, replay.len());
    }

    #[test]
    fn sequences_never_cross_episodes(
        lengths in prop::collection::vec(1_usize..9, 1..12), capacity in 1_usize..60, length in 1_usize..9, seed: u64,
    ) {
        let replay = filled(capacity, &lengths);
        let episodes: Vec<_> = replay.episodes().collect();
        let longest = episodes.iter().map(ExactSizeIterator::len).max().unwrap();
        match replay.sample_sequences(50, length, &mut Rng::new(seed)) {
            Ok(sequences) => {
                prop_assert!(length <= longest);
                prop_assert_eq!(sequences.len(), 50);
                for sequence in sequences {
                    prop_assert_eq!(sequence.len(), length);
                    prop_assert!(episodes.iter().any(|e| e.start <= sequence.start && sequence.end <= e.end));
                }
            }
            Err(EnvError::TooLittleData { actual, needed, .. }) => {
                prop_assert!(length > longest);
                prop_assert_eq!((actual, needed), (longest, length));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_split_keeps_episodes_whole(lengths in prop::collection::vec(1_usize..9, 1..12), fraction in 0.0..0.999, seed: u64) {
        let replay = filled(1000, &lengths);
        let (rest, chosen) = replay.split_episodes(fraction, &mut Rng::new(seed)).unwrap();
        let owners = owners(&lengths);
        prop_assert!(chosen.iter().all(|a| rest.iter().all(|b| owners[*a] != owners[*b])));
        let mut all = [&rest[..], &chosen[..]].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..replay.len()).collect::<Vec<_>>());
        if lengths.len() > 1 && fraction > 0.0 {
            prop_assert!(!rest.is_empty() && !chosen.is_empty());
            let mut episodes: Vec<_> = chosen.iter().map(|&position| owners[position]).collect();
            episodes.dedup();
            prop_assert!((episodes.len() as f64 - fraction * lengths.len() as f64).abs() <= 1.0);
        }
    }

    #[test]
    fn bits_survive_a_file(rows in prop::collection::vec((any::<[u32; 5]>(), any::<u64>(), any::<[bool; 2]>()), 0..30), capacity in 1_usize..20) {
        let mut replay = Replay::new(2, 1, capacity).unwrap();
        for (words, reward, [terminated, truncated]) in rows {
            // NaN and infinities are refused by `push`; everything else may come, subnormal numbers and -0 included.
            let [a, b, c, d, e] = words.map(|word| Some(f32::from_bits(word)).filter(|x| x.is_finite()).unwrap_or(-0.0));
            let reward = Some(f64::from_bits(reward)).filter(|x| x.is_finite()).unwrap_or(-0.0);
            let transition =
                Transition { obs: vec![a, b], action: vec![c], reward, next_obs: vec![d, e], terminated, truncated };
            replay.push(&transition).unwrap();
        }
        let mut bytes = Vec::new();
        replay.save(&mut bytes).unwrap();
        // Something may follow in the stream: it is left alone.
        bytes.extend_from_slice(b"more");
        let mut input = &bytes[..];
        let mut back = Replay::load(&mut input).unwrap();
        prop_assert_eq!(input, b"more");

        let bits = |replay: &Replay| {
            let columns = replay.columns();
            let floats: Vec<u32> =
                [&columns.obs, &columns.actions, &columns.next_obs].iter().flat_map(|c| c.iter().map(|x| x.to_bits())).collect();
            let rewards: Vec<u64> = columns.rewards.iter().map(|x| x.to_bits()).collect();
            let flags = (columns.terminated.into_owned(), columns.truncated.into_owned());
            (floats, rewards, flags, replay.episodes().collect::<Vec<_>>(), replay.capacity())
        };
        prop_assert_eq!(bits(&replay), bits(&back));
        // They also go on alike: the same slot is overwritten next, the same episode goes on.
        for number in 0..5 {
            replay.push(&transition(number, number == 3)).unwrap();
            back.push(&transition(number, number == 3)).unwrap();
            prop_assert_eq!(bits(&replay), bits(&back));
        }
    }

    #[test]
    fn a_box_contains_its_samples_and_clips_to_itself(
        bounds in prop::collection::vec((-1e6_f32..1e6, 1e-3_f32..1e6), 1..5), seed: u64, point in prop::collection::vec(any::<f32>(), 4),
    ) {
        let (low, high): (Vec<f32>, Vec<f32>) = bounds.iter().map(|(low, width)| (*low, low + width.max(low.abs() * 1e-6))).unzip();
        let space = BoxSpace::new(low, high).unwrap();
        let mut rng = Rng::new(seed);
        for _ in 0..20 {
            let sample = space.sample(&mut rng).unwrap();
            prop_assert!(space.contains(&sample));
            prop_assert_eq!(space.clipped(&sample), sample);
        }
        let point = &point[..space.width().min(4)];
        if point.iter().all(|x| !x.is_nan()) && point.len() == space.width() {
            prop_assert!(space.contains(&space.clipped(point)));
        }
    }
}

#[test]
fn batches_and_sequences_are_uniform() {
    // Three episodes of 4, 2 and 6: with length 3 there are 2 + 0 + 4 sequences.
    let replay = filled(100, &[4, 2, 6]);
    let mut rng = Rng::new(5);
    let mut counts = [0_u32; 12];
    for obs in replay.sample_batch(120_000, &mut rng).unwrap().obs.chunks(2) {
        counts[obs[0] as usize] += 1;
    }
    // The standard deviation of a count is 96; five of them.
    assert!(counts.iter().all(|count| count.abs_diff(10_000) < 480), "{counts:?}");

    let mut counts = [0_u32; 12];
    for sequence in replay.sample_sequences(60_000, 3, &mut rng).unwrap() {
        counts[sequence.start] += 1;
    }
    for (start, count) in counts.iter().enumerate() {
        let expected = if [0, 1, 6, 7, 8, 9].contains(&start) { 10_000 } else { 0 };
        assert!(count.abs_diff(expected) < 480 && (expected > 0 || *count == 0), "{counts:?}");
    }
}

#[test]
fn bad_transitions_are_named_and_not_kept() {
    let mut replay = Replay::new(2, 1, 10).unwrap();
    let good = transition(1, false);
    let nan = f32::NAN;
    let bad = [
        (Transition { obs: vec![1.0], ..good.clone() }, "observation has 1 entries, expected 2"),
        (Transition { action: vec![], ..good.clone() }, "action has 0 entries, expected 1"),
        (Transition { next_obs: vec![0.0; 3], ..good.clone() }, "next observation has 3 entries, expected 2"),
        (Transition { obs: vec![0.0, nan], ..good.clone() }, "observation: entry 1 is NaN, expected a finite number"),
        (Transition { action: vec![nan], ..good.clone() }, "action: entry 0 is NaN, expected a finite number"),
        (
            Transition { next_obs: vec![nan, 0.0], ..good.clone() },
            "next observation: entry 0 is NaN, expected a finite number",
        ),
        (Transition { reward: f64::INFINITY, ..good }, "reward: entry 0 is inf, expected a finite number"),
    ];
    for (transition, message) in bad {
        assert_eq!(replay.push(&transition).unwrap_err().to_string(), message);
        assert!(replay.is_empty() && replay.episodes().count() == 0);
    }
}

#[test]
fn too_little_is_asked_and_said() {
    for (obs, action, capacity) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        assert!(matches!(Replay::new(obs, action, capacity), Err(EnvError::Config { .. })));
    }
    let (empty, mut rng) = (Replay::new(2, 1, 10).unwrap(), Rng::new(0));
    assert!(matches!(empty.sample_batch(1, &mut rng), Err(EnvError::TooLittleData { actual: 0, needed: 1, .. })));
    assert!(matches!(empty.sample_sequences(1, 0, &mut rng), Err(EnvError::Config { .. })));
    assert!(matches!(empty.sample_sequences(1, 2, &mut rng), Err(EnvError::TooLittleData { .. })));
    assert_eq!(empty.split_episodes(0.5, &mut rng).unwrap(), (vec![], vec![]));
    for fraction in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(filled(10, &[2, 2]).split_episodes(fraction, &mut rng), Err(EnvError::Config { .. })));
    }
    assert_eq!(filled(10, &[3]).split_episodes(0.9, &mut rng).unwrap(), (vec![0, 1, 2], vec![]));
}

fn bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    filled(12, &[4, 5, 6]).save(&mut bytes).unwrap();
    bytes
}

fn reason(bytes: &[u8]) -> String {
    match Replay::load(&mut &*bytes) {
        Err(EnvError::Malformed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let bytes = bytes();
    assert_eq!(Replay::load(&mut &bytes[..]).unwrap(), Replay::load(&mut &bytes[..]).unwrap());
    for length in 0..bytes.len() {
        let reason = reason(&bytes[..length]);
        assert!(reason.starts_with("truncated: "), "{length} of {} bytes: {reason}", bytes.len());
    }
    assert_eq!(reason(&bytes[..100]), format!("truncated: 100 bytes, expected {}", bytes.len()));
}

#[test]
fn a_damaged_file_is_refused_at_every_bit() {
    let bytes = bytes();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << bit;
            reason(&damaged);
        }
    }
}

#[test]
fn foreign_and_newer_files_say_what_they_are() {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(vec![0; 100]);
    assert!(reason(&png).starts_with("not a replay: begins with `"), "{}", reason(&png));
    let mut newer = bytes();
    newer[8] = 2;
    assert_eq!(reason(&newer), "format version 2, this program reads version 1");
    // Sizes that ask for more memory than there is are refused before it is asked for.
    let mut huge = bytes();
    huge[12..20].fill(0xff);
    assert!(reason(&huge).starts_with("impossible sizes"), "{}", reason(&huge));
}

#[test]
fn a_reader_that_fails_is_no_bad_file() {
    struct Failing;
    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable is out"))
        }
    }
    let error = Replay::load(&mut Failing).unwrap_err();
    assert!(matches!(error, EnvError::Stream { .. }));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!((error.to_string(), source), ("replay: cannot be read or written".into(), "the cable is out".into()));
}

#[test]
fn files_are_replaced_whole_and_errors_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replay.bin");
    let replay = filled(12, &[4, 5, 6]);
    Replay::new(2, 1, 5).unwrap().save_file(&path).unwrap();
    replay.save_file(&path).unwrap();
    let back = Replay::load_file(&path).unwrap();
    assert_eq!((back.columns(), back.len()), (replay.columns(), 12));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

    let named = |error: EnvError, path: &Path| error.to_string().starts_with(&path.display().to_string());
    std::fs::write(&path, &bytes()[..50]).unwrap();
    let error = Replay::load_file(&path).unwrap_err();
    assert!(matches!(error, EnvError::Format { .. }) && named(error, &path));
    std::fs::write(&path, [bytes(), vec![0]].concat()).unwrap();
    assert!(matches!(Replay::load_file(&path), Err(EnvError::Format { .. })));

    let missing = folder.path().join("nowhere").join("replay.bin");
    for error in [Replay::load_file(&missing).unwrap_err(), replay.save_file(&missing).unwrap_err()] {
        assert!(matches!(error, EnvError::Io { .. }) && named(error, &missing));
    }
}
