//! Many user records in one stream record, in the format of the Kinesis Producer Library: four magic bytes, a protobuf
//! message, and the MD5 of that message. Sans-I/O, both ways.
//!
//! The message (field numbers in brackets) is a table of partition keys \[1\], a table of explicit hash keys \[2\] and the
//! records \[3\]; a record names its partition key \[1\] and explicit hash key \[2\] by their places in the tables, and has
//! data \[3\] and tags \[4\], which nothing uses. What does not begin with the magic bytes, has another checksum, or breaks
//! the format anywhere, is no aggregate: it is one user record as it stands, as the KCL has it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use md5::{Digest, Md5};

mod hash_key;

pub use hash_key::{HashKey, InvalidHashKey};

/// How an aggregate begins.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Bytes of the checksum at an aggregate's end.
const DIGEST_BYTES: usize = 16;

/// Magic bytes and checksum.
const FRAME_BYTES: usize = MAGIC.len() + DIGEST_BYTES;

/// A record as the program that made it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Chooses the shard unless there is an explicit hash key; 1 to 256 characters.
    pub partition_key: Arc<str>,
    /// Chooses the shard.
    pub explicit_hash_key: Option<HashKey>,
    /// The payload.
    pub data: Bytes,
}

impl UserRecord {
    /// A record that its partition key leads to its shard.
    pub fn new(partition_key: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Self {
        UserRecord {
            partition_key: partition_key.into(),
            explicit_hash_key: None,
            data: data.into(),
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash_key
            .unwrap_or_else(|| HashKey::of(&self.partition_key))
    }
}

/// Packs user records into one.
///
/// All of them go to one shard, that of the first, whatever their own keys say: a consumer drops those whose hash key is
/// not of that shard (they are taken for such as were sent again elsewhere), so pack only what belongs together.
#[derive(Debug, Default)]
pub struct Aggregator {
    first: Option<(Arc<str>, HashKey)>,
    partition_keys: HashMap<Arc<str>, u64>,
    hash_keys: HashMap<HashKey, u64>,
    tables: BytesMut,
    records: BytesMut,
    count: usize,
}

impl Aggregator {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the aggregate would count against the service's limits now: data and its partition key.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let key = self.first.as_ref().map_or(0, |(key, _)| key.len());
        FRAME_BYTES + self.tables.len() + self.records.len() + key
    }

    /// The most that [`bytes`](Self::bytes) grows by with this record.
    #[must_use]
    pub fn growth(&self, record: &UserRecord) -> usize {
        // Two tables' entries with their tags and lengths, and a record with two places of at most ten bytes each.
        const OVERHEAD: usize = 64;
        2 * record.partition_key.len() + 40 + record.data.len() + OVERHEAD
    }

    /// Adds a record.
    pub fn push(&mut self, record: &UserRecord) {
        if self.first.is_none() {
            self.first = Some((Arc::clone(&record.partition_key), record.hash_key()));
        }
        let next = self.partition_keys.len() as u64;
        let partition_key = match self.partition_keys.get(&record.partition_key) {
            Some(place) => *place,
            None => {
                put_bytes(&mut self.tables, 1, record.partition_key.as_bytes());
                self.partition_keys.insert(Arc::clone(&record.partition_key), next);
                next
            }
        };
        let next = self.hash_keys.len() as u64;
        let hash_key = record.explicit_hash_key.map(|key| {
            *self.hash_keys.entry(key).or_insert_with(|| {
                put_bytes(&mut self.tables, 2, key.to_string().as_bytes());
                next
            })
        });
        let mut message = BytesMut::with_capacity(record.data.len() + 32);
        put_number(&mut message, 1, partition_key);
        if let Some(place) = hash_key {
            put_number(&mut message, 2, place);
        }
        put_bytes(&mut message, 3, &record.data);
        put_bytes(&mut self.records, 3, &message);
        self.count += 1;
    }

    /// The aggregate, with the first record's partition key and the hash key that leads to the first record's shard.
    /// `None` if there is no record. The aggregator is empty afterwards.
    pub fn finish(&mut self) -> Option<UserRecord> {
        let Aggregator {
            first, tables, records, ..
        } = std::mem::take(self);
        let (partition_key, hash_key) = first?;
        let mut data = BytesMut::with_capacity(FRAME_BYTES + tables.len() + records.len());
        data.put_slice(&MAGIC);
        data.put_slice(&tables);
        data.put_slice(&records);
        let digest = Md5::digest(data.get(MAGIC.len()..).unwrap_or_default());
        data.put_slice(&digest);
        Some(UserRecord {
            partition_key,
            explicit_hash_key: Some(hash_key),
            data: data.freeze(),
        })
    }
}

/// The user records of an aggregate, in their order; a record's place is its sub-sequence number. `None` if the data is no
/// aggregate. The payloads share the memory of `data`.
#[must_use]
pub fn deaggregate(data: &Bytes) -> Option<Vec<UserRecord>> {
    if !data.starts_with(&MAGIC) || data.len() <= FRAME_BYTES {
        return None;
    }
    let message = data.slice(MAGIC.len()..data.len() - DIGEST_BYTES);
    let digest = data.get(data.len() - DIGEST_BYTES..)?;
    if Md5::digest(&message).as_slice() != digest {
        return None;
    }
    parse(&message)
}

/// A record's fields before its places are looked up: tables may stand after the records that name them.
struct Placed {
    partition_key: u64,
    hash_key: Option<u64>,
    data: Bytes,
}

fn parse(message: &Bytes) -> Option<Vec<UserRecord>> {
    let mut partition_keys: Vec<Arc<str>> = Vec::new();
    let mut hash_keys: Vec<HashKey> = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut fields = Fields { message, at: 0 };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(text)) => partition_keys.push(std::str::from_utf8(&text).ok()?.into()),
            (2, Value::Bytes(text)) => hash_keys.push(std::str::from_utf8(&text).ok()?.parse().ok()?),
            (3, Value::Bytes(record)) => placed.push(parse_record(&record)?),
            (1..=3, Value::Number(_)) => return None,
            _ => {}
        }
    }
    let place = |place: u64| usize::try_from(place).ok();
    placed
        .into_iter()
        .map(|record| {
            Some(UserRecord {
                partition_key: Arc::clone(partition_keys.get(place(record.partition_key)?)?),
                explicit_hash_key: match record.hash_key {
                    Some(key) => Some(*hash_keys.get(place(key)?)?),
                    None => None,
                },
                data: record.data,
            })
        })
        .collect()
}

