//! What buckets refuse, and why there. Where AWS has a limit it is AWS's (S3 user guide: "Amazon S3 multipart upload
//! limits", "Naming Amazon S3 objects", "General purpose bucket naming rules", "Categorizing your objects using tags").

/// Bytes of a key in UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;

/// Objects, parts, uploads or buckets on one page of a listing, and keys in one call that deletes.
pub const LIST_MAX: usize = 1000;

/// Bytes of an object that is put in one call, of one part, and of a source that is copied in one call.
pub const PUT_BYTES_MAX: u64 = 5 << 30;

/// Bytes of an object made of parts.
pub const OBJECT_BYTES_MAX: u64 = 5 << 40;

/// Bytes of a part, but for the last.
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// Highest number of a part.
pub const PARTS_MAX: u16 = 10_000;

/// Bytes of user metadata, names and values together.
pub const METADATA_BYTES_MAX: usize = 2 << 10;

/// Bytes of the standard headers that are kept with an object. AWS counts them with the request's head (8 KiB).
pub const HEADERS_BYTES_MAX: usize = 6 << 10;

/// Tags of an object.
pub const OBJECT_TAGS_MAX: usize = 10;

/// Tags of a bucket.
pub const BUCKET_TAGS_MAX: usize = 50;

/// Characters of a tag's key.
pub const TAG_KEY_CHARS_MAX: usize = 128;

/// Characters of a tag's value.
pub const TAG_VALUE_CHARS_MAX: usize = 256;

/// Buckets of an account; AWS's quota since November 2024.
pub const BUCKETS_MAX: usize = 10_000;

/// Bytes of a body that are gathered before they are hashed and written. Ours: with the chunk that is being written it
/// bounds what an upload holds.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of a part of an object that a room of this server writes; its parts are hashed beside each other. Ours.
pub(crate) const ROOM_PART_BYTES: usize = 4 << 20;

/// Parts of such an object that are being hashed at a time. Ours.
pub(crate) const ROOM_PARTS_AT_ONCE: usize = 3;

/// Bytes after which what was written so far is sent to the device, beside the writing, so that the last sync is short.
/// Ours.
pub(crate) const SYNC_BYTES: u64 = 64 << 20;

/// Bytes read at a time. Ours.
pub(crate) const READ_BYTES: usize = 512 << 10;

/// How often a change is tried again when another one came between. Ours.
pub(crate) const RETRIES_MAX: usize = 100;

/// Names of files that the search for orphans holds at a time. Ours: 16 MiB.
pub(crate) const ORPHANS_AT_ONCE: usize = 500_000;

/// Deletions of one call that are under way at a time, so that they share syncs of the catalog. Ours.
pub(crate) const DELETES_AT_ONCE: usize = 64;
