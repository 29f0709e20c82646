//! What a queue knows of the records that it has handed out: pure, in memory, with an undo for what could not be written.
//!
//! A record of a shard is in one of four states. At or behind the shard's place: not delivered yet. Before it and in the
//! book: delivered, and from its `visible_ms` on to be delivered again, or, when that happened often enough, a dead letter.
//! Before it and not in the book: done.

use std::collections::{BTreeMap, BTreeSet};

use storage::{CatalogError, Change};

use crate::limits;
use crate::queues::rows::{self, CHUNK, Delivery, Loaded};

/// A record: its shard, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The shard's number.
    pub shard: u32,
    /// The record's index in the shard.
    pub index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delivery: Delivery,
    /// Its last delivery has run out, so it is a dead letter. Follows from the rest and the time; never written.
    ripe: bool,
}

impl Entry {
    fn is_dead(&self) -> bool {
        self.ripe || self.delivery.dead
    }
}

#[derive(Debug)]
enum Undo {
    Entry(Spot, Option<Entry>),
    Next(u32, Option<u64>),
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    queue: u64,
    start: BTreeMap<u32, u64>,
    next: BTreeMap<u32, u64>,
    open: BTreeMap<Spot, Entry>,
    /// The open records by the time at which they can be delivered again: those that live, and the dead letters.
    living: BTreeSet<(i64, Spot)>,
    dead: BTreeSet<(i64, Spot)>,
    max_receives: Option<u32>,
    undo: Vec<Undo>,
    dirty: BTreeSet<(u32, Option<u64>)>,
}

impl Book {
    /// The book as the catalog holds it.
    pub fn new(queue: u64, loaded: Loaded) -> Self {
        let mut book = Book {
            queue,
            start: loaded.start,
            next: loaded.next,
            open: BTreeMap::new(),
            living: BTreeSet::new(),
            dead: BTreeSet::new(),
            max_receives: None,
            undo: Vec::new(),
            dirty: BTreeSet::new(),
        };
        for (shard, index, delivery) in loaded.open {
            let ripe = false;
            book.place(Spot { shard, index }, Some(Entry { delivery, ripe }));
        }
        book
    }

    /// How often a record is delivered before it is a dead letter. What is not marked as one follows a change.
    pub fn set_max_receives(&mut self, max: Option<u32>) {
        if self.max_receives == max {
            return;
        }
        self.max_receives = max;
        let ripe: Vec<Spot> = self
            .open
            .iter()
            .filter(|(_, e)| e.ripe)
            .map(|(spot, _)| *spot)
            .collect();
        for spot in ripe {
            self.set_ripe(spot, false);
        }
    }

    /// Makes dead letters of the records whose last delivery has run out.
    pub fn ripen(&mut self, now_ms: i64) {
        let Some(max) = self.max_receives else { return };
        let over = |spot: &Spot| self.open.get(spot).is_some_and(|e| e.delivery.count >= max);
        let run_out = self.living.iter().take_while(|(at, _)| *at <= now_ms);
        let ripe: Vec<Spot> = run_out.map(|(_, spot)| *spot).filter(over).collect();
        for spot in ripe {
            self.set_ripe(spot, true);
        }
    }

    fn set_ripe(&mut self, spot: Spot, ripe: bool) {
        if let Some(entry) = self.open.get(&spot).copied() {
            self.place(spot, Some(Entry { ripe, ..entry }));
        }
    }

