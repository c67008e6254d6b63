//! Charts as SVG: one look for reports, the pictures of runs and models, and the example programs.
//!
//! A [`Chart`] is drawn from marks. Its colours are classes of `plot.css`, which follows the reader's light or dark scheme; the
//! page of a report includes that sheet once, a [`Picture`] carries it. Letters grow on narrow screens, and there is room for
//! that. The example programs include this module by its path: it needs only the standard library and `mbrl-env`.

#![allow(dead_code, unused_imports, reason = "each program that includes this module uses a part of it")]

mod estimate;
mod picture;
mod scale;

use std::fmt::Write as _;

pub(crate) use estimate::{Bootstrap, Estimate, estimate, mean, percentiles};
pub(crate) use picture::Picture;
use scale::{Ends, Scale};

/// Colours and strokes of all marks.
pub(crate) const STYLE: &str = include_str!("plot.css");

/// Width and height in the units of the view box, roughly pixels on a wide screen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    /// As wide as the page.
    Full,
    /// One of several side by side.
    Small,
    /// A low strip, one of several stacked vertically.
    Strip,
    /// A part of a [`Picture`], which determines its width; this is its height.
    Panel(f64),
}

impl Size {
    fn units(self) -> (f64, f64) {
        match self {
            Self::Full => (640.0, 310.0),
            Self::Small => (420.0, 270.0),
            Self::Strip => (640.0, 130.0),
            Self::Panel(height) => (640.0, height),
        }
    }

    /// Height of the largest letters that the style sheets choose, those of a narrow screen.
    fn letters(self) -> f64 {
        match self {
            Self::Full | Self::Panel(_) => 18.0,
            Self::Small | Self::Strip => 14.0,
        }
    }
}

/// The approximate width of a text; digits are among the widest letters.
fn text_width(text: &str, letters: f64) -> f64 {
    0.6 * letters * text.chars().count() as f64
}

/// The colour of a mark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Colour {
    /// The colour of the n-th series; they repeat after ten. The first six remain distinguishable for colour-blind readers.
    Series(usize),
    /// The colour of the text, for real values.
    Ink,
    /// Baselines.
    Muted,
}

impl Colour {
    pub(crate) fn class(self) -> String {
        match self {
            Self::Series(n) => format!("c{}", n % 10),
            Self::Ink => "ink".to_owned(),
            Self::Muted => "muted".to_owned(),
        }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Style {
    Thick,
    Thin,
    Dashed,
    /// One line of many.
    Faint,
}

impl Style {
    fn class(self) -> &'static str {
        match self {
            Self::Thick => "line thick",
            Self::Thin => "line thin",
            Self::Dashed => "line dashed",
            Self::Faint => "line faint",
        }
    }
}

pub(crate) type Points = Vec<(f64, f64)>;

/// Something drawn; points that are not finite are left out and break lines.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    Line(Colour, Style, Points),
    Dots(Colour, Points),
    /// Circles around something, such as goals.
    Rings(Colour, Points),
    Crosses(Colour, Points),
    /// x, lower and upper end.
    Band(Colour, Vec<(f64, f64, f64)>),
    /// x, lower and upper end.
    Whiskers(Colour, Vec<(f64, f64, f64)>),
    /// A vertical line with a label.
    Rule(f64, String),
}

/// How a line of a legend is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key {
    Line,
    Thin,
    Dashed,
    Block,
    Band,
    Dot,
    Ring,
    Cross,
}

impl Key {
    /// The name of its class in the style sheets.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Line => "key-line",
            Self::Thin => "key-thin",
            Self::Dashed => "key-dashed",
            Self::Block => "key-block",
            Self::Band => "key-band",
            Self::Dot => "key-dot",
            Self::Ring => "key-ring",
            Self::Cross => "key-cross",
        }
    }
}

/// The legend of a chart's marks; words are plain text.
pub(crate) type Legend = Vec<(Key, Colour, String)>;

