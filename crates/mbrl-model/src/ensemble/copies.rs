//! What networks see of transitions and should say of them, and the copies of transitions that symmetries make.

use std::{borrow::Cow, fmt, sync::Arc};

use mbrl_env::{Augment, philox4x32};
use rayon::prelude::*;

use super::{angles::Wrap, inputs::Inputs, predicted::Predicted};
use crate::{Dataset, Normalizer};

/// Rows that a thread turns into inputs and targets at a time.
const BLOCK: usize = 128;

/// N transitions in columns, as a [`Dataset`] has them, with the rewards where they are learned.
#[derive(Debug, Clone, Default)]
pub(super) struct Transitions<'a> {
    pub(super) obs: Cow<'a, [f32]>,
    pub(super) actions: Cow<'a, [f32]>,
    pub(super) next_obs: Cow<'a, [f32]>,
    /// `[N, past · (O + A)]`.
    pub(super) past: Cow<'a, [f32]>,
    pub(super) rewards: Cow<'a, [f32]>,
}

/// How transitions become rows of inputs and of targets.
#[derive(Debug, Clone)]
pub(super) struct Shaper {
    pub(super) seen: Inputs,
    pub(super) predicted: Predicted,
    pub(super) wraps: Vec<Wrap>,
    /// 1 for columns predicted as a change, 0 for the others, `[O]`.
    pub(super) delta: Vec<f32>,
    pub(super) obs: usize,
    pub(super) action: usize,
    /// Whether the reward is learned.
    pub(super) reward: bool,
    /// Width of the past.
    pub(super) past: usize,
}

impl Shaper {
    /// Width of a row of targets, without a termination.
    pub(super) fn targets_width(&self) -> usize {
        self.predicted.count() + usize::from(self.reward)
    }

    /// The transitions of a data set.
    pub(super) fn transitions<'a>(&self, data: &'a Dataset) -> Transitions<'a> {
        Transitions {
            obs: data.obs().into(),
            actions: data.actions().into(),
            next_obs: data.next_obs().into(),
            past: data.past().into(),
            rewards: data.rewards().filter(|_| self.reward).unwrap_or_default().into(),
        }
    }

    /// What the networks see, `[N, in]`, not yet standardised.
    pub(super) fn inputs(&self, of: &Transitions<'_>) -> Vec<f32> {
        let Inputs { plain, angles, .. } = &self.seen;
        let (o, a, rows) = (self.obs, self.action, of.obs.len() / self.obs);
        let features = self.seen.features_of(&of.obs, &of.actions, o);
        let mut features = features.chunks_exact(features.len().checked_div(rows).unwrap_or(0).max(1));
        let mut inputs = Vec::with_capacity(rows * self.seen.width());
        let mut state = vec![0f32; o + self.past];
        for (row, (now, act)) in of.obs.chunks_exact(o).zip(of.actions.chunks_exact(a)).enumerate() {
            state[..o].copy_from_slice(now);
            state[o..].copy_from_slice(&of.past[row * self.past..(row + 1) * self.past]);
            inputs.extend(plain.iter().map(|&c| state[c]));
            inputs.extend(angles.iter().map(|&(c, scale)| (state[c] * scale).sin()));
            inputs.extend(angles.iter().map(|&(c, scale)| (state[c] * scale).cos()));
            inputs.extend(act);
            inputs.extend(features.next().into_iter().flatten());
        }
        inputs
    }

    /// What they should say, `[N, D (+ 1)]`, not yet standardised, without terminations.
    pub(super) fn targets(&self, of: &Transitions<'_>) -> Vec<f32> {
        let (o, width) = (self.obs, self.targets_width());
        let mut targets = Vec::with_capacity(of.obs.len() / o * width);
        for (row, (next, now)) in of.next_obs.chunks_exact(o).zip(of.obs.chunks_exact(o)).enumerate() {
            targets.extend(self.predicted.columns.iter().map(|&c| next[c] - self.delta[c] * now[c]));
            for wrap in &self.wraps {
                let place = self.predicted.columns.iter().position(|c| *c == wrap.column);
                if let Some(place) = place {
                    let change = &mut targets[row * width + place];
                    *change = wrap.change(*change);
                }
            }
            targets.extend(of.rewards.get(row));
        }
        targets
    }
}

