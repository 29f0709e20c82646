//! What a session token says. It is all that there is of a session: the server keeps nothing of it that it could not
//! compute anew, so that a session outlives a restart. The token is sealed by the key ring, so that who holds it can
//! neither read nor change it, and it opens for its own stream alone, which is named by the number that is never reused.

use auth::{Form, KeyRing, SealError};
use base::Timestamp;
use storage::{StreamId, TimeAxis};

use crate::error::MediaError;

/// What sealed tokens of this kind are for.
const PURPOSE: &str = "playback";
/// Bytes of the fields below.
const BYTES: usize = 60;
/// First byte of the fields: their layout.
const LAYOUT: u8 = 1;

/// Whose player it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HLS with fragmented MP4.
    HlsMp4,
    /// HLS with MPEG-TS.
    HlsTs,
    /// DASH.
    Dash,
}

/// PlaybackMode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The newest fragments, and those that come.
    Live,
    /// From a time on, released as they last.
    LiveReplay,
    /// A range, whole.
    OnDemand,
}

/// DiscontinuityMode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discontinuities {
    /// Between any two fragments.
    Always,
    /// Only where the codec changes.
    Never,
    /// Where the codec changes and where the producer's time jumps.
    OnDiscontinuity,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The stream.
    pub stream: StreamId,
    /// Whose player it is for.
    pub protocol: Protocol,
    /// What it plays.
    pub mode: Mode,
    /// By which of its two times a fragment is chosen and shown.
    pub producer_time: bool,
    /// Where discontinuities are.
    pub discontinuities: Discontinuities,
    /// Whether fragments' times are shown.
    pub show_time: bool,
    /// Whether fragments' numbers are shown.
    pub show_number: bool,
    /// Most fragments in one playlist.
    pub fragments_max: u16,
    /// When it was made.
    pub created: Timestamp,
    /// Start of the first fragment that it may hold.
    pub start: Timestamp,
    /// Start of the last fragment that it may hold.
    pub end: Timestamp,
    /// The stream's commit position when it was made.
    pub position: u64,
    /// Commit position of its first fragment.
    pub first_position: u64,
    /// Longest fragment that is expected, seconds.
    pub target_s: u16,
    /// Longest part in a low-latency playlist, milliseconds; 0 for none.
    pub part_ms: u16,
    /// Fragments that a live session begins with.
    pub initial: u16,
}

impl Session {
    /// By which time it goes.
    pub fn axis(&self) -> TimeAxis {
        match self.producer_time {
            true => TimeAxis::Producer,
            false => TimeAxis::Server,
        }
    }

    /// Whether fragments may be added to it after it was made.
    pub fn grows(&self) -> bool {
        self.mode != Mode::OnDemand
    }

    /// Seals it into the text of a URL.
    pub fn seal(&self, ring: &KeyRing, expires: Timestamp) -> Result<String, SealError> {
        ring.seal(PURPOSE, "", Some(expires), &self.bytes(), Form::Playback)
    }

