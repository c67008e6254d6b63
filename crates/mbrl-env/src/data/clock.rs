//! Reads a time column: the period, and where rows do not follow one another.

/// Rows on both sides of a suspicious step within which the clock may make up for it.
const WINDOW: usize = 8;
/// Rows between two times whose slope is the period of an irregular clock.
const LAG: usize = 16;
/// Share of steps near the median (or near a multiple of it, where rows are left out) from which on a clock is regular.
const REGULAR: f64 = 0.8;
/// Share of rising slopes below which an irregular column is not a clock.
const RISING: f64 = 0.8;
/// Share of backward steps right after a backward step above which a column is not a clock.
const LONELY: f64 = 0.1;

/// Why a row does not follow the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The time goes back, or stands still.
    Back,
    /// Rows are missing.
    Gap,
}

/// The findings about a clock.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clock {
    /// Median step of the time.
    pub(super) period: f64,
    /// Rows before which there is a cut, in rising order.
    pub(super) cuts: Vec<(usize, Cut)>,
    /// Number of steps that are not in (0, max_gap] periods, but no cut either: the clock makes up for them.
    pub(super) jittered: u64,
    /// Standard deviation of the steps that are not cuts, in periods.
    pub(super) jitter: f64,
    /// Longest gap, in periods; 0 without one.
    pub(super) longest_gap: f64,
    /// Number of time steps examined.
    pub(super) steps: u64,
}

