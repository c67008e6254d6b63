//! A comparison as tables: for the terminal, Markdown, LaTeX, and CSV for programs.

use std::{fmt::Write as _, path::Path};

use anyhow::{Result, bail};

use super::{Block, Comparison, Found, Row, in_words};
use crate::report::{escape, seconds, swatch, table};

/// The format of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Markdown,
    Latex,
    Csv,
}

impl Format {
    /// The format for a file's name.
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
        match extension.as_deref() {
            Some("txt") => Ok(Self::Text),
            Some("md") => Ok(Self::Markdown),
            Some("tex") => Ok(Self::Latex),
            Some("csv") => Ok(Self::Csv),
            _ => bail!(
                "--out {}: expected a name that ends in .txt, .md, .tex, .csv or .html, or a --format",
                path.display()
            ),
        }
    }

    /// The extension of its files.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Markdown => "md",
            Self::Latex => "tex",
            Self::Csv => "csv",
        }
    }

    pub(crate) fn write(self, comparison: &Comparison) -> String {
        match self {
            Self::Text => Tables::of(comparison).text(),
            Self::Markdown => Tables::of(comparison).markdown(),
            Self::Latex => Tables::of(comparison).latex(),
            Self::Csv => csv(comparison),
        }
    }
}

/// Explanations of the columns, one part per line; the second to last applies only with a threshold.
const MEANING: [&str; 5] = [
    "IQM: interquartile mean over the runs",
    "95 % intervals: stratified bootstrap",
    "P: probability that a run of the method scores higher than one of the first method, ties counting half",
    "steps: median over the runs to the first figure at or above the threshold, and how many reached it",
    "wall time: median",
];
/// Maximum number of letters of a method's name in the head of a column.
const LONGEST: usize = 20;

/// Tables in words.
#[derive(Debug)]
pub(crate) struct Tables {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    title: String,
    /// A description of the threshold.
    threshold: Option<String>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// For each row.
    colours: Vec<usize>,
    /// The first of the baselines among the rows.
    baselines: usize,
}

impl Tables {
    pub(crate) fn of(comparison: &Comparison) -> Self {
        let of = |block| std::iter::once(Table::of(block)).chain(Table::of_outcomes(block));
        Self { tables: comparison.blocks.iter().flat_map(of).collect() }
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let _ = writeln!(text, "{}", table.title);
            let all: Vec<&Vec<String>> = std::iter::once(&table.header).chain(&table.rows).collect();
            let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..table.header.len()).map(width).collect();
            for row in all {
                let cells: Vec<String> = row
                    .iter()
                    .zip(&widths)
                    .enumerate()
                    .map(
                        |(i, (cell, width))| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") },
                    )
                    .collect();
                let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
            }
            if let Some(threshold) = &table.threshold {
                let _ = writeln!(text, "  {threshold}");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{}", self.meaning().join("\n"));
        text
    }

