//! What networks see of transitions and should predict for them, and what fits show in their place: copies under symmetries, and transitions
//! from states that members predict themselves.

use std::{borrow::Cow, fmt, sync::Arc};

use mbrl_env::{Augment, philox4x32};
use rayon::prelude::*;

use super::{angles::Wrap, inputs::Inputs, predicted::Predicted};
use crate::{Dataset, FitBatch, Normalizer};

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

    /// What they should predict, `[N, D (+ 1)]`, not yet standardised, without terminations.
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

    /// Moves observations `[n, O]` on under `actions` `[n, A]` by the means that networks predict, `[n, width]`, in units of the targets.
    fn advance(&self, obs: &mut [f32], actions: &[f32], said: &[f32], width: usize, targets: &Normalizer) {
        let [mean, std] = [targets.mean(), targets.std()];
        let mut next: Vec<f32> =
            obs.chunks_exact(self.obs).flat_map(|now| now.iter().zip(&self.delta).map(|(now, d)| now * d)).collect();
        for (next, said) in next.chunks_exact_mut(self.obs).zip(said.chunks_exact(width)) {
            for (d, &column) in self.predicted.columns.iter().enumerate() {
                next[column] += said[d] * std[d] + mean[d];
            }
            for wrap in &self.wraps {
                wrap.place(&mut next[wrap.column..=wrap.column]);
            }
        }
        self.predicted.complete_rows([&*obs, actions], &mut next, [self.obs, self.action]);
        obs.copy_from_slice(&next);
    }
}

impl Transitions<'_> {
    /// Adds row `row` of `all` as its copy number `copy`.
    fn push_copy(
        &mut self,
        all: &Transitions<'_>,
        row: usize,
        copy: usize,
        augment: Option<&dyn Augment>,
        [o, a, past]: [usize; 3],
    ) {
        let augment = augment.filter(|_| copy > 0);
        let add = |to: &mut Vec<f32>, from: &[f32], width: usize, map: &dyn Fn(&dyn Augment, &mut [f32])| {
            let at = to.len();
            to.extend_from_slice(&from[row * width..][..width]);
            if let Some(augment) = augment {
                map(augment, &mut to[at..]);
            }
        };
        let observation = |augment: &dyn Augment, x: &mut [f32]| augment.observation(copy, x);
        let action = |augment: &dyn Augment, x: &mut [f32]| augment.action(copy, x);
        add(self.obs.to_mut(), &all.obs, o, &observation);
        add(self.next_obs.to_mut(), &all.next_obs, o, &observation);
        add(self.actions.to_mut(), &all.actions, a, &action);
        // Pairs of an observation and an action.
        add(self.past.to_mut(), &all.past, past, &|augment, past| {
            for pair in past.chunks_exact_mut(o + a) {
                let (obs, act) = pair.split_at_mut(o);
                augment.observation(copy, obs);
                augment.action(copy, act);
            }
        });
        let reward = all.rewards.get(row).copied();
        let copied = |reward: f32| augment.map_or(reward, |augment| augment.reward(copy, reward));
        self.rewards.to_mut().extend(reward.map(copied));
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
            copied.push_copy(self, row, copy, Some(augment), [shaper.obs, shaper.action, shaper.past]);
        }
        copied
    }
}

/// The transitions of a fit, where batches show others in their place: copies under symmetries, or transitions from states that the
/// members predict ([`hallucinated_steps`](super::EnsembleConfig::hallucinated_steps)), or both.
pub(super) struct Copies {
    /// What makes copies, where there are symmetries.
    pub(super) augment: Option<Arc<dyn Augment>>,
    pub(super) all: Transitions<'static>,
    /// Whether each terminated, as 0 and 1; empty where that is not learned.
    pub(super) ends: Vec<f32>,
    pub(super) shaper: Shaper,
    pub(super) inputs: Normalizer,
    pub(super) targets: Normalizer,
    /// How many steps before each transition its state may be predicted from; empty where none is.
    pub(super) before: Vec<u32>,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let augment = self.augment.as_ref().map(|augment| augment.name());
        f.debug_struct("Copies").field("augment", &augment).finish_non_exhaustive()
    }
}

/// What the members predict at present for standardised inputs, `[E, n, in]`, each of rows of its own: `[E, n, out]`, means first.
pub(super) type Says<'a> = dyn Fn(&[f32]) -> Vec<f32> + 'a;

/// What is drawn for a place of a batch.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Which copy of its transition stands there.
    copy: usize,
    /// Steps that its state is predicted over.
    steps: usize,
}

