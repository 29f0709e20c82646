//! The typed side of the wire: what the generated structures and enumerations have in common. The macros keep the
//! generated source short, so that hundreds of shapes compile in seconds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base::Timestamp;
use bytes::Bytes;

use crate::codec::Codec;
use crate::schema::{Kind, Schema};
use crate::value::Value;

/// A value did not have its schema's form although it was checked against it: an error of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value does not have the form of its shape")]
pub struct Mismatch;

/// A type that stands for a shape of a service model.
pub trait Shape: Sized {
    /// From a value that [`conform`](crate::conform::conform) returned.
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch>;

    /// Borrows the value for encoding.
    fn to_value(&self) -> Value<'_>;
}

/// A generated structure (or `()`, the input or output of an operation that has none).
pub trait Structure: Shape {
    /// Its members and their constraints.
    fn schema() -> &'static Schema;

    /// The events of an answer that is a row of them, as bytes.
    fn take_events(&mut self, _: Codec) -> Option<base::ByteStream> {
        None
    }
}

/// Hands out the members of a structure in the order of its schema.
#[derive(Debug)]
pub struct Fields<'a>(std::vec::IntoIter<Value<'a>>);

impl<'a> Fields<'a> {
    /// The members of `value`.
    pub fn new(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Fields(members) => Ok(Fields(members.into_iter())),
            _ => Err(Mismatch),
        }
    }

    /// The next member.
    pub fn take<T: Shape>(&mut self) -> Result<T, Mismatch> {
        T::from_value(self.0.next().unwrap_or(Value::Null))
    }
}

impl Shape for () {
    fn from_value(_: Value<'_>) -> Result<Self, Mismatch> {
        Ok(())
    }

    fn to_value(&self) -> Value<'_> {
        Value::Null
    }
}

impl Structure for () {
    fn schema() -> &'static Schema {
        static NOTHING: Schema = Schema::structure("Nothing", &[]);
        &NOTHING
    }
}

impl<T: Shape> Shape for Option<T> {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }

    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Shape::to_value)
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::List(items) => items.into_iter().map(T::from_value).collect(),
            _ => Err(Mismatch),
        }
    }

    fn to_value(&self) -> Value<'_> {
        Value::List(self.iter().map(Shape::to_value).collect())
    }
}

impl<T: Shape> Shape for BTreeMap<String, T> {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        let Value::Map(entries) = value else {
            return Err(Mismatch);
        };
        let entry = |(key, value): (Cow<'_, str>, _)| Ok((key.into_owned(), T::from_value(value)?));
        entries.into_iter().map(entry).collect()
    }

    fn to_value(&self) -> Value<'_> {
        let entry = |(key, value)| (Cow::Borrowed(String::as_str(key)), T::to_value(value));
        Value::Map(self.iter().map(entry).collect())
    }
}

impl Shape for String {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            _ => Err(Mismatch),
        }
    }

    fn to_value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl Shape for i32 {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Int(number) => i32::try_from(number).map_err(|_| Mismatch),
            _ => Err(Mismatch),
        }
    }

    fn to_value(&self) -> Value<'_> {
        Value::Int(i64::from(*self))
    }
}

/// The shapes whose value is one variant's content.
macro_rules! scalar {
    ($type:ty, $variant:ident) => {
        impl Shape for $type {
            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                match value {
                    Value::$variant(inner) => Ok(inner),
                    _ => Err(Mismatch),
                }
            }

            fn to_value(&self) -> Value<'_> {
                Value::$variant(self.clone())
            }
        }
    };
}

scalar!(i64, Int);
scalar!(f64, Double);
scalar!(f32, Single);
scalar!(bool, Bool);
scalar!(Timestamp, Time);
scalar!(Bytes, Blob);

