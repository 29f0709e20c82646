//! The conditional writes by which workers agree, the same that the KCL makes, so that its workers and ours can share a
//! table. Pure: what must hold, and what then changes.

use std::collections::BTreeSet;

use super::lease::{Checkpoint, Lease, Pending};

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Not there.
    Absent,
    /// This.
    Is(String),
}

impl Expect {
    fn of(value: Option<&str>) -> Self {
        value.map_or(Expect::Absent, |text| Expect::Is(text.to_owned()))
    }

    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Expect::Absent => value.is_none(),
            Expect::Is(text) => value == Some(text),
        }
    }
}

/// What must hold of a row for a write to happen. A write never makes a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The lease's counter.
    pub counter: Option<u64>,
    /// The lease's owner.
    pub owner: Option<Expect>,
    /// Who has it until it is handed over.
    pub checkpoint_owner: Option<Expect>,
}

impl Condition {
    /// Whether a row meets it.
    #[must_use]
    pub fn holds(&self, lease: &Lease) -> bool {
        let expected = |expect: &Option<Expect>, value: Option<&str>| expect.as_ref().is_none_or(|e| e.holds(value));
        self.counter.is_none_or(|counter| counter == lease.counter)
            && expected(&self.owner, lease.owner.as_deref())
            && expected(&self.checkpoint_owner, lease.checkpoint_owner.as_deref())
    }
}

/// A change of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// It becomes this.
    Put(u64),
    /// It grows by one.
    Increment,
}

impl Number {
    fn apply(self, to: &mut u64) {
        match self {
            Number::Put(number) => *to = number,
            Number::Increment => *to += 1,
        }
    }
}

/// A change of something that may be absent.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<T> {
    /// It becomes this.
    Put(T),
    /// It goes.
    Delete,
}

impl<T: Clone> Field<T> {
    fn apply(&self, to: &mut Option<T>) {
        *to = match self {
            Field::Put(value) => Some(value.clone()),
            Field::Delete => None,
        };
    }
}

/// What a write changes; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The counter.
    pub counter: Option<Number>,
    /// The owner.
    pub owner: Option<Field<String>>,
    /// Who has it until it is handed over.
    pub checkpoint_owner: Option<Field<String>>,
    /// Changes of owner since the last checkpoint.
    pub owner_switches: Option<Number>,
    /// How far it is done.
    pub checkpoint: Option<Checkpoint>,
    /// The prepared checkpoint.
    pub pending: Option<Field<Pending>>,
    /// What flows through it.
    pub throughput_kbps: Option<f64>,
    /// The shards that came from it.
    pub children: Option<BTreeSet<String>>,
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, lease: &mut Lease) {
        if let Some(number) = self.counter {
            number.apply(&mut lease.counter);
        }
        if let Some(field) = &self.owner {
            field.apply(&mut lease.owner);
        }
        if let Some(field) = &self.checkpoint_owner {
            field.apply(&mut lease.checkpoint_owner);
        }
        if let Some(number) = self.owner_switches {
            number.apply(&mut lease.owner_switches);
        }
        if let Some(checkpoint) = &self.checkpoint {
            lease.checkpoint = checkpoint.clone();
        }
        if let Some(field) = &self.pending {
            field.apply(&mut lease.pending);
        }
        if let Some(throughput) = self.throughput_kbps {
            lease.throughput_kbps = Some(throughput);
        }
        if let Some(children) = &self.children {
            lease.children.clone_from(children);
        }
    }
}

/// One conditional write of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Which row.
    pub key: String,
    /// What must hold.
    pub condition: Condition,
    /// What changes.
    pub change: Change,
}

impl Lease {
    fn write(&self, condition: Condition, change: Change) -> Write {
        Write {
            key: self.key.clone(),
            condition,
            change,
        }
    }

    fn unchanged(&self) -> Condition {
        Condition {
            counter: Some(self.counter),
            ..Condition::default()
        }
    }

    fn owners_unchanged(&self) -> Condition {
        Condition {
            owner: Some(Expect::of(self.owner.as_deref())),
            checkpoint_owner: Some(Expect::of(self.checkpoint_owner.as_deref())),
            ..Condition::default()
        }
    }

    fn counted(&self) -> Option<Number> {
        Some(Number::Put(self.counter + 1))
    }

    /// The holder says that it lives. Refused when the lease was taken, or is to be handed over and the holder does not
    /// know it yet.
    #[must_use]
    pub fn renewal(&self, throughput_kbps: Option<f64>) -> Write {
        let mut condition = self.unchanged();
        if self.checkpoint_owner.is_none() {
            condition.checkpoint_owner = Some(Expect::Absent);
        }
        let change = Change {
            counter: self.counted(),
            throughput_kbps,
            ..Change::default()
        };
        self.write(condition, change)
    }

    /// Somebody takes a lease that nobody has, or whose holder is gone.
    #[must_use]
    pub fn take(&self, owner: &str) -> Write {
        let other = self.owner.as_deref().is_some_and(|old| old != owner);
        let handed = self.checkpoint_owner.is_some();
        let change = Change {
            counter: self.counted(),
            owner: Some(Field::Put(owner.to_owned())),
            checkpoint_owner: Some(Field::Delete),
            owner_switches: (other || handed).then_some(Number::Increment),
            ..Change::default()
        };
        self.write(self.unchanged(), change)
    }

    /// Somebody asks the holder to finish and hand the lease over. The counter stays, so that the holder's next renewal
    /// is what tells it.
    #[must_use]
    pub fn hand_off(&self, holder: &str, heir: &str) -> Write {
        let condition = Condition {
            owner: Some(Expect::Is(holder.to_owned())),
            checkpoint_owner: Some(Expect::Absent),
            ..Condition::default()
        };
        let change = Change {
            owner: Some(Field::Put(heir.to_owned())),
            checkpoint_owner: Some(Field::Put(holder.to_owned())),
            ..Change::default()
        };
        self.write(condition, change)
    }

    /// The holder lets the lease go: to the one that asked for it, or to nobody.
    #[must_use]
    pub fn release(&self) -> Write {
        let mut change = Change {
            counter: Some(Number::Increment),
            checkpoint_owner: Some(Field::Delete),
            ..Change::default()
        };
        if self.checkpoint_owner.is_some() {
            change.owner_switches = Some(Number::Increment);
        } else {
            change.owner = Some(Field::Delete);
        }
        self.write(self.owners_unchanged(), change)
    }

    /// The holder has come so far.
    #[must_use]
    pub fn checkpointed(&self, checkpoint: &Checkpoint) -> Write {
        self.checkpoint_write(checkpoint, Field::Delete)
    }

    /// The holder is about to come so far.
    #[must_use]
    pub fn prepared(&self, pending: Pending) -> Write {
        self.checkpoint_write(&self.checkpoint, Field::Put(pending))
    }

    fn checkpoint_write(&self, checkpoint: &Checkpoint, pending: Field<Pending>) -> Write {
        let change = Change {
            counter: self.counted(),
            owner_switches: Some(Number::Put(0)),
            checkpoint: Some(checkpoint.clone()),
            pending: Some(pending),
            ..Change::default()
        };
        self.write(self.unchanged(), change)
    }

    /// The shards that came from this one are known.
    #[must_use]
    pub fn parted(&self, children: BTreeSet<String>) -> Write {
        let change = Change {
            children: Some(children),
            ..Change::default()
        };
        self.write(Condition::default(), change)
    }
}
