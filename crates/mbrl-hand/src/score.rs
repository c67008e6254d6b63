//! Scores of episodes, from their observations: PDDM's, and scores that distinguish a success from a stall.

use std::fmt;

use crate::task::{BaodingScore, ReorientScore, ValveScore, WriteScore, baoding, reorient, valve, write};

/// The outcome of an episode of one of the tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Score {
    /// `valve`.
    Valve(ValveScore),
    /// `baoding`.
    Baoding(BaodingScore),
    /// `reorient`.
    Reorient(ReorientScore),
    /// `write`.
    Write(WriteScore),
}

impl Score {
    /// The score of an episode of a task of this crate, from all its observations, including the first one. `None` for a task that has no
    /// score here, an episode without steps, or observations of another width. Observations with noise
    /// ([`SensorNoise`](crate::task::SensorNoise)) are scored as they are: a tip that is measured with 2 mm of noise never appears less than some
    /// 2.5 mm off. The `info` of steps has the true values.
    ///
    /// ```
    /// use mbrl_hand::Score;
    ///
    /// // The valve stands at its goal: columns 18 and 20.
    /// let observations = vec![vec![0.0; 21]; 41];
    /// assert_eq!(Score::of("valve", &observations).unwrap().to_string(), "0.000 rad from the goal, reached after 1 steps");
    /// ```
    #[must_use]
    pub fn of(task: &str, observations: &[Vec<f32>]) -> Option<Self> {
        let (_, after) = observations.split_first().filter(|(_, after)| !after.is_empty())?;
        let has = |width: usize| observations.iter().all(|observation| observation.len() == width);
        Some(match task {
            "valve" if has(valve::WIDTH) => Self::Valve(ValveScore::of(after)),
            "baoding" if has(baoding::WIDTH) => Self::Baoding(BaodingScore::of(observations, crate::task::FALLEN)),
            "baoding-adroit" if has(baoding::WIDTH) => {
                Self::Baoding(BaodingScore::of(observations, crate::task::FALLEN_ADROIT))
            }
            "reorient" | "reorient-adroit" if has(reorient::WIDTH) => Self::Reorient(ReorientScore::of(after)),
            "write" if has(write::WIDTH) => Self::Write(WriteScore::of(after)),
            _ => return None,
        })
    }

    /// The figures by which episodes of the task are judged, the most informative one first: name with its unit, and value. A name that ends
    /// in `(%)` marks a yes (100) or no (0), so that its mean over episodes is a share of them.
    ///
    /// ```
    /// use mbrl_hand::Score;
    ///
    /// let at_the_goal = Score::of("valve", &vec![vec![0.0; 21]; 41]).unwrap();
    /// assert_eq!(at_the_goal.figures(), [("within 0.25 rad (%)", 100.0), ("angle to the goal (rad)", 0.0)]);
    /// ```
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let share = |yes: bool| if yes { 100.0 } else { 0.0 };
        match self {
            Self::Valve(score) => vec![
                ("within 0.25 rad (%)", share(score.final_angle < 0.25)),
                ("angle to the goal (rad)", score.final_angle),
            ],
            Self::Baoding(score) => vec![
                ("90° without a drop (%)", share(score.rotation >= 90.0 && !score.dropped)),
                ("180° without a drop (%)", share(score.rotation >= 180.0 && !score.dropped)),
                ("rotation (°)", score.rotation),
                ("dropped (%)", share(score.dropped)),
                ("ball to target (mm)", score.distance * 1e3),
                ("first ball at the end (mm)", score.final_distance * 1e3),
            ],
            Self::Reorient(score) => vec![
                ("kept within 0.3 rad (%)", share(score.kept_angle < 0.3 && !score.dropped)),
                ("angle to the goal (rad)", score.final_angle),
                ("dropped (%)", share(score.dropped)),
            ],
            Self::Write(score) => vec![("tip error (mm)", score.error * 1e3), ("lost (%)", share(score.lost))],
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hit = |hit: Option<usize>| match hit {
            Some(steps) => format!("reached after {steps} steps"),
            None => "never reached".into(),
        };
        match self {
            Self::Valve(ValveScore { final_angle, hit: at }) => {
                write!(f, "{final_angle:.3} rad from the goal, {}", hit(*at))
            }
            Self::Baoding(BaodingScore { rotation, dropped, distance, final_distance }) => {
                let fate = if *dropped { "dropped" } else { "kept" };
                let (distance, last) = (distance * 1e3, final_distance * 1e3);
                write!(
                    f,
                    "{rotation:.0}°, {fate}, {distance:.1} mm from the targets, the first {last:.1} mm at the end"
                )
            }
            Self::Reorient(ReorientScore { final_angle, kept_angle, hit: at, dropped }) => {
                let fate = if *dropped { "dropped" } else { "kept" };
                write!(f, "{final_angle:.3} rad from the goal (at most {kept_angle:.3}), {fate}, {}", hit(*at))
            }
            Self::Write(WriteScore { error, height, lost }) => {
                let (error, height, fate) = (error * 1e3, height * 1e3, if *lost { "lost" } else { "kept" });
                write!(f, "tip {error:.2} mm from the path, {height:.2} mm high, {fate}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_of_another_width_have_no_score() {
        for (task, width) in [("valve", 21), ("baoding", 65), ("reorient", 75), ("write", 77), ("baoding-adroit", 65)] {
            let of = |width: usize| Score::of(task, &vec![vec![0.1; width]; 3]);
            assert!(of(width).is_some() && of(width - 2).is_none() && of(width + 1).is_none(), "{task}");
        }
    }

    #[test]
    fn figures_are_shares_and_means_of_what_scores_say() {
        let turned = |rotation, dropped| {
            let score = BaodingScore { rotation, dropped, distance: 0.012, final_distance: 0.02 };
            Score::Baoding(score).figures().into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(turned(200.0, false), [100.0, 100.0, 200.0, 0.0, 12.0, 20.0]);
        // A rotation that ends in a drop does not count.
        assert_eq!(turned(200.0, true)[..4], [0.0, 0.0, 200.0, 100.0]);
        assert_eq!(turned(120.0, false)[..3], [100.0, 0.0, 120.0]);
        let cube = |kept_angle, dropped| {
            Score::Reorient(ReorientScore { final_angle: 0.2, kept_angle, hit: Some(3), dropped }).figures()[0].1
        };
        assert_eq!([cube(0.25, false), cube(0.35, false), cube(0.25, true)], [100.0, 0.0, 0.0]);
    }
}
