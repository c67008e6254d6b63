//! Transitions to fit a model to.

use std::ops::Range;

use mbrl_env::Replay;

use crate::{ModelError, dynamics::check_size};

/// N transitions in columns on the host: what a fit reads.
///
/// Observations and actions are always present. Models with heads for rewards and terminations learn from these, and models that
/// see several observations look at the steps before each transition; [`of_replay`](Self::of_replay) provides all of them.
///
/// ```
/// use mbrl_env::{Replay, Transition};
/// use mbrl_model::Dataset;
///
/// let mut replay = Replay::new(1, 1, 100)?;
/// for t in 0..3_u8 {
///     let (obs, next_obs) = (vec![f32::from(t)], vec![f32::from(t) + 1.0]);
///     let (action, reward) = (vec![-f32::from(t)], 0.5);
///     replay.push(&Transition { obs, action, reward, next_obs, terminated: t == 2, truncated: false })?;
/// }
/// let data = Dataset::of_replay(&replay, 1)?;
/// // The observation and the action one step earlier; at the start the first observation again, and no action.
/// assert_eq!(data.past(), [0.0, 0.0, 0.0, 0.0, 1.0, -1.0]);
/// assert_eq!(data.terminated(), Some(&[false, false, true][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    obs: Vec<f32>,
    actions: Vec<f32>,
    next_obs: Vec<f32>,
    obs_width: usize,
    action_width: usize,
    rewards: Option<Vec<f32>>,
    terminated: Option<Vec<bool>>,
    past_steps: usize,
    past: Vec<f32>,
    holdout: Option<Vec<usize>>,
    /// Where they are known.
    episodes: Option<Vec<Range<usize>>>,
    offset: Vec<f64>,
}

impl Dataset {
    /// Transitions from columns: `obs` `[N, O]`, `actions` `[N, A]`, `next_obs` `[N, O]`, row by row.
    ///
    /// # Errors
    /// [`ModelError::Width`] where the columns differ in length; [`ModelError::NonFinite`] where a row holds a NaN or an
    /// infinity; [`ModelError::TooLittleData`] where there is none.
    pub fn new(
        obs: impl Into<Vec<f32>>,
        actions: impl Into<Vec<f32>>,
        next_obs: impl Into<Vec<f32>>,
        obs_width: usize,
        action_width: usize,
    ) -> Result<Self, ModelError> {
        let (obs, actions, next_obs) = (obs.into(), actions.into(), next_obs.into());
        let rows = obs.len() / obs_width.max(1);
        if rows == 0 {
            return Err(ModelError::TooLittleData { actual: 0, needed: 1 });
        }
        check_size("values of obs", rows * obs_width, obs.len())?;
        check_size("values of actions", rows * action_width, actions.len())?;
        check_size("values of next_obs", rows * obs_width, next_obs.len())?;
        for (what, column, width) in
            [("obs", &obs, obs_width), ("actions", &actions, action_width), ("next_obs", &next_obs, obs_width)]
        {
            check_rows(what, column, width)?;
        }
        Ok(Self {
            obs,
            actions,
            next_obs,
            obs_width,
            action_width,
            rewards: None,
            terminated: None,
            past_steps: 0,
            past: Vec::new(),
            holdout: None,
            episodes: None,
            offset: vec![0.0; obs_width],
        })
    }

