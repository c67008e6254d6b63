//! A record of transitions that knows where episodes begin and end.

mod file;
mod records;
mod seen;

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use crate::{EnvError, Rng, Transition, check_finite, check_width};

pub use records::{RecordField, RecordKind, ReplayIndex};
use seen::Seen;

/// A ring of transitions in host columns that remembers its episodes.
///
/// Transitions have *positions* `0..len`, oldest first; once the ring is full, each new one drops the oldest, and all
/// positions shift. An episode ends with a transition that is terminated or truncated, or where
/// [`end_episode`](Self::end_episode) says so; the oldest episode may have lost its beginning.
///
/// ```
/// use mbrl_env::{Replay, Rng, Transition};
///
/// let mut replay = Replay::new(2, 1, 1000)?;
/// for step in 0..30_u8 {
///     replay.push(&Transition {
///         obs: vec![f32::from(step), 0.0],
///         action: vec![0.5],
///         reward: 1.0,
///         next_obs: vec![f32::from(step + 1), 0.0],
///         terminated: false,
///         truncated: step % 10 == 9, // three episodes
///     })?;
/// }
/// assert_eq!(replay.episodes().collect::<Vec<_>>(), [0..10, 10..20, 20..30]);
///
/// let mut rng = Rng::new(0);
/// let batch = replay.sample_batch(64, &mut rng)?;
/// assert_eq!((batch.len(), batch.obs.len()), (64, 64 * 2));
/// for sequence in replay.sample_sequences(5, 8, &mut rng)? {
///     assert_eq!(sequence.start / 10, (sequence.end - 1) / 10); // inside of one episode
/// }
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    obs_width: usize,
    action_width: usize,
    capacity: usize,
    /// Slot of the oldest transition. The columns grow to `capacity` slots; from then on new ones overwrite the oldest.
    oldest: usize,
    /// Total number of transitions pushed.
    pushed: u64,
    /// Lengths of the episodes, oldest first; none is 0.
    episodes: VecDeque<usize>,
    /// Whether the last episode is still running.
    running: bool,
    seen: Seen,
    actions: Vec<f32>,
    rewards: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
}

/// Rows of transitions, column by column: borrowed where they are contiguous, copied where they are not.
///
/// `columns.obs.into_owned()` costs nothing where they are copies already, as those of
/// [`sample_batch`](Replay::sample_batch) are.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns<'a> {
    /// O, entries of an observation.
    pub obs_width: usize,
    /// A, entries of an action.
    pub action_width: usize,
    /// Observations before the actions, `[N, O]`, row by row.
    pub obs: Cow<'a, [f32]>,
    /// Actions in the environment's units, `[N, A]`.
    pub actions: Cow<'a, [f32]>,
    /// Rewards, `[N]`.
    pub rewards: Cow<'a, [f64]>,
    /// Observations after the actions, `[N, O]`.
    pub next_obs: Cow<'a, [f32]>,
    /// Whether the task reached a terminal state, `[N]`.
    pub terminated: Cow<'a, [bool]>,
    /// Whether the episode was cut from outside, `[N]`.
    pub truncated: Cow<'a, [bool]>,
}

/// Owned [`Columns`], as sampling returns them.
pub type Batch = Columns<'static>;

impl Columns<'_> {
    /// N, the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Copies of some rows, in their order; a row may come twice.
    ///
    /// # Panics
    /// If a row is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Batch {
        let of = |column: &[f32], width: usize| {
            let mut picked = Vec::with_capacity(rows.len() * width);
            for row in rows {
                picked.extend_from_slice(&column[row * width..][..width]);
            }
            Cow::Owned(picked)
        };
        Columns {
            obs_width: self.obs_width,
            action_width: self.action_width,
            obs: of(&self.obs, self.obs_width),
            actions: of(&self.actions, self.action_width),
            rewards: rows.iter().map(|&row| self.rewards[row]).collect(),
            next_obs: of(&self.next_obs, self.obs_width),
            terminated: rows.iter().map(|&row| self.terminated[row]).collect(),
            truncated: rows.iter().map(|&row| self.truncated[row]).collect(),
        }
    }
}

