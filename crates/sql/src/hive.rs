//! The types of Hive, as Glue's tables have them: `struct<name:string,prices:array<decimal(10,2)>>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{TYPE_CHARACTERS_MAX, TYPE_DEPTH_MAX};

/// A type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HiveType {
    /// `boolean`
    Boolean,
    /// `tinyint`: 8 bits
    TinyInt,
    /// `smallint`: 16 bits
    SmallInt,
    /// `int`, `integer`: 32 bits
    Int,
    /// `bigint`: 64 bits
    BigInt,
    /// `float`: 32 bits
    Float,
    /// `double`: 64 bits
    Double,
    /// `decimal(precision,scale)`: 1 to 38 digits, of which `scale` are behind the point; `decimal` is `decimal(10,0)`
    Decimal(u8, u8),
    /// `string`
    String,
    /// `varchar(length)`: 1 to 65,535 characters
    Varchar(u32),
    /// `char(length)`: 1 to 255 characters
    Char(u32),
    /// `binary`
    Binary,
    /// `date`
    Date,
    /// `timestamp`
    Timestamp,
    /// `array<item>`
    Array(Box<HiveType>),
    /// `map<key,value>`: the key is a primitive type
    Map(Box<HiveType>, Box<HiveType>),
    /// `struct<name:type,…>`
    Struct(Vec<(String, HiveType)>),
}

/// The text is no type, or none that columns can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no type of a column: {why}")]
pub struct InvalidType {
    /// The text, cut.
    pub text: String,
    /// What is wrong.
    pub why: String,
}

impl HiveType {
    /// Whether it holds other types.
    pub fn is_nested(&self) -> bool {
        matches!(self, HiveType::Array(_) | HiveType::Map(..) | HiveType::Struct(_))
    }

    /// How many columns of a file it needs, itself among them.
    pub fn width(&self) -> usize {
        match self {
            HiveType::Array(item) => 1 + item.width(),
            HiveType::Map(key, value) => 1 + key.width() + value.width(),
            HiveType::Struct(fields) => 1 + fields.iter().map(|(_, field)| field.width()).sum::<usize>(),
            _ => 1,
        }
    }
}

impl FromStr for HiveType {
    type Err = InvalidType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| InvalidType {
            text: text.chars().take(80).collect(),
            why,
        };
        if text.len() > TYPE_CHARACTERS_MAX {
            return Err(wrong(format!("it has more than {TYPE_CHARACTERS_MAX} characters")));
        }
        let mut parser = Parser { rest: text.trim() };
        let parsed = parser.parse(0).map_err(wrong)?;
        match parser.rest.trim() {
            "" => Ok(parsed),
            rest => Err(wrong(format!(
                "what is {:?}?",
                rest.chars().take(20).collect::<String>()
            ))),
        }
    }
}

impl TryFrom<String> for HiveType {
    type Error = InvalidType;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HiveType> for String {
    fn from(hive: HiveType) -> Self {
        hive.to_string()
    }
}

impl fmt::Display for HiveType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HiveType::Boolean => f.write_str("boolean"),
            HiveType::TinyInt => f.write_str("tinyint"),
            HiveType::SmallInt => f.write_str("smallint"),
            HiveType::Int => f.write_str("int"),
            HiveType::BigInt => f.write_str("bigint"),
            HiveType::Float => f.write_str("float"),
            HiveType::Double => f.write_str("double"),
            HiveType::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            HiveType::String => f.write_str("string"),
            HiveType::Varchar(length) => write!(f, "varchar({length})"),
            HiveType::Char(length) => write!(f, "char({length})"),
            HiveType::Binary => f.write_str("binary"),
            HiveType::Date => f.write_str("date"),
            HiveType::Timestamp => f.write_str("timestamp"),
            HiveType::Array(item) => write!(f, "array<{item}>"),
            HiveType::Map(key, value) => write!(f, "map<{key},{value}>"),
            HiveType::Struct(fields) => {
                f.write_str("struct<")?;
                for (place, (name, field)) in fields.iter().enumerate() {
                    write!(f, "{}{name}:{field}", if place == 0 { "" } else { "," })?;
                }
                f.write_str(">")
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn parse(&mut self, depth: usize) -> Result<HiveType, String> {
        if depth > TYPE_DEPTH_MAX {
            return Err(format!("it is nested more than {TYPE_DEPTH_MAX} deep"));
        }
        let name = self
            .word(|c| c.is_ascii_alphanumeric() || c == '_')
            .to_ascii_lowercase();
        Ok(match name.as_str() {
            "boolean" => HiveType::Boolean,
            "tinyint" => HiveType::TinyInt,
            "smallint" => HiveType::SmallInt,
            "int" | "integer" => HiveType::Int,
            "bigint" => HiveType::BigInt,
            "float" => HiveType::Float,
            "double" => HiveType::Double,
            "string" => HiveType::String,
            "binary" => HiveType::Binary,
            "date" => HiveType::Date,
            "timestamp" => HiveType::Timestamp,
            "decimal" => self.decimal()?,
            "varchar" => HiveType::Varchar(self.length(65_535)?),
            "char" => HiveType::Char(self.length(255)?),
            "array" => {
                self.expect('<')?;
                let item = self.parse(depth + 1)?;
                self.expect('>')?;
                HiveType::Array(Box::new(item))
            }
            "map" => {
                self.expect('<')?;
                let key = self.parse(depth + 1)?;
                if key.is_nested() {
                    return Err("the key of a map must be a primitive type".to_owned());
                }
                self.expect(',')?;
                let value = self.parse(depth + 1)?;
                self.expect('>')?;
                HiveType::Map(Box::new(key), Box::new(value))
            }
            "struct" => self.fields(depth)?,
            "uniontype" => return Err("unions are not carried out".to_owned()),
            "" => return Err("a type is missing".to_owned()),
            other => return Err(format!("there is no type {other:?}")),
        })
    }

    fn fields(&mut self, depth: usize) -> Result<HiveType, String> {
        self.expect('<')?;
        let mut fields: Vec<(String, HiveType)> = Vec::new();
        loop {
            let name = self.word(|c| !matches!(c, ':' | ',' | '<' | '>')).trim().to_owned();
            if name.is_empty() {
                return Err("a field has no name".to_owned());
            }
            if fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                return Err(format!("two fields are named {name:?}"));
            }
            self.expect(':')?;
            let field = self.parse(depth + 1)?;
            fields.push((name, field));
            match self.take(',') {
                true => {}
                false => break,
            }
        }
        self.expect('>')?;
        Ok(HiveType::Struct(fields))
    }