fn parse_record(message: &Bytes) -> Option<Placed> {
    let (mut partition_key, mut hash_key, mut data) = (None, None, None);
    let mut fields = Fields { message, at: 0 };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(place)) => partition_key = Some(place),
            (2, Value::Number(place)) => hash_key = Some(place),
            (3, Value::Bytes(bytes)) => data = Some(bytes),
            (1 | 2, Value::Bytes(_)) | (3, Value::Number(_)) => return None,
            _ => {}
        }
    }
    Some(Placed {
        partition_key: partition_key?,
        hash_key,
        data: data?,
    })
}

enum Value {
    Number(u64),
    Bytes(Bytes),
}

/// The fields of a protobuf message.
struct Fields<'a> {
    message: &'a Bytes,
    at: usize,
}

impl Fields<'_> {
    /// The next field; `Some(None)` at the end, `None` where the message is malformed.
    #[allow(
        clippy::option_option,
        reason = "malformed and ended are two things, and `?` serves both"
    )]
    fn next(&mut self) -> Option<Option<(u64, Value)>> {
        if self.at == self.message.len() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.fixed(4)?,
            _ => return None,
        };
        match tag >> 3 {
            0 => None,
            field => Some(Some((field, value))),
        }
    }

    /// A field of fixed width, which the format does not have: skipped where it is unknown, wrong where it is not.
    fn fixed(&mut self, bytes: usize) -> Option<Value> {
        self.take(bytes).map(|_| Value::Number(u64::MAX))
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.message.len())?;
        let bytes = self.message.slice(self.at..end);
        self.at = end;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.at)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put_number(out: &mut BytesMut, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

fn put_bytes(out: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Bytes {
        let mut data = BytesMut::from(&MAGIC[..]);
        data.put_slice(message);
        data.put_slice(&Md5::digest(message));
        data.freeze()
    }

    fn some_records() -> Vec<UserRecord> {
        (0..500_u32)
            .map(|n| UserRecord {
                partition_key: format!("door-{}", n % 7).into(),
                explicit_hash_key: (n % 3 == 0).then(|| HashKey(u128::MAX / 5 * u128::from(n % 5))),
                data: vec![n as u8; n as usize].into(),
            })
            .collect()
    }

    #[test]
    fn what_is_packed_comes_out_as_it_went_in() {
        let mut aggregator = Aggregator::new();
        assert!(aggregator.finish().is_none());
        let records = some_records();
        for record in &records {
            let most = aggregator.bytes() + aggregator.growth(record);
            aggregator.push(record);
            assert!(aggregator.bytes() <= most);
        }
        let (bytes, count) = (aggregator.bytes(), aggregator.len());
        let packed = aggregator.finish().unwrap();
        assert_eq!(packed.data.len() + packed.partition_key.len(), bytes);
        assert_eq!((count, aggregator.len()), (500, 0));
        assert_eq!(&*packed.partition_key, "door-0");
        assert_eq!(packed.hash_key(), records[0].hash_key());
        assert_eq!(deaggregate(&packed.data).unwrap(), records);
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut aggregator = Aggregator::new();
        aggregator.push(&UserRecord::new("k", &b"one"[..]));
        let keyed = UserRecord {
            explicit_hash_key: Some(HashKey(7)),
            ..UserRecord::new("k", &b"two"[..])
        };
        aggregator.push(&keyed);
        let message = b"\x0A\x01k\x12\x017\x1A\x07\x08\x00\x1A\x03one\x1A\x09\x08\x00\x10\x00\x1A\x03two";
        assert_eq!(aggregator.finish().unwrap().data, framed(message));
    }

    #[test]
    fn what_is_no_aggregate_is_a_record_as_it_stands() {
        let good = b"\x0A\x01k\x1A\x07\x08\x00\x1A\x03one";
        assert_eq!(deaggregate(&framed(good)).unwrap().len(), 1);
        let broken: [&[u8]; 12] = [
            b"\x0A\x01k\x1A\x07\x08\x01\x1A\x03one",          // a key beyond the table
            b"\x0A\x01k\x1A\x09\x08\x00\x10\x00\x1A\x03one",  // a hash key beyond the table
            b"\x0A\x01k\x12\x01x\x1A\x07\x08\x00\x1A\x03one", // a hash key that is no number
            b"\x0A\x01\xFF\x1A\x07\x08\x00\x1A\x03one",       // a key that is no text
            b"\x0A\x01k\x1A\x02\x08\x00",                     // no data
            b"\x0A\x01k\x1A\x05\x1A\x03one",                  // no key
            b"\x0A\x01k\x1A\x08\x08\x00\x1A\x03one",          // a length beyond the end
            b"\x0A\x01k\x1A\x07\x08\x00\x1A\x04one",
            b"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", // a number beyond 64 bits
            b"\x08\x01",                                     // a table that is a number
            b"\x00\x00",                                     // field 0
            b"\x0B",                                         // a group
        ];
        for message in broken {
            assert_eq!(deaggregate(&framed(message)), None, "{message:x?}");
        }
        let whole = framed(good);
        for end in 0..whole.len() {
            assert_eq!(deaggregate(&whole.slice(..end)), None);
        }
        for at in 0..whole.len() {
            let mut spoilt = whole.to_vec();
            spoilt[at] ^= 1;
            assert_eq!(deaggregate(&spoilt.into()), None, "byte {at}");
        }
    }

    #[test]
    fn no_message_however_spoilt_is_more_than_refused() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut aggregator = Aggregator::new();
        some_records()
            .iter()
            .take(30)
            .for_each(|record| aggregator.push(record));
        let whole = aggregator.finish().unwrap().data;
        let message = &whole[MAGIC.len()..whole.len() - DIGEST_BYTES];
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut spoilt = message.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..spoilt.len());
                match random.u8(..3) {
                    0 => spoilt[at] = random.u8(..),
                    1 => spoilt.truncate(at.max(1)),
                    _ => drop(spoilt.splice(at..at, [random.u8(..); 3])),
                }
            }
            match deaggregate(&framed(&spoilt)) {
                Some(records) => {
                    taken += 1;
                    assert!(records.iter().all(|record| record.data.len() < spoilt.len()));
                }
                None => refused += 1,
            }
        }
        assert!(taken > 100 && refused > 100, "{taken} {refused}");
    }

    #[test]
    fn unknown_fields_and_tables_behind_their_records_are_understood() {
        let message = b"\x1A\x0B\x08\x00\x1A\x03one\x22\x02\x0A\x00\x25abcd\x0A\x01k\x2A\x01z";
        let records = deaggregate(&framed(message)).unwrap();
        assert_eq!(records, [UserRecord::new("k", &b"one"[..])]);
    }
}