impl Replay {
    /// An empty replay that keeps the last `capacity` transitions of `obs_width` and `action_width`.
    /// Memory grows by doubling as transitions are pushed, and never beyond what `capacity` transitions take:
    /// [`bytes_per_transition`](Self::bytes_per_transition) each.
    ///
    /// # Errors
    /// [`EnvError::Config`] where one of them is 0.
    pub fn new(obs_width: usize, action_width: usize, capacity: usize) -> Result<Self, EnvError> {
        for (field, value) in [("obs_width", obs_width), ("action_width", action_width), ("capacity", capacity)] {
            if value == 0 {
                return Err(EnvError::Config { field, value: "0".into(), rule: "at least 1" });
            }
        }
        Ok(Self {
            obs_width,
            action_width,
            capacity,
            oldest: 0,
            pushed: 0,
            episodes: VecDeque::new(),
            running: false,
            seen: Seen::Numbers { obs: Vec::new(), next: Vec::new() },
            actions: Vec::new(),
            rewards: Vec::new(),
            terminated: Vec::new(),
            truncated: Vec::new(),
        })
    }

    /// Keeps observations as bytes, and each only once: for pixels, whole numbers from 0 to 255, for which such a replay takes about an
    /// eighth of the memory. It returns exactly the numbers that were pushed.
    ///
    /// ```
    /// use mbrl_env::{Replay, Transition};
    ///
    /// // A thousand steps of 32 × 32 pixels.
    /// let mut replay = Replay::new(1024, 1, 1000)?.in_bytes();
    /// assert_eq!(replay.bytes_per_transition(), 1024 + 4 + 8 + 2);
    /// let frame = |level: f32| vec![level; 1024];
    /// let step = |from, to| Transition { obs: frame(from), action: vec![0.5], reward: 1.0, next_obs: frame(to), terminated: false, truncated: false };
    /// replay.push(&step(0.0, 128.0))?;
    /// replay.push(&step(128.0, 255.0))?;
    /// assert_eq!(replay.get(0).unwrap(), step(0.0, 128.0));
    /// let refused = replay.push(&step(255.0, 0.5)).unwrap_err().to_string();
    /// assert_eq!(refused, "next observation = 0.5: expected whole numbers from 0 to 255, since the replay keeps bytes");
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    ///
    /// A replay that already holds numbers stays unchanged.
    #[must_use]
    pub fn in_bytes(mut self) -> Self {
        if self.is_empty() {
            self.seen = Seen::Bytes { obs: Vec::new(), after: BTreeMap::new() };
        }
        self
    }

    /// Whether it keeps observations [as bytes](Self::in_bytes).
    #[must_use]
    pub fn is_in_bytes(&self) -> bool {
        self.seen.are_bytes()
    }

    /// Width of an observation, and slots of the ring.
    fn ring(&self) -> [usize; 2] {
        [self.obs_width, self.capacity]
    }

    /// O, entries of an observation.
    #[must_use]
    pub fn obs_width(&self) -> usize {
        self.obs_width
    }

    /// A, entries of an action.
    #[must_use]
    pub fn action_width(&self) -> usize {
        self.action_width
    }

