//! Tests, and a reader of drawn charts for the tests of other modules.

use super::*;

/// The content of a chart, in the units of its axes: read as a person reads it, by the labels of the ticks.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    svg: &'a str,
    x: Axis,
    y: Axis,
}

/// Two labelled places, and whether the axis between them is logarithmic.
#[derive(Debug)]
struct Axis {
    places: [(f64, f64); 2],
    log: bool,
}

impl Axis {
    fn of(ticks: &[(f64, f64)], log: bool) -> Self {
        assert!(ticks.len() >= 2, "too few ticks to read anything: {ticks:?}");
        Self { places: [ticks[0], ticks[ticks.len() - 1]], log }
    }

    fn value(&self, place: f64) -> f64 {
        let [(p0, v0), (p1, v1)] = self.places;
        let share = (place - p0) / (p1 - p0);
        if self.log { v0 * (v1 / v0).powf(share) } else { v0 + share * (v1 - v0) }
    }
}

impl<'a> Read<'a> {
    /// Reads the first chart of an SVG or a page.
    pub(crate) fn new(svg: &'a str, log_x: bool, log_y: bool) -> Self {
        let end = svg.find(r#"<path class="axis""#).expect("a chart has axes");
        let from = svg[..end].rfind(r#"<svg class="chart"#).or_else(|| svg[..end].rfind("<g transform")).unwrap_or(0);
        let (axes, rest) = (&svg[from..end], &svg[end..]);
        let close = rest.find("</svg>").unwrap_or(rest.len());
        // Without the 4.5 by which the baseline of labels lies below the middle of their letters.
        let y = ticks(axes, "end", "y=\"").into_iter().map(|(at, v)| (at - 4.5, v)).collect::<Vec<_>>();
        let x = ticks(axes, "middle", "x=\"");
        Self { svg: &rest[..close], x: Axis::of(&x, log_x), y: Axis::of(&y, log_y) }
    }

    /// The points of every path of these classes, one vector each.
    pub(crate) fn lines(&self, classes: &str) -> Vec<Points> {
        let start = format!(r#"<path class="{classes}" d=""#);
        let paths = self.svg.split(start.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
        paths.map(|path| self.points(path)).collect()
    }

    /// The only path of these classes.
    #[track_caller]
    pub(crate) fn line(&self, classes: &str) -> Points {
        let mut lines = self.lines(classes);
        assert_eq!(lines.len(), 1, "`{classes}` in {}", self.svg);
        lines.remove(0)
    }

    fn points(&self, path: &str) -> Points {
        let pairs = path.trim_end_matches('Z').split(['M', 'L']).filter(|pair| !pair.is_empty());
        let number = |text: &str| text.parse::<f64>().unwrap();
        pairs
            .map(|pair| pair.split_once(' ').unwrap())
            .map(|(x, y)| (self.x.value(number(x)), self.y.value(number(y))))
            .collect()
    }
}

/// Positions and values of the labels of one class.
fn ticks(axes: &str, class: &str, place: &str) -> Vec<(f64, f64)> {
    let start = format!(r#"<text class="{class}" "#);
    let labels = axes.split(start.as_str()).skip(1);
    labels
        .map(|rest| {
            let at = rest.split(place).nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
            let label = rest.split('>').nth(1).unwrap().split('<').next().unwrap();
            (at, value(label))
        })
        .collect()
}

/// The value of a label: `−2.5`, `30k`, `50 %`.
fn value(label: &str) -> f64 {
    let plain = label.replace('\u{2212}', "-").replace('\u{a0}', "");
    let (digits, unit) = match plain.chars().last() {
        Some('k') => (&plain[..plain.len() - 1], 1e3),
        Some('M') => (&plain[..plain.len() - 1], 1e6),
        Some('%') => (&plain[..plain.len() - 1], 1e-2),
        _ => (&plain[..], 1.0),
    };
    digits.parse::<f64>().unwrap_or_else(|_| panic!("label `{label}`")) * unit
}

/// Whether drawn points are these, to the tenth of a unit to which they are drawn on axes of this length.
#[track_caller]
pub(crate) fn assert_near(drawn: &[(f64, f64)], expected: &[(f64, f64)], (x, y): (f64, f64)) {
    let near = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).abs() <= x && (a.1 - b.1).abs() <= y;
    let all = drawn.len() == expected.len() && drawn.iter().zip(expected).all(|(a, b)| near(a, b));
    assert!(all, "drawn {drawn:?}\nexpected {expected:?}");
}

#[test]
fn what_is_drawn_can_be_read_back() {
    let points = vec![(0.0, -3.0), (50.0, 120.0), (200.0, 7.5)];
    let chart = Chart {
        marks: vec![Mark::Line(Colour::Series(2), Style::Thick, points.clone())],
        ..Chart::new(Size::Full, "a chart", "x", "y")
    };
    let svg = chart.svg();
    assert_near(&Read::new(&svg, false, false).line("line thick c2"), &points, (0.1, 0.1));

    let points = vec![(1.0, 0.02), (10.0, 3.0), (1000.0, 50.0)];
    let marks = vec![Mark::Line(Colour::Ink, Style::Dashed, points.clone())];
    let chart = Chart { log_x: true, log_y: true, marks, ..chart };
    let svg = chart.svg();
    let drawn = Read::new(&svg, true, true).line("line dashed ink");
    for (drawn, exact) in drawn.iter().zip(&points) {
        assert!(
            (drawn.0 / exact.0 - 1.0).abs() < 0.01 && (drawn.1 / exact.1 - 1.0).abs() < 0.01,
            "{drawn:?} {exact:?}"
        );
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
        hover: vec![(10.0, "step 10\nb \"2\"".into()), (0.0, "step 0\na 1".into()), (10.0, "step 10\nc 3".into())],
        ..Chart::new(Size::Full, "t", "x", "y")
    };
    let ends = Ends { range: None, log: false, margin: 0.0, least_span: 0.0 };
    let told = chart.told(&Scale::of(&chart.xs(), ends, (0.0, 100.0)));
    assert_eq!(told, r#"[[0.0,"step 0\na 1"],[100.0,"step 10\nb \"2\"\nc 3"]]"#);
    assert_eq!(json("a\\\u{1}"), r#""a\\\u0001""#);
}

#[test]
fn there_is_no_negative_zero() {
    let text = [(-0.04, 1), (-0.0, 0), (-0.06, 1), (1234.5, 0), (f64::NAN, 1)].map(|(v, digits)| fixed(v, digits));
    assert_eq!(text, ["0.0", "0", "−0.1", "1234", "NaN"]);
}

/// On a narrow screen, letters are larger in the view's units: long labels must have room there too.
#[test]
fn labels_of_the_y_axis_lie_within_the_view() {
    for size in [Size::Full, Size::Small, Size::Strip] {
        for high in [1.0, 0.000_2, -123_456.0, 987_654_321.0] {
            let marks = vec![Mark::Line(Colour::Ink, Style::Thick, vec![(0.0, 0.0), (1e6, high)])];
            let svg = Chart { marks, ..Chart::new(size, "t", "x", "y") }.svg();
            for label in svg.split(r#"<text class="end" x=""#).skip(1) {
                let at: f64 = label.split('"').next().unwrap().parse().unwrap();
                let text = label.split('>').nth(1).unwrap().split('<').next().unwrap();
                assert!(at >= text_width(text, size.letters()), "`{text}` ends at {at} in {size:?}");
            }
        }
    }
}

#[test]
fn a_picture_is_one_whole_file_that_knows_light_and_dark() {
    let marks = vec![Mark::Line(Colour::Series(0), Style::Thick, vec![(0.0, 0.0), (1.0, 1.0)])];
    let chart = Chart { marks, ..Chart::new(Size::Panel(200.0), "a <line>", "x", "y") };
    let picture = Picture {
        title: "A & B".into(),
        legend: vec![(Key::Line, Colour::Series(0), "one".into()), (Key::Cross, Colour::Ink, "two".into())],
        columns: 2,
        charts: vec![("left".into(), chart.clone()), ("right".into(), chart)],
        caption: "word ".repeat(60),
    };
    let svg = picture.svg();
    assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"));
    for word in ["prefers-color-scheme: dark", "A &amp; B", "a &lt;line&gt;", ">left<", ">right<", ">one<", ">two<"] {
        assert!(svg.contains(word), "{word}");
    }
    // No line of text leaves the picture, and none is lost.
    let lines: Vec<&str> = svg.split(r#"<text class="small""#).skip(1).collect();
    assert!(lines.len() >= 5, "{}", lines.len());
    assert_eq!(svg.matches("word").count(), 60);
    assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (3, 3));
}

/// Most image viewers know no variables and drop a declaration that has one; the colour that they then see is the light scheme's.
#[test]
fn colours_stand_as_they_are_before_each_variable() {
    let alone = Picture {
        title: String::new(),
        legend: Vec::new(),
        columns: 1,
        charts: vec![(String::new(), Chart::new(Size::Panel(200.0), "a", "x", "y"))],
        caption: String::new(),
    };
    for svg in [alone.svg(), Picture::side_by_side("", &[alone], 1, "")] {
        let style = svg.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let mut seen = 0;
        for (at, _) in style.match_indices(": var(--") {
            let property = style[..at].rsplit([' ', '{', ';']).next().unwrap();
            let name = style[at..].trim_start_matches(": var(--").split(')').next().unwrap();
            // Variables of variables are for pages alone.
            if property.starts_with("--") {
                continue;
            }
            let light = style.split(&format!("--{name}: ")).nth(1).unwrap().split(';').next().unwrap();
            let before = style[..at - property.len()].trim_end();
            assert!(before.ends_with(&format!("{property}: {light};")), "{property} of {name}: {before}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }
}

/// Three pictures in two columns: each in its place, none over another, whatever their heights.
#[test]
fn pictures_stand_side_by_side() {
    let one = |title: &str, height: f64| {
        let mut chart = Chart::new(Size::Panel(height), "a", "x", "y");
        chart.marks = vec![Mark::Line(Colour::Series(0), Style::Thick, vec![(0.0, 0.0), (1.0, 1.0)])];
        let charts = vec![(String::new(), chart)];
        Picture { title: title.into(), legend: Vec::new(), columns: 1, charts, caption: String::new() }
    };
    let pictures = [one("low", 200.0), one("high", 300.0), one("last", 200.0)];
    let svg = Picture::side_by_side("all < of them", &pictures, 2, "what it means");
    // Charts contain nested pictures, without a style.
    let part = |name: &str| -> Vec<f64> {
        let inner = svg.split("<svg ").skip(2).map(|rest| format!(" {}", rest.split('>').next().unwrap()));
        let value = |text: &String| -> f64 {
            text.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        inner.filter(|text| text.contains("style=")).map(|text| value(&text)).collect()
    };
    assert_eq!(part(" x"), [0.0, 640.0, 0.0]);
    let (tops, heights) = (part(" y"), part(" height"));
    assert_eq!((tops[0], tops[1]), (0.0, 0.0));
    assert!(heights[1] > heights[0] && tops[2] == heights[1], "{tops:?} {heights:?}");
    assert!(svg.contains("viewBox=\"0 0 1280 ") && svg.contains("all &lt; of them") && svg.contains("what it means"));
}

/// The values of the custom properties `--c0` to `--c9` and others in each scheme of the style sheet.
fn colour(scheme: usize, name: &str) -> [f64; 3] {
    let start = format!("--{name}: #");
    let text = STYLE.split(start.as_str()).nth(1 + scheme).unwrap();
    let digits = text.split(';').next().unwrap();
    let long: String = if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits.into() };
    // To linear light, according to the sRGB standard.
    [0, 2, 4].map(|i| {
        let v = f64::from(u8::from_str_radix(&long[i..i + 2], 16).unwrap()) / 255.0;
        if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    })
}

/// WCAG 2.1 requires a contrast of 3 for graphics.
#[test]
fn series_stand_out_from_the_paper() {
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    for scheme in 0..2 {
        let paper = luminance(colour(scheme, "paper"));
        for name in ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "ink", "muted"] {
            let mark = luminance(colour(scheme, name));
            assert!(mark.max(paper) / mark.min(paper) >= 3.0, "{name} in scheme {scheme}");
        }
    }
}

/// Distances in CIE L*a*b* of the colours as people who lack one kind of cones see them: matrices of Machado et al. (2009),
/// *A Physiologically-based Model for Simulation of Color Vision Deficiency*, severity 1.
#[test]
fn the_first_six_series_stay_apart_for_colour_blind_readers() {
    const SIGHT: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152_286, 1.052_583, -0.204_868], [0.114_503, 0.786_281, 0.099_216], [-0.003_882, -0.048_116, 1.051_998]],
        [[0.367_322, 0.860_646, -0.227_968], [0.280_085, 0.672_501, 0.047_413], [-0.011_820, 0.042_940, 0.968_881]],
        [[1.255_528, -0.076_749, -0.178_779], [-0.078_411, 0.930_809, 0.147_602], [0.004_733, 0.691_367, 0.303_900]],
    ];
    let times = |m: &[[f64; 3]; 3], v: [f64; 3]| {
        m.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0))
    };
    let lab = |rgb: [f64; 3]| {
        let xyz = times(&[[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]], rgb);
        let [x, y, z] = xyz.map(|t| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    };
    for scheme in 0..2 {
        for sight in &SIGHT {
            let seen: Vec<[f64; 3]> = (0..6).map(|n| lab(times(sight, colour(scheme, &format!("c{n}"))))).collect();
            for (i, a) in seen.iter().enumerate() {
                for (j, b) in seen.iter().enumerate().skip(i + 1) {
                    let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                    assert!(distance >= 15.0, "c{i} and c{j} in scheme {scheme}: {distance:.1}");
                }
            }
        }
    }
}