impl Copies {
    /// Standardised inputs `[n, in]` and targets `[n, out]` of a batch's rows. Which copy, and how many steps its state is predicted over, are
    /// functions of key, step and place in the batch, so that they are the same on every thread and every path.
    pub(super) fn draw(&self, of: &FitBatch<'_>, says: &Says<'_>) -> [Vec<f32>; 2] {
        let (rows, shaper) = (of.rows, &self.shaper);
        let places: Vec<Place> = rows.iter().enumerate().map(|(i, row)| self.place(of, i as u32, *row)).collect();
        let predicted = self.predict(of, &places, says);
        let widths = [shaper.seen.width(), shaper.targets_width() + usize::from(!self.ends.is_empty())];
        let [mut inputs, mut targets] = widths.map(|width| vec![0f32; rows.len() * width]);
        let blocks = rows.par_chunks(BLOCK).zip(inputs.par_chunks_mut(BLOCK * widths[0]));
        blocks.zip(targets.par_chunks_mut(BLOCK * widths[1])).enumerate().for_each(
            |(block, ((rows, inputs), targets))| {
                let mut copied = Transitions::default();
                for (i, &row) in rows.iter().enumerate() {
                    let place = block * BLOCK + i;
                    self.push(&mut copied, row, places[place].copy);
                    let own = predicted.get(place * shaper.obs..(place + 1) * shaper.obs).unwrap_or_default();
                    // A network may still be far out in the first steps of a fit.
                    if places[place].steps > 0 && own.iter().all(|value| value.is_finite()) {
                        copied.obs.to_mut()[i * shaper.obs..].copy_from_slice(own);
                    }
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

    /// The states of a batch as its members predict them, `[n, O]`, each from as many steps before as its place says; nothing where no state
    /// is to be predicted.
    fn predict(&self, of: &FitBatch<'_>, places: &[Place], says: &Says<'_>) -> Vec<f32> {
        let Some(most) = places.iter().map(|place| place.steps).max().filter(|most| *most > 0) else {
            return Vec::new();
        };
        let (o, a, shaper) = (self.shaper.obs, self.shaper.action, &self.shaper);
        let mut states = vec![0.0; places.len() * o];
        // Each place's action `step` steps after its start, and the observation there.
        let there = |into: &mut Transitions<'static>, place: usize, step: usize| {
            self.push(into, of.rows[place] + step - places[place].steps, places[place].copy);
        };
        let mut first = Transitions::default();
        (0..places.len()).for_each(|place| there(&mut first, place, 0));
        states.copy_from_slice(&first.obs);
        for step in 0..most {
            let going = |member: usize| {
                let own = member * of.size()..(member + 1) * of.size();
                own.filter(|place| places[*place].steps > step).collect::<Vec<_>>()
            };
            let mut going: Vec<Vec<usize>> = (0..of.members).map(going).collect();
            let longest = going.iter().map(Vec::len).max().unwrap_or(0);
            let counts: Vec<usize> = going.iter().map(Vec::len).collect();
            // As many rows for each member; nothing reads the padding.
            going.iter_mut().enumerate().for_each(|(member, own)| own.resize(longest, member * of.size()));
            let picked = going.concat();
            let width = shaper.seen.width();
            let (mut inputs, mut actions) = (vec![0.0; picked.len() * width], vec![0.0; picked.len() * a]);
            let blocks = picked.par_chunks(BLOCK).zip(inputs.par_chunks_mut(BLOCK * width));
            blocks.zip(actions.par_chunks_mut(BLOCK * a)).for_each(|((block, inputs), actions)| {
                let mut now = Transitions::default();
                for (i, &place) in block.iter().enumerate() {
                    there(&mut now, place, step.min(places[place].steps));
                    now.obs.to_mut()[i * o..].copy_from_slice(&states[place * o..][..o]);
                }
                let mut seen = shaper.inputs(&now);
                self.inputs.normalize(&mut seen);
                inputs.copy_from_slice(&seen);
                actions.copy_from_slice(&now.actions);
            });
            let said = says(&inputs);
            let out = said.len() / picked.len();
            let mut next: Vec<f32> = picked.iter().flat_map(|place| &states[place * o..][..o]).copied().collect();
            let blocks = next.par_chunks_mut(BLOCK * o).zip(actions.par_chunks(BLOCK * a));
            blocks.zip(said.par_chunks(BLOCK * out)).for_each(|((obs, actions), said)| {
                shaper.advance(obs, actions, said, out, &self.targets);
            });
            for (i, (&place, next)) in picked.iter().zip(next.chunks_exact(o)).enumerate() {
                if i % longest < counts[i / longest] {
                    states[place * o..][..o].copy_from_slice(next);
                }
            }
        }
        states
    }

    /// Adds a transition as one of its copies.
    fn push(&self, to: &mut Transitions<'static>, row: usize, copy: usize) {
        let widths = [self.shaper.obs, self.shaper.action, self.shaper.past];
        to.push_copy(&self.all, row, copy, self.augment.as_deref(), widths);
    }

    /// What stands at a place of a batch, whose row is `row`.
    fn place(&self, of: &FitBatch<'_>, place: u32, row: usize) -> Place {
        // The fourth word keeps these blocks apart from those of a generator with the same key.
        let [copy, steps, ..] = philox4x32([place, of.step, 0, 2], [of.key as u32, (of.key >> 32) as u32]);
        let below = |word: u32, count: usize| ((u64::from(word) * count as u64) >> 32) as usize;
        let copies = self.augment.as_ref().map_or(1, |augment| augment.copies());
        let before = self.before.get(row).map_or(0, |before| *before as usize);
        Place { copy: below(copy, copies), steps: below(steps, before + 1) }
    }
}
