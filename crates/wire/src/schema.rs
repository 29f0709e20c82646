//! The models' shapes as static data: what a member is called, what it may hold, and whether it must be there. One
//! interpreter ([`conform`](crate::conform::conform)) checks every request against them.

use std::sync::OnceLock;

use regex_lite::Regex;

/// One shape of a service model.
#[derive(Debug)]
pub struct Schema {
    /// The shape's name in the model.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The model forbids to show its value in logs and messages.
    pub sensitive: bool,
}

/// What a shape holds, with its constraints.
#[derive(Debug)]
pub enum Kind {
    /// Named members.
    Structure(&'static [Member]),
    /// Elements of one shape.
    List {
        /// The shape of the elements.
        element: &'static Schema,
        /// Bounds of their number.
        length: Length,
    },
    /// Text keys to values of one shape.
    Map {
        /// The shape of the keys.
        key: &'static Schema,
        /// The shape of the values.
        value: &'static Schema,
        /// Bounds of their number.
        length: Length,
    },
    /// Text.
    Text {
        /// Bounds of the number of characters.
        length: Length,
        /// The whole text must match it.
        pattern: Option<&'static Pattern>,
        /// The legal values; empty where any text is legal.
        values: &'static [&'static str],
    },
    /// A 32-bit whole number within the bounds.
    Integer(i64, i64),
    /// A 64-bit whole number within the bounds.
    Long(i64, i64),
    /// A single-precision number within the bounds.
    Float(f64, f64),
    /// A double-precision number within the bounds.
    Double(f64, f64),
    /// True or false.
    Boolean,
    /// Bytes.
    Blob(Length),
    /// A point in time.
    Timestamp,
}

/// Bounds of a length, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// At least so many.
    pub min: u64,
    /// At most so many.
    pub max: u64,
}

/// No bounds.
pub const ANY: Length = Length { min: 0, max: u64::MAX };

/// Bounds from `min` to `max`.
pub const fn length(min: u64, max: u64) -> Length {
    Length { min, max }
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it holds.
    pub schema: &'static Schema,
    /// A request without it is refused.
    pub required: bool,
    /// The header that carries it, in lower case; `None` for the body.
    pub header: Option<&'static str>,
}

/// A member that may be absent.
pub const fn optional(name: &'static str, schema: &'static Schema) -> Member {
    Member {
        name,
        schema,
        required: false,
        header: None,
    }
}

/// A member that must be there.
pub const fn required(name: &'static str, schema: &'static Schema) -> Member {
    Member {
        name,
        schema,
        required: true,
        header: None,
    }
}

impl Member {
    /// The same member, carried by a header.
    pub const fn in_header(self, header: &'static str) -> Member {
        Member {
            header: Some(header),
            ..self
        }
    }
}

/// A regular expression of the model; the whole text must match. Compiled at the first use.
#[derive(Debug)]
pub struct Pattern {
    /// The expression as the model writes it, quoted in messages.
    pub text: &'static str,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    /// `None` inside: it does not compile, which the generator rules out.
    Regex(OnceLock<Option<Regex>>),
    Custom(fn(&str) -> bool),
}

impl Pattern {
    /// An expression that the regular expression engine understands.
    pub const fn regex(text: &'static str) -> Self {
        Pattern {
            text,
            matcher: Matcher::Regex(OnceLock::new()),
        }
    }

    /// An expression that needs look-ahead or Unicode classes, matched by hand-written code.
    pub const fn custom(text: &'static str, matches: fn(&str) -> bool) -> Self {
        Pattern {
            text,
            matcher: Matcher::Custom(matches),
        }
    }

    /// True when all of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        match &self.matcher {
            Matcher::Custom(matches) => matches(value),
            Matcher::Regex(cell) => cell
                .get_or_init(|| Regex::new(&format!("^(?:{})$", self.text)).ok())
                .as_ref()
                .is_some_and(|regex| regex.is_match(value)),
        }
    }
}

impl Schema {
    /// A structure.
    pub const fn structure(name: &'static str, members: &'static [Member]) -> Self {
        Schema::new(name, Kind::Structure(members))
    }

    /// A list.
    pub const fn list(name: &'static str, element: &'static Schema, length: Length) -> Self {
        Schema::new(name, Kind::List { element, length })
    }

    /// A map.
    pub const fn map(name: &'static str, key: &'static Schema, value: &'static Schema, length: Length) -> Self {
        Schema::new(name, Kind::Map { key, value, length })
    }

    /// Text within bounds.
    pub const fn text(name: &'static str, length: Length) -> Self {
        Schema::new(
            name,
            Kind::Text {
                length,
                pattern: None,
                values: &[],
            },
        )
    }

    /// Text within bounds that matches a pattern.
    pub const fn pattern(name: &'static str, length: Length, pattern: &'static Pattern) -> Self {
        Schema::new(
            name,
            Kind::Text {
                length,
                pattern: Some(pattern),
                values: &[],
            },
        )
    }

    /// One of a set of texts.
    pub const fn enumeration(name: &'static str, values: &'static [&'static str]) -> Self {
        Schema::new(
            name,
            Kind::Text {
                length: ANY,
                pattern: None,
                values,
            },
        )
    }

    /// Any other kind.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Schema {
            name,
            kind,
            sensitive: false,
        }
    }

    /// The same shape, whose value is never shown.
    pub const fn sensitive(self) -> Self {
        Schema {
            name: self.name,
            kind: self.kind,
            sensitive: true,
        }
    }

    /// The members of a structure; empty for anything else.
    pub fn members(&self) -> &'static [Member] {
        match self.kind {
            Kind::Structure(members) => members,
            _ => &[],
        }
    }
}
