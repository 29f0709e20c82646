//! Canonical requests of SigV4: the one the rules give first, then the forms in which real clients and proxies are known
//! to differ from them. Source of the rules: AWS's "Create a signed AWS API request".

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::head::RequestHead;
use crate::limits::{CANDIDATE_BYTES_MAX, CANDIDATES_MAX};

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(crate) const TERMINATOR: &str = "aws4_request";

/// What producers send in headers that belong to one hop and that a proxy may therefore drop or rewrite.
const HOP_BY_HOP: [(&str, &[&str]); 7] = [
    ("connection", &["keep-alive", "Keep-Alive", "close", "TE"]),
    ("transfer-encoding", &["chunked"]),
    ("te", &["trailers"]),
    ("expect", &["100-continue"]),
    ("keep-alive", &["timeout=5"]),
    ("proxy-connection", &["keep-alive", "Keep-Alive"]),
    ("accept-encoding", &["identity", "gzip"]),
];

pub(crate) fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length, so that the error cannot occur; an all-zero tag would match no signature.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        let value = pair
            .iter()
            .try_fold(0, |sum, b| Some(sum * 16 + char::from(*b).to_digit(16)?))?;
        *slot = u8::try_from(value).ok()?;
    }
    Some(out)
}

/// The signature of a canonical request.
pub(crate) fn signature(key: &[u8; 32], date: &str, scope: &str, canonical: &[u8]) -> [u8; 32] {
    let hash = hex(&Sha256::digest(canonical));
    hmac(key, format!("{ALGORITHM}\n{date}\n{scope}\n{hash}").as_bytes())
}

/// The signing key of a secret for one day, region and service.
pub(crate) fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
    let day_key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let region_key = hmac(&day_key, region.as_bytes());
    let service_key = hmac(&region_key, service.as_bytes());
    hmac(&service_key, TERMINATOR.as_bytes())
}

fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, and `/` when `slashes` are to stay.
pub(crate) fn encode(bytes: &[u8], slashes: Slashes) -> String {
    let mut out = String::with_capacity(bytes.len());
    for b in bytes {
        if plain(*b) || (*b == b'/' && slashes == Slashes::Kept) {
            out.push(char::from(*b));
        } else {
            out.push('%');
            out.push_str(&hex(&[*b]).to_ascii_uppercase());
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slashes {
    Kept,
    Encoded,
}

/// Undoes percent-encoding; what is not a valid escape stays as it is.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// RFC 3986 §5.2.4 with runs of slashes folded, as every service but S3 wants it.
fn normalized(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let open = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let tail = if open && !kept.is_empty() { "/" } else { "" };
    format!("/{}{tail}", kept.join("/"))
}

fn distinct<T: PartialEq>(forms: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for form in forms {
        if !out.contains(&form) {
            out.push(form);
        }
    }
    out
}

/// The canonical URI: encoded twice and normalised (the rule), once (S3 and some hand-made signers), or as sent.
pub(crate) fn path_forms(path: &str) -> Vec<String> {
    let path = if path.is_empty() { "/" } else { path };
    let tidy = normalized(path);
    let once = |text: &str| {
        let segments = text.split('/').map(|s| encode(&decode(s.as_bytes()), Slashes::Encoded));
        segments.collect::<Vec<_>>().join("/")
    };
    distinct([
        encode(tidy.as_bytes(), Slashes::Kept),
        once(path),
        encode(once(&tidy).as_bytes(), Slashes::Kept),
        once(&tidy),
        encode(path.as_bytes(), Slashes::Kept),
        path.to_owned(),
    ])
}

/// The pairs of a query as sent, without those of the given (decoded) names.
fn pairs<'a>(query: &'a str, without: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let split = |pair: &'a str| pair.split_once('=').unwrap_or((pair, ""));
    let wanted = move |(name, _): &(&str, &str)| {
        let name = decode(name.as_bytes());
        !without.iter().any(|w| w.as_bytes() == name)
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(split)
        .filter(wanted)
}

/// The canonical query: decoded, encoded and sorted (the rule), with `+` for a space, or sorted as sent.
pub(crate) fn query_forms(query: &str, without: &[&str]) -> Vec<String> {
    let form = |coder: &dyn Fn(&str) -> String| {
        let mut all: Vec<(String, String)> = pairs(query, without).map(|(n, v)| (coder(n), coder(v))).collect();
        all.sort();
        let joined: Vec<String> = all.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        joined.join("&")
    };
    let rule = |text: &str| encode(&decode(text.as_bytes()), Slashes::Encoded);
    let plus = |text: &str| encode(&decode(text.replace('+', "%20").as_bytes()), Slashes::Encoded);
    distinct([form(&rule), form(&plus), form(&|text: &str| text.to_owned())])
}

/// One value: trimmed, runs of whitespace folded to one space.
pub(crate) fn folded(value: &[u8]) -> Vec<u8> {
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

fn joined(values: &[&[u8]], tidy: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    values.iter().map(|v| tidy(v)).collect::<Vec<_>>().join(&b',')
}

/// Every form in which the client may have signed a header, the one that was received first.
fn header_forms(head: &RequestHead<'_>, name: &str) -> Vec<Vec<u8>> {
    // The JavaScript SDK signs HTTP/2's own name of the host.
    let name = if name == ":authority" { "host" } else { name };
    let values: Vec<&[u8]> = head.values(name).collect();
    let rule = joined(&values, folded);
    if name == "host" {
        return host_forms(head, &rule);
    }
    let known = HOP_BY_HOP
        .iter()
        .find(|(hop, _)| *hop == name)
        .map_or(&[][..], |(_, known)| known);
    let trimmed = joined(&values, |v| v.trim_ascii().to_vec());
    let received = [rule, trimmed].into_iter();
    distinct(received.chain(known.iter().map(|v| v.as_bytes().to_vec())))
}

/// The host as sent, without its port, with the listener's, and under the other names of the server.
fn host_forms(head: &RequestHead<'_>, sent: &[u8]) -> Vec<Vec<u8>> {
    let bare = |host: &[u8]| {
        let digits = host.iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let colon = host.len().checked_sub(digits + 1).filter(|_| digits > 0);
        match colon.and_then(|at| host.split_at_checked(at)) {
            Some((name, port)) if port.first() == Some(&b':') => name.to_vec(),
            _ => host.to_vec(),
        }
    };
    let forms = |host: &[u8]| {
        let name = bare(host);
        let ported = head
            .local_port
            .map(|port| [&name, format!(":{port}").as_bytes()].concat());
        [Some(host.to_vec()), Some(name), ported]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let own = forms(sent);
    let others = head.also_hosts.iter().flat_map(|host| forms(host.as_bytes()));
    distinct(own.into_iter().chain(others))
}

/// Everything of a request that a signature covers, but for the payload.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) method: String,
    pub(crate) paths: Vec<String>,
    pub(crate) queries: Vec<String>,
    pub(crate) headers: Vec<(String, Vec<Vec<u8>>)>,
}

impl Signed {
    pub(crate) fn of(head: &RequestHead<'_>, names: &[String], without: &[&str]) -> Self {
        Signed {
            method: head.method.to_owned(),
            paths: path_forms(head.path),
            queries: query_forms(head.query, without),
            headers: names
                .iter()
                .map(|name| (name.clone(), header_forms(head, name)))
                .collect(),
        }
    }

    /// Tries canonical requests until `accept` takes one; the likely ones come first, and their number and size are
    /// bounded.
    pub(crate) fn any(&self, payloads: &[String], mut accept: impl FnMut(&[u8]) -> bool) -> bool {
        let mut sizes = vec![payloads.len(), self.paths.len(), self.queries.len()];
        sizes.extend(self.headers.iter().map(|(_, forms)| forms.len()));
        if sizes.contains(&0) {
            return false;
        }
        let mut turn = vec![0usize; sizes.len()];
        let mut hashed = 0usize;
        for _ in 0..CANDIDATES_MAX {
            let canonical = self.canonical(payloads, &turn);
            hashed = hashed.saturating_add(canonical.len());
            if accept(&canonical) {
                return true;
            }
            if hashed > CANDIDATE_BYTES_MAX || !advance(&mut turn, &sizes) {
                return false;
            }
        }
        false
    }

    fn canonical(&self, payloads: &[String], turn: &[usize]) -> Vec<u8> {
        let chosen = |at: usize| turn.get(at).copied().unwrap_or_default();
        let text = |forms: &[String], at: usize| forms.get(chosen(at)).cloned().unwrap_or_default();
        let mut out = Vec::with_capacity(1024);
        let (path, query) = (text(&self.paths, 1), text(&self.queries, 2));
        out.extend_from_slice(format!("{}\n{path}\n{query}\n", self.method).as_bytes());
        for (at, (name, forms)) in self.headers.iter().enumerate() {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(forms.get(chosen(at + 3)).map_or(&[], Vec::as_slice));
            out.push(b'\n');
        }
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        out.extend_from_slice(format!("\n{}\n{}", names.join(";"), text(payloads, 0)).as_bytes());
        out
    }
}

/// Counts on; false when every combination was seen.
fn advance(turn: &mut [usize], sizes: &[usize]) -> bool {
    for (digit, size) in turn.iter_mut().zip(sizes) {
        *digit += 1;
        if *digit < *size {
            return true;
        }
        *digit = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_and_encoded_as_the_rules_and_as_known_clients_do() {
        assert_eq!(path_forms(""), ["/"]);
        assert_eq!(path_forms("/putMedia"), ["/putMedia"]);
        assert_eq!(path_forms("/a/./b/../c//d/").first().unwrap(), "/a/c/d/");
        let forms = path_forms("/tags/arn%3Aaws");
        assert_eq!(forms, ["/tags/arn%253Aaws", "/tags/arn%3Aaws"]);
        assert_eq!(path_forms("/a%2Fb").first().unwrap(), "/a%252Fb");
        assert_eq!(path_forms("/%zz%").first().unwrap(), "/%25zz%25");
        assert_eq!(path_forms("/../..").first().unwrap(), "/");
    }

    #[test]
    fn queries_are_sorted_by_their_encoded_form() {
        assert_eq!(query_forms("b=2&a=1&a=0&c", &[]), ["a=0&a=1&b=2&c="]);
        assert_eq!(query_forms("x=%7e&y=a b", &[]).first().unwrap(), "x=~&y=a%20b");
        let plus = query_forms("x=a+b", &[]);
        assert_eq!(plus, ["x=a%2Bb", "x=a%20b", "x=a+b"]);
        assert_eq!(
            query_forms("X-Amz-Signature=1&a=b&X%2DAmz-Signature=2", &["X-Amz-Signature"]),
            ["a=b"]
        );
        assert_eq!(query_forms("", &[]), [""]);
    }

    #[test]
    fn hosts_are_tried_with_and_without_ports_and_ipv6_keeps_its_colons() {
        let head = |also: &'static [&'static str], port| RequestHead {
            method: "POST",
            path: "/",
            query: "",
            headers: &[],
            local_port: port,
            also_hosts: also,
        };
        let text = |forms: Vec<Vec<u8>>| {
            forms
                .into_iter()
                .map(|f| String::from_utf8(f).unwrap())
                .collect::<Vec<_>>()
        };
        let forms = host_forms(&head(&["cam.example:8443"], Some(4577)), b"127.0.0.1");
        assert_eq!(
            text(forms),
            [
                "127.0.0.1",
                "127.0.0.1:4577",
                "cam.example:8443",
                "cam.example",
                "cam.example:4577"
            ]
        );
        let forms = host_forms(&head(&[], Some(80)), b"[::1]:9000");
        assert_eq!(text(forms), ["[::1]:9000", "[::1]", "[::1]:80"]);
        let sent = RequestHead {
            headers: &[("host", b"door:4577")],
            ..head(&[], None)
        };
        assert_eq!(text(header_forms(&sent, ":authority")), ["door:4577", "door"]);
    }

    #[test]
    fn folding_trims_and_joins() {
        assert_eq!(folded(b"  a  b\t c "), b"a b c");
        assert_eq!(joined(&[b"one", b" two  x"], folded), b"one,two x");
        assert_eq!(unhex(&hex(&[7; 32])), Some([7; 32]));
        assert_eq!(unhex(&"é".repeat(32)), None);
    }

    /// The worked example of AWS's "Deriving the signing key".
    #[test]
    fn the_signing_key_is_derived_as_documented() {
        let key = signing_key(
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "20120215",
            "us-east-1",
            "iam",
        );
        assert_eq!(
            hex(&key),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
        );
    }
}
