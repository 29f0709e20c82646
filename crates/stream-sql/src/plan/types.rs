//! Flink's types: how they are written, what they are in columns, and what they are called in messages.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::sync::Arc;

use super::dialect::Flink;
use super::script::split_shifts;

/// How deep types may be nested.
const DEPTH_MAX: usize = 16;

/// `TIMESTAMP(3)`.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// `TIMESTAMP_LTZ(3)`.
pub(crate) fn timestamp_ltz() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
}

/// The zone of every column of `TIMESTAMP_LTZ`.
pub(crate) const UTC: &str = "UTC";

/// A type from its text.
pub(crate) fn parse(text: &str) -> Result<DataType, String> {
    let tokens = Tokenizer::new(&Flink, text)
        .tokenize_with_location()
        .map_err(|error| error.to_string())?;
    let mut parser = Parser::new(&Flink).with_tokens_with_locations(split_shifts(tokens));
    let read = read(&mut parser, 0).and_then(|data_type| match parser.peek_token().token {
        Token::EOF => Ok(data_type),
        other => Err(ParserError::ParserError(format!("{other} behind the type"))),
    });
    read.map_err(|error| match error {
        ParserError::ParserError(text) => super::error::split_place(&text).0,
        other => other.to_string(),
    })
}

/// The type that stands next.
pub(crate) fn read(parser: &mut Parser<'_>, depth: usize) -> Result<DataType, ParserError> {
    if depth > DEPTH_MAX {
        return Err(ParserError::RecursionLimitExceeded);
    }
    let word = parser.next_token();
    let Token::Word(name) = &word.token else {
        return parser.expected("a type", word);
    };
    let name = name.value.to_ascii_uppercase();
    let plain = match name.as_str() {
        "ARRAY" => DataType::List(item(bracketed(parser, |parser| read(parser, depth + 1))?)),
        "MAP" => map(parser, depth)?,
        "ROW" => row(parser, depth)?,
        "TIMESTAMP" => timestamp_type(parser)?,
        "TIMESTAMP_LTZ" => moment(precision(parser, 6)?, true),
        "TIME" => {
            precision(parser, 0)?;
            without_zone(parser)?;
            DataType::Time32(TimeUnit::Millisecond)
        }
        "DECIMAL" | "DEC" | "NUMERIC" => decimal(parser)?,
        "CHAR" | "CHARACTER" | "VARCHAR" | "STRING" => {
            let _ = parser.parse_keyword(Keyword::VARYING);
            precision(parser, 1)?;
            DataType::Utf8
        }
        "BINARY" | "VARBINARY" | "BYTES" => {
            precision(parser, 1)?;
            DataType::Binary
        }
        "BOOLEAN" => DataType::Boolean,
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "FLOAT" => DataType::Float32,
        "DOUBLE" => {
            let _ = parser.parse_keyword(Keyword::PRECISION);
            DataType::Float64
        }
        "DATE" => DataType::Date32,
        _ => return parser.expected("a type of Flink", word),
    };
    Ok(plain)
}

/// `NOT NULL` or `NULL` behind a type: whether NULL may be.
pub(crate) fn nullable(parser: &mut Parser<'_>) -> bool {
    if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
        return false;
    }
    let _ = parser.parse_keyword(Keyword::NULL);
    true
}

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, true))
}

