//! The channels of Kinesis Data Streams: what reads a data stream and delivers it by the same engine as a delivery stream.
