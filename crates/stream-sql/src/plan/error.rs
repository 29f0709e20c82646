//! Where a statement is wrong: each message comes with a line and a column of the script.

use std::fmt;

use datafusion_common::{DataFusionError, SchemaError};
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// Why a script cannot run, and where. Lines and columns begin with 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// For people.
    pub message: String,
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for PlanError {}

impl PlanError {
    /// An error at a place. Without a place it is the script's begin.
    pub(crate) fn at(place: Location, message: impl Into<String>) -> PlanError {
        PlanError {
            message: message.into(),
            line: place.line.max(1),
            column: place.column.max(1),
        }
    }
}

/// What the parser says, with its place out of its words; at the end of the input that of the last token.
pub(crate) fn of_parser(error: &ParserError, tokens: &[TokenWithSpan]) -> PlanError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "The statement is nested too deeply",
    };
    let (message, place) = split_place(text);
    let last = tokens.iter().rev().find(|token| significant(&token.token));
    let place = place.or_else(|| last.map(|token| token.span.end));
    PlanError::at(place.unwrap_or_else(Location::empty), message)
}

/// `... at Line: 1, Column: 5` is a message and its place.
pub(crate) fn split_place(text: &str) -> (String, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text.to_owned(), None);
    };
    let mut numbers = place.split(", Column: ").map(|number| number.trim().parse::<u64>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) if line > 0 => (message.to_owned(), Some(Location { line, column })),
        _ => (text.to_owned(), None),
    }
}

/// What DataFusion says of a statement: at the place that it names, else where the name is that it speaks of, else where
/// the statement begins.
pub(crate) fn of_planner(error: &DataFusionError, tokens: &[TokenWithSpan]) -> PlanError {
    let begin = tokens.iter().find(|token| significant(&token.token));
    let begin = begin.map_or_else(Location::empty, |token| token.span.start);
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let message = words(error);
    let place = span
        .map(|span| Location {
            line: span.start.line,
            column: span.start.column,
        })
        .filter(|place| place.line > 0)
        .or_else(|| named(&message, tokens));
    PlanError::at(place.unwrap_or(begin), message)
}

/// The first line of what is said, without the layers around it.
pub(crate) fn words(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => words(inner),
        DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) | DataFusionError::Execution(text) => {
            first_line(text)
        }
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<String> = valid_fields.iter().map(|field| field.name.clone()).take(40).collect();
                format!("Column '{}' not found; there are {}", field.name, known.join(", "))
            }
            other => first_line(&other.to_string()),
        },
        DataFusionError::SQL(error, _) => split_place(&error.to_string()).0,
        DataFusionError::Collection(errors) => errors.first().map_or_else(String::new, words),
        DataFusionError::Shared(inner) => words(inner),
        other => first_line(&other.strip_backtrace()),
    }
}

fn first_line(text: &str) -> String {
    let text = text.trim_start_matches("Error during planning: ");
    text.lines().next().unwrap_or_default().trim_end().to_owned()
}

/// Where the first name in quotes of a message stands.
fn named(message: &str, tokens: &[TokenWithSpan]) -> Option<Location> {
    let quoted = message.split(['\'', '`', '"']).skip(1).step_by(2);
    let plain = message.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
    let find = |name: &str| {
        let name = name.rsplit('.').next().unwrap_or(name);
        let is = |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value == name);
        tokens.iter().find(is).map(|token| token.span.start)
    };
    let said = |name: &&str| name.len() > 1 && !COMMON.contains(&name.to_ascii_lowercase().as_str());
    quoted
        .clone()
        .find_map(find)
        .or_else(|| plain.filter(said).find_map(find))
}

/// Words of messages that are also words of statements.
const COMMON: &[&str] = &[
    "in", "is", "not", "and", "or", "as", "for", "of", "to", "with", "on", "by", "from", "select", "table", "column",
    "group", "the", "must", "be", "type", "types", "function", "field", "cannot", "query", "no", "at", "join", "order",
    "set",
];

/// Whether a token says something.
pub(crate) fn significant(token: &Token) -> bool {
    !matches!(token, Token::Whitespace(_) | Token::EOF | Token::SemiColon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_taken_out_of_the_parsers_words() {
        let (message, place) = split_place("Expected: an expression, found: FROM at Line: 3, Column: 14");
        assert_eq!(message, "Expected: an expression, found: FROM");
        assert_eq!(place, Some(Location { line: 3, column: 14 }));
        assert_eq!(split_place("Expected: ), found: EOF").1, None);
    }
}
