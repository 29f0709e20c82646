//! The logs, the catalog and fsck.
