//! Observations of a replay: numbers before and after each transition, or bytes, each once.

use std::{borrow::Cow, collections::BTreeMap};

use super::unrolled;
use crate::EnvError;

/// Observations, slot by slot of a ring.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// `[N, O]` each.
    Numbers { obs: Vec<f32>, next: Vec<f32> },
    /// Pixels: `[N, O]`, and the observation after a transition only where the next slot does not hold it: at ends of episodes and of the
    /// ring.
    Bytes { obs: Vec<u8>, after: BTreeMap<usize, Box<[u8]>> },
}

/// The byte that equals a number.
fn byte(what: &'static str, number: f32) -> Result<u8, EnvError> {
    if number.fract() == 0.0 && (0.0..=255.0).contains(&number) {
        return Ok(number as u8);
    }
    let rule = "whole numbers from 0 to 255, since the replay keeps bytes";
    Err(EnvError::Config { field: what, value: number.to_string(), rule })
}

fn bytes(what: &'static str, numbers: &[f32]) -> Result<Vec<u8>, EnvError> {
    numbers.iter().map(|number| byte(what, *number)).collect()
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.iter().map(|byte| f32::from(*byte))
}

impl Seen {
    pub(super) fn are_bytes(&self) -> bool {
        matches!(self, Self::Bytes { .. })
    }

    /// Puts the observations before and after a transition into slot `slot`, which is new or was the oldest one; `newest` is the slot of
    /// the transition before it. On an error nothing changes.
    pub(super) fn put(
        &mut self,
        slot: usize,
        newest: Option<usize>,
        [before, behind]: [&[f32]; 2],
    ) -> Result<(), EnvError> {
        let width = before.len();
        match self {
            Self::Numbers { obs, next } => {
                if slot * width == obs.len() {
                    obs.extend_from_slice(before);
                    next.extend_from_slice(behind);
                } else {
                    obs[slot * width..][..width].copy_from_slice(before);
                    next[slot * width..][..width].copy_from_slice(behind);
                }
            }
            Self::Bytes { obs, after } => {
                let (before, behind) = (bytes("observation", before)?, bytes("next observation", behind)?);
                // A ring of one slot overwrites its newest.
                if let Some(newest) = newest.filter(|newest| *newest != slot)
                    && after.get(&newest).is_some_and(|seen| **seen == before[..])
                {
                    after.remove(&newest);
                }
                if slot * width == obs.len() {
                    obs.extend_from_slice(&before);
                } else {
                    obs[slot * width..][..width].copy_from_slice(&before);
                }
                after.insert(slot, behind.into());
            }
        }
        Ok(())
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Numbers { obs, next } => {
                obs.clear();
                next.clear();
            }
            Self::Bytes { obs, after } => {
                obs.clear();
                after.clear();
            }
        }
    }

    /// Makes room for so many more numbers.
    pub(super) fn reserve(&mut self, more: usize) {
        match self {
            Self::Numbers { obs, next } => {
                obs.reserve_exact(more);
                next.reserve_exact(more);
            }
            Self::Bytes { obs, .. } => obs.reserve_exact(more),
        }
    }

    /// Bytes that are allocated.
    pub(super) fn allocated(&self) -> usize {
        match self {
            Self::Numbers { obs, next } => (obs.capacity() + next.capacity()) * size_of::<f32>(),
            Self::Bytes { obs, after } => obs.capacity() + after.values().map(|seen| seen.len()).sum::<usize>(),
        }
    }

    /// The observation before the transition in a slot.
    pub(super) fn before(&self, slot: usize, width: usize) -> Cow<'_, [f32]> {
        match self {
            Self::Numbers { obs, .. } => Cow::Borrowed(&obs[slot * width..][..width]),
            Self::Bytes { obs, .. } => numbers(&obs[slot * width..][..width]).collect(),
        }
    }

    /// The bytes after the transition in a slot of a ring of `capacity`.
    fn behind<'a>(
        obs: &'a [u8],
        after: &'a BTreeMap<usize, Box<[u8]>>,
        slot: usize,
        [width, capacity]: [usize; 2],
    ) -> &'a [u8] {
        match after.get(&slot) {
            Some(seen) => seen,
            None => &obs[(slot + 1) % capacity * width..][..width],
        }
    }

    /// Both columns of some slots, in their order.
    pub(super) fn pick(&self, slots: &[usize], [width, capacity]: [usize; 2]) -> [Vec<f32>; 2] {
        let mut picked = [(); 2].map(|()| Vec::with_capacity(slots.len() * width));
        for &slot in slots {
            match self {
                Self::Numbers { obs, next } => {
                    picked[0].extend_from_slice(&obs[slot * width..][..width]);
                    picked[1].extend_from_slice(&next[slot * width..][..width]);
                }
                Self::Bytes { obs, after } => {
                    picked[0].extend(numbers(&obs[slot * width..][..width]));
                    picked[1].extend(numbers(Self::behind(obs, after, slot, [width, capacity])));
                }
            }
        }
        picked
    }

    /// Both columns from the oldest slot on: borrowed where they are stored in that form.
    pub(super) fn columns(&self, oldest: usize, [width, capacity]: [usize; 2]) -> [Cow<'_, [f32]>; 2] {
        match self {
            Self::Numbers { obs, next } => [obs, next].map(|column| unrolled(column, oldest * width)),
            Self::Bytes { obs, .. } => {
                let count = obs.len() / width;
                let slots: Vec<usize> = (0..count).map(|position| (oldest + position) % capacity).collect();
                self.pick(&slots, [width, capacity]).map(Cow::Owned)
            }
        }
    }

    /// The observation in the record of a slot: before (`behind` false) or after the transition.
    pub(super) fn write(&self, slot: usize, [width, capacity]: [usize; 2], behind: bool, into: &mut Vec<u8>) {
        match self {
            Self::Numbers { obs, next } => {
                let column = if behind { next } else { obs };
                into.extend(column[slot * width..][..width].iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::Bytes { obs, after } if behind => {
                into.extend_from_slice(Self::behind(obs, after, slot, [width, capacity]));
            }
            Self::Bytes { obs, .. } => into.extend_from_slice(&obs[slot * width..][..width]),
        }
    }

    /// Numbers of a record's part.
    pub(super) fn read(&self, part: &[u8]) -> Vec<f32> {
        match self {
            Self::Numbers { .. } => part.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Self::Bytes { .. } => numbers(part).collect(),
        }
    }
}
