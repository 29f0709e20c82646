//! The line that moves on a terminal while a command works. Where standard error is no terminal, or one that cannot go
//! back to the start of a line, nothing is shown. The line has no colour and no escape sequence.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;

/// The line changes at most this often.
const EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub struct Progress {
    clock: Arc<dyn Clock>,
    moving: bool,
    shown: Option<Duration>,
    /// Characters of the line that stands on the terminal.
    width: usize,
}

impl Progress {
    /// Shows itself on standard error if `wanted`.
    pub fn new(clock: Arc<dyn Clock>, wanted: bool) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Progress {
            moving: wanted && !dumb && std::io::stderr().is_terminal(),
            clock,
            shown: None,
            width: 0,
        }
    }

    /// Shows where the command is. `line` is made only when it will be seen.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let now = self.clock.monotonic();
        let soon = self.shown.is_some_and(|shown| now < shown + EVERY);
        if !self.moving || soon {
            return;
        }
        self.shown = Some(now);
        let line = line();
        let width = self.width;
        eprint!("\r{line:<width$}");
        let _ = std::io::stderr().flush();
        self.width = line.chars().count();
    }

    /// Removes the line, so that something else can be said.
    pub fn clear(&mut self) {
        let width = std::mem::take(&mut self.width);
        if width > 0 {
            self.shown = None;
            eprint!("\r{:width$}\r", "");
            let _ = std::io::stderr().flush();
        }
    }
}

/// Bytes for a person.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// How long a film plays: `1:02:03`.
pub fn play_time(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_read_as_a_person_would_say_them() {
        let counts = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (12_345_678_901, "12.3 GB"),
        ];
        for (count, text) in counts {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(
            (play_time(3_723_999), play_time(-5)),
            ("1:02:03".to_owned(), "0:00:00".to_owned())
        );
    }
}
