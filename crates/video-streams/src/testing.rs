//! What the unit tests of this crate share.

use storage::FragmentNumber;

/// A fragment number like the server's, with the given sequence.
pub fn number(sequence: u64) -> FragmentNumber {
    FragmentNumber::new(sequence, 1_795_347_223_436, 77)
}