    /// Opens a token.
    pub fn open(ring: &KeyRing, now: Timestamp, token: &str) -> Result<Self, MediaError> {
        let opened = ring.open(PURPOSE, "", now, token, Form::Playback);
        let bytes = opened.map_err(|error| match error {
            SealError::Malformed => MediaError::InvalidArgument("The SessionToken is malformed.".to_owned()),
            SealError::Expired => MediaError::NotAuthorized("The SessionToken has expired. Ask for a new session."),
            SealError::Forged | SealError::Unavailable => {
                MediaError::NotAuthorized("The SessionToken is not one that this server gave.")
            }
        })?;
        Session::parse(&bytes)
            .ok_or_else(|| MediaError::InvalidArgument("The SessionToken is of another version.".to_owned()))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        let protocol = match self.protocol {
            Protocol::HlsMp4 => 0_u8,
            Protocol::HlsTs => 1,
            Protocol::Dash => 2,
        };
        let mode = match self.mode {
            Mode::Live => 0_u8,
            Mode::LiveReplay => 1,
            Mode::OnDemand => 2,
        };
        let discontinuities = match self.discontinuities {
            Discontinuities::Always => 0_u8,
            Discontinuities::Never => 1,
            Discontinuities::OnDiscontinuity => 2,
        };
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        out.extend([
            LAYOUT,
            protocol | mode << 2 | discontinuities << 4,
            flag(self.producer_time, 0) | flag(self.show_time, 1) | flag(self.show_number, 2),
            0,
        ]);
        for short in [self.fragments_max, self.target_s, self.part_ms, self.initial] {
            out.extend(short.to_be_bytes());
        }
        out.extend(self.stream.0.to_be_bytes());
        for time in [self.created, self.start, self.end] {
            out.extend(time.millis().to_be_bytes());
        }
        for position in [self.position, self.first_position] {
            out.extend(position.to_be_bytes());
        }
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [LAYOUT, kinds, flags, _] = *head else {
            return None;
        };
        let (shorts, rest) = rest.split_first_chunk::<8>()?;
        let (longs, []) = rest.as_chunks::<8>() else {
            return None;
        };
        let [stream, created, start, end, position, first_position] = *<&[[u8; 8]; 6]>::try_from(longs).ok()?;
        let [m0, m1, t0, t1, p0, p1, i0, i1] = *shorts;
        let time = |bytes| Timestamp::from_millis(i64::from_be_bytes(bytes));
        Some(Session {
            stream: StreamId(u64::from_be_bytes(stream)),
            protocol: match kinds & 3 {
                0 => Protocol::HlsMp4,
                1 => Protocol::HlsTs,
                2 => Protocol::Dash,
                _ => return None,
            },
            mode: match kinds >> 2 & 3 {
                0 => Mode::Live,
                1 => Mode::LiveReplay,
                2 => Mode::OnDemand,
                _ => return None,
            },
            discontinuities: match kinds >> 4 & 3 {
                0 => Discontinuities::Always,
                1 => Discontinuities::Never,
                2 => Discontinuities::OnDiscontinuity,
                _ => return None,
            },
            producer_time: flags & 1 != 0,
            show_time: flags & 2 != 0,
            show_number: flags & 4 != 0,
            fragments_max: u16::from_be_bytes([m0, m1]),
            target_s: u16::from_be_bytes([t0, t1]),
            part_ms: u16::from_be_bytes([p0, p1]),
            initial: u16::from_be_bytes([i0, i1]),
            created: time(created),
            start: time(start),
            end: time(end),
            position: u64::from_be_bytes(position),
            first_position: u64::from_be_bytes(first_position),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn session(mode: Mode) -> Session {
        Session {
            stream: StreamId(7),
            protocol: Protocol::HlsMp4,
            mode,
            producer_time: false,
            discontinuities: Discontinuities::OnDiscontinuity,
            show_time: true,
            show_number: false,
            fragments_max: 5,
            created: Timestamp::from_millis(1_000_000),
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(i64::MAX),
            position: 0,
            first_position: 1,
            target_s: 2,
            part_ms: 350,
            initial: 0,
        }
    }

    #[test]
    fn a_session_comes_back_from_its_token_and_from_no_other() {
        let ring = KeyRing::ephemeral().unwrap();
        let now = Timestamp::from_millis(1_000_000);
        let end = now.plus_millis(300_000);
        for mode in [Mode::Live, Mode::LiveReplay, Mode::OnDemand] {
            for protocol in [Protocol::HlsMp4, Protocol::HlsTs, Protocol::Dash] {
                let session = Session {
                    protocol,
                    producer_time: true,
                    fragments_max: 5000,
                    position: u64::MAX,
                    ..session(mode)
                };
                let token = session.seal(&ring, end).unwrap();
                assert!(token.ends_with('~') && token.len() < 200, "{token}");
                assert_eq!(Session::open(&ring, now, &token).unwrap(), session);
                assert!(matches!(
                    Session::open(&ring, end, &token),
                    Err(MediaError::NotAuthorized(_))
                ));
                let other = KeyRing::ephemeral().unwrap();
                assert!(matches!(
                    Session::open(&other, now, &token),
                    Err(MediaError::NotAuthorized(_))
                ));
                assert!(matches!(
                    Session::open(&ring, now, token.trim_end_matches('~')),
                    Err(MediaError::InvalidArgument(_))
                ));
            }
        }
    }
}
