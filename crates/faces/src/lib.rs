//! Collections, similarity and the search index.