/// Declares a structure of a service model: its type, its codec, and a `Debug` that shows neither blobs nor secrets.
macro_rules! structure {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl $crate::shape::Shape for $name {
            #[allow(unused_mut, unused_variables)]
            fn from_value(value: $crate::value::Value<'_>) -> Result<Self, $crate::shape::Mismatch> {
                let mut fields = $crate::shape::Fields::new(value)?;
                Ok($name { $($field: fields.take()?,)* })
            }

            fn to_value(&self) -> $crate::value::Value<'_> {
                $crate::value::Value::Fields(vec![$($crate::shape::Shape::to_value(&self.$field),)*])
            }
        }

        impl $crate::shape::Structure for $name {
            fn schema() -> &'static $crate::schema::Schema {
                &schema::$name
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::shape::show(f, &$crate::shape::Shape::to_value(self), &schema::$name)
            }
        }
    };
}

/// Declares an enumeration of a service model.
macro_rules! enumeration {
    ($name:ident { $($variant:ident = $text:literal,)* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            /// Every value, in the model's order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value's name in the model.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::shape::Mismatch;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err($crate::shape::Mismatch),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::shape::Shape for $name {
            fn from_value(value: $crate::value::Value<'_>) -> Result<Self, $crate::shape::Mismatch> {
                match value {
                    $crate::value::Value::Text(text) => text.parse(),
                    _ => Err($crate::shape::Mismatch),
                }
            }

            fn to_value(&self) -> $crate::value::Value<'_> {
                $crate::value::Value::Text(self.as_str().into())
            }
        }
    };
}

/// Declares the marker type of an operation.
macro_rules! operation {
    ($name:ident, $service:literal, $input:ty, $output:ty, $info:expr) => {
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl base::Operation for $name {
            const SERVICE: &'static str = $service;
            const NAME: &'static str = stringify!($name);
            type Input = $input;
            type Output = $output;
        }

        impl $crate::operation::WireOperation for $name {
            const INFO: &'static $crate::operation::OperationInfo = $info;
        }
    };
}

pub(crate) use {enumeration, operation, structure};

/// Writes a value for the log: blobs as their length, sensitive text as `***`, long text shortened.
pub fn show(f: &mut fmt::Formatter<'_>, value: &Value<'_>, schema: &'static Schema) -> fmt::Result {
    const TEXT_CHARS_MAX: usize = 200;
    if schema.sensitive && *value != Value::Null {
        return f.write_str("***");
    }
    match (value, &schema.kind) {
        (Value::Fields(values), Kind::Structure(members)) => {
            let mut shown = f.debug_struct(schema.name);
            for (value, member) in values.iter().zip(members.iter()).filter(|(v, _)| **v != Value::Null) {
                shown.field(member.name, &Shown(value, member.schema));
            }
            shown.finish()
        }
        (Value::List(items), Kind::List { element, .. }) => f
            .debug_list()
            .entries(items.iter().map(|item| Shown(item, element)))
            .finish(),
        (Value::Map(entries), Kind::Map { value: inner, .. }) => f
            .debug_map()
            .entries(entries.iter().map(|(k, v)| (k, Shown(v, inner))))
            .finish(),
        (Value::Blob(bytes), _) => write!(f, "<{} bytes>", bytes.len()),
        (Value::Text(text), _) if text.chars().nth(TEXT_CHARS_MAX).is_some() => {
            write!(f, "{:?}...", text.chars().take(TEXT_CHARS_MAX).collect::<String>())
        }
        (Value::Text(text), _) => write!(f, "{text:?}"),
        (Value::Int(number), _) => write!(f, "{number}"),
        (Value::Double(number), _) => write!(f, "{number}"),
        (Value::Single(number), _) => write!(f, "{number}"),
        (Value::Bool(flag), _) => write!(f, "{flag}"),
        (Value::Time(time), _) => write!(f, "{time}"),
        (other, _) => f.write_str(other.kind()),
    }
}

struct Shown<'v, 'a>(&'v Value<'a>, &'static Schema);

impl fmt::Debug for Shown<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, self.1)
    }
}
