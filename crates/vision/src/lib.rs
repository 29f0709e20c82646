//! The worker protocol, supervision of workers and scheduling of frames.
