//! Means of named numbers.

/// Means of named numbers, in the order in which the names first came.
#[derive(Debug, Default)]
pub(crate) struct Means(Vec<(String, f64, u64)>);

impl Means {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(known, ..)| known == name) {
            Some((_, sum, count)) => {
                *sum += value;
                *count += 1;
            }
            None => self.0.push((name.to_owned(), value, 1)),
        }
    }

    pub(crate) fn take(&mut self) -> Vec<(String, f64)> {
        std::mem::take(&mut self.0).into_iter().map(|(name, sum, count)| (name, sum / count as f64)).collect()
    }
}
