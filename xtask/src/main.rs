//! Chores of the project: `cargo xtask codegen|deps|exceptions`.

#![allow(
    clippy::disallowed_methods,
    reason = "chores run on the developer's files, outside the server"
)]

mod codegen;
mod deps;
mod exceptions;

fn main() {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "codegen" => codegen::run(std::env::args().skip(2)).map_err(Into::into),
        "deps" => deps::check(),
        "exceptions" => exceptions::check(),
        other => Err(format!("xtask: unknown chore {other:?}; there are codegen, deps and exceptions").into()),
    };
    if let Err(failure) = outcome {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}
