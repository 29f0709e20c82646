//! Why media cannot be packaged: one enum, whose four cases are those that the archived-media operations declare.

/// Why a track or a frame cannot be packaged. The message is for the caller: it names the track and says what is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackagingError {
    /// The track's codec is none of those that players are given.
    #[error("Track {track} has codec {codec:?}, which cannot be played back: {why}.")]
    UnsupportedCodec {
        /// Track number.
        track: u64,
        /// CodecID, as sent.
        codec: String,
        /// What would be supported.
        why: &'static str,
    },
    /// There is no codec private data, and the frames do not say it either.
    #[error("Track {track} ({codec}) has no codec private data: {why}.")]
    MissingCodecPrivateData {
        /// Track number.
        track: u64,
        /// CodecID, as sent.
        codec: String,
        /// Where it was looked for.
        why: &'static str,
    },
    /// The codec private data is not what the codec says it is.
    #[error("Track {track} ({codec}) has invalid codec private data: {why}.")]
    InvalidCodecPrivateData {
        /// Track number.
        track: u64,
        /// CodecID, as sent.
        codec: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A frame contradicts its index, its lacing or its codec's framing.
    #[error("A frame of track {track} at {time_ms} ms of its fragment is invalid: {why}.")]
    InvalidFrame {
        /// Track number.
        track: u64,
        /// Its time from the start of the fragment.
        time_ms: i64,
        /// What is wrong.
        why: &'static str,
    },
}