    fn decimal(&mut self) -> Result<HiveType, String> {
        let (mut precision, mut scale) = (10, 0);
        if self.take('(') {
            precision = self.number()?;
            if self.take(',') {
                scale = self.number()?;
            }
            self.expect(')')?;
        }
        match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => Ok(HiveType::Decimal(precision, scale)),
            _ => Err("a decimal has 1 to 38 digits, and no more than all of them behind the point".to_owned()),
        }
    }

    fn length(&mut self, most: u32) -> Result<u32, String> {
        self.expect('(')?;
        let length = self.number()?;
        self.expect(')')?;
        match length {
            length if (1..=most).contains(&length) => Ok(length),
            _ => Err(format!("the length must be 1 to {most}")),
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        let digits = self.word(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| "a number is missing".to_owned())
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let text = self.rest.trim_start();
        let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        self.rest = rest;
        word
    }

    fn take(&mut self, mark: char) -> bool {
        match self.rest.trim_start().strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        match self.take(mark) {
            true => Ok(()),
            false => Err(format!("{mark:?} is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn types_are_read_as_glue_writes_them() {
        for (text, again) in [
            ("INT", "int"),
            ("integer", "int"),
            ("decimal", "decimal(10,0)"),
            ("decimal(5)", "decimal(5,0)"),
            ("decimal( 38 , 38 )", "decimal(38,38)"),
            ("varchar(7)", "varchar(7)"),
            ("map<string, array<int>>", "map<string,array<int>>"),
            (
                "struct< a : int , b c:struct<d:date>>",
                "struct<a:int,b c:struct<d:date>>",
            ),
        ] {
            let parsed: HiveType = text.parse().unwrap();
            assert_eq!(parsed.to_string(), again);
            assert_eq!(again.parse::<HiveType>().unwrap(), parsed);
        }
        assert_eq!(
            "struct<a:map<string,int>,b:array<date>>"
                .parse::<HiveType>()
                .unwrap()
                .width(),
            6
        );
    }

    #[test]
    fn what_is_no_type_is_refused_in_words() {
        let deep = format!("{}int{}", "array<".repeat(40), ">".repeat(40));
        for (text, word) in [
            ("", "missing"),
            ("text", "no type \"text\""),
            ("uniontype<int,string>", "union"),
            ("decimal(39,0)", "38"),
            ("decimal(4,5)", "point"),
            ("char(256)", "255"),
            ("array<int", "'>'"),
            ("array<int>>", "what is \">\""),
            ("map<array<int>,int>", "primitive"),
            ("struct<>", "name"),
            ("struct<a:int,A:int>", "two fields"),
            (&deep, "deep"),
        ] {
            let error = text.parse::<HiveType>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_more_than_be_refused(text in "(array<|map<|struct<|a:|int|decimal|\\(|\\)|[0-9]{1,12}|,|>|\\PC){0,24}") {
            if let Ok(parsed) = text.parse::<HiveType>() {
                prop_assert_eq!(parsed.to_string().parse::<HiveType>().unwrap(), parsed);
            }
        }
    }
}