    fn meaning(&self) -> Vec<&'static str> {
        let has = |what: fn(&Table) -> bool| self.tables.iter().any(what);
        let mut meaning = MEANING.to_vec();
        if !has(|table| table.threshold.is_some()) {
            meaning.remove(3);
        }
        if !has(|table| table.header.iter().any(|cell| cell.starts_with("P("))) {
            meaning.remove(2);
        }
        meaning
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let line = |cells: &[String]| {
                let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                format!("| {} |\n", cells.join(" | "))
            };
            let _ = write!(text, "**{}**\n\n{}|---|", table.title, line(&table.header));
            text.push_str(&"---:|".repeat(table.header.len() - 1));
            text.push('\n');
            table.rows.iter().for_each(|row| text.push_str(&line(row)));
            text.push('\n');
            if let Some(threshold) = &table.threshold {
                let _ = write!(text, "{threshold}.\n\n");
            }
        }
        let _ = writeln!(text, "{}.", self.meaning().join("; "));
        text
    }

    /// A `tabular` for each block, for the package booktabs.
    fn latex(&self) -> String {
        let mut text = String::from("% needs \\usepackage{booktabs}\n");
        for table in &self.tables {
            let line = |cells: &[String]| {
                let cells: Vec<String> = cells.iter().map(|cell| for_latex(cell)).collect();
                format!("{} \\\\\n", cells.join(" & "))
            };
            let _ = write!(text, "% {}\n\\begin{{tabular}}{{l{}}}\n", table.title, "r".repeat(table.header.len() - 1));
            let _ = write!(text, "\\toprule\n{}\\midrule\n", line(&table.header));
            for (i, row) in table.rows.iter().enumerate() {
                if i == table.baselines && i > 0 {
                    text.push_str("\\midrule\n");
                }
                text.push_str(&line(row));
            }
            text.push_str("\\bottomrule\n\\end{tabular}\n");
            if let Some(threshold) = &table.threshold {
                let _ = writeln!(text, "% {threshold}");
            }
        }
        let _ = writeln!(text, "% {}.", self.meaning().join("; "));
        text
    }

    /// For an HTML page.
    pub(crate) fn html(&self) -> String {
        let mut html = String::new();
        for part in &self.tables {
            let title =
                if self.tables.len() > 1 { format!("<h3>{}</h3>\n", escape(&part.title)) } else { String::new() };
            let rows: Vec<Vec<String>> = part
                .rows
                .iter()
                .zip(&part.colours)
                .map(|(row, colour)| {
                    let mut cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
                    cells[0] = swatch(*colour) + &cells[0];
                    cells
                })
                .collect();
            let header: Vec<String> = part.header.iter().map(|cell| escape(cell)).collect();
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            html.push_str(&(title + &table(&header, 1, &rows)));
            let about = if self.tables.len() > 1 { String::new() } else { format!("{}. ", escape(&part.title)) };
            let threshold = part.threshold.as_ref().map_or(String::new(), |threshold| escape(threshold) + ".");
            let _ = writeln!(html, "<p class=\"lead\"><small>{about}{threshold}</small></p>");
        }
        let _ = writeln!(html, "<p class=\"lead\"><small>{}.</small></p>", self.meaning().join("; "));
        html
    }
}

impl Table {
    fn of(block: &Block) -> Self {
        let first = block.first().map_or("", |row| row.name.as_str());
        let first = if first.chars().count() > LONGEST { "first" } else { first };
        let several = block.rows.iter().any(|row| row.improvement.is_some());
        let steps =
            block.threshold.as_ref().map(|(value, why)| (in_words(Found { value: *value, interval: None }).0, why));
        let timed = block.rows.iter().any(|row| row.wall_s.is_some());
        let scored = block.rows.iter().any(|row| !row.median.is_nan());
        let mut header: Vec<String> = vec!["method".into(), "n".into()];
        if scored {
            header.extend(["median", "IQM", "95 % interval"].map(str::to_owned));
        }
        if several {
            header.extend([format!("P(> {first})"), "95 % interval".to_owned()]);
        }
        header.extend(steps.as_ref().map(|(threshold, _)| format!("steps to {threshold}")));
        if timed {
            header.push("wall time".to_owned());
        }
        let rows: Vec<Vec<String>> = block
            .rows
            .iter()
            .map(|row| {
                let (iqm, interval) = in_words(row.iqm);
                let none = || "–".to_owned();
                let mut cells = vec![row.name.clone(), if row.n == 0 { none() } else { row.n.to_string() }];
                if scored {
                    cells.extend([in_words(Found { value: row.median, interval: None }).0, iqm, interval]);
                }
                if several {
                    let (value, ends) = row.improvement.map_or_else(|| (none(), none()), shares);
                    cells.extend([value, ends]);
                }
                if steps.is_some() {
                    cells.push(row.steps.map_or_else(none, |found| arrived(found, row.n)));
                }
                if timed {
                    cells.push(row.wall_s.map_or_else(none, seconds));
                }
                cells
            })
            .collect();
        Self {
            title: format!("{}: {}", block.task, block.about),
            threshold: steps.map(|(threshold, why)| format!("threshold {threshold}: {why}")),
            header,
            rows,
            colours: block.rows.iter().map(|row| row.colour).collect(),
            baselines: block.rows.iter().filter(|row| !row.is_baseline).count(),
        }
    }
}

