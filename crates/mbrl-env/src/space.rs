//! What observations and actions may look like.

use serde::{Deserialize, Serialize};

use crate::{EnvError, Rng, error::check_width};

/// An axis-aligned box, `low[i] ≤ x[i] ≤ high[i]`. Bounds may be infinite.
///
/// ```
/// use mbrl_env::BoxSpace;
/// let torque = BoxSpace::new([-2.0], [2.0])?;
/// assert_eq!(torque.clipped(&[3.5]), vec![2.0]);
/// assert!(BoxSpace::new([1.0], [-1.0]).is_err());
/// let locked = BoxSpace::new([0.5], [0.5])?;
/// assert_eq!(locked.clipped(&[3.5]), vec![0.5]);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxSpace {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl BoxSpace {
    /// A box from its bounds.
    ///
    /// # Errors
    /// [`EnvError::Width`] where the bounds differ in width, [`EnvError::Bounds`] where a lower bound is above its
    /// upper bound, or one is NaN. Where the two are equal, the dimension is fixed.
    pub fn new(low: impl Into<Vec<f32>>, high: impl Into<Vec<f32>>) -> Result<Self, EnvError> {
        let (low, high) = (low.into(), high.into());
        check_width("upper bound", low.len(), high.len())?;
        // Written so that NaN fails too.
        match low
            .iter()
            .zip(&high)
            .position(|(l, h)| matches!(l.partial_cmp(h), None | Some(std::cmp::Ordering::Greater)))
        {
            Some(index) => Err(EnvError::Bounds { what: "box".into(), index, low: low[index], high: high[index] }),
            None => Ok(Self { low, high }),
        }
    }

    /// The whole of `R^width`.
    #[must_use]
    pub fn unbounded(width: usize) -> Self {
        Self { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
    }

    /// The box `[-limit, limit]` in each dimension.
    ///
    /// # Errors
    /// [`EnvError::Bounds`] where the limit is not positive.
    pub fn symmetric(width: usize, limit: f32) -> Result<Self, EnvError> {
        if limit.is_nan() || limit <= 0.0 {
            return Err(EnvError::Bounds { what: "box".into(), index: 0, low: -limit, high: limit });
        }
        Self::new(vec![-limit; width], vec![limit; width])
    }

    /// Number of dimensions.
    #[must_use]
    pub fn width(&self) -> usize {
        self.low.len()
    }

    /// Lower bounds, one per dimension.
    #[must_use]
    pub fn low(&self) -> &[f32] {
        &self.low
    }

    /// Upper bounds, one per dimension.
    #[must_use]
    pub fn high(&self) -> &[f32] {
        &self.high
    }

    /// Whether all bounds are finite.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.low.iter().chain(&self.high).all(|b| b.is_finite())
    }

    /// Whether `x` has the right width and lies inside (NaN does not).
    #[must_use]
    pub fn contains(&self, x: &[f32]) -> bool {
        x.len() == self.width() && x.iter().zip(self.low.iter().zip(&self.high)).all(|(x, (l, h))| l <= x && x <= h)
    }

    /// `x`, moved to the nearest point of the box.
    #[must_use]
    pub fn clipped(&self, x: &[f32]) -> Vec<f32> {
        x.iter().zip(self.low.iter().zip(&self.high)).map(|(x, (l, h))| x.clamp(*l, *h)).collect()
    }

    /// A uniformly distributed point.
    ///
    /// # Errors
    /// [`EnvError::Config`] where a bound is infinite.
    pub fn sample(&self, rng: &mut Rng) -> Result<Vec<f32>, EnvError> {
        if !self.is_bounded() {
            return Err(EnvError::Config {
                field: "bounds",
                value: "infinite".into(),
                rule: "finite bounds to sample uniformly",
            });
        }
        Ok(self.low.iter().zip(&self.high).map(|(&l, &h)| rng.uniform(l, h)).collect())
    }
}

/// The actions that an environment takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ActionSpace {
    /// Real vectors in a box, in the environment's own units.
    Box(BoxSpace),
    /// One of `n` choices, passed as a vector of one entry that holds the index.
    Discrete(usize),
}

impl ActionSpace {
    /// Width of an action vector.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Box(space) => space.width(),
            Self::Discrete(_) => 1,
        }
    }

    /// A uniformly distributed action.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a box with an infinite bound.
    pub fn sample(&self, rng: &mut Rng) -> Result<Vec<f32>, EnvError> {
        match self {
            Self::Box(space) => space.sample(rng),
            Self::Discrete(n) => Ok(vec![rng.below(*n) as f32]),
        }
    }

    /// Whether `action` belongs to this space.
    #[must_use]
    pub fn contains(&self, action: &[f32]) -> bool {
        match self {
            Self::Box(space) => space.contains(action),
            Self::Discrete(n) => {
                matches!(action, [a] if a.fract() == 0.0 && *a >= 0.0 && (*a as usize) < *n)
            }
        }
    }
}