    /// The most transitions that are kept.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of transitions kept now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Appends a transition of the running episode; a full ring drops its oldest.
    ///
    /// # Errors
    /// [`EnvError::Width`] or [`EnvError::NonFinite`], naming the part at fault; nothing is then appended.
    pub fn push(&mut self, transition: &Transition) -> Result<(), EnvError> {
        let Transition { obs, action, reward, next_obs, terminated, truncated } = transition;
        check_width("observation", self.obs_width, obs.len())?;
        check_width("action", self.action_width, action.len())?;
        check_width("next observation", self.obs_width, next_obs.len())?;
        check_finite("observation", obs)?;
        check_finite("action", action)?;
        check_finite("next observation", next_obs)?;
        if !reward.is_finite() {
            return Err(EnvError::NonFinite { what: "reward".into(), index: 0, value: *reward as f32 });
        }

        let newest = self.len().checked_sub(1).map(|last| self.slot(last));
        if self.len() < self.capacity {
            self.reserve();
            self.seen.put(self.len(), newest, [obs, next_obs])?;
            self.actions.extend_from_slice(action);
            self.rewards.push(*reward);
            self.terminated.push(*terminated);
            self.truncated.push(*truncated);
        } else {
            let slot = self.oldest;
            self.seen.put(slot, newest, [obs, next_obs])?;
            self.actions[slot * self.action_width..][..self.action_width].copy_from_slice(action);
            self.rewards[slot] = *reward;
            self.terminated[slot] = *terminated;
            self.truncated[slot] = *truncated;
            self.oldest = (slot + 1) % self.capacity;
            self.episodes[0] -= 1;
        }
        match self.episodes.back_mut() {
            Some(length) if self.running => *length += 1,
            _ => self.episodes.push_back(1),
        }
        // Only now: with a capacity of 1 the episode that lost a transition may be the one that gained one.
        if self.episodes[0] == 0 {
            self.episodes.pop_front();
        }
        self.running = !transition.episode_over();
        self.pushed += 1;
        Ok(())
    }

    /// Makes room for at least one more transition: for twice as many as there are, but no more than are ever kept.
    fn reserve(&mut self) {
        const FIRST: usize = 64;
        if self.len() < self.rewards.capacity() {
            return;
        }
        let more = self.len().max(FIRST).min(self.capacity - self.len());
        self.seen.reserve(more * self.obs_width);
        self.actions.reserve_exact(more * self.action_width);
        self.rewards.reserve_exact(more);
        self.terminated.reserve_exact(more);
        self.truncated.reserve_exact(more);
    }

    /// Bytes that a transition takes: two observations and an action at 4 bytes per entry, 8 for the reward, two flags. An episode takes
    /// 8 more. [In bytes](Self::in_bytes) an entry of an observation takes one, and each transition keeps one observation; an episode adds
    /// its last.
    ///
    /// ```
    /// use mbrl_env::Replay;
    ///
    /// // The hopper: a million transitions are 110 MB.
    /// assert_eq!(Replay::new(11, 3, 1_000_000)?.bytes_per_transition(), 110);
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    #[must_use]
    pub fn bytes_per_transition(&self) -> usize {
        let seen = if self.is_in_bytes() { self.obs_width } else { 2 * self.obs_width * size_of::<f32>() };
        seen + self.action_width * size_of::<f32>() + size_of::<f64>() + 2 * size_of::<bool>()
    }

