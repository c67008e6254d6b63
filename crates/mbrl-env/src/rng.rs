//! The one source of randomness: explicit, counter-based, serialisable.
//!
//! Every random draw of `mbrl` comes from an [`Rng`] that the caller passes in. It is Philox4x32-10, a function of
//! (key, counter): streams are split without overlap, a state is four numbers, and noise that must not depend on the
//! order of evaluation (the noise of a roll-out) is drawn straight from [`philox4x32`].
//!
//! ## References
//! \[1\] Salmon et al. (2011), *Parallel Random Numbers: As Easy as 1, 2, 3*, SC'11.

use std::convert::Infallible;

use rand::{Rng as _, TryRng};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Deserializer, Serialize, de};

/// One block of Philox4x32-10 \[1\]: four uniform 32-bit words, a pure function of `counter` and `key`.
///
/// ```
/// // From the reference implementation's known-answer file.
/// assert_eq!(mbrl_env::philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[must_use]
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const M: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = M[0] * u64::from(c0);
        let p1 = M[1] * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(W[0]);
        k1 = k1.wrapping_add(W[1]);
    }
    [c0, c1, c2, c3]
}

/// A seeded stream of random numbers: Philox4x32-10 in counter mode.
///
/// ```
/// use mbrl_env::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.uniform(0.0, 1.0), b.uniform(0.0, 1.0));
/// let mut child = a.split(); // an independent stream
/// assert_ne!(child.key(), a.key());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rng {
    key: u64,
    /// Number of the next block.
    counter: u64,
    /// The last block, and how many of its words are used up.
    block: [u32; 4],
    #[serde(deserialize_with = "words")]
    used: u8,
}

/// Other users of random numbers from an episode's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The wrapper `Noise`.
    Noise,
    /// A policy, by `collect`.
    Policy,
    /// A wrapper `Noise` inside of another one.
    Sensors,
}

/// Reads the number of used words of a block, at most 4: with more, a block would be read beyond its end.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        used @ 0..=4 => Ok(used),
        used => Err(de::Error::invalid_value(de::Unexpected::Unsigned(used.into()), &"0 to 4 used words")),
    }
}

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { key: seed, counter: 0, block: [0; 4], used: 4 }
    }

    /// The stream of a seed for anything but the environment, which uses that of [`new`](Self::new).
    pub(crate) fn beside(seed: u64, purpose: Purpose) -> Self {
        // Streams leave the fourth word of their counters at 0, so none of them holds this block.
        let [low, high, ..] = philox4x32([0, 0, purpose as u32, 1], [seed as u32, (seed >> 32) as u32]);
        Self::new(u64::from(low) | u64::from(high) << 32)
    }

    /// An independent stream; this one advances, so that a second split gives a third stream.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.key())
    }

    /// A key for a stateless function of counters, such as the noise of a roll-out.
    pub fn key(&mut self) -> u64 {
        self.next_u64()
    }

    /// Uniform in `[low, high]`, finite bounds; `high` itself arises only by rounding.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits, so that the result of the multiplication is exact and below 1.
        let unit = (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0);
        let range = high - low;
        let x = if range.is_finite() { low + range * unit } else { low * (1.0 - unit) + high * unit };
        x.clamp(low, high)
    }

    /// Uniform in `[low, high]`, finite bounds, in double precision; `high` itself arises only by rounding.
    pub fn uniform_f64(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0);
        let range = high - low;
        let x = if range.is_finite() { low + range * unit } else { low * (1.0 - unit) + high * unit };
        x.clamp(low, high)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(self)
    }

    /// Standard normal, in double precision.
    pub fn normal_f64(&mut self) -> f64 {
        StandardNormal.sample(self)
    }

    /// Uniform in `0..n`, without bias.
    ///
    /// # Panics
    /// If `n` is 0 or above 2³².
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        assert!((1..=1 << 32).contains(&n), "below({n}): expected 1 to 2^32");
        // Lemire (2019), with rejection: the low half of the product must not fall into the biased part.
        let threshold = (1u64 << 32) % n;
        loop {
            let product = u64::from(self.next_u32()) * n;
            if (product & 0xFFFF_FFFF) >= threshold {
                return (product >> 32) as usize;
            }
        }
    }

    /// A uniformly random permutation of `0..n`.
    #[must_use]
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        if self.used == 4 {
            let (key, counter) = (self.key, self.counter);
            self.block = philox4x32([counter as u32, (counter >> 32) as u32, 0, 0], [key as u32, (key >> 32) as u32]);
            self.counter = counter.wrapping_add(1);
            self.used = 0;
        }
        let word = self.block[usize::from(self.used)];
        self.used += 1;
        Ok(word)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = u64::from(self.try_next_u32()?);
        Ok(low | u64::from(self.try_next_u32()?) << 32)
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for chunk in destination.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_reference_vectors() {
        // Random123 `kat_vectors`, philox4x32 10.
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_saved_stream_goes_on_where_it_was() {
        let mut rng = Rng::new(3);
        for _ in 0..5 {
            rng.normal();
        }
        let text = serde_json::to_string(&rng).unwrap();
        let mut back: Rng = serde_json::from_str(&text).unwrap();
        assert_eq!((0..50).map(|_| rng.key()).collect::<Vec<_>>(), (0..50).map(|_| back.key()).collect::<Vec<_>>());
    }

    #[test]
    fn a_state_that_no_stream_has_is_refused() {
        let text = serde_json::to_string(&Rng::new(3)).unwrap();
        assert!(text.contains(r#""used":4"#), "{text}");
        let error = serde_json::from_str::<Rng>(&text.replace(r#""used":4"#, r#""used":5"#)).unwrap_err().to_string();
        assert!(error.contains('5') && error.contains("0 to 4"), "{error}");
    }

    #[test]
    fn the_widest_range_gives_finite_numbers_of_both_signs() {
        let mut rng = Rng::new(4);
        let drawn: Vec<f32> = (0..100).map(|_| rng.uniform(f32::MIN, f32::MAX)).collect();
        assert!(drawn.iter().all(|x| x.is_finite()), "{drawn:?}");
        assert!((30..70).contains(&drawn.iter().filter(|x| **x < 0.0).count()), "{drawn:?}");
        assert!((0..100).all(|_| rng.uniform_f64(f64::MIN, f64::MAX).is_finite()));
    }

    #[test]
    fn split_streams_do_not_repeat_each_other() {
        let mut parent = Rng::new(0);
        let (mut a, mut b) = (parent.split(), parent.split());
        let mut seen: Vec<u64> = (0..300).flat_map(|_| [parent.key(), a.key(), b.key()]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 900);
    }

    #[test]
    fn what_is_drawn_beside_an_environment_repeats_none_of_its_draws() {
        let mut streams =
            [Rng::new(5), Rng::beside(5, Purpose::Noise), Rng::beside(5, Purpose::Policy), Rng::new(5).split()];
        let mut seen: Vec<u64> = (0..300).flat_map(|_| streams.each_mut().map(Rng::key)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1200);
        assert_eq!(Rng::beside(5, Purpose::Noise), Rng::beside(5, Purpose::Noise));
        assert_ne!(Rng::beside(5, Purpose::Noise), Rng::beside(6, Purpose::Noise));
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // Standard deviation of a count is 93; five of them.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 465), "{counts:?}");
    }

    #[test]
    fn permutations_hold_every_index_once() {
        let mut order = Rng::new(2).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
