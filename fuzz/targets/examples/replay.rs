//! Runs one target on one file: `cargo run -p fuzz-targets --example replay -- TARGET FILE`.
#![allow(clippy::expect_used, clippy::disallowed_methods, missing_docs)]

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (name, file) = (arguments.next().expect("TARGET"), arguments.next().expect("FILE"));
    let input = std::fs::read(file).expect("a readable file");
    let (_, target) = fuzz_targets::TARGETS
        .iter()
        .find(|(have, _)| *have == name)
        .expect("a target");
    target(&input);
}