    /// Bytes that are allocated now, including room for transitions to come.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.seen.allocated()
            + self.actions.capacity() * size_of::<f32>()
            + self.rewards.capacity() * size_of::<f64>()
            + self.terminated.capacity()
            + self.truncated.capacity()
            + self.episodes.capacity() * size_of::<usize>()
    }

    /// The observation `[O]` before the action, of the transition at a position.
    ///
    /// # Panics
    /// If the position is not below [`len`](Self::len).
    #[must_use]
    pub fn observation(&self, position: usize) -> Cow<'_, [f32]> {
        self.seen.before(self.slot(position), self.obs_width)
    }

    /// Appends a separate episode, as [`collect`](crate::collect) returns it: ends the running episode first, and this one after its
    /// last transition.
    ///
    /// # Errors
    /// As [`push`](Self::push); the transitions before the one at fault are kept.
    pub fn push_episode(&mut self, episode: &[Transition]) -> Result<(), EnvError> {
        self.end_episode();
        let pushed = episode.iter().try_for_each(|transition| self.push(transition));
        self.end_episode();
        pushed
    }

    /// Ends the running episode without a flag: the next transition pushed does not follow the last one. For a
    /// collection that was interrupted.
    pub fn end_episode(&mut self) {
        self.running = false;
    }

    /// Ends the running episode as truncated with the transition that was pushed last: for an episode that broke down in the
    /// step after it. Without a running episode nothing changes.
    ///
    /// ```
    /// use mbrl_env::{Replay, Transition};
    ///
    /// let mut replay = Replay::new(1, 1, 10)?;
    /// let (obs, action, next_obs) = (vec![0.0], vec![1.0], vec![0.1]);
    /// replay.push(&Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated: false })?;
    /// replay.truncate_episode();
    /// assert!(replay.get(0).is_some_and(|transition| transition.truncated));
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    pub fn truncate_episode(&mut self) {
        if self.running && !self.is_empty() {
            let last = self.slot(self.len() - 1);
            self.truncated[last] = true;
        }
        self.running = false;
    }

    /// Drops all transitions and keeps their memory. [`pushed`](Self::pushed) counts on, so the [`records`](Self::records) of later transitions
    /// have new numbers.
    ///
    /// ```
    /// use mbrl_env::{Replay, Transition};
    ///
    /// let mut replay = Replay::new(1, 1, 10)?;
    /// let (obs, action, next_obs) = (vec![0.0], vec![1.0], vec![0.1]);
    /// replay.push(&Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated: false })?;
    /// replay.clear();
    /// assert_eq!((replay.len(), replay.episodes().count(), replay.pushed()), (0, 0, 1));
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    pub fn clear(&mut self) {
        (self.oldest, self.running) = (0, false);
        self.episodes.clear();
        self.seen.clear();
        self.actions.clear();
        self.rewards.clear();
        self.terminated.clear();
        self.truncated.clear();
    }

    /// Positions of each episode, oldest first; the last one may still be running.
    pub fn episodes(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.episodes.iter().scan(0, |start, length| {
            let range = *start..*start + length;
            *start = range.end;
            Some(range)
        })
    }

    /// All transitions, oldest first: borrowed until the ring wraps, copied from then on.
    #[must_use]
    pub fn columns(&self) -> Columns<'_> {
        let [obs, next_obs] = self.seen.columns(self.oldest, self.ring());
        Columns {
            obs_width: self.obs_width,
            action_width: self.action_width,
            obs,
            actions: unrolled(&self.actions, self.oldest * self.action_width),
            rewards: unrolled(&self.rewards, self.oldest),
            next_obs,
            terminated: unrolled(&self.terminated, self.oldest),
            truncated: unrolled(&self.truncated, self.oldest),
        }
    }

    /// Copies of the transitions at some positions, in their order; a position may come twice.
    ///
    /// # Panics
    /// If a position is not below [`len`](Self::len).
    #[must_use]
    pub fn gather(&self, positions: impl IntoIterator<Item = usize>) -> Batch {
        let slots: Vec<usize> = positions.into_iter().map(|position| self.slot(position)).collect();
        let [obs, next_obs] = self.seen.pick(&slots, self.ring()).map(Cow::Owned);
        // The rest in the order of the ring.
        let ring = Columns {
            obs_width: 0,
            action_width: self.action_width,
            obs: Cow::Borrowed(&[]),
            actions: Cow::Borrowed(&self.actions[..]),
            rewards: Cow::Borrowed(&self.rewards[..]),
            next_obs: Cow::Borrowed(&[]),
            terminated: Cow::Borrowed(&self.terminated[..]),
            truncated: Cow::Borrowed(&self.truncated[..]),
        };
        Columns { obs_width: self.obs_width, obs, next_obs, ..ring.select(&slots) }
    }

    /// The transition at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Transition> {
        if position >= self.len() {
            return None;
        }
        let row = self.gather([position]);
        Some(Transition {
            obs: row.obs.into_owned(),
            action: row.actions.into_owned(),
            reward: row.rewards[0],
            next_obs: row.next_obs.into_owned(),
            terminated: row.terminated[0],
            truncated: row.truncated[0],
        })
    }

    /// `n` transitions, each uniform among all and independent of the others.
    ///
    /// # Errors
    /// [`EnvError::TooLittleData`] where nothing is kept.
    pub fn sample_batch(&self, n: usize, rng: &mut Rng) -> Result<Batch, EnvError> {
        if self.is_empty() {
            return Err(EnvError::TooLittleData { what: "a batch", actual: 0, needed: 1 });
        }
        let positions: Vec<usize> = (0..n).map(|_| rng.below(self.len())).collect();
        Ok(self.gather(positions))
    }

    /// Positions of `n` sequences of `length` successive transitions, each uniform among all that lie within one
    /// episode. [`gather`](Self::gather) fetches them.
    ///
    /// # Errors
    /// [`EnvError::Config`] where `length` is 0, [`EnvError::TooLittleData`] where no episode is that long.
    pub fn sample_sequences(&self, n: usize, length: usize, rng: &mut Rng) -> Result<Vec<Range<usize>>, EnvError> {
        if length == 0 {
            return Err(EnvError::Config { field: "length", value: "0".into(), rule: "at least 1" });
        }
        // For each episode that is long enough, its start and how many sequences begin in it or before it.
        let mut total = 0;
        let mut starts: Vec<(usize, usize)> = Vec::new();
        for episode in self.episodes() {
            if episode.len() >= length {
                total += episode.len() - length + 1;
                starts.push((total, episode.end - length + 1));
            }
        }
        if total == 0 {
            let actual = self.episodes.iter().copied().max().unwrap_or(0);
            return Err(EnvError::TooLittleData { what: "a sequence within one episode", actual, needed: length });
        }
        let draw = |_| {
            let choice = rng.below(total);
            let (through, end) = starts[starts.partition_point(|&(through, _)| through <= choice)];
            let start = end - (through - choice);
            start..start + length
        };
        Ok((0..n).map(draw).collect())
    }

    /// Divides the episodes at random and returns the positions of both parts, each in order: `(rest, chosen)`, where
    /// the number of chosen episodes is `fraction` of all, rounded. Neighbouring transitions are nearly copies of each
    /// other, so a holdout is only fair if no episode is in both parts.
    ///
    /// Where `fraction` is not 0 and there are two episodes or more, neither part is empty; a single episode goes to the rest.
    ///
    /// # Errors
    /// [`EnvError::Config`] where `fraction` is outside of [0, 1).
    pub fn split_episodes(&self, fraction: f64, rng: &mut Rng) -> Result<(Vec<usize>, Vec<usize>), EnvError> {
        if !(0.0..1.0).contains(&fraction) {
            let (value, rule) = (fraction.to_string(), "a number of at least 0 and below 1");
            return Err(EnvError::Config { field: "fraction", value, rule });
        }
        let count = self.episodes.len();
        let wanted = (fraction * count as f64).round() as usize;
        let chosen = if fraction == 0.0 { 0 } else { wanted.max(1).min(count.saturating_sub(1)) };
        let mut is_chosen = vec![false; count];
        for &episode in &rng.permutation(count)[..chosen] {
            is_chosen[episode] = true;
        }
        let mut parts = (Vec::new(), Vec::new());
        for (episode, chosen) in self.episodes().zip(is_chosen) {
            if chosen { parts.1.extend(episode) } else { parts.0.extend(episode) }
        }
        Ok(parts)
    }

    fn slot(&self, position: usize) -> usize {
        assert!(position < self.len(), "position {position} of {} transitions", self.len());
        (self.oldest + position) % self.capacity
    }
}

/// A column from its oldest entry on.
fn unrolled<T: Clone>(column: &[T], oldest: usize) -> Cow<'_, [T]> {
    if oldest == 0 { Cow::Borrowed(column) } else { Cow::Owned([&column[oldest..], &column[..oldest]].concat()) }
}
