//! The words of an expression.

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A bare name, a keyword, or a function.
    Word(String),
    /// `#name`, with its sign.
    NameRef(String),
    /// `:value`, with its sign.
    ValueRef(String),
    /// A whole number.
    Index(String),
    /// `( ) , . [ ] + -` and the comparators.
    Symbol(&'static str),
}

impl Token {
    /// As it was written.
    pub fn text(&self) -> &str {
        match self {
            Token::Word(text) | Token::NameRef(text) | Token::ValueRef(text) | Token::Index(text) => text,
            Token::Symbol(symbol) => symbol,
        }
    }

    /// True for a keyword; their case does not matter.
    pub fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

const SYMBOLS: [&str; 14] = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "[", "]", "+", "-"];

/// The words of `text`, or the character that begins none.
pub fn tokens(text: &str) -> Result<Vec<Token>, char> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |from: usize| {
            let end = rest
                .char_indices()
                .skip(from)
                .find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '_'));
            end.map_or(rest.len(), |(at, _)| at)
        };
        let (token, length) = match first {
            '#' => {
                // Names in placeholders may hold hyphens and dots nowhere, but the SDKs' own use letters of any case.
                let end = word(1);
                (Token::NameRef(rest.get(..end).unwrap_or_default().to_owned()), end)
            }
            ':' => {
                let end = word(1);
                (Token::ValueRef(rest.get(..end).unwrap_or_default().to_owned()), end)
            }
            c if c.is_ascii_digit() => {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                (Token::Index(rest.get(..end).unwrap_or_default().to_owned()), end)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = word(0);
                (Token::Word(rest.get(..end).unwrap_or_default().to_owned()), end)
            }
            c => {
                let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)).ok_or(c)?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        if matches!(&token, Token::NameRef(text) | Token::ValueRef(text) if text.len() < 2) {
            return Err(first);
        }
        found.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(found)
}
