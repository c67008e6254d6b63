//! Names of runs and of their common picture.

use std::path::{Path, PathBuf};

/// Maximum length of the part that overrides add to a name, in bytes; the rest of a longer one becomes a checksum.
const LONGEST: usize = 80;

/// The name of an experiment's runs: its own, and what `--set` changes. A name that was set stands alone, and settings that do
/// not make another experiment (seed, steps, device) are left out.
pub(crate) fn run_name(name: &str, overrides: &[String]) -> String {
    let mut parts = Vec::new();
    for word in overrides {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key.trim() {
            "name" => return name.to_owned(),
            "seed" | "steps" | "device" | "summary" => {}
            key => parts.push(format!("{key}={}", plain(value))),
        }
    }
    if parts.is_empty() {
        return name.to_owned();
    }
    let mut added = parts.join(",");
    if added.len() > LONGEST {
        let sum = crc32c::crc32c(added.as_bytes());
        added = format!("{}..{sum:08x}", &added[..LONGEST - 10]);
    }
    format!("{name},{added}")
}

/// A value without characters that are special to file systems and shells.
fn plain(value: &str) -> String {
    let kept = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '+' | '_' | '=' | ',' => Some(c),
        '/' | '\\' | ':' => Some('_'),
        _ => None,
    };
    value.chars().filter_map(kept).collect()
}

/// The common picture of seeds of one experiment, beside their folders: `NAME.svg` if the first one is `NAME-0`,
/// `NAME.2.svg` if it is `NAME-0-2`, `NAME.from-3.svg` if it is `NAME-3`, so that the picture of another set stays, and
/// `NAME-*` matches only the runs.
pub(crate) fn picture(first: &Path, name: &str, seed: u64) -> PathBuf {
    let folder = first.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
    let from = if seed == 0 { String::new() } else { format!(".from-{seed}") };
    // The last `-SEED` that is followed by nothing or by a number.
    let sign = format!("-{seed}");
    let found = folder.match_indices(&sign).filter_map(|(at, sign)| {
        let rest = &folder[at + sign.len()..];
        let number = rest.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        (at > 0 && (rest.is_empty() || number))
            .then(|| format!("{}{from}{}", &folder[..at], rest.replacen('-', ".", 1)))
    });
    let stem = found.last().unwrap_or_else(|| folder.clone());
    first.with_file_name(format!("{stem}.svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn runs_are_called_after_what_differs() {
        assert_eq!(run_name("pddm", &[]), "pddm");
        assert_eq!(run_name("pddm", &words(&["seed=3", "steps=10", "device=\"wgpu\""])), "pddm");
        assert_eq!(run_name("pddm", &words(&["planner.kind=cem", "seed=1"])), "pddm,planner.kind=cem");
        assert_eq!(run_name("x", &words(&["model.hidden=[32, 32]"])), "x,model.hidden=32,32");
        assert_eq!(run_name("x", &words(&["task_options.xml_file=\"a/b.xml\""])), "x,task_options.xml_file=a_b.xml");
        // The name that was set is already in the experiment.
        assert_eq!(run_name("mine", &words(&["planner.kind=cem", "name=mine"])), "mine");
        let many = |last: &str| {
            let mut many: Vec<String> = (0..20).map(|i| format!("planner.horizon={i}")).collect();
            many.push(last.to_owned());
            run_name("x", &many)
        };
        assert!(many("a=1").len() <= LONGEST + 2);
        assert_ne!(many("a=1"), many("a=2"));
    }

    #[test]
    fn another_set_has_another_picture() {
        let of = |folder: &str, seed| picture(Path::new(folder), "x", seed).display().to_string();
        assert_eq!(of("runs/x-0", 0), "runs/x.svg");
        assert_eq!(of("runs/x-0-2", 0), "runs/x.2.svg");
        assert_eq!(of("runs/x-3", 3), "runs/x.from-3.svg");
        assert_eq!(of("runs/x-3-2", 3), "runs/x.from-3.2.svg");
        assert_eq!(of("runs/x-2,a=1-0", 0), "runs/x-2,a=1.svg");
        assert_eq!(of("runs/renamed", 0), "runs/renamed.svg");
    }
}
