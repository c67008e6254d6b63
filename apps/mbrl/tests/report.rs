//! `mbrl report`, `doctor`, `completions` and TensorBoard's files, from outside.

mod util;

#[test]
fn placeholder() {}
