//! The tags by which a producer asks for deliveries: noticed in passing at ingest, and read again from storage where they
//! are needed, so that nothing of them is kept twice.

use std::collections::VecDeque;

use matroska::{Event, Limits, Reader, Tag};
use parking_lot::Mutex;
use storage::{FragmentInfo, MediaStore, StreamId};

use super::Kind;
use crate::limits;

/// Asks for a notification (producer SDK: `putKinesisVideoEventMetadata`).
pub(crate) const NOTIFICATION: &str = "AWS_KINESISVIDEO_NOTIFICATION";

/// Asks for images.
pub(crate) const IMAGE_GENERATION: &str = "AWS_KINESISVIDEO_IMAGE_GENERATION";

/// Begins the keys of the images.
pub(crate) const IMAGE_PREFIX: &str = "AWS_KINESISVIDEO_IMAGE_PREFIX";

/// What a fragment's tags ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    notification: bool,
    images: bool,
}

impl Triggers {
    /// Takes a tag's name into account.
    pub fn see(&mut self, tag: &str) {
        self.notification |= tag == NOTIFICATION;
        self.images |= tag == IMAGE_GENERATION;
    }

    pub(crate) fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Notifications => self.notification,
            Kind::Images => self.images,
        }
    }
}

/// What the fragments stored last ask for, so that the others need not be read. A fragment that is not here is read.
#[derive(Debug, Default)]
pub(crate) struct RecentTriggers {
    by_position: Mutex<VecDeque<(u64, Triggers)>>,
}

impl RecentTriggers {
    /// Notes what a stored fragment asks for.
    pub fn note(&self, position: u64, triggers: Triggers) {
        let mut noted = self.by_position.lock();
        if noted.len() >= limits::RECENT_TRIGGERS {
            noted.pop_front();
        }
        noted.push_back((position, triggers));
    }

    /// What a fragment asks for, where it is known.
    pub fn get(&self, position: u64) -> Option<Triggers> {
        let noted = self.by_position.lock();
        let found = noted.iter().rev().find(|(at, _)| *at == position);
        found.map(|(_, triggers)| *triggers)
    }
}

/// The tags of a stored fragment: those after its header, as at ingest. The fragment is read in pieces and never held.
pub(crate) async fn read(
    store: &dyn MediaStore,
    stream: StreamId,
    info: &FragmentInfo,
) -> Result<Vec<Tag>, storage::Error> {
    let mut reader = Reader::new(Limits {
        header_section_bytes_max: limits::HEADER_BYTES as u64,
        header_element_bytes_max: limits::HEADER_BYTES as u64,
        ..Limits::default()
    });
    let mut tags = Vec::new();
    let mut at = 0;
    while at < info.size {
        // The header in pieces of its own, so that its tags can be told from the fragment's.
        let part_end = if at < info.header_len {
            info.header_len
        } else {
            info.size
        };
        let end = part_end.min(at.saturating_add(limits::READ_CHUNK_BYTES));
        let bytes = store.read(stream, info.number, at..end).await?;
        if bytes.is_empty() {
            break;
        }
        at = at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        reader.push(bytes);
        if !drain(&mut reader, at > info.header_len, &mut tags) {
            break;
        }
    }
    reader.finish();
    drain(&mut reader, true, &mut tags);
    Ok(tags)
}

/// False where the fragment cannot be read on; it was judged at ingest, so that this is damage.
fn drain(reader: &mut Reader, keep: bool, tags: &mut Vec<Tag>) -> bool {
    loop {
        match reader.next() {
            Ok(Some(Event::Tag(tag))) if keep && tags.len() < limits::FRAGMENT_TAGS => tags.push(tag),
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%error, "the tags of a stored fragment cannot be read");
                return false;
            }
        }
    }
}