/// A chart with axes, drawn back to front.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) size: Size,
    /// What it shows, for readers who cannot see it.
    pub(crate) alt: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
    /// Ends of the axes; if left out, those of the marks.
    pub(crate) x_range: Option<(f64, f64)>,
    pub(crate) y_range: Option<(f64, f64)>,
    /// The y axis spans at least this share of the largest magnitude.
    pub(crate) least_span: f64,
    /// Labels are shares: 0.5 is written 50 %.
    pub(crate) percent_x: bool,
    pub(crate) percent_y: bool,
    pub(crate) marks: Vec<Mark>,
    /// The text for an x under the pointer.
    pub(crate) hover: Vec<(f64, String)>,
    /// Whether the player's cursor runs through it.
    pub(crate) cursor: bool,
}

/// The position of a chart's axes in its view.
struct Frame {
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Scale,
    y: Scale,
    x_ticks: Vec<(f64, String)>,
    y_ticks: Vec<(f64, String)>,
}

impl Chart {
    pub(crate) fn new(size: Size, alt: impl Into<String>, x: &str, y: &str) -> Self {
        Self {
            size,
            alt: alt.into(),
            x: x.to_owned(),
            y: y.to_owned(),
            log_x: false,
            log_y: false,
            x_range: None,
            y_range: None,
            least_span: 0.0,
            percent_x: false,
            percent_y: false,
            marks: Vec::new(),
            hover: Vec::new(),
            cursor: false,
        }
    }

    fn frame(&self, width: f64, height: f64) -> Frame {
        let letters = self.size.letters();
        let top = if self.y.is_empty() { 10.0 } else { letters + 12.0 };
        let bottom = height - if self.x.is_empty() { 6.0 + letters } else { 14.0 + 2.0 * letters };
        let ends = |range, log, margin, least_span| Ends { range, log, margin, least_span };
        let y = Scale::of(&self.ys(), ends(self.y_range, self.log_y, 0.05, self.least_span), (bottom, top));
        // As many labels as there is room for, and two at least.
        let rows = (((bottom - top) / (2.2 * letters)) as usize).clamp(2, 6);
        let y_ticks = (rows..rows + 4).map(|rows| y.ticks(rows)).find(|ticks| ticks.len() > 1);
        let y_ticks = labelled(y_ticks.unwrap_or_else(|| y.ticks(rows)), self.percent_y);
        let longest = |ticks: &[(f64, String)]| ticks.iter().map(|t| text_width(&t.1, letters)).fold(0.0, f64::max);
        // Room for the larger letters of a small screen, before the axis and below the last label of the other one.
        let left = (longest(&y_ticks) + 9.0).max(34.0);
        let spread = |right| Scale::of(&self.xs(), ends(self.x_range, self.log_x, 0.0, 0.0), (left, right));
        let mut columns = 6;
        loop {
            let ticks = labelled(spread(width).ticks(columns), self.percent_x);
            let right = width - ticks.last().map_or(8.0, |t| 0.5 * text_width(&t.1, letters) + 4.0).max(12.0);
            let x = spread(right);
            let needed = ticks.len() as f64 * (longest(&ticks) + letters);
            if columns <= 2 || needed <= right - left {
                return Frame { height, left, right, top, bottom, x, y, x_ticks: ticks, y_ticks };
            }
            columns -= 1;
        }
    }

