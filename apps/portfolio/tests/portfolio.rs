//! From a file of prices to tables and a picture. No price series is in the repository: these are made up.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
};

use mbrl_env::Rng;

/// Three assets over nine years of five-day weeks, each of which determines half of the next one.
fn prices() -> String {
    let mut rng = Rng::new(0);
    let (mut prices, mut drift) = ([10.0; 3], [0.0; 3]);
    let mut text = String::from("Date,A,B,C\n");
    let mut day = 0;
    for year in 2011..2020 {
        for month in 1..=12 {
            for date in 1..=21 {
                if day % 5 == 0 {
                    drift = drift.map(|drift| 0.6 * drift + 0.02 * rng.normal_f64());
                }
                for (price, drift) in prices.iter_mut().zip(&drift) {
                    *price *= f64::exp(drift / 5.0);
                }
                let [a, b, c] = prices;
                writeln!(text, "{year}-{month:02}-{date:02},{a},{b},{c}").unwrap();
                day += 1;
            }
        }
    }
    text
}

fn run(prices: &Path, picture: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mbrl-portfolio"));
    command.arg("--prices").arg(prices).arg("--out").arg(picture);
    let usual = ["--test-from=2017-01-01", "--seeds=2", "--horizon=2"];
    // Given values replace the defaults.
    let name = |word: &str| word.split('=').next().map(str::to_owned);
    let kept = usual.iter().filter(|word| !more.iter().any(|other| name(other) == name(word)));
    command.args(kept).args(more).output().unwrap()
}

#[test]
fn a_file_of_prices_becomes_tables_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (file, picture) = (folder.path().join("prices.csv"), folder.path().join("portfolio.svg"));
    fs::write(&file, prices()).unwrap();
    let output = run(&file, &picture, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    for words in ["3 assets, 2268 days", "planned, seed 1", "bought and held", "least variance", "EWMA normal", "2019 "]
    {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    // These weeks can be predicted, and the program says so.
    assert!(printed.contains("Plans beat equal weights."), "{printed}");
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.contains("Wealth after costs") && svg.contains("Plans beat equal"), "{svg}");
}

#[test]
fn bad_prices_end_the_program_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let (file, picture) = (folder.path().join("prices.csv"), folder.path().join("portfolio.svg"));
    let told = |more: &[&str]| {
        let output = run(&file, &picture, more);
        assert!(!output.status.success() && output.stdout.is_empty() && !picture.exists());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(told(&[]).contains("pip download --no-deps skfolio==1.12.2"));
    fs::write(&file, prices().replace("2016-05-04,", "2016-05-04,NaN,")).unwrap();
    assert!(told(&[]).contains("line 1349: 5 cells, expected 4"), "{}", told(&[]));
    fs::write(&file, prices()).unwrap();
    assert!(told(&["--test-until", "2016-06-01"]).contains("test-until = 2016-06-01: expected a day after"));
    assert!(told(&["--test-from", "2030-01-01"]).contains("no week of prices from it on"));
    assert!(told(&["--cost=-1"]).contains("cost = -1: expected"));
    assert!(told(&["--horizon", "0"]).contains("horizon = 0"));
    assert!(told(&["--horizon", "1000000000"]).contains("expected 1 to 52 weeks"));
    let last = u64::MAX.to_string();
    assert!(told(&["--seed", &last]).contains("expected one that others follow"));
    // The output of minutes of work would be lost.
    let output = run(&file, &folder.path().join("nowhere/portfolio.svg"), &[]);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected a file in a folder that is there"));
}
