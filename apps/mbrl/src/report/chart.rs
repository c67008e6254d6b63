//! Charts as inline SVG, coloured by the page's style sheet so that they follow its light and dark scheme.

use std::fmt::Write as _;

use super::html::escape;

/// Width and height in the units of the view box, about pixels on a wide screen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    /// As wide as the page.
    Full,
    /// One of several beside each other.
    Small,
    /// A low strip, one of several below each other.
    Strip,
}

impl Size {
    fn units(self) -> (f64, f64) {
        match self {
            Self::Full => (640.0, 310.0),
            Self::Small => (420.0, 270.0),
            Self::Strip => (640.0, 130.0),
        }
    }
}

/// What colour a mark has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    /// That of the n-th series; they repeat after eight.
    Series(usize),
    /// That of the text: what is real.
    Ink,
    /// Yardsticks.
    Muted,
}

impl Colour {
    pub(super) fn class(self) -> String {
        match self {
            Self::Series(n) => format!("c{}", n % 8),
            Self::Ink => "ink".to_owned(),
            Self::Muted => "muted".to_owned(),
        }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    Thick,
    Thin,
    Dashed,
    /// One of many.
    Faint,
}

type Points = Vec<(f64, f64)>;

/// Something drawn; points that are not finite are left out and break lines.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    Line(Colour, Style, Points),
    Dots(Colour, Points),
    /// x, lower and upper end.
    Band(Colour, Vec<(f64, f64, f64)>),
    /// x, lower and upper end.
    Whiskers(Colour, Vec<(f64, f64, f64)>),
    /// A vertical line with a word.
    Rule(f64, String),
}

/// A chart with axes, drawn back to front.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) size: Size,
    /// What it shows, for those who cannot see it.
    pub(super) alt: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) log_y: bool,
    /// Ends of the axes; those of the marks where left out.
    pub(super) x_range: Option<(f64, f64)>,
    pub(super) y_range: Option<(f64, f64)>,
    pub(super) marks: Vec<Mark>,
    /// What is told at an x under the pointer.
    pub(super) hover: Vec<(f64, String)>,
    /// Whether the player's cursor runs through it.
    pub(super) cursor: bool,
}

impl Chart {
    pub(super) fn new(size: Size, alt: impl Into<String>, x: &str, y: &str) -> Self {
        Self {
            size,
            alt: alt.into(),
            x: x.to_owned(),
            y: y.to_owned(),
            log_y: false,
            x_range: None,
            y_range: None,
            marks: Vec::new(),
            hover: Vec::new(),
            cursor: false,
        }
    }