    /// As an element of a page.
    pub(crate) fn svg(&self) -> String {
        let (width, height) = self.size.units();
        let frame = self.frame(width, height);
        let mut svg = format!(
            r#"<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{}""#,
            escape(&self.alt)
        );
        if !self.hover.is_empty() {
            let (top, bottom) = (frame.top, frame.bottom);
            let _ = write!(svg, r#" data-hover="{}" data-plot="{top} {bottom}""#, escape(&self.told(&frame.x)));
        }
        svg.push('>');
        self.draw(&mut svg, &frame);
        svg.push_str("</svg>");
        svg
    }

    /// As a part of a picture, with this width.
    fn panel(&self, svg: &mut String, width: f64) -> f64 {
        let (_, height) = self.size.units();
        self.draw(svg, &self.frame(width, height));
        height
    }

    fn draw(&self, svg: &mut String, frame: &Frame) {
        let Frame { left, right, top, bottom, .. } = *frame;
        let letters = self.size.letters();
        // Writing into a string cannot fail.
        for (value, label) in &frame.y_ticks {
            let at = frame.y.at(*value);
            let _ = write!(svg, r#"<path class="grid" d="M{left:.1} {at:.1}H{right:.1}"/>"#);
            let _ = write!(svg, r#"<text class="end" x="{:.1}" y="{:.1}">{label}</text>"#, left - 7.0, at + 4.5);
        }
        for (value, label) in &frame.x_ticks {
            let at = frame.x.at(*value);
            let _ = write!(svg, r#"<path class="tick" d="M{at:.1} {bottom}v5"/>"#);
            let y = bottom + letters + 4.0;
            let _ = write!(svg, r#"<text class="middle" x="{at:.1}" y="{y:.1}">{label}</text>"#);
        }
        let _ = write!(svg, r#"<path class="axis" d="M{left:.1} {top}V{bottom}H{right:.1}"/>"#);
        if !self.x.is_empty() {
            let (middle, y, x) = (f64::midpoint(left, right), frame.height - 5.0, escape(&self.x));
            let _ = write!(svg, r#"<text class="middle label" x="{middle:.1}" y="{y}">{x}</text>"#);
        }
        if !self.y.is_empty() {
            let _ = write!(svg, r#"<text class="label" x="0" y="{}">{}</text>"#, letters, escape(&self.y));
        }
        // A nested view cuts off everything beyond the axes, except dots on their ends.
        let (x0, y0, w, h) = (left - 5.0, top - 4.0, right - left + 10.0, bottom - top + 8.0);
        let _ = write!(
            svg,
            r#"<svg x="{x0:.1}" y="{y0:.1}" width="{w:.1}" height="{h:.1}" viewBox="{x0:.1} {y0:.1} {w:.1} {h:.1}" overflow="hidden">"#
        );
        for mark in &self.marks {
            mark.draw(svg, frame);
        }
        if self.cursor {
            let (from, to) = (frame.x.from, frame.x.to);
            let _ =
                write!(svg, r#"<path class="cursor" data-from="{from:.1}" data-to="{to:.1}" d="M0 {top}V{bottom}"/>"#);
        }
        svg.push_str("</svg>");
    }

    fn xs(&self) -> Vec<f64> {
        let mut values = Vec::new();
        for mark in &self.marks {
            match mark {
                Mark::Line(_, _, points)
                | Mark::Dots(_, points)
                | Mark::Rings(_, points)
                | Mark::Crosses(_, points) => {
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
                Mark::Line(_, _, points)
                | Mark::Dots(_, points)
                | Mark::Rings(_, points)
                | Mark::Crosses(_, points) => {
                    values.extend(points.iter().map(|p| p.1));
                }
                Mark::Band(_, points) | Mark::Whiskers(_, points) => {
                    values.extend(points.iter().flat_map(|p| [p.1, p.2]));
                }
                Mark::Rule(..) => {}
            }
        }
        values
    }

    /// The texts for the pointer, as JSON `[[x in view units, text], …]`, ascending, each position once.
    fn told(&self, x: &Scale) -> String {
        let mut places: Vec<(f64, String)> = Vec::new();
        let mut hover: Vec<&(f64, String)> = self.hover.iter().filter(|(at, _)| at.is_finite()).collect();
        hover.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (at, text) in hover {
            let at = (x.at(*at) * 10.0).round() / 10.0;
            match places.last_mut() {
                Some((place, lines)) if (at - *place).abs() < 0.5 => {
                    // The heading appears once.
                    let line = text.split_once('\n').map_or(text.as_str(), |(_, line)| line);
                    lines.push('\n');
                    lines.push_str(line);
                }
                _ => places.push((at, text.clone())),
            }
        }
        let places: Vec<String> = places.iter().map(|(at, text)| format!("[{at:?},{}]", json(text))).collect();
        format!("[{}]", places.join(","))
    }
}

impl Mark {
    fn draw(&self, svg: &mut String, frame: &Frame) {
        let Frame { top, bottom, .. } = *frame;
        let place = |p: (f64, f64)| (frame.x.at(p.0), frame.y.at(p.1));
        let places = |points: &Points| -> Vec<(f64, f64)> {
            points.iter().map(|p| place(*p)).filter(|p| p.0.is_finite() && p.1.is_finite()).collect()
        };
        // Writing into a string cannot fail.
        let _ = match self {
            Self::Line(colour, style, points) => {
                let mut path = String::new();
                let mut pen = 'M';
                for (px, py) in points.iter().map(|p| place(*p)) {
                    if px.is_finite() && py.is_finite() {
                        let _ = write!(path, "{pen}{px:.1} {py:.1}");
                        pen = 'L';
                    } else {
                        pen = 'M';
                    }
                }
                write!(svg, r#"<path class="{} {}" d="{path}"/>"#, style.class(), colour.class())
            }
            Self::Dots(colour, points) | Self::Rings(colour, points) => {
                let (class, radius) = if matches!(self, Self::Dots(..)) { ("dots", 3.2) } else { ("rings", 7.0) };
                let _ = write!(svg, r#"<g class="{class} {}">"#, colour.class());
                for (px, py) in places(points) {
                    let _ = write!(svg, r#"<circle cx="{px:.1}" cy="{py:.1}" r="{radius}"/>"#);
                }
                write!(svg, "</g>")
            }
            Self::Crosses(colour, points) => {
                let mut path = String::new();
                for (px, py) in places(points) {
                    let _ = write!(path, "M{:.1} {:.1}l8 8m0 -8l-8 8", px - 4.0, py - 4.0);
                }
                write!(svg, r#"<path class="crosses {}" d="{path}"/>"#, colour.class())
            }
            Self::Band(colour, points) => {
                let finite = || points.iter().filter(|p| p.1.is_finite() && p.2.is_finite());
                let outline = finite().map(|p| place((p.0, p.2))).chain(finite().rev().map(|p| place((p.0, p.1))));
                let path: Vec<String> = outline.map(|(px, py)| format!("{px:.1} {py:.1}")).collect();
                if path.is_empty() {
                    return;
                }
                write!(svg, r#"<path class="band {}" d="M{}Z"/>"#, colour.class(), path.join("L"))
            }
            Self::Whiskers(colour, points) => {
                let mut path = String::new();
                for p in points.iter().filter(|p| p.1.is_finite() && p.2.is_finite()) {
                    let ((px, low), (_, high)) = (place((p.0, p.1)), place((p.0, p.2)));
                    let _ = write!(path, "M{0:.1} {low:.1}h8M{0:.1} {high:.1}h8M{px:.1} {low:.1}V{high:.1}", px - 4.0);
                }
                write!(svg, r#"<path class="line whisker {}" d="{path}"/>"#, colour.class())
            }
            Self::Rule(at, word) => {
                let px = frame.x.at(*at);
                let _ = write!(svg, r#"<path class="rule" d="M{px:.1} {top}V{bottom}"/>"#);
                // To the left of the line where there is no room to its right.
                let (class, tx) = match px > f64::midpoint(frame.left, frame.right) {
                    true => ("note end", px - 5.0),
                    false => ("note", px + 5.0),
                };
                write!(svg, r#"<text class="{class}" x="{tx:.1}" y="{}">{}</text>"#, top + 14.0, escape(word))
            }
        };
    }
}

/// The same ticks, with shares written as per cent.
fn labelled(ticks: Vec<(f64, String)>, percent: bool) -> Vec<(f64, String)> {
    let label = |v: f64, label| if percent { fixed(100.0 * v, 0) + "\u{a0}%" } else { label };
    ticks.into_iter().map(|(v, plain)| (v, label(v, plain))).collect()
}

/// Text escaped for use between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A JSON string.
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A number with this many digits after the point, never −0, as programs read it.
pub(crate) fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let is_zero = value.is_finite() && text.bytes().all(|b| !(b'1'..=b'9').contains(&b));
    if is_zero { text.trim_start_matches('-').to_owned() } else { text }
}

/// The same with a minus sign.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    minus(&rounded(value, digits))
}

/// With a minus sign instead of a hyphen.
pub(crate) fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
pub(crate) mod tests;