impl Transitions<'_> {
    /// Adds row `row` of `all` as its copy number `copy`.
    fn push_copy(
        &mut self,
        all: &Transitions<'_>,
        row: usize,
        copy: usize,
        augment: &dyn Augment,
        [o, a, past]: [usize; 3],
    ) {
        let add = |to: &mut Vec<f32>, from: &[f32], width: usize, map: &dyn Fn(usize, &mut [f32])| {
            let at = to.len();
            to.extend_from_slice(&from[row * width..][..width]);
            if copy > 0 {
                map(copy, &mut to[at..]);
            }
        };
        let (observation, action) =
            (|c, x: &mut [f32]| augment.observation(c, x), |c, x: &mut [f32]| augment.action(c, x));
        add(self.obs.to_mut(), &all.obs, o, &observation);
        add(self.next_obs.to_mut(), &all.next_obs, o, &observation);
        add(self.actions.to_mut(), &all.actions, a, &action);
        // Pairs of an observation and an action.
        add(self.past.to_mut(), &all.past, past, &|copy, past: &mut [f32]| {
            for pair in past.chunks_exact_mut(o + a) {
                let (obs, act) = pair.split_at_mut(o);
                augment.observation(copy, obs);
                augment.action(copy, act);
            }
        });
        let reward = all.rewards.get(row).copied();
        self.rewards.to_mut().extend(reward.map(|reward| if copy > 0 { augment.reward(copy, reward) } else { reward }));
    }

    /// The same, kept.
    pub(super) fn into_owned(self) -> Transitions<'static> {
        let own = |column: Cow<'_, [f32]>| Cow::Owned(column.into_owned());
        Transitions {
            obs: own(self.obs),
            actions: own(self.actions),
            next_obs: own(self.next_obs),
            past: own(self.past),
            rewards: own(self.rewards),
        }
    }

    /// All rows, each as its copy number `copy`.
    pub(super) fn copied(&self, copy: usize, augment: &dyn Augment, shaper: &Shaper) -> Transitions<'static> {
        let mut copied = Transitions::default();
        for row in 0..self.obs.len() / shaper.obs {
            copied.push_copy(self, row, copy, augment, [shaper.obs, shaper.action, shaper.past]);
        }
        copied
    }
}

/// The transitions of a fit, from which copies are drawn.
pub(super) struct Copies {
    pub(super) augment: Arc<dyn Augment>,
    pub(super) all: Transitions<'static>,
    /// Whether each terminated, as 0 and 1; empty where that is not learned.
    pub(super) ends: Vec<f32>,
    pub(super) shaper: Shaper,
    pub(super) inputs: Normalizer,
    pub(super) targets: Normalizer,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("augment", &self.augment.name()).finish_non_exhaustive()
    }
}

impl Copies {
    /// Standardised inputs `[n, in]` and targets `[n, out]` of a batch's `rows`, each as one of its copies: a function of key, step
    /// and place in the batch, so that no thread and no path has others.
    pub(super) fn draw(&self, rows: &[usize], key: u64, step: u32) -> [Vec<f32>; 2] {
        let shaper = &self.shaper;
        let widths = [shaper.seen.width(), shaper.targets_width() + usize::from(!self.ends.is_empty())];
        let [mut inputs, mut targets] = widths.map(|width| vec![0f32; rows.len() * width]);
        let blocks = rows.par_chunks(BLOCK).zip(inputs.par_chunks_mut(BLOCK * widths[0]));
        blocks.zip(targets.par_chunks_mut(BLOCK * widths[1])).enumerate().for_each(
            |(block, ((rows, inputs), targets))| {
                let mut copied = Transitions::default();
                for (i, &row) in rows.iter().enumerate() {
                    let copy = self.copy(key, step, (block * BLOCK + i) as u32);
                    copied.push_copy(&self.all, row, copy, &*self.augment, [shaper.obs, shaper.action, shaper.past]);
                }
                let [mut seen, mut said] = [shaper.inputs(&copied), shaper.targets(&copied)];
                self.inputs.normalize(&mut seen);
                self.targets.normalize(&mut said);
                inputs.copy_from_slice(&seen);
                let each = targets.chunks_exact_mut(widths[1]).zip(said.chunks_exact(shaper.targets_width()));
                for ((target, said), &row) in each.zip(rows) {
                    target[..said.len()].copy_from_slice(said);
                    target[said.len()..].copy_from_slice(self.ends.get(row..=row).unwrap_or_default());
                }
            },
        );
        [inputs, targets]
    }

    /// Which copy of its transition stands at a place of a batch.
    fn copy(&self, key: u64, step: u32, place: u32) -> usize {
        // The fourth word keeps these blocks apart from those of a generator with the same key.
        let [word, ..] = philox4x32([place, step, 0, 2], [key as u32, (key >> 32) as u32]);
        ((u64::from(word) * self.augment.copies() as u64) >> 32) as usize
    }
}
