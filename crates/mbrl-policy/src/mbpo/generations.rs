//! Imagined transitions that are kept.

use std::collections::VecDeque;

use mbrl_env::{Batch, Rng};

/// Imagined transitions, a batch for each generation, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Generations(pub(super) VecDeque<Batch>);

impl Generations {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|batch| batch.len()).sum()
    }

    pub(super) fn push(&mut self, batch: Batch, keep: usize) {
        self.0.push_back(batch);
        while self.0.len() > keep {
            self.0.pop_front();
        }
    }

    /// Rows of each generation that `count` draws fall on, each uniform among all and independent of the others.
    pub(super) fn draw(&self, count: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        let total = self.len();
        let mut picked = vec![Vec::new(); self.0.len()];
        for _ in 0..count {
            let mut place = rng.below(total);
            for (batch, picked) in self.0.iter().zip(&mut picked) {
                if place < batch.len() {
                    picked.push(place);
                    break;
                }
                place -= batch.len();
            }
        }
        picked
    }

    /// Transitions that were drawn, in pieces.
    pub(super) fn gather(&self, drawn: &[Vec<usize>]) -> Vec<Batch> {
        let picked = self.0.iter().zip(drawn).filter(|(_, rows)| !rows.is_empty());
        picked.map(|(batch, rows)| batch.select(rows)).collect()
    }

    /// Their observations alone, `[N, O]`.
    pub(super) fn observations(&self, drawn: &[Vec<usize>]) -> Vec<f32> {
        let each = self.0.iter().zip(drawn).flat_map(|(batch, rows)| rows.iter().map(move |row| (batch, *row)));
        each.flat_map(|(batch, row)| &batch.obs[row * batch.obs_width..][..batch.obs_width]).copied().collect()
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u64).to_le_bytes().to_vec();
        for batch in &self.0 {
            bytes.extend((batch.len() as u64).to_le_bytes());
            for column in [&batch.obs, &batch.actions, &batch.next_obs] {
                bytes.extend(column.iter().flat_map(|x| x.to_le_bytes()));
            }
            bytes.extend(batch.rewards.iter().flat_map(|x| x.to_le_bytes()));
            bytes.extend(batch.terminated.iter().map(|end| u8::from(*end)));
        }
        bytes
    }

    /// What [`save`](Self::save) wrote, of observations and actions of these widths.
    pub(super) fn load(bytes: &[u8], [o, a]: [usize; 2]) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |count: usize| -> Option<&[u8]> {
            let (front, back) = rest.split_at_checked(count)?;
            rest = back;
            Some(front)
        };
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        let floats =
            |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect() };
        let mut all = VecDeque::new();
        for _ in 0..number(take(8)?)? {
            let n = usize::try_from(number(take(8)?)?).ok().filter(|n| *n <= bytes.len())?;
            let (obs, actions, next_obs) =
                (floats(take(4 * n * o)?), floats(take(4 * n * a)?), floats(take(4 * n * o)?));
            let rewards: Vec<f64> = take(8 * n)?.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
            let terminated: Vec<bool> = take(n)?.iter().map(|end| *end == 1).collect();
            all.push_back(Batch {
                obs_width: o,
                action_width: a,
                obs: obs.into(),
                actions: actions.into(),
                rewards: rewards.into(),
                next_obs: next_obs.into(),
                terminated: terminated.into(),
                truncated: vec![false; n].into(),
            });
        }
        rest.is_empty().then_some(Self(all))
    }
}

/// Batches one after another; at least one.
pub(super) fn concat(batches: Vec<Batch>) -> Batch {
    let mut batches = batches.into_iter();
    let mut all = batches.next().expect("a batch has at least one row");
    for batch in batches {
        all.obs.to_mut().extend_from_slice(&batch.obs);
        all.actions.to_mut().extend_from_slice(&batch.actions);
        all.rewards.to_mut().extend_from_slice(&batch.rewards);
        all.next_obs.to_mut().extend_from_slice(&batch.next_obs);
        all.terminated.to_mut().extend_from_slice(&batch.terminated);
        all.truncated.to_mut().extend_from_slice(&batch.truncated);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_kept_sampled_evenly_and_stored_whole() {
        let mut all = Generations::default();
        for (i, n) in [5, 1, 3, 6].into_iter().enumerate() {
            let row = |j: usize| 10.0 * i as f32 + j as f32;
            all.push(
                Batch {
                    obs_width: 2,
                    action_width: 1,
                    obs: (0..n).flat_map(|j| [row(j), 0.5]).collect(),
                    actions: (0..n).map(|j| -row(j)).collect(),
                    rewards: (0..n).map(|j| f64::from(row(j)) / 3.0).collect(),
                    next_obs: (0..n).flat_map(|j| [row(j), 1.5]).collect(),
                    terminated: (0..n).map(|j| j % 2 == 0).collect(),
                    truncated: vec![false; n].into(),
                },
                3,
            );
        }
        assert_eq!(all.len(), 10);
        let drawn = all.draw(4000, &mut Rng::new(0));
        let sampled = concat(all.gather(&drawn));
        assert_eq!(all.observations(&drawn), *sampled.obs);
        assert_eq!(sampled.len(), 4000);
        for row in [10.0, 20.0, 21.0, 22.0, 30.0, 35.0] {
            let count = sampled.obs.iter().step_by(2).filter(|x| **x == row).count();
            // 400 of 4,000, within 5 standard deviations.
            assert!((305..495).contains(&count), "row {row}: {count}");
        }
        for (row, reward) in sampled.obs.chunks(2).zip(&*sampled.rewards) {
            assert_eq!(*reward, f64::from(row[0]) / 3.0, "columns belong together");
        }
        let bytes = all.save();
        let loaded = Generations::load(&bytes, [2, 1]).unwrap();
        assert_eq!(loaded.0, all.0);
        for cut in [0, 8, 20, bytes.len() - 1] {
            assert!(Generations::load(&bytes[..cut], [2, 1]).is_none(), "{cut} bytes");
        }
        assert!(Generations::load(&bytes, [1, 1]).is_none() && Generations::load(&[255; 16], [1, 1]).is_none());
    }
}
