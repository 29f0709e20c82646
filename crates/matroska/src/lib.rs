//! Streaming Matroska reader and writer, sans-I/O.
