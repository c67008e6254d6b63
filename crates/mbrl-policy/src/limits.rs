//! Sizes that no machine has the memory for.

/// Numbers that a model, a roll-out or imagined data may hold: 8 GiB of them.
pub(crate) const LARGEST: u64 = 1 << 31;

/// `None` where it is beyond all numbers.
pub(crate) fn product(factors: &[usize]) -> Option<u64> {
    factors.iter().try_fold(1_u64, |product, factor| product.checked_mul(u64::try_from(*factor).ok()?))
}

/// Whether an array of these sizes is not above [`LARGEST`].
pub(crate) fn fits_memory(sizes: &[usize]) -> bool {
    product(sizes).is_some_and(|numbers| numbers <= LARGEST)
}
