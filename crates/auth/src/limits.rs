//! Every limit of this crate, each with its source.

/// Longest `Authorization` header that is parsed. Ours: a real one is under 1 KiB.
pub const AUTHORIZATION_BYTES_MAX: usize = 8 * 1024;

/// Most names in `SignedHeaders`. Ours: the C producer signs 10, a browser about 15.
pub const SIGNED_HEADERS_MAX: usize = 64;

/// Most bytes of the head that enter a canonical request (path, query and signed headers). Ours: the edge's own limit on
/// heads is of this size.
pub const CANONICAL_BYTES_MAX: usize = 64 * 1024;

/// Most canonical requests tried for one signature. Ours: hosts × hop-by-hop forms × payload hashes of the worst real
/// case (a C producer behind a proxy that rewrote both) are under 130.
pub const CANDIDATES_MAX: usize = 256;

/// Most bytes hashed for one signature over all its candidates. Ours: bounds a wrong signature to a few milliseconds.
pub const CANDIDATE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Longest `X-Amz-Expires` in seconds: seven days (AWS's documentation of presigned requests).
pub const EXPIRES_SECONDS_MAX: u64 = 604_800;

/// Longest security token read. Ours: a sealed session with five policies at their limit stays under it.
pub const SECURITY_TOKEN_BYTES_MAX: usize = 48 * 1024;

/// Allowed distance between a signature's date and the server's clock unless configured: five minutes, as AWS.
pub const SKEW_DEFAULT_MS: i64 = 5 * 60 * 1000;

/// Longest policy of a key in bytes (IAM's quota for a managed policy).
pub const POLICY_BYTES_MAX: usize = 6_144;

/// Longest session policy in bytes (the `Policy` member of AssumeRole in the service model).
pub const SESSION_POLICY_BYTES_MAX: usize = 2_048;

/// Most statements in a policy, and most patterns in one list. Ours, far above what 6,144 bytes hold.
pub const POLICY_LIST_MAX: usize = 512;

/// Most session policies laid over each other by AssumeRole from a session of AssumeRole. Ours.
pub const SESSION_POLICIES_MAX: usize = 5;

/// Most access keys of a server. Ours: they are all held in memory.
pub const KEYS_MAX: usize = 10_000;

/// DurationSeconds of GetSessionToken: 900 to 129,600, default 43,200 (service model and its documentation).
pub const SESSION_SECONDS: (i64, i64, i64) = (900, 129_600, 43_200);

/// DurationSeconds of AssumeRole: 900 to 43,200, default 3,600 (service model and its documentation).
pub const ROLE_SECONDS: (i64, i64, i64) = (900, 43_200, 3_600);

/// Longest sealed token that is opened, in characters. Ours.
pub const SEALED_CHARS_MAX: usize = 64 * 1024;

/// Most keys in the key ring; rotation drops the oldest beyond it. Ours.
pub const RING_KEYS_MAX: usize = 64;

/// Largest key ring file. Ours: 64 keys take 5 KiB.
pub const RING_BYTES_MAX: usize = 64 * 1024;
