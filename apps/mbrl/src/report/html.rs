//! Text, numbers and tables of the page.

use std::fmt::Write as _;

pub(crate) use crate::plot::escape;
use crate::plot::{Colour, Estimate, Key, fixed, minus};

/// A number to about three digits.
pub(crate) fn number(value: f64) -> String {
    match digits(value) {
        _ if !value.is_finite() => "–".to_owned(),
        Some(digits) => fixed(value, digits),
        None => minus(&format!("{value:.2e}")),
    }
}

/// Number of digits after the point; `None` if a number is too small to be written out.
fn digits(value: f64) -> Option<usize> {
    match value.abs() {
        v if v >= 1000.0 => Some(0),
        v if v >= 100.0 => Some(1),
        v if v >= 1.0 || v == 0.0 => Some(2),
        v if v >= 0.01 => Some(4),
        v if v >= 0.001 => Some(5),
        _ => None,
    }
}

/// A mean and its deviation to both sides, to the digits of the mean.
pub(super) fn mean_and_std(mean: f64, std: f64) -> String {
    match digits(mean) {
        Some(digits) if mean.is_finite() && std.is_finite() => {
            format!("{} ± {}", fixed(mean, digits), fixed(std, digits))
        }
        _ => format!("{} ± {}", number(mean), number(std)),
    }
}

/// An interval, to the digits of a mean of its size.
pub(crate) fn interval((low, high): (f64, f64)) -> String {
    match digits(low.abs().max(high.abs())) {
        Some(digits) if low.is_finite() && high.is_finite() => {
            format!("{} to {}", fixed(low, digits), fixed(high, digits))
        }
        _ => format!("{} to {}", number(low), number(high)),
    }
}

/// A mean with its interval below, as the cell of a table.
pub(super) fn cell(found: Option<Estimate>) -> String {
    let Some(Estimate { mean, interval: between }) = found else { return "–".to_owned() };
    number(mean) + &between.map_or(String::new(), |ends| format!("<small>{}</small>", interval(ends)))
}

/// A duration in the two largest of its units.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value > 0.0 && value < 0.0005 {
        return "< 1 ms".to_owned();
    }
    if value > 0.0 && value < 0.0995 {
        return format!("{:.0} ms", 1e3 * value);
    }
    if value < 99.95 {
        return format!("{value:.1} s");
    }
    let whole = value.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A table; cells are HTML. Columns after the first `words` hold numbers.
pub(crate) fn table(header: &[&str], words: usize, rows: &[Vec<String>]) -> String {
    let mut html = String::from(r#"<div class="wide"><table><thead><tr>"#);
    let class = |column: usize| if column < words { "" } else { r#" class="number""# };
    for (i, cell) in header.iter().enumerate() {
        let _ = write!(html, "<th{}>{cell}</th>", class(i));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{cell}</td>", class(i));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

/// The legend of a chart's marks; words are plain text.
pub(super) fn legend(entries: &[(Key, Colour, String)]) -> String {
    let mut html = String::from(r#"<ul class="legend">"#);
    for (key, colour, word) in entries {
        let _ = write!(html, r#"<li><i class="{} {}"></i>{}</li>"#, key.class(), colour.class(), escape(word));
    }
    html.push_str("</ul>");
    html
}

/// A drawing with its legend above and its caption below; all of it HTML.
pub(super) fn figure(drawing: &str, legend: &str, caption: &str) -> String {
    let caption = if caption.is_empty() { String::new() } else { format!("<figcaption>{caption}</figcaption>") };
    format!("<figure>{legend}<div class=\"drawing\">{drawing}</div>{caption}</figure>\n")
}

/// A paragraph that says why something is not there.
pub(super) fn absent(text: &str) -> String {
    format!("<p class=\"absent\">{}</p>\n", escape(text))
}

/// JSON as it may stand in a `script` element.
pub(super) fn json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes() {
        assert_eq!(escape(r#"<b a="x" c='y'>&"#), "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;");
        assert_eq!(json(&serde_json::json!("</script>")), r#""\u003c/script>""#);
    }

    #[test]
    fn numbers_and_durations_are_short() {
        assert_eq!(
            ["−1804", "−803.3", "12.35", "0.0312", "−1.20e−5", "0.00", "–"],
            [
                number(-1803.6),
                number(-803.26),
                number(12.345),
                number(0.031_24),
                number(-1.2e-5),
                number(0.0),
                number(f64::NAN)
            ]
        );
        assert_eq!(["0.0 to 120.5", "1.00 to 2.50"], [interval((-0.01, 120.46)), interval((1.0, 2.5))]);
        let mean = |mean, interval| cell(Some(Estimate { mean, interval }));
        assert_eq!([cell(None), mean(3.0, None)], ["–", "3.00"]);
        assert_eq!(mean(-150.04, Some((-160.0, -140.0))), "−150.0<small>−160.0 to −140.0</small>");
        assert_eq!(
            ["0.0 s", "< 1 ms", "8 ms", "3.2 s", "2 min 5 s", "1 h 1 min", "–"],
            [0.0, 0.000_4, 0.0084, 3.21, 125.4, 3672.0, f64::NAN].map(seconds)
        );
    }
}
