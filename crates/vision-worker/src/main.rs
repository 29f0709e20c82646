//! Decode, detect, track, align and embed, behind a locked door.
fn main() {}
