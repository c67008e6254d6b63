//! Both pictures are drawn, and show what they should show.

use std::process::Command;

#[test]
fn both_pictures_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-limits")).args(["--quick", "--out"]).arg(folder.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Evaluations of each function's optimizers, dimension by dimension.
    let told = String::from_utf8(output.stdout).unwrap();
    let of = |function: &str, method: &str| {
        let lines = told.lines().skip_while(|line| !line.starts_with(function));
        lines.map(str::trim).find(|line| line.starts_with(method)).map(|line| line.matches(':').count()).unwrap()
    };
    for method in ["CEM", "iCEM", "MPPI", "gradients"] {
        assert_eq!(of("quadratic", method), 3, "{method} solves quadratics: {told}");
    }
    assert_eq!(of("quadratic", "random search"), 1, "2 dimensions: {told}");
    assert_eq!(of("Rosenbrock", "gradients"), 3, "{told}");
    assert!(of("Rastrigin", "gradients") < 3, "the slope leads elsewhere: {told}");
    assert_eq!(of("Rastrigin", "iCEM"), 3, "{told}");
    for (picture, word) in [("optimizers.svg", "Rosenbrock"), ("planners.svg", "random shooting")] {
        assert!(std::fs::read_to_string(folder.path().join(picture)).unwrap().contains(word), "{picture}");
    }
}
