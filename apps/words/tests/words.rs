//! Planning meets a constraint that draws at the same cost do not; unreadable input is refused by name.

use std::process::Command;

fn run(words: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-words")).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn planned_text_does_without_letters_and_drawn_text_does_not() {
    let folder = tempfile::tempdir().unwrap();
    // A fixed text: this guide is in English, and every checkout has it beside the tests.
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
    let out = folder.path().join("words.svg");
    let (ok, printed, said) =
        run(&["--text", guide, "--without", "eta", "--beginnings", "3", "--out", out.to_str().unwrap()]);
    assert!(ok, "{said}");
    let line = printed.lines().find(|line| line.starts_with("without `eta`")).unwrap();
    let number =
        |after: &str| -> f64 { line.split(after).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap() };
    assert!(number("planned ") == 1.0 && number("draws ") < 0.5, "{printed}");
    let perplexity = |order: usize| -> f64 {
        let line = printed.lines().find(|line| line.contains(&format!("contexts of {order}:"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(perplexity(4) < 0.5 * perplexity(0), "{printed}");

    let (ok, _, said) = run(&["--text", "/no/such/text"]);
    assert!(!ok && said.contains("/no/such/text: --text names a text"), "{said}");
}
