//! Colour on a terminal, and text of others that cannot steer it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use crate::cli::Color;

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// What is beside the point.
    Dim,
    /// A name: a key, a camera.
    Name,
    /// A person, or text.
    Text,
    /// A number.
    Number,
    /// What should be looked at.
    Alert,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Tint::Dim => "2",
            Tint::Name => "36",
            Tint::Text => "32",
            Tint::Number => "33",
            Tint::Alert => "31",
        }
    }
}

/// Colours text, or does not.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output. NO_COLOR (<https://no-color.org>) and a dumb terminal have none, unless it was asked for.
    pub fn for_stdout(wanted: Color) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let on = match wanted {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !set("NO_COLOR") && !dumb && std::io::stdout().is_terminal(),
        };
        Paint { on }
    }

    /// Appends the text in its colour.
    pub fn put(self, out: &mut String, tint: Tint, text: impl fmt::Display) {
        // Writing to a string does not fail.
        let _ = if self.on {
            write!(out, "\x1b[{}m{text}\x1b[0m", tint.code())
        } else {
            write!(out, "{text}")
        };
    }
}

/// Text of a producer, with what a terminal would obey, or what would reorder the line, written out.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cannot_steer_the_terminal() {
        assert_eq!(harmless("Ann Ünal"), "Ann Ünal");
        assert_eq!(
            harmless("a\x1b[2Jb\n\u{9b}c\u{202e}"),
            "a\\u{1b}[2Jb\\n\\u{9b}c\\u{202e}"
        );
    }

    #[test]
    fn colour_is_put_around_text_only_where_it_is_wanted() {
        let shown = |on| {
            let mut out = String::new();
            Paint { on }.put(&mut out, Tint::Name, "door");
            out
        };
        assert_eq!(
            (shown(true).as_str(), shown(false).as_str()),
            ("\x1b[36mdoor\x1b[0m", "door")
        );
    }
}
