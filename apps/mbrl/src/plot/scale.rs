//! From values to positions on an axis, and the round values that label it.

/// The position of values between the two ends of an axis.
#[derive(Debug)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// How the ends of an axis follow from the values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The ends, if they are given.
    pub(super) range: Option<(f64, f64)>,
    pub(super) log: bool,
    /// Room beyond the outermost values, as a share of their distance.
    pub(super) margin: f64,
    /// The axis spans at least this share of the largest magnitude: otherwise a chart of nearly equal values shows meaningless
    /// digits.
    pub(super) least_span: f64,
}

impl Scale {
    /// From the finite values; on a logarithmic scale, from the positive ones.
    pub(super) fn of(values: &[f64], ends: Ends, (from, to): (f64, f64)) -> Self {
        let Ends { range, log, margin, least_span } = ends;
        let (low, high) = range.unwrap_or_else(|| {
            values
                .iter()
                .filter(|v| v.is_finite() && (!log || **v > 0.0))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
        });
        let (low, high) = match (low <= high, log) {
            (false, _) => (0.1, 1.0),
            (true, true) if range.is_some() && low < high => (low, high),
            (true, true) => {
                let margin = (high / low).powf(margin).max(1.1);
                (low / margin, high * margin)
            }
            (true, false) if range.is_some() && low < high => (low, high),
            (true, false) => {
                let magnitude = low.abs().max(high.abs());
                let flat = low + 1e-9 * low.abs() >= high;
                let least = if flat { least_span.max(0.2) } else { least_span };
                let span = (1.0 + 2.0 * margin) * (high - low);
                let span = span.max(least * magnitude).max(if flat { 1.0 } else { 0.0 });
                let middle = f64::midpoint(low, high);
                (middle - 0.5 * span, middle + 0.5 * span)
            }
        };
        Self { low, high, log, from, to }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            if value <= 0.0 {
                return f64::NAN;
            }
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// About `count` round values with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let within = |v: &f64| *v >= self.low * (1.0 - 1e-9) && *v <= self.high * (1.0 + 1e-9);
        if self.log {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let of = |digits: &[f64]| -> Vec<f64> {
                (first..=last).flat_map(|e| digits.iter().map(move |d| d * 10_f64.powi(e))).filter(within).collect()
            };
            let decades = of(&[1.0]);
            let values = match decades.len() {
                0..=2 if of(&[1.0, 2.0, 5.0]).len() >= 2 => of(&[1.0, 2.0, 5.0]),
                0 | 1 => linear(self.low, self.high, count),
                n => decades.into_iter().step_by(n.div_ceil(count + 1)).collect(),
            };
            return values.into_iter().map(|v| (v, plain(v))).collect();
        }
        let values = linear(self.low, self.high, count);
        let step = if values.len() > 1 { values[1] - values[0] } else { 1.0 };
        values.into_iter().map(|v| (v, tick(v, step))).collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// A label with the digits that its step needs.
fn tick(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = match step {
        s if s >= 1e6 => format!("{}M", value / 1e6),
        s if s >= 1e4 || s >= 1e3 && value.abs() >= 1e5 => format!("{}k", value / 1e3),
        s if s < 1e-4 => format!("{value:e}"),
        _ => format!("{value:.digits$}"),
    };
    super::minus(&if value == 0.0 { "0".to_owned() } else { text })
}

fn plain(value: f64) -> String {
    match value {
        v if (1e-3..1e4).contains(&v) => format!("{}", (v * 1e6).round() / 1e6),
        v if (1e4..1e6).contains(&v) => format!("{}k", v / 1e3),
        v => super::minus(&format!("{v:.0e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> Vec<String> {
        let scale = Scale { low, high, log, from: 0.0, to: 1.0 };
        scale.ticks(5).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(labels(0.0, 1000.0, false), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(labels(-1.3, 0.2, false), ["−1.0", "−0.5", "0"]);
        assert_eq!(labels(0.0, 1e6, false), ["0", "200k", "400k", "600k", "800k", "1000k"]);
        assert_eq!(labels(0.004, 30.0, true), ["0.01", "0.1", "1", "10"]);
        assert_eq!(labels(2.0, 30.0, true), ["2", "5", "10", "20"]);
        assert_eq!(labels(9.0, 300_000.0, true), ["10", "100", "1000", "10k", "100k"]);
        assert_eq!(labels(-2e-7, 2e-7, false)[2], "0", "never −0");
    }

    const PLAIN: Ends = Ends { range: None, log: false, margin: 0.05, least_span: 0.0 };

    #[test]
    fn an_axis_spans_its_values_and_is_never_empty() {
        let scale = Scale::of(&[1.0, f64::NAN, 3.0, f64::INFINITY], PLAIN, (0.0, 1.0));
        assert!((scale.low - 0.9).abs() < 1e-12 && (scale.high - 3.1).abs() < 1e-12, "{scale:?}");
        for values in [vec![], vec![7.0], vec![0.0, 0.0], vec![-5.0; 4], vec![f64::NAN]] {
            let scale = Scale::of(&values, PLAIN, (0.0, 1.0));
            assert!(scale.low < scale.high && scale.ticks(5).len() >= 2, "{values:?}: {scale:?}");
        }
    }

    /// One evaluation of 174.25 ± 0.15 once filled a whole axis.
    #[test]
    fn an_axis_of_nearly_equal_returns_is_not_all_digits() {
        let scale = Scale::of(&[174.1, 174.4], Ends { least_span: 0.1, ..PLAIN }, (0.0, 1.0));
        assert!((scale.high - scale.low - 17.44).abs() < 1e-9 && scale.low < 174.1 && scale.high > 174.4, "{scale:?}");
    }
}
