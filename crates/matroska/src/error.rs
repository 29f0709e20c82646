//! What can be wrong with a stream, and where.

use crate::id::ElementId;

/// The byte and the element at which a stream stopped making sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}, {element}: {kind}")]
pub struct Error {
    /// Offset from the first pushed byte to the start of the element.
    pub offset: u64,
    /// The element, [`ElementId::NONE`] where an id could not be read.
    pub element: ElementId,
    /// What was wrong.
    pub kind: ErrorKind,
}

/// What was wrong with an element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stream does not begin with an EBML header.
    #[error("the stream does not begin with an EBML header")]
    NotEbml,
    /// The stream begins with what stands in the middle of one: a cluster, a block or tags.
    #[error("the stream begins in the middle of a segment, without its headers")]
    Headless,
    /// No id can begin with this byte, or the id is reserved.
    #[error("{0:#04x} begins no element id of up to 4 bytes")]
    InvalidId(u8),
    /// No size of up to 8 bytes begins with a zero byte.
    #[error("the size field is longer than 8 bytes")]
    InvalidSize,
    /// Only Segment, Cluster and Tags may leave their size open.
    #[error("an unknown size is not allowed here")]
    UnknownSize,
    /// The element reaches beyond the end of the element that holds it.
    #[error("its end at byte {end} lies beyond the end of its parent at byte {parent_end}")]
    BeyondParent {
        /// Where the element would end.
        end: u64,
        /// Where its parent ends.
        parent_end: u64,
    },
    /// The element is larger than the reader is allowed to hold.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// The declared size.
        size: u64,
        /// The limit that it broke.
        limit: u64,
    },
    /// A number has more than 8 bytes, or a float is not 0, 4 or 8 bytes long.
    #[error("{0} bytes are no length of a number")]
    InvalidNumber(u64),
    /// The element stands where it has no meaning.
    #[error("not expected here: {0}")]
    Unexpected(&'static str),
    /// A needed element is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The value contradicts the specification.
    #[error("{0}")]
    Malformed(&'static str),
    /// The input ended in the middle of the element.
    #[error("the input ends within the element")]
    Truncated,
}