    pub(super) fn svg(&self) -> String {
        let (width, height) = self.size.units();
        // Room for the larger letters of a small screen.
        let (left, right) = (62.0, width - 24.0);
        let top = if self.y.is_empty() { 10.0 } else { 28.0 };
        let bottom = height - if self.x.is_empty() { 24.0 } else { 50.0 };
        let x = Scale::of(self.xs(), self.x_range, false, 0.0, (left, right));
        let y = Scale::of(self.ys(), self.y_range, self.log_y, 0.05, (bottom, top));
        let (few, many) = match self.size {
            Size::Full => (6, 6),
            Size::Small => (4, 5),
            Size::Strip => (6, 4),
        };

        let mut svg = format!(
            r#"<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{}""#,
            escape(&self.alt)
        );
        if !self.hover.is_empty() {
            let _ = write!(svg, r#" data-hover="{}" data-plot="{top} {bottom}""#, escape(&self.told(&x)));
        }
        svg.push('>');
        for (value, label) in y.ticks(many) {
            let at = y.at(value);
            let _ = write!(svg, r#"<path class="grid" d="M{left} {at:.1}H{right}"/>"#);
            let _ = write!(svg, r#"<text class="end" x="{}" y="{:.1}">{label}</text>"#, left - 7.0, at + 4.5);
        }
        for (value, label) in x.ticks(few) {
            let at = x.at(value);
            let _ = write!(svg, r#"<path class="tick" d="M{at:.1} {bottom}v5"/>"#);
            let _ = write!(svg, r#"<text class="middle" x="{at:.1}" y="{}">{label}</text>"#, bottom + 20.0);
        }
        let _ = write!(svg, r#"<path class="axis" d="M{left} {top}V{bottom}H{right}"/>"#);
        let middle = f64::midpoint(left, right);
        if !self.x.is_empty() {
            let _ = write!(
                svg,
                r#"<text class="middle label" x="{middle}" y="{}">{}</text>"#,
                height - 4.0,
                escape(&self.x)
            );
        }
        let _ = write!(svg, r#"<text class="label" x="0" y="15">{}</text>"#, escape(&self.y));
        // A view of its own cuts off what leaves the axes, dots on their ends aside.
        let (x0, y0, w, h) = (left - 5.0, top - 4.0, right - left + 10.0, bottom - top + 8.0);
        let _ = write!(
            svg,
            r#"<svg x="{x0}" y="{y0}" width="{w}" height="{h}" viewBox="{x0} {y0} {w} {h}" overflow="hidden">"#
        );
        for mark in &self.marks {
            mark.draw(&mut svg, &x, &y, (top, bottom));
        }
        if self.cursor {
            let _ = write!(
                svg,
                r#"<path class="cursor" data-from="{:.1}" data-to="{:.1}" d="M0 {top}V{bottom}"/>"#,
                x.at(x.low),
                x.at(x.high)
            );
        }
        svg.push_str("</svg></svg>");
        svg
    }

    fn xs(&self) -> Vec<f64> {
        let mut values = Vec::new();
        for mark in &self.marks {
            match mark {
                Mark::Line(_, _, points) | Mark::Dots(_, points) => {
                    values.extend(points.iter().filter(|p| p.1.is_finite()).map(|p| p.0));
                }
                Mark::Band(_, points) | Mark::Whiskers(_, points) => values.extend(points.iter().map(|p| p.0)),
                Mark::Rule(..) => {}
            }
        }
        values
    }

    fn ys(&self) -> Vec<f64> {
        let mut values = Vec::new();
        for mark in &self.marks {
            match mark {
                Mark::Line(_, _, points) | Mark::Dots(_, points) => values.extend(points.iter().map(|p| p.1)),
                Mark::Band(_, points) | Mark::Whiskers(_, points) => {
                    values.extend(points.iter().flat_map(|p| [p.1, p.2]));
                }
                Mark::Rule(..) => {}
            }
        }
        values
    }

    /// What is told where, as JSON `[[x in view units, text], …]`, ascending, a place once.
    fn told(&self, x: &Scale) -> String {
        let mut places: Vec<(f64, String)> = Vec::new();
        let mut hover: Vec<&(f64, String)> = self.hover.iter().filter(|(at, _)| at.is_finite()).collect();
        hover.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (at, text) in hover {
            let at = (x.at(*at) * 10.0).round() / 10.0;
            match places.last_mut() {
                Some((place, lines)) if (at - *place).abs() < 0.5 => {
                    // The heading is told once.
                    let line = text.split_once('\n').map_or(text.as_str(), |(_, line)| line);
                    lines.push('\n');
                    lines.push_str(line);
                }
                _ => places.push((at, text.clone())),
            }
        }
        serde_json::to_string(&places).unwrap_or_default()
    }
}

impl Mark {
    fn draw(&self, svg: &mut String, x: &Scale, y: &Scale, (top, bottom): (f64, f64)) {
        let place = |px: f64, py: f64| (x.at(px), y.at(py));
        // Writing into a string cannot fail.
        let _ = match self {
            Self::Line(colour, style, points) => {
                let style = match style {
                    Style::Thick => "line thick",
                    Style::Thin => "line thin",
                    Style::Dashed => "line dashed",
                    Style::Faint => "line faint",
                };
                let mut path = String::new();
                let mut pen = 'M';
                for (px, py) in points.iter().map(|p| place(p.0, p.1)) {
                    if px.is_finite() && py.is_finite() {
                        let _ = write!(path, "{pen}{px:.1} {py:.1}");
                        pen = 'L';
                    } else {
                        pen = 'M';
                    }
                }
                write!(svg, r#"<path class="{style} {}" d="{path}"/>"#, colour.class())
            }
            Self::Dots(colour, points) => {
                let _ = write!(svg, r#"<g class="dots {}">"#, colour.class());
                for (px, py) in points.iter().map(|p| place(p.0, p.1)).filter(|p| p.0.is_finite() && p.1.is_finite()) {
                    let _ = write!(svg, r#"<circle cx="{px:.1}" cy="{py:.1}" r="3.2"/>"#);
                }
                write!(svg, "</g>")
            }
            Self::Band(colour, points) => {
                let finite = || points.iter().filter(|p| p.1.is_finite() && p.2.is_finite());
                let outline = finite().map(|p| place(p.0, p.2)).chain(finite().rev().map(|p| place(p.0, p.1)));
                let path: Vec<String> = outline.map(|(px, py)| format!("{px:.1} {py:.1}")).collect();
                if path.is_empty() {
                    return;
                }
                write!(svg, r#"<path class="band {}" d="M{}Z"/>"#, colour.class(), path.join("L"))
            }
            Self::Whiskers(colour, points) => {
                let mut path = String::new();
                for p in points.iter().filter(|p| p.1.is_finite() && p.2.is_finite()) {
                    let ((px, low), (_, high)) = (place(p.0, p.1), place(p.0, p.2));
                    let _ = write!(path, "M{0:.1} {low:.1}h8M{0:.1} {high:.1}h8M{px:.1} {low:.1}V{high:.1}", px - 4.0);
                }
                write!(svg, r#"<path class="line whisker {}" d="{path}"/>"#, colour.class())
            }
            Self::Rule(at, word) => {
                let px = x.at(*at);
                let _ = write!(svg, r#"<path class="rule" d="M{px:.1} {top}V{bottom}"/>"#);
                write!(svg, r#"<text class="note" x="{:.1}" y="{}">{}</text>"#, px + 5.0, top + 14.0, escape(word))
            }
        };
    }
}

/// From values to places.
#[derive(Debug)]
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// Of the finite values (the positive ones of a logarithmic scale), or of a given range, with a margin.
    fn of(values: Vec<f64>, range: Option<(f64, f64)>, log: bool, margin: f64, (from, to): (f64, f64)) -> Self {
        let (low, high) = range.unwrap_or_else(|| {
            values
                .into_iter()
                .filter(|v| v.is_finite() && (!log || *v > 0.0))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        });
        let (low, high) = match (low <= high, log) {
            (false, _) => (0.1, 1.0),
            (true, true) => {
                let margin = (high / low).powf(margin).max(1.1);
                (low / margin, high * margin)
            }
            (true, false) if range.is_some() && low < high => (low, high),
            (true, false) => {
                let flat = low + 1e-9 * low.abs() >= high;
                let margin = if flat { (0.1 * high.abs()).max(0.5) } else { margin * (high - low) };
                (low - margin, high + margin)
            }
        };
        Self { low, high, log, from, to }
    }

    fn at(&self, value: f64) -> f64 {
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
    fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let within = |v: &f64| *v >= self.low * (1.0 - 1e-9) && *v <= self.high * (1.0 + 1e-9);
        if self.log {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let of = |digits: &[f64]| -> Vec<f64> {
                (first..=last).flat_map(|e| digits.iter().map(move |d| d * 10_f64.powi(e))).filter(within).collect()
            };
            let decades = of(&[1.0]);
            let values = match decades.len() {
                0 | 1 if of(&[1.0, 2.0, 5.0]).len() >= 2 => of(&[1.0, 2.0, 5.0]),
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
    minus(&if value == 0.0 { "0".to_owned() } else { text })
}

fn plain(value: f64) -> String {
    if (1e-3..1e4).contains(&value) {
        format!("{}", (value * 1e6).round() / 1e6)
    } else {
        minus(&format!("{value:.0e}"))
    }
}

/// With a minus sign instead of a hyphen.
pub(super) fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
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
        assert_eq!(labels(0.3, 0.9, true), ["0.4", "0.6", "0.8"]);
    }

    #[test]
    fn scales_meet_their_ends_and_survive_one_value_or_none() {
        let scale = Scale::of(vec![2.0, f64::NAN, 4.0], None, false, 0.0, (10.0, 110.0));
        assert_eq!((scale.at(2.0), scale.at(3.0), scale.at(4.0)), (10.0, 60.0, 110.0));
        let log = Scale::of(vec![-1.0, 1.0, 100.0], Some((1.0, 100.0)), true, 0.0, (0.0, 1.0));
        assert!((log.at(10.0) - 0.5).abs() < 1e-9);
        assert!(log.at(0.0).is_nan());
        for values in [vec![], vec![0.0], vec![-803.2; 3]] {
            let scale = Scale::of(values, None, false, 0.05, (0.0, 1.0));
            assert!(scale.low < scale.high && !scale.ticks(5).is_empty(), "{scale:?}");
        }
    }

    #[test]
    fn lines_break_where_a_value_is_missing() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)];
        let chart = Chart {
            marks: vec![Mark::Line(Colour::Series(0), Style::Thick, points)],
            ..Chart::new(Size::Full, "a <test>", "x", "y & z")
        };
        let svg = chart.svg();
        let path = svg.split(r#"class="line thick c0" d=""#).nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(svg.contains("a &lt;test&gt;") && svg.contains("y &amp; z") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn what_is_told_at_one_place_comes_together() {
        let chart = Chart {
            marks: vec![Mark::Dots(Colour::Ink, vec![(0.0, 1.0), (10.0, 2.0)])],
            hover: vec![(10.0, "step 10\nb 2".into()), (0.0, "step 0\na 1".into()), (10.0, "step 10\nc 3".into())],
            ..Chart::new(Size::Full, "t", "x", "y")
        };
        let told = chart.told(&Scale::of(chart.xs(), None, false, 0.0, (0.0, 100.0)));
        assert_eq!(told, r#"[[0.0,"step 0\na 1"],[100.0,"step 10\nb 2\nc 3"]]"#);
    }
}