fn bracketed<T>(
    parser: &mut Parser<'_>,
    inner: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, ParserError> {
    parser.expect_token(&Token::Lt)?;
    let made = inner(parser)?;
    nullable(parser);
    parser.expect_token(&Token::Gt)?;
    Ok(made)
}

fn map(parser: &mut Parser<'_>, depth: usize) -> Result<DataType, ParserError> {
    let (key, value) = bracketed(parser, |parser| {
        let key = read(parser, depth + 1)?;
        nullable(parser);
        parser.expect_token(&Token::Comma)?;
        Ok((key, read(parser, depth + 1)?))
    })?;
    if key != DataType::Utf8 {
        return Err(ParserError::ParserError("Keys of a MAP must be STRING".to_owned()));
    }
    let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    let entries = Field::new("entries", DataType::Struct(entries), false);
    Ok(DataType::Map(Arc::new(entries), false))
}

fn row(parser: &mut Parser<'_>, depth: usize) -> Result<DataType, ParserError> {
    let end = match parser.consume_token(&Token::LParen) {
        true => Token::RParen,
        false => {
            parser.expect_token(&Token::Lt)?;
            Token::Gt
        }
    };
    let mut fields = Vec::new();
    loop {
        let name = parser.parse_identifier()?.value;
        let data_type = read(parser, depth + 1)?;
        nullable(parser);
        if matches!(parser.peek_token().token, Token::SingleQuotedString(_)) {
            parser.next_token();
        }
        fields.push(Field::new(name, data_type, true));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&end)?;
    Ok(DataType::Struct(Fields::from(fields)))
}

/// The number in parentheses, or the default.
fn precision(parser: &mut Parser<'_>, default: u64) -> Result<u64, ParserError> {
    if !parser.consume_token(&Token::LParen) {
        return Ok(default);
    }
    let number = number(parser)?;
    parser.expect_token(&Token::RParen)?;
    Ok(number)
}

fn number(parser: &mut Parser<'_>) -> Result<u64, ParserError> {
    let token = parser.next_token();
    let read = match &token.token {
        Token::Number(digits, _) => digits.parse().ok(),
        _ => None,
    };
    match read {
        Some(number) => Ok(number),
        None => parser.expected("a number", token),
    }
}

fn without_zone(parser: &mut Parser<'_>) -> Result<(), ParserError> {
    if parser.parse_keyword(Keyword::WITHOUT) {
        parser.expect_keywords(&[Keyword::TIME, Keyword::ZONE])?;
    }
    Ok(())
}

fn timestamp_type(parser: &mut Parser<'_>) -> Result<DataType, ParserError> {
    let digits = precision(parser, 6)?;
    if parser.parse_keywords(&[Keyword::WITH, Keyword::LOCAL]) {
        parser.expect_keywords(&[Keyword::TIME, Keyword::ZONE])?;
        return Ok(moment(digits, true));
    }
    without_zone(parser)?;
    Ok(moment(digits, false))
}

fn moment(digits: u64, local: bool) -> DataType {
    let unit = match digits {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    };
    DataType::Timestamp(unit, local.then(|| UTC.into()))
}

fn decimal(parser: &mut Parser<'_>) -> Result<DataType, ParserError> {
    let (mut digits, mut scale) = (10, 0);
    if parser.consume_token(&Token::LParen) {
        digits = number(parser)?;
        if parser.consume_token(&Token::Comma) {
            scale = number(parser)?;
        }
        parser.expect_token(&Token::RParen)?;
    }
    match (u8::try_from(digits), i8::try_from(scale)) {
        (Ok(digits @ 1..=38), Ok(scale)) if i64::from(scale) <= i64::from(digits) => {
            Ok(DataType::Decimal128(digits, scale))
        }
        _ => Err(ParserError::ParserError(format!(
            "DECIMAL({digits}, {scale}) has not 1 to 38 digits, with no more of them behind the point"
        ))),
    }
}

/// What Flink calls a type.
pub(crate) fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 | DataType::UInt64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME(0)".to_owned(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            let local = if zone.is_some() { "_LTZ" } else { "" };
            format!("TIMESTAMP{local}({digits})")
        }
        DataType::Decimal128(digits, scale) => format!("DECIMAL({digits}, {scale})"),
        DataType::List(item) => format!("ARRAY<{}>", name(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let names: Vec<String> = fields.iter().map(|field| name(field.data_type())).collect();
                format!("MAP<{}>", names.join(", "))
            }
            other => name(other),
        },
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| format!("`{}` {}", field.name(), name(field.data_type())));
            format!("ROW<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        DataType::Null => "NULL".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_and_called_as_in_flink() {
        for (text, called) in [
            ("string", "STRING"),
            ("VARCHAR(16)", "STRING"),
            ("int", "INT"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("TIMESTAMP", "TIMESTAMP(6)"),
            ("TIMESTAMP(3)", "TIMESTAMP(3)"),
            ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
            ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
            ("DECIMAL(10,2)", "DECIMAL(10, 2)"),
            ("DECIMAL", "DECIMAL(10, 0)"),
            (
                "ARRAY<ROW<a INT NOT NULL, `b c` ARRAY<STRING>>>",
                "ARRAY<ROW<`a` INT, `b c` ARRAY<STRING>>>",
            ),
            ("MAP<STRING, MAP<STRING, BIGINT>>", "MAP<STRING, MAP<STRING, BIGINT>>"),
        ] {
            assert_eq!(parse(text).as_ref().map(name), Ok(called.to_owned()), "{text}");
        }
        for wrong in [
            "",
            "TEXT",
            "ARRAY<INT",
            "DECIMAL(39, 0)",
            "DECIMAL(3, 4)",
            "MAP<INT, INT>",
            "INT INT",
            "ROW<a>",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse(&format!("{}INT{}", "ARRAY<".repeat(100), ">".repeat(100))).is_err());
    }
}