    /// Records that can be delivered again now, longest visible first: dead letters or those that live.
    pub fn visible(&self, dead: bool, now_ms: i64) -> impl Iterator<Item = Spot> + '_ {
        let set = if dead { &self.dead } else { &self.living };
        set.iter()
            .take_while(move |(at, _)| *at <= now_ms)
            .map(|(_, spot)| *spot)
    }

    /// The first time after `now_ms` at which something becomes visible.
    pub fn next_visible(&self, now_ms: i64) -> Option<i64> {
        let least = Spot { shard: 0, index: 0 };
        let from = (now_ms.saturating_add(1), least);
        let first = |set: &BTreeSet<(i64, Spot)>| set.range(from..).next().map(|(at, _)| *at);
        first(&self.living).into_iter().chain(first(&self.dead)).min()
    }

    /// A record that was delivered and is not done, and whether it is a dead letter.
    pub fn get(&self, spot: Spot) -> Option<(Delivery, bool)> {
        self.open.get(&spot).map(|e| (e.delivery, e.is_dead()))
    }

    /// Writes what holds of a record from now on; `None`: it is done.
    pub fn set(&mut self, spot: Spot, delivery: Option<Delivery>) {
        let ripe = false;
        let before = self.place(spot, delivery.map(|delivery| Entry { delivery, ripe }));
        self.undo.push(Undo::Entry(spot, before));
        self.dirty.insert((spot.shard, Some(spot.index / CHUNK)));
    }

    /// The number from which on a shard's records were not delivered yet.
    pub fn next(&self, shard: u32) -> u64 {
        let next = self.next.get(&shard).or_else(|| self.start.get(&shard));
        next.copied().unwrap_or(0)
    }

    /// Moves it forward.
    pub fn advance(&mut self, shard: u32, next: u64) {
        if next > self.next(shard) {
            let before = self.next.insert(shard, next);
            self.undo.push(Undo::Next(shard, before));
            self.dirty.insert((shard, None));
        }
    }

    /// How many more may be delivered.
    pub fn room(&self) -> usize {
        limits::QUEUE_OPEN_MAX.saturating_sub(self.open.len())
    }

    /// Shards of which the book knows more than where the queue began.
    pub fn shards(&self) -> Vec<u32> {
        let mut shards: BTreeSet<u32> = self.next.keys().copied().collect();
        shards.extend(self.open.keys().map(|spot| spot.shard));
        shards.into_iter().collect()
    }

    /// The first `most` open records of a shard below an index.
    pub fn below(&self, shard: u32, index: u64, most: usize) -> Vec<Spot> {
        let (first, end) = (Spot { shard, index: 0 }, Spot { shard, index });
        self.open.range(first..end).take(most).map(|(spot, _)| *spot).collect()
    }

    /// Forgets the place in a shard that the stream has forgotten.
    pub fn drop_shard(&mut self, shard: u32) {
        let before = self.next.remove(&shard);
        if before.is_some() {
            self.undo.push(Undo::Next(shard, before));
            self.dirty.insert((shard, None));
        }
    }

    /// How many values the changes since the last commit touch.
    pub fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// A point to come back to.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Takes back everything since a mark; since the last commit, with 0.
    pub fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some(Undo::Entry(spot, before)) => drop(self.place(spot, before)),
                Some(Undo::Next(shard, Some(before))) => drop(self.next.insert(shard, before)),
                Some(Undo::Next(shard, None)) => drop(self.next.remove(&shard)),
                None => break,
            }
        }
        if mark == 0 {
            self.dirty.clear();
        }
    }

    /// What was changed since the last commit.
    pub fn changes(&self) -> Result<Vec<Change>, CatalogError> {
        let change = |(shard, chunk): &(u32, Option<u64>)| match chunk {
            None => rows::head(self.queue, *shard, self.next.get(shard).copied()),
            Some(chunk) => {
                let spot = |index| Spot { shard: *shard, index };
                let first = chunk.saturating_mul(CHUNK);
                let range = self.open.range(spot(first)..spot(first.saturating_add(CHUNK)));
                rows::chunk(self.queue, *shard, *chunk, range.map(|(s, e)| (&s.index, &e.delivery)))
            }
        };
        self.dirty.iter().map(change).collect()
    }

    /// The changes are in the catalog.
    pub fn committed(&mut self) {
        self.undo.clear();
        self.dirty.clear();
    }

    /// Puts an entry in its place and gives what was there.
    fn place(&mut self, spot: Spot, entry: Option<Entry>) -> Option<Entry> {
        let before = match entry {
            Some(entry) => self.open.insert(spot, entry),
            None => self.open.remove(&spot),
        };
        if let Some(before) = &before {
            let set = if before.is_dead() {
                &mut self.dead
            } else {
                &mut self.living
            };
            set.remove(&(before.delivery.visible_ms, spot));
        }
        if let Some(entry) = &entry {
            let set = if entry.is_dead() {
                &mut self.dead
            } else {
                &mut self.living
            };
            set.insert((entry.delivery.visible_ms, spot));
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Spot = Spot { shard: 1, index: 70 };
    const B: Spot = Spot { shard: 2, index: 3 };

    fn delivery(visible_ms: i64, count: u32) -> Delivery {
        Delivery {
            first_ms: 1,
            visible_ms,
            count,
            generation: count,
            dead: false,
        }
    }

    fn book() -> Book {
        let start = BTreeMap::from([(2, 3)]);
        Book::new(
            9,
            Loaded {
                start,
                ..Loaded::default()
            },
        )
    }

    fn visible(book: &Book, dead: bool, now_ms: i64) -> Vec<Spot> {
        book.visible(dead, now_ms).collect()
    }

    #[test]
    fn a_record_is_delivered_again_when_its_time_is_over_and_dead_after_the_last_time() {
        let mut book = book();
        book.set_max_receives(Some(2));
        book.set(A, Some(delivery(100, 1)));
        book.set(B, Some(delivery(50, 2)));
        book.ripen(49);
        assert_eq!(visible(&book, false, 49), []);
        assert_eq!(book.next_visible(49), Some(50));
        book.ripen(100);
        assert_eq!(
            (visible(&book, false, 100), visible(&book, true, 100)),
            (vec![A], vec![B])
        );
        assert_eq!(book.get(B).map(|(_, dead)| dead), Some(true));
        book.set_max_receives(Some(3));
        book.ripen(100);
        assert_eq!(visible(&book, false, 100), [B, A], "the longest visible first");
        book.set_max_receives(None);
        book.set(B, None);
        assert_eq!((book.get(B), book.open.len()), (None, 1));
    }

    #[test]
    fn what_could_not_be_written_is_taken_back() {
        let mut book = book();
        assert_eq!((book.next(1), book.next(2)), (0, 3));
        book.advance(1, 71);
        book.set(A, Some(delivery(100, 1)));
        assert_eq!((book.dirty(), book.changes().unwrap().len()), (2, 2));
        book.committed();
        let mark = book.mark();
        book.set(A, Some(delivery(200, 2)));
        book.advance(2, 9);
        let inner = book.mark();
        book.set(A, None);
        book.roll_back(inner);
        assert_eq!(book.get(A).map(|(d, _)| d.count), Some(2));
        book.roll_back(mark);
        assert_eq!(book.get(A).map(|(d, _)| d.count), Some(1));
        assert_eq!((book.next(1), book.next(2), book.dirty()), (71, 3, 0));
        assert_eq!(visible(&book, false, 100), [A]);
    }

    #[tokio::test]
    async fn the_catalog_gives_back_what_was_written() {
        let catalog = storage::MemoryCatalog::new();
        let commit = async |changes| storage::Catalog::commit(&catalog, changes).await.unwrap();
        let mut book = book();
        commit(vec![rows::start(9, BTreeMap::from([(2, 3)])).unwrap()]).await;
        let dead = Delivery {
            dead: true,
            ..delivery(7, 4)
        };
        for index in 0..200 {
            book.set(Spot { shard: 1, index }, Some(delivery(index as i64, 1)));
        }
        book.set(B, Some(dead));
        book.advance(1, 200);
        commit(book.changes().unwrap()).await;
        book.committed();
        for index in 0..64 {
            book.set(Spot { shard: 1, index }, None);
        }
        commit(book.changes().unwrap()).await;
        let loaded = rows::load(&catalog, 9).await.unwrap();
        let again = Book::new(9, loaded);
        assert_eq!((again.next(1), again.next(2), again.open.len()), (200, 3, 137));
        assert_eq!(again.open, book.open);
        assert_eq!((again.dead.len(), again.living.len()), (1, 136));
        rows::delete(&catalog, 9).await.unwrap();
        assert_eq!(rows::load(&catalog, 9).await.unwrap().open, []);
    }
}
