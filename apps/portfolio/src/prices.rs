//! Prices from a file: a column of dates, and one for each asset.

use std::{
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

/// A calendar day, written `2011-01-03`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date {
    pub(crate) year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// Years since the year 0, to the day.
    pub(crate) fn years(self) -> f64 {
        f64::from(self.year) + (f64::from(self.month) - 1.0) / 12.0 + (f64::from(self.day) - 1.0) / 372.0
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('-').collect();
        let date = match parts[..] {
            [year, month, day] if [year.len(), month.len(), day.len()] == [4, 2, 2] => year
                .parse()
                .ok()
                .zip(month.parse().ok())
                .zip(day.parse().ok())
                .map(|((year, month), day)| Self { year, month, day }),
            _ => None,
        };
        date.filter(|date| (1..=12).contains(&date.month) && (1..=31).contains(&date.day))
            .ok_or_else(|| format!("`{text}`: expected a date such as 2011-01-03"))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Prices of `n` assets on `T` days.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    pub(crate) assets: Vec<String>,
    pub(crate) dates: Vec<Date>,
    /// `[T, n]`, day by day.
    pub(crate) prices: Vec<f64>,
}

impl Prices {
    /// Reads a CSV file, gzipped or not.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let mut bytes = fs::read(path).with_context(name)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).with_context(name)?;
            bytes = plain;
        }
        let text = String::from_utf8(bytes).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    /// Reads the text of a CSV file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let header = lines.next().map(|(_, line)| line).context("no line: expected a header of a date and assets")?;
        let assets: Vec<String> = header.split(',').skip(1).map(|name| name.trim().to_owned()).collect();
        ensure!(assets.len() >= 2, "columns = `{header}`: expected a date and at least 2 assets");
        for (i, name) in assets.iter().enumerate() {
            ensure!(!name.is_empty(), "column {}: expected the name of an asset", i + 2);
            ensure!(!assets[..i].contains(name), "column {} = `{name}`: expected each asset once", i + 2);
        }
        let (mut dates, mut prices) = (Vec::<Date>::new(), Vec::new());
        for (i, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let at = format!("line {}", i + 1);
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            ensure!(cells.len() == assets.len() + 1, "{at}: {} cells, expected {}", cells.len(), assets.len() + 1);
            let date: Date = cells[0].parse().map_err(|told| anyhow::anyhow!("{at}: {told}"))?;
            if let Some(last) = dates.last() {
                ensure!(date != *last, "{at} = {date}: this day comes twice, expected each once");
                ensure!(date > *last, "{at} = {date}: expected a day after {last}, the line before it; sort the file");
            }
            dates.push(date);
            for (cell, asset) in cells[1..].iter().zip(&assets) {
                let price = match cell.to_ascii_lowercase().as_str() {
                    "" | "nan" | "na" | "null" => bail!(
                        "{at} ({date}), {asset}: the price is missing; leave the asset or the day out of the file"
                    ),
                    cell => cell.parse().ok().filter(|price: &f64| price.is_finite() && *price > 0.0),
                };
                prices.push(
                    price.with_context(|| format!("{at} ({date}), {asset} = `{cell}`: expected a positive price"))?,
                );
            }
        }
        Ok(Self { assets, dates, prices })
    }

    /// The number of assets, `n`.
    pub(crate) fn width(&self) -> usize {
        self.assets.len()
    }
}

/// Prices every fifth day: the only basis of decisions.
#[derive(Debug, Clone)]
pub(crate) struct Weeks {
    /// Trading days, at their closing prices: week `j` is from `dates[j]` to `dates[j + 1]`.
    pub(crate) dates: Vec<Date>,
    /// Log returns of the assets over each week, `[W, n]`.
    pub(crate) returns: Vec<f64>,
    pub(crate) width: usize,
}

impl Weeks {
    /// Days in a trading week.
    const DAYS: usize = 5;

    /// An incomplete week at the end is dropped.
    pub(crate) fn of(prices: &Prices) -> Self {
        let width = prices.width();
        let days: Vec<&[f64]> = prices.prices.chunks_exact(width).step_by(Self::DAYS).collect();
        let returns =
            days.windows(2).flat_map(|pair| pair[0].iter().zip(pair[1]).map(|(before, after)| (after / before).ln()));
        Self { dates: prices.dates.iter().copied().step_by(Self::DAYS).collect(), returns: returns.collect(), width }
    }

