//! How an item lies in the catalog: a version byte, then each attribute as its name and its value; a value is a byte for its type and
//! what belongs to it. Lengths are LEB128. JSON would need up to six times the bytes of a text, and more than a row may have.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::number::Number;
use crate::value::{Attr, Item};

const VERSION: u8 = 1;
/// Deeper than any item nests; what is beyond is damage.
const DEPTH_MAX: usize = 64;

/// A stored row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored item is not in its format")]
pub struct Damaged;

/// Writes an item.
pub fn encode(item: &Item) -> Vec<u8> {
    let mut out = vec![VERSION];
    write_item(&mut out, item);
    out
}

fn write_item(out: &mut Vec<u8>, item: &Item) {
    write_len(out, item.len());
    for (name, value) in item {
        write_bytes(out, name.as_bytes());
        write_value(out, value);
    }
}

fn write_len(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    let (negative, coefficient, exponent) = number.parts();
    out.push(u8::from(negative));
    out.extend_from_slice(&exponent.to_le_bytes());
    let bytes = coefficient.to_le_bytes();
    let used = 16 - coefficient.leading_zeros() as usize / 8;
    write_bytes(out, bytes.get(..used).unwrap_or(&bytes));
}

fn write_value(out: &mut Vec<u8>, value: &Attr) {
    match value {
        Attr::S(text) => {
            out.push(b'S');
            write_bytes(out, text.as_bytes());
        }
        Attr::N(number) => {
            out.push(b'N');
            write_number(out, number);
        }
        Attr::B(bytes) => {
            out.push(b'B');
            write_bytes(out, bytes);
        }
        Attr::Bool(flag) => out.push(if *flag { b'T' } else { b'F' }),
        Attr::Null => out.push(b'0'),
        Attr::L(items) => {
            out.push(b'L');
            write_len(out, items.len());
            items.iter().for_each(|item| write_value(out, item));
        }
        Attr::M(members) => {
            out.push(b'M');
            write_item(out, members);
        }
        Attr::Ss(set) => {
            out.push(b's');
            write_len(out, set.len());
            set.iter().for_each(|text| write_bytes(out, text.as_bytes()));
        }
        Attr::Ns(set) => {
            out.push(b'n');
            write_len(out, set.len());
            set.iter().for_each(|number| write_number(out, number));
        }
        Attr::Bs(set) => {
            out.push(b'b');
            write_len(out, set.len());
            set.iter().for_each(|bytes| write_bytes(out, bytes));
        }
    }
}

/// Reads an item.
pub fn decode(bytes: &[u8]) -> Result<Item, Damaged> {
    let mut reader = Reader { rest: bytes };
    if reader.byte()? != VERSION {
        return Err(Damaged);
    }
    let item = reader.item(0)?;
    match reader.rest.is_empty() {
        true => Ok(item),
        false => Err(Damaged),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.rest.split_first().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*first)
    }

    fn len(&mut self) -> Result<usize, Damaged> {
        let mut length = 0usize;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(length);
            }
        }
        Err(Damaged)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.len()?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, Damaged> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Damaged)
    }

    fn number(&mut self) -> Result<Number, Damaged> {
        let negative = self.byte()? == 1;
        let exponent = i16::from_le_bytes([self.byte()?, self.byte()?]);
        let mut bytes = [0; 16];
        let used = self.bytes()?;
        bytes.get_mut(..used.len()).ok_or(Damaged)?.copy_from_slice(used);
        Number::from_parts(negative, u128::from_le_bytes(bytes), exponent).ok_or(Damaged)
    }

    fn item(&mut self, depth: usize) -> Result<Item, Damaged> {
        let count = self.len()?;
        let mut item = Item::new();
        for _ in 0..count {
            let name = self.text()?;
            item.insert(name, self.value(depth + 1)?);
        }
        Ok(item)
    }

    fn set<T: Ord>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, Damaged>) -> Result<BTreeSet<T>, Damaged> {
        let count = self.len()?;
        let mut set = BTreeSet::new();
        for _ in 0..count {
            set.insert(read(self)?);
        }
        Ok(set)
    }

    fn value(&mut self, depth: usize) -> Result<Attr, Damaged> {
        if depth > DEPTH_MAX {
            return Err(Damaged);
        }
        Ok(match self.byte()? {
            b'S' => Attr::S(self.text()?),
            b'N' => Attr::N(self.number()?),
            b'B' => Attr::B(Bytes::copy_from_slice(self.bytes()?)),
            b'T' => Attr::Bool(true),
            b'F' => Attr::Bool(false),
            b'0' => Attr::Null,
            b'L' => {
                let count = self.len()?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Attr::L(items)
            }
            b'M' => Attr::M(self.item(depth)?),
            b's' => Attr::Ss(self.set(Self::text)?),
            b'n' => Attr::Ns(self.set(Self::number)?),
            b'b' => Attr::Bs(self.set(|reader| reader.bytes().map(Bytes::copy_from_slice))?),
            _ => return Err(Damaged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_comes_back_as_it_was_and_damage_is_found() {
        let n = |text: &str| text.parse::<Number>().unwrap();
        let mut item = Item::new();
        item.insert("s".to_owned(), Attr::S("é\u{1}".repeat(100)));
        item.insert("n".to_owned(), Attr::N(n("-99999999999999999999999999999999999999")));
        item.insert("z".to_owned(), Attr::N(Number::ZERO));
        item.insert("b".to_owned(), Attr::B(Bytes::from_static(&[0, 255])));
        item.insert(
            "t".to_owned(),
            Attr::L(vec![Attr::Bool(true), Attr::Bool(false), Attr::Null]),
        );
        item.insert("ss".to_owned(), Attr::Ss(["a".to_owned(), "b".to_owned()].into()));
        item.insert("ns".to_owned(), Attr::Ns([n("1"), n("1e-130")].into()));
        item.insert("bs".to_owned(), Attr::Bs([Bytes::from_static(b"x")].into()));
        item.insert("m".to_owned(), Attr::M(item.clone()));
        let bytes = encode(&item);
        assert_eq!(decode(&bytes), Ok(item));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(Damaged), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x41;
            // It may be another legal item; it must not panic or take memory without end.
            let _ = decode(&broken);
        }
    }
}
