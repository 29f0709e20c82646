//! Chores of the project: `cargo xtask deps|exceptions`.

mod deps;
mod exceptions;

fn main() {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "deps" => deps::check(),
        "exceptions" => exceptions::check(),
        other => Err(format!("xtask: unknown chore {other:?}; there are deps and exceptions").into()),
    };
    if let Err(failure) = outcome {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}