    /// Transitions from columns in double precision: as [`new`](Self::new), but a column whose values are large compared with
    /// their range, such as a position in map coordinates, is stored relative to its [`offset`](Self::offset), because changes
    /// of such a column would be lost in the rounding of `f32`. A model that is fitted to the data
    /// [keeps the offset](crate::Ensemble::offset).
    ///
    /// ```
    /// use mbrl_model::Dataset;
    /// // A position 5,300 km from the origin, measured to a millimetre, which `f32` rounds to half a metre; and a speed.
    /// let obs = [5_300_000.001, 0.1, 5_300_000.002, 0.2];
    /// let next = [5_300_000.002, 0.2, 5_300_000.004, 0.3];
    /// let data = Dataset::of_f64(&obs, &[0.0, 0.0], &next, 2, 1)?;
    /// let change = data.next_obs()[0] - data.obs()[0];
    /// assert!((change - 0.001).abs() < 1e-8);
    /// assert!(data.offset()[0] > 5.2e6 && data.offset()[1] == 0.0);
    /// # Ok::<(), mbrl_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_f64(
        obs: &[f64],
        actions: &[f64],
        next_obs: &[f64],
        obs_width: usize,
        action_width: usize,
    ) -> Result<Self, ModelError> {
        let mut offset = vec![0.0; obs_width];
        for (c, offset) in offset.iter_mut().enumerate() {
            let values = || [obs, next_obs].into_iter().flat_map(move |rows| rows.iter().skip(c).step_by(obs_width));
            let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            // Until then `f32` loses four of its 24 bits at most.
            if low.abs().max(high.abs()) > 16.0 * (high - low) {
                *offset = low + 0.5 * (high - low);
            }
        }
        let less = |rows: &[f64]| -> Vec<f32> {
            rows.iter().enumerate().map(|(i, x)| (x - offset[i % obs_width]) as f32).collect()
        };
        let actions: Vec<f32> = actions.iter().map(|&a| a as f32).collect();
        let mut data = Self::new(less(obs), actions, less(next_obs), obs_width, action_width)?;
        data.offset = offset;
        Ok(data)
    }

    /// Sets what was subtracted from each column of the observations before they became `f32`, `[O]`.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of them; [`ModelError::NonFinite`] where one is a NaN or an infinity.
    pub fn with_offset(mut self, offset: impl Into<Vec<f64>>) -> Result<Self, ModelError> {
        let offset = offset.into();
        check_size("offsets of the columns", self.obs_width, offset.len())?;
        if let Some(first) = offset.iter().position(|o| !o.is_finite()) {
            let rows = offset.iter().filter(|o| !o.is_finite()).count();
            return Err(ModelError::NonFinite { what: "offsets", rows, total: offset.len(), first });
        }
        self.offset = offset;
        Ok(self)
    }

    /// Everything in a replay, with rewards, terminations, episodes and the last `past` steps before each transition.
    ///
    /// The past of a transition lies within its episode. Where that has fewer earlier steps, the missing ones repeat the
    /// first observation with actions of 0, as if the world had stood still before; an episode whose beginning the replay has
    /// dropped counts from its first remaining step.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`ModelError::NonFinite`] for a reward beyond the range of an `f32`.
    pub fn of_replay(replay: &Replay, past: usize) -> Result<Self, ModelError> {
        let columns = replay.columns();
        let (o, a) = (columns.obs_width, columns.action_width);
        let mut earlier = Vec::with_capacity(replay.len() * past * (o + a));
        for episode in replay.episodes().filter(|_| past > 0) {
            for row in episode.clone() {
                for back in 1..=past {
                    let there = row.checked_sub(back).filter(|earlier| episode.contains(earlier));
                    earlier.extend_from_slice(&columns.obs[there.unwrap_or(episode.start) * o..][..o]);
                    match there {
                        Some(there) => earlier.extend_from_slice(&columns.actions[there * a..][..a]),
                        None => earlier.resize(earlier.len() + a, 0.0),
                    }
                }
            }
        }
        let rewards: Vec<f32> = columns.rewards.iter().map(|&reward| reward as f32).collect();
        let mut data = Self::new(columns.obs, columns.actions, columns.next_obs, o, a)?
            .with_rewards(rewards)?
            .with_terminated(columns.terminated)?;
        (data.past_steps, data.past) = (past, earlier);
        data.episodes = Some(replay.episodes().collect());
        Ok(data)
    }

    /// Adds the reward of each transition, `[N]`.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of them; [`ModelError::NonFinite`] where one is a NaN or an infinity.
    pub fn with_rewards(mut self, rewards: impl Into<Vec<f32>>) -> Result<Self, ModelError> {
        let rewards = rewards.into();
        check_size("values of rewards", self.len(), rewards.len())?;
        check_rows("rewards", &rewards, 1)?;
        self.rewards = Some(rewards);
        Ok(self)
    }

    /// Adds whether each transition terminated the task, `[N]`; a time limit is not a termination.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of them.
    pub fn with_terminated(mut self, terminated: impl Into<Vec<bool>>) -> Result<Self, ModelError> {
        let terminated = terminated.into();
        check_size("values of terminated", self.len(), terminated.len())?;
        self.terminated = Some(terminated);
        Ok(self)
    }

    /// Sets where episodes begin: how many transitions each has, in the order of the rows.
    ///
    /// ```
    /// use mbrl_model::Dataset;
    /// // Three steps from 0 on, two from 10 on.
    /// let data = Dataset::new([0.0, 1.0, 2.0, 10.0, 11.0], [0.0; 5], [1.0, 2.0, 3.0, 11.0, 12.0], 1, 1)?;
    /// let data = data.with_episodes(&[3, 2])?;
    /// // Two steps in a row: none from 2 to 10.
    /// assert_eq!(data.windows(2), [0, 1, 3]);
    /// # Ok::<(), mbrl_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::Width`] where the episodes have more or fewer transitions in total than the data; [`ModelError::Config`]
    /// for an episode without transitions.
    pub fn with_episodes(mut self, lengths: &[usize]) -> Result<Self, ModelError> {
        if let Some(empty) = lengths.iter().position(|length| *length == 0) {
            return Err(ModelError::Config {
                field: "episodes",
                value: format!("episode {empty} of 0 transitions"),
                rule: "at least 1 in each".into(),
            });
        }
        check_size("transitions of all episodes", self.len(), lengths.iter().sum())?;
        let mut end = 0;
        let episode = |length: &usize| {
            end += length;
            end - length..end
        };
        self.episodes = Some(lengths.iter().map(episode).collect());
        Ok(self)
    }

    /// Sets which rows a fit validates on, instead of a random share. Neighbouring transitions are nearly copies of each
    /// other, so whole episodes ([`Replay::split_episodes`]) make a harder and fairer test.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a row that does not exist or occurs twice, or where nothing is left to train on.
    pub fn with_holdout(mut self, rows: impl Into<Vec<usize>>) -> Result<Self, ModelError> {
        let mut rows = rows.into();
        rows.sort_unstable();
        let rows_of = format!("rows of the data, below {}", self.len());
        let refuse =
            |value: String, rule: String| Err(ModelError::Config { field: "holdout", value, rule: rule.into() });
        if let Some(twice) = rows.windows(2).find(|w| w[0] == w[1]) {
            return refuse(format!("row {} twice", twice[0]), "each row once".into());
        }
        match rows.last() {
            Some(&last) if last >= self.len() => return refuse(format!("row {last}"), rows_of),
            _ if rows.len() == self.len() => {
                return refuse(format!("all {} rows", rows.len()), "fewer, so that rows are left to train on".into());
            }
            _ => self.holdout = Some(rows),
        }
        Ok(self)
    }

    /// The same transitions with other next observations, `[N, O]`.
    #[cfg(feature = "train")]
    pub(crate) fn with_next_obs(mut self, next_obs: Vec<f32>) -> Result<Self, ModelError> {
        check_size("values of next_obs", self.next_obs.len(), next_obs.len())?;
        check_rows("next_obs", &next_obs, self.obs_width)?;
        self.next_obs = next_obs;
        Ok(self)
    }

    /// Number of transitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.obs.len() / self.obs_width
    }

    /// Never: an empty data set cannot be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.obs.is_empty()
    }

    /// Observations, `[N, O]`.
    #[must_use]
    pub fn obs(&self) -> &[f32] {
        &self.obs
    }

    /// Actions, `[N, A]`.
    #[must_use]
    pub fn actions(&self) -> &[f32] {
        &self.actions
    }

    /// Next observations, `[N, O]`.
    #[must_use]
    pub fn next_obs(&self) -> &[f32] {
        &self.next_obs
    }

    /// What was subtracted from each column of the observations before they became `f32`, `[O]`: an observation of the world is
    /// the stored one plus this. Zeros where nothing was subtracted.
    #[must_use]
    pub fn offset(&self) -> &[f64] {
        &self.offset
    }

    /// Width of an observation.
    #[must_use]
    pub fn obs_width(&self) -> usize {
        self.obs_width
    }

    /// Width of an action.
    #[must_use]
    pub fn action_width(&self) -> usize {
        self.action_width
    }

    /// Rewards, `[N]`, where there are any.
    #[must_use]
    pub fn rewards(&self) -> Option<&[f32]> {
        self.rewards.as_deref()
    }

    /// Terminations, `[N]`, where they are known.
    #[must_use]
    pub fn terminated(&self) -> Option<&[bool]> {
        self.terminated.as_deref()
    }

    /// Rows that a fit validates on, in rising order, where they were chosen.
    #[must_use]
    pub fn holdout(&self) -> Option<&[usize]> {
        self.holdout.as_deref()
    }

    /// Whether it is known where episodes begin.
    #[cfg(feature = "train")]
    pub(crate) fn has_episodes(&self) -> bool {
        self.episodes.is_some()
    }

    /// The rows of each episode, in rising order; where episodes are not known, each transition is one of its own.
    pub fn episodes(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let known = self.episodes.iter().flatten().cloned();
        let single = if self.episodes.is_some() { 0..0 } else { 0..self.len() };
        known.chain(single.map(|row| row..row + 1))
    }

    /// The first rows of all runs of `length` transitions that follow each other within an episode, in rising order: what models
    /// of several steps are fitted to.
    #[must_use]
    pub fn windows(&self, length: usize) -> Vec<usize> {
        let starts = |episode: Range<usize>| episode.start..(episode.end + 1).saturating_sub(length).max(episode.start);
        self.episodes().flat_map(starts).take_while(|_| length > 0).collect()
    }

    /// Which windows of `length` transitions, by their first rows, touch a held-out row, so that they must not be trained on: indices into
    /// `starts`; `None` where no rows were chosen.
    #[cfg(feature = "train")]
    pub(crate) fn held_windows(&self, starts: &[usize], length: usize) -> Option<Vec<usize>> {
        let held = self.holdout.as_ref()?;
        let touches =
            |start: usize| held.get(held.partition_point(|row| *row < start)).is_some_and(|row| *row < start + length);
        Some((0..starts.len()).filter(|i| touches(starts[*i])).collect())
    }

    /// How many steps before each transition are known.
    #[must_use]
    pub fn past_steps(&self) -> usize {
        self.past_steps
    }

    /// The steps before each transition, `[N, past · (O + A)]`: pairs of an observation and the action taken at it, the
    /// newest first.
    #[must_use]
    pub fn past(&self) -> &[f32] {
        &self.past
    }
}

