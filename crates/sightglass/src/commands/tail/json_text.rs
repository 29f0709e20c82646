//! JSON as it was written, a piece at a time: numbers keep their digits and members their order.

/// A piece of legal JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A member's name, in its quotes.
    Name(&'a str),
    /// A string, in its quotes.
    Text(&'a str),
    /// A number, `true`, `false` or `null`.
    Number(&'a str),
    /// Brackets, commas, colons.
    Mark(&'a str),
}

/// The pieces of legal JSON without the space between them. Of what is not legal it gives something, and ends.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text.trim_start();
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let length = match first {
            '"' => string_length(rest),
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            _ => rest
                .find(|c: char| matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '"') || c.is_ascii_whitespace())
                .unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at_checked(length.max(first.len_utf8()))?;
        rest = after.trim_start();
        Some(match first {
            '"' if rest.starts_with(':') => Piece::Name(piece),
            '"' => Piece::Text(piece),
            '{' | '}' | '[' | ']' | ',' | ':' => Piece::Mark(piece),
            _ => Piece::Number(piece),
        })
    })
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The same JSON in one line.
pub fn one_line(text: &str) -> String {
    pieces(text)
        .map(|piece| match piece {
            Piece::Name(text) | Piece::Text(text) | Piece::Number(text) | Piece::Mark(text) => text,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_one_line_and_stays_as_it_was() {
        let text = " {\n \"b\" : [1.50, 12345678901234567890123,\ttrue], \"a\\\" :\": \"x  \\\\\", \"c\":{} }\n";
        assert_eq!(
            one_line(text),
            "{\"b\":[1.50,12345678901234567890123,true],\"a\\\" :\":\"x  \\\\\",\"c\":{}}"
        );
        for legal in ["", "null", "\"ü\"", "[[],\"\"]", "-1e5"] {
            assert_eq!(one_line(legal), legal);
        }
        assert_eq!(pieces("{\"k\": \"v\"}").nth(1), Some(Piece::Name("\"k\"")));
        assert_eq!(one_line("\"open"), "\"open");
    }
}
