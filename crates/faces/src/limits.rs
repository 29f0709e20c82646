//! What this room refuses to exceed, each with its source.

use std::time::Duration;

/// Faces one collection may hold. AWS's quota is 20 million; here every vector is held in memory (512 bytes for SFace,
/// about 650 with its record), so the default is what a small server carries.
pub const FACES_PER_COLLECTION_MAX: usize = 1_000_000;

/// Faces one server may hold over all collections: about 1.3 GB of memory for 128-dimensional vectors.
pub const FACES_PER_STORE_MAX: usize = 2_000_000;

/// Collections one server may hold. Ours: a collection costs about a kilobyte of memory.
pub const COLLECTIONS_MAX: usize = 100_000;

/// Faces that one search returns at most, and that one listing or deletion names (service model: `MaxFaces`,
/// `PageSize` and `FaceIdList` end at 4096).
pub const FACES_PER_CALL_MAX: usize = 4096;

/// Faces added by one call (AWS indexes at most the 100 largest faces of an image).
pub const FACES_PER_IMAGE_MAX: usize = 100;

/// Components of a vector. The widest face embedding in use has 1024.
pub const DIMENSIONS_MAX: usize = 2048;

/// Mutations waiting for the connection's thread; more callers than this wait their turn.
pub const QUEUED_MUTATIONS_MAX: usize = 256;

/// Faces that one transaction deletes: its journal stays below a megabyte, the space that is kept for a full disk.
pub const FACES_PER_DELETION_STEP: usize = 64;

/// Faces that one user may have, and that one call associates or disassociates (AWS: 100).
pub const FACES_PER_USER_MAX: usize = 100;

/// Users that one server may hold over all collections. AWS allows 10 million in a collection; here a user with faces
/// costs some 700 bytes of memory.
pub const USERS_PER_STORE_MAX: usize = 2_000_000;

/// How long the answer to a call with a `ClientRequestToken` is given again. AWS names no time; SDKs repeat a call within
/// a minute.
pub const TOKEN_KEPT: Duration = Duration::from_secs(600);

/// Answers to tokens that one mutation forgets at most, of those that are too old.
pub const TOKENS_FORGOTTEN_PER_CALL: usize = 64;

/// Vectors of one collection up to which every one is compared in a search. Beyond it sketches of all are compared, and
/// the vectors of the closest sketches.
pub const EXACT_SEARCH_MAX: usize = 100_000;

/// Unknown faces of one collection; beyond it those go that were last seen the longest ago. As many as are searched
/// exactly.
pub const UNKNOWN_PER_COLLECTION_MAX: usize = EXACT_SEARCH_MAX;

/// Unknown faces of one server over all collections: about 500 MB of memory for 128-dimensional vectors. Beyond it none
/// is taken.
pub const UNKNOWN_PER_STORE_MAX: usize = 500_000;

/// Bytes of [`crate::UnknownFace::about`].
pub const ABOUT_BYTES_MAX: usize = 4096;
