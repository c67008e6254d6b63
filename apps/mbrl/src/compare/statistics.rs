//! Statistics of methods over seeds: those that Agarwal et al., "Deep Reinforcement Learning at the Edge of the
//! Statistical Precipice" (2021), propose for few runs, with stratified bootstrap intervals.
//!
//! A score is the figure of one run. Strata are tasks: resampling draws from the runs of each task and never mixes tasks.

use mbrl_env::Rng;

use crate::plot::{mean, percentiles};

/// Number of resamples for an interval.
const RESAMPLES: usize = 10_000;

/// Mean of the middle half: of `n` scores, ⌊n/4⌋ are left out at each end, as in the authors' `rliable`. NaN without scores.
pub(crate) fn iqm(scores: &[f64]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    mean(&sorted[cut..sorted.len() - cut])
}

/// The score in the middle, or the mean of the two there. NaN without scores.
pub(crate) fn median(scores: &[f64]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        // Two infinite scores have no arithmetic midpoint.
        n if sorted[n / 2 - 1] == sorted[n / 2] => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Probability that a run of one method scores higher than a run of another on the same task, a tie counting half: the share
/// of the pairs, averaged over the tasks. `scores[i]` and `others[i]` belong to the same task.
pub(crate) fn improvement(scores: &[Vec<f64>], others: &[Vec<f64>]) -> f64 {
    let of_task = |(x, y): (&Vec<f64>, &Vec<f64>)| {
        let won = |a: f64, b: f64| if a > b { 1.0 } else { 0.5 * f64::from(u8::from(a == b)) };
        let sum: f64 = x.iter().flat_map(|a| y.iter().map(move |b| won(*a, *b))).sum();
        sum / (x.len() * y.len()) as f64
    };
    mean(&scores.iter().zip(others).map(of_task).collect::<Vec<_>>())
}

/// 95 % interval of a statistic of several strata: percentiles of its values on resamples, each stratum resampled by itself.
/// `None` if a stratum has fewer than two scores: its spread is not known. The same scores give the same interval.
pub(crate) fn interval(strata: &[Vec<f64>], statistic: impl Fn(&[Vec<f64>]) -> f64) -> Option<(f64, f64)> {
    resampled(strata, statistic, RESAMPLES)
}

fn resampled(strata: &[Vec<f64>], statistic: impl Fn(&[Vec<f64>]) -> f64, resamples: usize) -> Option<(f64, f64)> {
    if strata.is_empty() || strata.iter().any(|stratum| stratum.len() < 2) {
        return None;
    }
    let mut rng = Rng::new(0);
    let mut drawn = strata.to_vec();
    let mut figures: Vec<f64> = (0..resamples)
        .map(|_| {
            for (drawn, stratum) in drawn.iter_mut().zip(strata) {
                drawn.fill_with(|| stratum[rng.below(stratum.len())]);
            }
            statistic(&drawn)
        })
        .collect();
    percentiles(&mut figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scores: &[f64]) -> Vec<Vec<f64>> {
        vec![scores.to_vec()]
    }

    /// IQM of all strata together.
    fn pooled(strata: &[Vec<f64>]) -> f64 {
        iqm(&strata.concat())
    }

    #[test]
    fn the_interquartile_mean_is_that_of_the_middle_half() {
        assert_eq!(iqm(&[40.0, 1.0, 3.0, 2.0]), 2.5);
        // One of five scores is left out at each end, none of three, two of eight.
        assert_eq!(iqm(&[100.0, 1.0, 2.0, 3.0, -100.0]), 2.0);
        assert_eq!(iqm(&[0.0, 3.0, 9.0]), 4.0);
        assert_eq!(iqm(&[80.0, 70.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), 4.5);
        assert_eq!(iqm(&[7.0]), 7.0);
        assert!(iqm(&[]).is_nan());
    }

    #[test]
    fn medians_take_runs_that_never_arrive() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let never = f64::INFINITY;
        assert_eq!(median(&[never, 100.0, 200.0]), 200.0);
        assert_eq!([median(&[never, 100.0]), median(&[never; 4])], [never; 2]);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_probability_of_improvement_counts_pairs_and_ties_half() {
        assert_eq!(improvement(&one(&[2.0, 3.0]), &one(&[0.0, 1.0])), 1.0);
        assert_eq!(improvement(&one(&[0.0, 1.0]), &one(&[2.0, 3.0])), 0.0);
        // Against itself, pairs of equal scores are ties.
        assert_eq!(improvement(&one(&[1.0, 2.0, 3.0]), &one(&[1.0, 2.0, 3.0])), 0.5);
        // 3 beats 1 and 2, 2 beats 1 and ties with 2: 3.5 of 4.
        assert_eq!(improvement(&one(&[3.0, 2.0]), &one(&[1.0, 2.0])), 0.875);
        // The mean over tasks, whatever the number of runs in each.
        let (x, y) = (vec![vec![1.0], vec![0.0; 9]], vec![vec![0.0], vec![1.0; 4]]);
        assert_eq!(improvement(&x, &y), 0.5);
        // One method's wins are the other's losses.
        let (x, y) = (one(&[0.3, 1.7, 0.9]), one(&[0.9, 0.1]));
        assert!((improvement(&x, &y) + improvement(&y, &x) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn intervals_need_two_scores_of_each_task_and_are_the_same_each_time() {
        assert_eq!(interval(&one(&[1.0]), pooled), None);
        assert_eq!(interval(&[vec![1.0, 2.0], vec![1.0]], pooled), None);
        assert_eq!(interval(&[], pooled), None);
        assert_eq!(interval(&one(&[5.0, 5.0]), pooled), Some((5.0, 5.0)));
        // A quarter of the resamples of two scores is one of them alone.
        assert_eq!(interval(&one(&[1.0, 3.0]), pooled), Some((1.0, 3.0)));
        let scores = one(&[0.3, 0.1, 0.7, 0.9, 0.2]);
        let (low, high) = interval(&scores, pooled).unwrap();
        assert_eq!(interval(&scores, pooled), Some((low, high)));
        assert!(low < iqm(&scores[0]) && iqm(&scores[0]) < high);
    }

    /// Two tasks far apart, each without spread: no resample may exchange runs between them.
    #[test]
    fn resamples_keep_to_their_task() {
        let strata = [vec![0.0; 4], vec![100.0; 4]];
        assert_eq!(interval(&strata, pooled), Some((50.0, 50.0)));
    }

    /// With 30 scores of a normal distribution. The percentile bootstrap of a mean covers P(|t₂₉| < 1.96 √(29/30)) = 93.6 %, that
    /// of the IQM about as much. Over 400 repetitions, the share has a standard error of 1.2 %: three of them to each side.
    #[test]
    fn intervals_cover_what_they_should() {
        const REPETITIONS: usize = 400;
        let mut rng = Rng::new(1);
        let mut covered = [0; 2];
        for _ in 0..REPETITIONS {
            let scores = one(&(0..30).map(|_| 3.0 + 2.0 * rng.normal_f64()).collect::<Vec<f64>>());
            let intervals = [fewer(&scores, &|drawn| mean(&drawn[0])), fewer(&scores, &pooled)];
            for (covered, (low, high)) in covered.iter_mut().zip(intervals) {
                *covered += usize::from((low..=high).contains(&3.0));
            }
        }
        for covered in covered.map(|covered| covered as f64 / REPETITIONS as f64) {
            assert!((0.90..0.975).contains(&covered), "{covered}");
        }
    }

    /// With 1,000 resamples: as good, and quick without optimisations.
    fn fewer(strata: &[Vec<f64>], statistic: &dyn Fn(&[Vec<f64>]) -> f64) -> (f64, f64) {
        resampled(strata, statistic, 1000).unwrap()
    }
}