/// Refuses a column with a row that is not finite.
fn check_rows(what: &'static str, column: &[f32], width: usize) -> Result<(), ModelError> {
    let bad = |row: &[f32]| row.iter().any(|v| !v.is_finite());
    let rows = column.chunks_exact(width.max(1));
    match rows.clone().position(bad) {
        None => Ok(()),
        Some(first) => {
            let total = rows.len();
            Err(ModelError::NonFinite { what, rows: rows.filter(|row| bad(row)).count(), total, first })
        }
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Transition;

    use super::*;

    #[test]
    fn the_past_of_a_transition_lies_within_its_episode() {
        // Observation 10 · episode + step, action its negative; a ring of 12 that has lost the first steps of 15.
        let mut replay = Replay::new(1, 1, 12).unwrap();
        for (episode, length) in [(1_u8, 6_u8), (2, 1), (3, 5), (4, 3)] {
            for step in 0..length {
                let obs = f32::from(10 * episode + step);
                let (terminated, truncated) = (episode == 3 && step == 4, episode != 3 && step + 1 == length);
                let (obs, action, next_obs) = (vec![obs], vec![-obs], vec![obs + 1.0]);
                replay.push(&Transition { obs, action, reward: 0.5, next_obs, terminated, truncated }).unwrap();
            }
        }
        let data = Dataset::of_replay(&replay, 2).unwrap();
        let found: Vec<[f32; 5]> =
            data.obs().iter().zip(data.past().chunks(4)).map(|(o, p)| [*o, p[0], p[1], p[2], p[3]]).collect();
        let expected = [
            // What is left of the first episode begins at its fourth step.
            [13.0, 13.0, 0.0, 13.0, 0.0],
            [14.0, 13.0, -13.0, 13.0, 0.0],
            [15.0, 14.0, -14.0, 13.0, -13.0],
            [20.0, 20.0, 0.0, 20.0, 0.0],
            [30.0, 30.0, 0.0, 30.0, 0.0],
            [31.0, 30.0, -30.0, 30.0, 0.0],
            [32.0, 31.0, -31.0, 30.0, -30.0],
            [33.0, 32.0, -32.0, 31.0, -31.0],
            [34.0, 33.0, -33.0, 32.0, -32.0],
            [40.0, 40.0, 0.0, 40.0, 0.0],
            [41.0, 40.0, -40.0, 40.0, 0.0],
            [42.0, 41.0, -41.0, 40.0, -40.0],
        ];
        assert_eq!(found, expected);
        assert_eq!(data.rewards().unwrap(), [0.5; 12]);
        // A time limit is no termination.
        assert_eq!(data.terminated().unwrap().iter().position(|end| *end), Some(8));
        assert_eq!(data.terminated().unwrap().iter().filter(|end| **end).count(), 1);
        assert!(Dataset::of_replay(&replay, 0).unwrap().past().is_empty());

        // Rows of episodes, and what lies within them.
        assert_eq!(data.episodes().collect::<Vec<_>>(), [0..3, 3..4, 4..9, 9..12]);
        assert_eq!(data.windows(1), (0..12).collect::<Vec<_>>());
        assert_eq!(data.windows(3), [0, 4, 5, 6, 9]);
        for start in data.windows(3) {
            assert!((start..start + 2).all(|row| data.next_obs()[row] == data.obs()[row + 1]), "{start}");
        }
        assert_eq!(data.windows(5), [4]);
        assert!(data.windows(6).is_empty() && data.windows(0).is_empty());
    }

    #[test]
    fn episodes_are_said_whole_or_not_known() {
        let data = || Dataset::new(vec![0.0; 4], vec![0.0; 4], vec![0.0; 4], 1, 1).unwrap();
        assert_eq!(data().episodes().count(), 4);
        assert!(data().windows(2).is_empty());
        let told = data().with_episodes(&[2, 1]).unwrap_err().to_string();
        assert_eq!(told, "transitions of all episodes = 3: expected 4");
        let told = data().with_episodes(&[2, 0, 2]).unwrap_err().to_string();
        assert_eq!(told, "episodes = episode 1 of 0 transitions: expected at least 1 in each");
        assert_eq!(data().with_episodes(&[1, 3]).unwrap().windows(2), [1, 2]);
    }

    #[test]
    fn rewards_and_terminations_of_another_length_or_not_finite_are_refused() {
        let data = || Dataset::new(vec![0.0; 4], vec![0.0; 2], vec![0.0; 4], 2, 1).unwrap();
        let told = data().with_rewards(vec![0.0; 3]).unwrap_err().to_string();
        assert_eq!(told, "values of rewards = 3: expected 2");
        let told = data().with_rewards(vec![0.0, f32::NAN]).unwrap_err();
        assert!(matches!(told, ModelError::NonFinite { what: "rewards", rows: 1, total: 2, first: 1 }));
        let told = data().with_terminated(vec![true]).unwrap_err().to_string();
        assert_eq!(told, "values of terminated = 1: expected 2");
        assert!(matches!(Dataset::of_replay(&Replay::new(1, 1, 3).unwrap(), 1), Err(ModelError::TooLittleData { .. })));
    }
}