impl Table {
    /// Outcomes of episodes besides their return, if the task is judged by more.
    fn of_outcomes(block: &Block) -> Option<Self> {
        if block.outcomes.is_empty() {
            return None;
        }
        let rows: Vec<&Row> = block.rows.iter().filter(|row| row.outcomes.iter().any(Option::is_some)).collect();
        let mut header: Vec<String> = vec!["method".into(), "n".into()];
        for name in &block.outcomes {
            header.extend([(*name).to_owned(), "95 % interval".to_owned()]);
        }
        let cells = |row: &Row| {
            let mut cells = vec![row.name.clone(), if row.n == 0 { "–".to_owned() } else { row.n.to_string() }];
            for outcome in &row.outcomes {
                let (value, ends) = outcome.map_or_else(|| ("–".to_owned(), "–".to_owned()), in_words);
                cells.extend([value, ends]);
            }
            cells
        };
        Some(Self {
            title: format!("{}: what the episodes came to, mean over the runs", block.task),
            threshold: None,
            header,
            rows: rows.iter().map(|row| cells(row)).collect(),
            colours: rows.iter().map(|row| row.colour).collect(),
            baselines: rows.iter().filter(|row| !row.is_baseline).count(),
        })
    }
}

/// A probability and the ends of its interval.
fn shares(found: Found) -> (String, String) {
    let share = |value: f64| format!("{value:.2}");
    super::found(found, share, |(low, high)| format!("{} to {}", share(low), share(high)))
}

/// The median of the steps, and how many runs reached the threshold.
fn arrived((steps, reached): (f64, usize), n: usize) -> String {
    let median = if steps.is_finite() { format!("{steps:.0}") } else { "–".to_owned() };
    format!("{median} ({reached} of {n})")
}

/// Text escaped for LaTeX.
fn for_latex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '>' => out.push_str("$>$"),
            '<' => out.push_str("$<$"),
            '\u{2212}' => out.push_str("$-$"),
            '–' => out.push_str("--"),
            '…' => out.push_str("\\ldots{}"),
            c => out.push(c),
        }
    }
    out
}

/// One line for each method and task; numbers in full, empty where there is none. Figures by which tasks are judged besides the return
/// follow, each with the ends of its interval.
fn csv(comparison: &Comparison) -> String {
    let mut text = String::from(
        "task,method,baseline,n,median,iqm,iqm_low,iqm_high,p_improvement,p_low,p_high,threshold,steps_to_threshold,\
         reached,wall_s",
    );
    let mut outcomes: Vec<&str> = Vec::new();
    for name in comparison.blocks.iter().flat_map(|block| &block.outcomes) {
        if !outcomes.contains(name) {
            outcomes.push(name);
        }
    }
    for name in &outcomes {
        ["", " low", " high"].iter().for_each(|end| text.push_str(&format!(",{}", quoted(&format!("{name}{end}")))));
    }
    text.push('\n');
    let number = |value: Option<f64>| value.filter(|v| v.is_finite()).map_or(String::new(), |v| v.to_string());
    let whole = |found: Option<Found>| {
        let ends = found.and_then(|found| found.interval);
        [number(found.map(|found| found.value)), number(ends.map(|ends| ends.0)), number(ends.map(|ends| ends.1))]
    };
    for block in &comparison.blocks {
        for row in &block.rows {
            let Row { name, is_baseline, n, median, iqm, improvement, steps, wall_s, .. } = row;
            let mut cells = vec![quoted(&block.task), quoted(name), is_baseline.to_string(), n.to_string()];
            cells.push(number(Some(*median)));
            cells.extend(whole(Some(*iqm)));
            cells.extend(whole(*improvement));
            cells.push(number(block.threshold.as_ref().map(|(value, _)| *value)));
            cells.push(number(steps.map(|(median, _)| median)));
            cells.push(steps.map_or(String::new(), |(_, reached)| reached.to_string()));
            cells.push(number(*wall_s));
            for name in &outcomes {
                let place = block.outcomes.iter().position(|own| own == name);
                cells.extend(whole(place.and_then(|place| row.outcomes.get(place).copied().flatten())));
            }
            let _ = writeln!(text, "{}", cells.join(","));
        }
    }
    text
}

/// A field of CSV.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
