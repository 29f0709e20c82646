//! What the reader holds back at most, and where each number comes from.

/// Limits of a [`Reader`](crate::Reader). Beyond one, the reader answers an error before it takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest EBML header, Info or Tracks element, in bytes. These are gathered whole before they are read.
    /// Default 4 MiB: three tracks with 1 MiB of codec private data each (the producer SDK's limit) and their names.
    pub header_element_bytes_max: u64,
    /// Largest SimpleTag (name, value and nested tags), in bytes. Default 64 KiB: the service allows a name of 128 bytes
    /// and a value of 256, muxers write lyrics and synopses into the header's tags.
    pub simple_tag_bytes_max: u64,
    /// Most bytes from the EBML header to the first Cluster. Default 8 MiB: a header is repeated before every fragment,
    /// and the largest one seen is 6 KB.
    pub header_section_bytes_max: u64,
    /// Most entries of one Tracks element. Default 128, far above the service's 3, so that the service can say which of
    /// its rules was broken.
    pub tracks_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_element_bytes_max: 4 << 20,
            simple_tag_bytes_max: 64 << 10,
            header_section_bytes_max: 8 << 20,
            tracks_max: 128,
        }
    }
}

/// Longest head of an element (id of 4, size of 8 bytes), RFC 8794 with Matroska's EBMLMaxIDLength and -SizeLength.
pub const ELEMENT_HEAD_BYTES_MAX: usize = 12;

/// Longest head of a block: an 8-byte track number, a 2-byte time and a byte of flags (RFC 9559 §10).
pub const BLOCK_HEAD_BYTES_MAX: usize = 11;

/// Pushed chunks that are kept apart while an element is gathered; beyond that, neighbours are merged so that a sender
/// of one-byte chunks cannot make the bookkeeping larger than the bytes.
pub const CHUNKS_KEPT_APART_MAX: usize = 32;
