//! Kinesis Video Streams.