    /// The number of weeks, `W`.
    pub(crate) fn len(&self) -> usize {
        self.returns.len() / self.width
    }

    /// Log returns of the assets over a week, `[n]`.
    pub(crate) fn returns(&self, week: usize) -> &[f64] {
        &self.returns[week * self.width..][..self.width]
    }

    /// The week that begins on or after a day.
    pub(crate) fn from(&self, date: Date) -> usize {
        self.dates.iter().take(self.len()).filter(|day| **day < date).count()
    }
}

/// How to get prices, for messages.
pub(crate) fn help(path: &Path) -> String {
    let missing: PathBuf = path.into();
    format!(
        "{}: no such file; `pip download --no-deps skfolio==1.12.2` and `python3 -m zipfile -e skfolio-1.12.2-py3-none-any.whl skfolio` \
         leave prices in skfolio/skfolio/datasets/data/sp500_dataset.csv.gz",
        missing.display()
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const GOOD: &str = "Date,A,B\n2020-01-02,1.0,2.0\n2020-01-03,1.5,2.0\n2020-01-06,3.0,1.0\n";

    #[test]
    fn plain_and_compressed_files_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("a.csv"), folder.path().join("b"));
        fs::write(&plain, GOOD).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(GOOD.as_bytes()).unwrap();
        fs::write(&packed, encoder.finish().unwrap()).unwrap();
        for path in [plain, packed] {
            let read = Prices::read(&path).unwrap();
            assert_eq!(read.assets, ["A", "B"]);
            assert_eq!(read.prices, [1.0, 2.0, 1.5, 2.0, 3.0, 1.0]);
            assert_eq!(read.dates[2].to_string(), "2020-01-06");
        }
    }

    #[test]
    fn bad_prices_are_named() {
        for (from, to, told) in [
            ("1.5,2.0", "1.5,", "line 3 (2020-01-03), B: the price is missing"),
            ("1.5,2.0", "NaN,2.0", "line 3 (2020-01-03), A: the price is missing"),
            ("1.5,2.0", "0,2.0", "line 3 (2020-01-03), A = `0`: expected a positive price"),
            ("1.5,2.0", "-1,2.0", "line 3 (2020-01-03), A = `-1`: expected a positive price"),
            ("1.5,2.0", "inf,2.0", "line 3 (2020-01-03), A = `inf`: expected a positive price"),
            ("1.5,2.0", "x,2.0", "line 3 (2020-01-03), A = `x`: expected a positive price"),
            ("1.5,2.0", "1.5", "line 3: 2 cells, expected 3"),
            ("2020-01-03", "2020-01-02", "line 3 = 2020-01-02: this day comes twice"),
            ("2020-01-03", "2020-01-01", "line 3 = 2020-01-01: expected a day after 2020-01-02"),
            ("2020-01-03", "3.1.2020", "line 3: `3.1.2020`: expected a date"),
            ("2020-01-03", "2020-13-03", "line 3: `2020-13-03`: expected a date"),
            ("Date,A,B", "Date,A,A", "column 3 = `A`: expected each asset once"),
            ("Date,A,B", "Date", "columns = `Date`: expected a date and at least 2 assets"),
        ] {
            let found = Prices::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(found.starts_with(told), "{found}, not {told}");
        }
        assert!(Prices::parse("").is_err());
    }

    #[test]
    fn a_week_is_five_days() {
        let mut text = String::from("Date,A,B\n");
        for day in 1..=12 {
            text += &format!("2020-01-{day:02},{},{}\n", day, 2.0);
        }
        let weeks = Weeks::of(&Prices::parse(&text).unwrap());
        assert_eq!((weeks.len(), weeks.dates.len()), (2, 3));
        assert!((weeks.returns(1)[0] - (11f64 / 6.0).ln()).abs() < 1e-12 && weeks.returns(1)[1] == 0.0);
        assert_eq!(weeks.from("2020-01-06".parse().unwrap()), 1);
        assert_eq!(weeks.from("2020-01-07".parse().unwrap()), 2);
    }
}
