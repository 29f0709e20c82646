//! The sightglass program: configuration and the composition of the rooms.
fn main() {}