/// Examines the times of all rows; `begins` says where an episode begins for another reason. NaN counts as
/// no time.
///
/// # Errors
/// Why the column is not a clock.
pub(super) fn read(times: &[f64], begins: &dyn Fn(usize) -> bool, max_gap: f64) -> Result<Clock, &'static str> {
    let step = |i: usize| times[i] - times[i - 1];
    let inner: Vec<usize> = (1..times.len()).filter(|i| !begins(*i) && step(*i).is_finite()).collect();
    let mut rising: Vec<f64> = inner.iter().map(|i| step(*i)).filter(|step| *step > 0.0).collect();
    if rising.is_empty() {
        return match inner.is_empty() {
            true => Ok(Clock { period: 0.0, cuts: vec![], jittered: 0, jitter: 0.0, longest_gap: 0.0, steps: 0 }),
            false => Err("it never rises (is the log in reverse order?)"),
        };
    }
    let median_step = median(&mut rising);
    // Steps that are neither a reset nor a pause.
    let usual: Vec<f64> =
        inner.iter().map(|i| step(*i) / median_step).filter(|step| (-0.5..10.0).contains(step)).collect();
    let is_near = |step: &&f64| (0.5..=1.5).contains(*step) || **step > 1.5 && (*step - step.round()).abs() <= 0.1;
    let near = usual.iter().filter(is_near).count();
    // Too few steps allow no conclusion.
    let is_regular = inner.len() < 2 * LAG || near as f64 >= REGULAR * usual.len() as f64;
    let period = if is_regular {
        median_step
    } else {
        let mut first = 0;
        let (mut slopes, mut all) = (Vec::new(), 0);
        // The longest lag that the episodes allow.
        let longest = (1..=times.len()).fold((0, 0), |(start, longest), i| match i == times.len() || begins(i) {
            true => (i, longest.max(i - start)),
            false => (start, longest),
        });
        let lag = LAG.min(longest.1.saturating_sub(1)).max(1);
        for i in 1..times.len() {
            if begins(i) {
                first = i;
            }
            if i >= first + lag {
                let slope = (times[i] - times[i - lag]) / lag as f64;
                all += usize::from(slope.is_finite());
                slopes.extend((slope > 0.0).then_some(slope));
            }
        }
        if (slopes.len() as f64) < RISING * all as f64 || slopes.is_empty() {
            return Err("it does not rise from row to row");
        }
        median(&mut slopes)
    };

    // The typical error of an irregular clock.
    let slack = match is_regular {
        true => 0.0,
        false => {
            let mut off: Vec<f64> = inner.iter().map(|i| (step(*i) / period - 1.0).abs()).collect();
            2.0 * median(&mut off)
        }
    };
    let mut clock = Clock { period, cuts: vec![], jittered: 0, jitter: 0.0, longest_gap: 0.0, steps: 0 };
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut first = 0;
    for i in 1..times.len() {
        if begins(i) {
            first = i;
            continue;
        }
        let periods = step(i) / period;
        if !periods.is_finite() {
            continue;
        }
        clock.steps += 1;
        // Binary fractions are slightly off.
        if !(periods > 1e-6 && periods <= max_gap * (1.0 + 1e-6)) {
            let end = (i..times.len()).find(|j| *j > i && begins(*j) || *j > i + WINDOW).unwrap_or(times.len());
            let earlier = first.max(i.saturating_sub(WINDOW))..i;
            let made_up = earlier.into_iter().any(|a| {
                (i..end).any(|b| {
                    let late = (times[b] - times[a]) / period - (b - a) as f64;
                    b - a >= 2 && (-0.5 - slack..=max_gap - 1.0 + slack).contains(&late)
                })
            });
            if !made_up {
                clock.cuts.push((i, if periods > 0.0 { Cut::Gap } else { Cut::Back }));
                clock.longest_gap = clock.longest_gap.max(periods);
                first = i;
                continue;
            }
            clock.jittered += 1;
        }
        sum += periods;
        squares += periods * periods;
    }
    // A clock that goes back rises again. A column that falls row after row is something else.
    let lonely = clock.cuts.windows(2).filter(|w| w[1].0 == w[0].0 + 1 && w[0].1 == Cut::Back && w[1].1 == Cut::Back);
    if lonely.count() as f64 > LONELY * clock.steps as f64 {
        return Err("it falls row after row");
    }
    let kept = (clock.steps - clock.cuts.len() as u64).max(1) as f64;
    clock.jitter = (squares / kept - (sum / kept).powi(2)).max(0.0).sqrt();
    Ok(clock)
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The number of parallel episodes whose rows are interleaved: `Some(k)` if every time occurs k times and rows
/// k apart are closer to each other than neighbours are. `rows` are observations, `[N, width]`.
pub(super) fn interleaved(times: &[f64], rows: &[f64], width: usize) -> Option<usize> {
    let run = times.iter().take_while(|time| **time == times[0]).count();
    if run < 2 || times.len() < 3 * run {
        return None;
    }
    // The last time may be incomplete.
    let mut runs = times.chunks_exact(run).collect::<Vec<_>>().into_iter().peekable();
    while let Some(own) = runs.next() {
        let is_same = own.iter().all(|time| time == &own[0]);
        if !is_same || runs.peek().is_some_and(|next| next[0] <= own[0]) {
            return None;
        }
    }
    let change = |lag: usize| {
        let changes = rows.iter().zip(&rows[lag * width..]).map(|(a, b)| (b - a).powi(2)).filter(|c| c.is_finite());
        changes.clone().sum::<f64>() / changes.count() as f64
    };
    (change(run) < 0.25 * change(1)).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(times: &[f64]) -> Result<Clock, &'static str> {
        read(times, &|i| i == 0, 1.5)
    }

    /// Deterministic noise in [−1, 1].
    fn noise(seed: u32) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        }
    }

    #[test]
    fn gaps_and_resets_cut_and_nothing_else_does() {
        let regular: Vec<f64> = (0..50).map(|i| 0.02 * f64::from(i)).collect();
        let found = clock(&regular).unwrap();
        assert!((found.period - 0.02).abs() < 1e-9 && found.cuts.is_empty() && found.jitter < 1e-6);
        // One row, ten rows, a pause of 980 s.
        for (missing, at) in [(1.0, 20), (10.0, 1), (49_000.0, 49)] {
            let gap: Vec<f64> =
                regular.iter().enumerate().map(|(i, t)| t + if i >= at { 0.02 * missing } else { 0.0 }).collect();
            assert_eq!(clock(&gap).unwrap().cuts, [(at, Cut::Gap)], "{missing}");
        }
        // A second run begins at 0 again; a row comes twice.
        let twice: Vec<f64> = regular.iter().chain(&regular).copied().collect();
        assert_eq!(clock(&twice).unwrap().cuts, [(50, Cut::Back)]);
        let again = [&regular[..20], &regular[19..]].concat();
        assert_eq!(clock(&again).unwrap().cuts, [(20, Cut::Back)]);
        // A custom longest gap.
        let gap = [&regular[..20], &regular[21..]].concat();
        assert_eq!(clock(&gap).unwrap().cuts, [(20, Cut::Gap)]);
        assert!(read(&gap, &|i| i == 0, 2.5).unwrap().cuts.is_empty());
    }

    #[test]
    fn jitter_is_no_gap() {
        let mut noise = noise(1);
        for amplitude in [0.3, 1.0, 2.0] {
            let times: Vec<f64> = (0..300).map(|i| 0.02 * (f64::from(i) + amplitude * noise())).collect();
            let found = clock(&times).unwrap();
            assert!(found.cuts.len() <= 2, "{amplitude}: {:?}", found.cuts);
            assert!((found.period - 0.02).abs() < 0.004, "{amplitude}: {}", found.period);
        }
        // A clock that is read at random instants, and one that writes three rows at a time.
        let mut time = 0.0;
        let random: Vec<f64> = (0..300)
            .map(|_| {
                time += 0.02 * (1.0 + 0.9 * noise());
                time
            })
            .collect();
        assert!(clock(&random).unwrap().cuts.len() <= 2);
        let batches: Vec<f64> = (0..300).map(|i| 0.06 * f64::from(i / 3)).collect();
        let found = clock(&batches).unwrap();
        assert!(found.cuts.is_empty() && (found.period - 0.02).abs() < 0.002, "{found:?}");
        // A pause is one even there.
        let paused: Vec<f64> = batches.iter().enumerate().map(|(i, t)| t + if i >= 150 { 5.0 } else { 0.0 }).collect();
        assert_eq!(clock(&paused).unwrap().cuts, [(150, Cut::Gap)]);
    }

    #[test]
    fn rows_left_out_here_and_there_each_cut() {
        let mut noise = noise(2);
        let kept: Vec<f64> = (0..500).map(f64::from).filter(|_| noise() > -0.4).collect();
        let gaps = kept.windows(2).filter(|w| w[1] - w[0] > 1.5).count();
        assert_eq!(clock(&kept).unwrap().cuts.len(), gaps);
    }

    #[test]
    fn a_temperature_and_a_countdown_are_no_clocks() {
        let temperature: Vec<f64> = (0..300).map(|i| 20.0 + (0.3 * f64::from(i)).sin()).collect();
        assert!(clock(&temperature).is_err());
        let down: Vec<f64> = (0..300).map(|i| f64::from(59 - i % 60)).collect();
        assert!(clock(&down).is_err());
        let zigzag: Vec<f64> = (0..300).map(|i| f64::from((i % 20 - 10_i32).abs())).collect();
        assert!(clock(&zigzag).is_err());
        assert!(clock(&[1.0; 9]).is_err());
        // Nothing to look at.
        assert_eq!(clock(&[1.0]).unwrap().steps, 0);
    }

    #[test]
    fn parallel_episodes_are_seen() {
        let times: Vec<f64> = (0..60).map(|i| f64::from(i / 3)).collect();
        let apart: Vec<f64> = (0..60).map(|i| f64::from(i % 3) + 0.01 * f64::from(i / 3)).collect();
        assert_eq!(interleaved(&times, &apart, 1), Some(3));
        // One recording of a coarse clock.
        let smooth: Vec<f64> = (0..60).map(|i| (0.1 * f64::from(i)).sin()).collect();
        assert_eq!(interleaved(&times, &smooth, 1), None);
        assert_eq!(interleaved(&[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0], 1), None);
    }
}
