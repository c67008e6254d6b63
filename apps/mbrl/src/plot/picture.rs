//! A complete file: a title, charts, a legend, and an explanation in words.

use std::fmt::Write as _;

use super::{Chart, Key, Legend, STYLE, escape, text_width};

const WIDTH: f64 = 640.0;
const MARGIN: f64 = 14.0;
/// Space between charts side by side.
const GAP: f64 = 22.0;
/// Size of letters on a narrow screen, in units of the view: there 640 of these units are some 390 pixels.
const LARGE: f64 = 18.0;
const SMALL: f64 = 17.0;
/// Average width of a letter of running text, relative to its height.
const LETTER: f64 = 0.52;

/// Charts in rows, written as an SVG file that follows the reader's light or dark scheme.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) title: String,
    pub(crate) legend: Legend,
    /// Charts side by side.
    pub(crate) columns: usize,
    /// A heading, which may be empty, and a chart.
    pub(crate) charts: Vec<(String, Chart)>,
    pub(crate) caption: String,
}

impl Picture {
    pub(crate) fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = MARGIN;
        for line in wrapped(&self.title, 21.0) {
            y += 22.0;
            // Writing into a string cannot fail.
            let _ = write!(body, r#"<text class="title" x="{MARGIN}" y="{y}">{}</text>"#, escape(&line));
            y += 4.0;
        }
        y = self.keys(&mut body, y + 8.0);
        let columns = self.columns.max(1) as f64;
        let width = (WIDTH - 2.0 * MARGIN - GAP * (columns - 1.0)) / columns;
        for row in self.charts.chunks(self.columns.max(1)) {
            let headed = row.iter().any(|(heading, _)| !heading.is_empty());
            let top = y + if headed { 28.0 } else { 6.0 };
            let mut bottom = top;
            for (i, (heading, chart)) in row.iter().enumerate() {
                let x = MARGIN + i as f64 * (width + GAP);
                if headed {
                    let y = y + 20.0;
                    let _ = write!(body, r#"<text class="heading" x="{x:.1}" y="{y}">{}</text>"#, escape(heading));
                }
                let alt = escape(&chart.alt);
                let _ = write!(body, r#"<g transform="translate({x:.1} {top})" role="img" aria-label="{alt}">"#);
                bottom = f64::max(bottom, top + chart.panel(&mut body, width));
                body.push_str("</g>");
            }
            y = bottom + 8.0;
        }
        for line in wrapped(&self.caption, SMALL) {
            y += 21.0;
            let _ = write!(body, r#"<text class="small" x="{MARGIN}" y="{y}">{}</text>"#, escape(&line));
        }
        let height = (y + MARGIN).ceil();
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="chart picture" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{}">
<style>
{STYLE}.picture {{ max-width: 100%; height: auto; }}
.picture text {{ font-size: 14px; }} .picture .title {{ font-size: 18px; font-weight: 600; fill: #1c2230; fill: var(--ink); }}
.picture .heading {{ font-size: 15px; font-weight: 600; fill: #1c2230; fill: var(--ink); }} .picture .small {{ font-size: 13px; }} .picture .key {{ fill: #1c2230; fill: var(--ink); }}
.paper {{ fill: #fff; fill: var(--paper); }} .block {{ fill: currentColor; }}
@media (max-width: 480px) {{
  .picture text, .picture .heading {{ font-size: {LARGE}px; }} .picture .title {{ font-size: 21px; }} .picture .small {{ font-size: {SMALL}px; }}
}}
</style>
<rect class="paper" width="100%" height="100%"/>
{body}
</svg>
"#,
            escape(&self.title)
        )
    }

    /// Pictures in rows as one file, with a common title and an explanation in words.
    pub(crate) fn side_by_side(title: &str, pictures: &[Self], columns: usize, caption: &str) -> String {
        let columns = columns.clamp(1, pictures.len().max(1));
        let width = WIDTH * columns as f64;
        let mut body = String::new();
        let mut y = 0.0;
        for row in pictures.chunks(columns) {
            let drawn: Vec<String> = row.iter().map(Self::svg).collect();
            let mut tallest = 0.0;
            for (i, svg) in drawn.iter().enumerate() {
                let x = WIDTH * i as f64;
                let height = height_of(svg);
                // The size in its own style is that of a separate file.
                let place =
                    format!(r#"<svg x="{x}" y="{y}" style="width: {WIDTH}px; height: {height}px; max-width: none" "#);
                body.push_str(&svg.replacen("<svg ", &place, 1));
                tallest = f64::max(tallest, height);
            }
            y += tallest;
        }
        let mut words = String::new();
        let top = 34.0;
        // Lines as wide as one picture, so that they are legible beside it.
        for line in wrapped(caption, SMALL) {
            y += 21.0;
            let _ = write!(words, r#"<text class="small" x="{MARGIN}" y="{}">{}</text>"#, y + top, escape(&line));
        }
        let height = (y + top + MARGIN).ceil();
        let title = escape(title);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="chart picture" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">
<style>
{STYLE}.picture {{ max-width: 100%; height: auto; }}
.picture .title {{ font-size: 18px; font-weight: 600; fill: #1c2230; fill: var(--ink); }} .picture .small {{ font-size: 13px; }} .paper {{ fill: #fff; fill: var(--paper); }}
</style>
<rect class="paper" width="100%" height="100%"/>
<text class="title" x="{MARGIN}" y="26">{title}</text>
<g transform="translate(0 {top})">
{body}</g>
{words}
</svg>
"#
        )
    }

    /// Draws the legend from `y` on and returns where it ends.
    fn keys(&self, body: &mut String, mut y: f64) -> f64 {
        if self.legend.is_empty() {
            return y;
        }
        let mut x = MARGIN;
        y += 16.0;
        for (key, colour, word) in &self.legend {
            let width = 34.0 + LETTER * LARGE * word.chars().count() as f64 + 16.0;
            if x > MARGIN && x + width - 16.0 > WIDTH - MARGIN {
                x = MARGIN;
                y += 25.0;
            }
            let (class, middle, end) = (colour.class(), y - 5.0, x + 26.0);
            let _ = match key {
                Key::Line => write!(body, r#"<path class="line thick {class}" d="M{x:.1} {middle}H{end:.1}"/>"#),
                Key::Thin => write!(body, r#"<path class="line thin {class}" d="M{x:.1} {middle}H{end:.1}"/>"#),
                Key::Dashed => write!(body, r#"<path class="line dashed {class}" d="M{x:.1} {middle}H{end:.1}"/>"#),
                Key::Block => {
                    write!(body, r#"<rect class="block {class}" x="{x:.1}" y="{}" width="26" height="12"/>"#, y - 11.0)
                }
                Key::Band => {
                    write!(body, r#"<rect class="band {class}" x="{x:.1}" y="{}" width="26" height="12"/>"#, y - 11.0)
                }
                Key::Dot => {
                    write!(body, r#"<g class="dots {class}"><circle cx="{:.1}" cy="{middle}" r="4"/></g>"#, x + 13.0)
                }
                Key::Ring => {
                    write!(body, r#"<g class="rings {class}"><circle cx="{:.1}" cy="{middle}" r="6"/></g>"#, x + 13.0)
                }
                Key::Cross => {
                    write!(body, r#"<path class="crosses {class}" d="M{:.1} {}l8 8m0 -8l-8 8"/>"#, x + 9.0, y - 9.0)
                }
            };
            let _ = write!(body, r#"<text class="key" x="{:.1}" y="{y}">{}</text>"#, x + 34.0, escape(word));
            x += width;
        }
        y + 8.0
    }
}

/// The height that a picture declares.
fn height_of(svg: &str) -> f64 {
    let rest = svg.split(" height=\"").nth(1).unwrap_or_default();
    rest.split('"').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// Lines that fit the picture with letters of this height.
fn wrapped(text: &str, letters: f64) -> Vec<String> {
    let fits = |line: &str| text_width(line, letters) * LETTER / 0.6 <= WIDTH - 2.0 * MARGIN;
    let mut lines = Vec::new();
    let mut line = String::new();
    // No number is separated from its unit.
    for word in text.replace(" %", "\u{a0}%").split(' ').filter(|word| !word.is_empty()) {
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if fits(&longer) || line.is_empty() {
            line = longer;
        } else {
            lines.push(std::mem::replace(&mut line, word.to_owned()));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
