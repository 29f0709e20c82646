//! Verifying SigV4: by the `Authorization` header and by the query string, tolerant where real clients and proxies are
//! known to deviate (see `canonical`), strict where tolerance would let a request be altered.

use std::sync::Arc;

use base::{AccountId, Caller, Clock, Region};
use subtle::ConstantTimeEq;

use crate::canonical::{ALGORITHM, Signed, TERMINATOR, decode, hex, signature, signing_key, unhex};
use crate::date::{amz_date, parse_amz_date, parse_http_date};
use crate::error::AuthError;
use crate::head::{PayloadHash, RequestHead};
use crate::keys::{KeyStore, Secret};
use crate::limits::{
    AUTHORIZATION_BYTES_MAX, CANONICAL_BYTES_MAX, EXPIRES_SECONDS_MAX, SIGNED_HEADERS_MAX, SKEW_DEFAULT_MS,
};

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const STREAMING: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// `x-amz-` headers that need not be signed: the C producer adds the token after signing (it authenticates itself), the
/// date is in the string to sign, the content hash is compared with the body.
const MAY_BE_UNSIGNED: [&str; 3] = ["x-amz-security-token", "x-amz-date", "x-amz-content-sha256"];

/// Verifies requests against the keys of a server.
#[derive(Clone)]
pub struct Authenticator {
    keys: Arc<KeyStore>,
    clock: Arc<dyn Clock>,
    skew_ms: i64,
}

/// A request whose key, scope and dates are good, and whose signature is still to be checked.
pub struct Claim {
    service: String,
    region: Region,
    access_key_id: String,
    secret: Secret,
    caller: Caller,
    date: String,
    signature: [u8; 32],
    declared: Option<String>,
    by_query: bool,
    /// More than one when the query's security token may have been added after signing.
    signed: Vec<Signed>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Claim");
        out.field("service", &self.service).field("region", &self.region);
        out.field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The parts of a signature as sent.
struct Parts {
    access_key_id: String,
    day: String,
    region: String,
    service: String,
    signed_names: Vec<String>,
    signature: [u8; 32],
    date: String,
    token: Option<String>,
    expires_seconds: Option<u64>,
    by_query: bool,
}

fn incomplete<T>(why: impl Into<String>) -> Result<T, AuthError> {
    Err(AuthError::Incomplete(why.into()))
}

impl Authenticator {
    /// An authenticator with AWS's five minutes of allowed clock skew.
    pub fn new(keys: Arc<KeyStore>, clock: Arc<dyn Clock>) -> Self {
        Authenticator {
            keys,
            clock,
            skew_ms: SKEW_DEFAULT_MS,
        }
    }

    /// The same with another allowed skew, in milliseconds.
    #[must_use]
    pub fn with_skew_ms(self, skew_ms: i64) -> Self {
        Authenticator { skew_ms, ..self }
    }

    /// The keys it verifies against.
    pub fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Finds the signature, its key and its scope, and checks its dates. Any bytes may be given; nothing of the body is
    /// needed yet.
    pub fn identify(&self, head: &RequestHead<'_>) -> Result<Claim, AuthError> {
        let parts = match head.values("authorization").count() {
            0 => by_query(head)?,
            1 => by_header(head)?,
            _ => return incomplete("There is more than one Authorization header."),
        };
        check_size(head, &parts)?;
        check_coverage(head, &parts)?;
        self.check_dates(&parts)?;
        let identity = self
            .keys
            .resolve(&parts.access_key_id, parts.token.as_deref(), self.clock.now());
        let identity = identity?;
        let region: Region = match parts.region.parse() {
            Ok(region) => region,
            Err(_) => return incomplete("The region in the credential scope is not a region name."),
        };
        let with_token = Signed::of(head, &parts.signed_names, &["X-Amz-Signature"]);
        let mut signed = vec![with_token];
        if parts.by_query && parts.token.is_some() {
            let without = ["X-Amz-Signature", "X-Amz-Security-Token"];
            signed.push(Signed::of(head, &parts.signed_names, &without));
        }
        Ok(Claim {
            caller: Caller {
                account: identity.account,
                region: region.clone(),
                access_key_id: parts.access_key_id.as_str().into(),
                principal_arn: identity.principal,
                authorizer: identity.grant,
            },
            service: parts.service,
            region,
            access_key_id: parts.access_key_id,
            secret: identity.secret,
            date: parts.date,
            signature: parts.signature,
            declared: head.text("x-amz-content-sha256").map(str::to_owned),
            by_query: parts.by_query,
            signed,
        })
    }

    fn check_dates(&self, parts: &Parts) -> Result<(), AuthError> {
        let Some(signed_at) = parse_amz_date(&parts.date) else {
            return incomplete("Date must be in ISO-8601 'basic format', e.g. 20261122T113343Z.");
        };
        let date = &parts.date;
        if !date.starts_with(&parts.day) || parts.day.len() != 8 {
            let (day, of_date) = (&parts.day, date.get(..8).unwrap_or_default());
            return Err(AuthError::BadDate(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != \
                 '{of_date}', from '{date}'."
            )));
        }
        let now = self.clock.now();
        let valid_ms = match parts.expires_seconds {
            Some(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000),
            None => self.skew_ms,
        };
        // Whole seconds, as the dates are.
        let now_ms = now.millis().div_euclid(1000) * 1000;
        let now_text = amz_date(now);
        if signed_at.millis().saturating_add(valid_ms) < now_ms {
            let bound = amz_date(now.plus_millis(valid_ms.saturating_neg()));
            let span = span(valid_ms);
            return Err(AuthError::BadDate(format!(
                "Signature expired: {date} is now earlier than {bound} ({now_text} - {span})"
            )));
        }
        if signed_at.millis() > now_ms.saturating_add(self.skew_ms) {
            let bound = amz_date(now.plus_millis(self.skew_ms));
            let span = span(self.skew_ms);
            return Err(AuthError::BadDate(format!(
                "Signature not yet current: {date} is still later than {bound} ({now_text} + {span})"
            )));
        }
        Ok(())
    }
}

fn span(millis: i64) -> String {
    let seconds = millis / 1000;
    if seconds % 60 == 0 {
        return format!("{} min.", seconds / 60);
    }
    format!("{seconds} s.")
}

/// Reads `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, in any order and with or without spaces.
fn by_header(head: &RequestHead<'_>) -> Result<Parts, AuthError> {
    let Some(text) = head
        .text("authorization")
        .filter(|text| text.len() <= AUTHORIZATION_BYTES_MAX)
    else {
        return incomplete("The Authorization header is not text of a signature.");
    };
    let Some(fields) = text
        .strip_prefix(ALGORITHM)
        .filter(|rest| rest.starts_with([' ', '\t']))
    else {
        return incomplete(format!(
            "Unsupported authorization scheme; only {ALGORITHM} is supported."
        ));
    };
    let field = |name: &str| {
        let mut values = fields
            .split(',')
            .filter_map(|f| f.trim().split_once('='))
            .filter(|(n, _)| *n == name);
        values
            .next()
            .map(|(_, value)| value)
            .filter(|_| values.next().is_none())
    };
    let (credential, names, sent) = (field("Credential"), field("SignedHeaders"), field("Signature"));
    let date = match head.text("x-amz-date") {
        Some(date) => Some(date.to_owned()),
        None => head
            .text("date")
            .map(|date| parse_http_date(date).map_or_else(|| date.to_owned(), amz_date)),
    };
    let (Some(credential), Some(names), Some(sent), Some(date)) = (credential, names, sent, &date) else {
        let missing = [
            ("Credential", credential),
            ("Signature", sent),
            ("SignedHeaders", names),
        ];
        let missing = missing.iter().filter(|(_, value)| value.is_none());
        let mut text: String = missing
            .map(|(n, _)| format!("Authorization header requires '{n}' parameter. "))
            .collect();
        if date.is_none() {
            text += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.";
        }
        return incomplete(text.trim_end());
    };
    parts(
        credential,
        names,
        sent,
        date,
        head.text("x-amz-security-token").map(str::to_owned),
        None,
        false,
    )
}

/// Reads `X-Amz-Algorithm`, `X-Amz-Credential` and so on from the query.
fn by_query(head: &RequestHead<'_>) -> Result<Parts, AuthError> {
    let field = |name: &str| {
        let pairs = head.query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(n, _)| decode(n.as_bytes()) == name.as_bytes());
        let value = values
            .next()
            .filter(|_| values.next().is_none())
            .map(|(_, value)| decode(value.as_bytes()));
        value.and_then(|value| String::from_utf8(value).ok())
    };
    if head.query.len() > CANONICAL_BYTES_MAX {
        return incomplete("The query is too long to be signed.");
    }
    let Some(algorithm) = field("X-Amz-Algorithm") else {
        if field("X-Amz-Signature").is_some() {
            return incomplete("AWS query-string parameters must include 'X-Amz-Algorithm'.");
        }
        return Err(AuthError::MissingToken);
    };
    if algorithm != ALGORITHM {
        return incomplete(format!("Unsupported X-Amz-Algorithm; only {ALGORITHM} is supported."));
    }
    let needed = [
        "X-Amz-Credential",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "X-Amz-Date",
    ]
    .map(|n| (n, field(n)));
    if let Some((name, _)) = needed.iter().find(|(_, value)| value.is_none()) {
        return incomplete(format!("AWS query-string parameters must include '{name}'."));
    }
    let [credential, names, sent, date] = needed.map(|(_, value)| value.unwrap_or_default());
    let expires = match field("X-Amz-Expires").map(|text| text.parse::<u64>()) {
        None => None,
        Some(Ok(seconds)) if (1..=EXPIRES_SECONDS_MAX).contains(&seconds) => Some(seconds),
        Some(_) => return incomplete(format!("X-Amz-Expires must be 1 to {EXPIRES_SECONDS_MAX} seconds.")),
    };
    let token = field("X-Amz-Security-Token").or_else(|| head.text("x-amz-security-token").map(str::to_owned));
    parts(&credential, &names, &sent, &date, token, expires, true)
}

fn parts(
    credential: &str,
    names: &str,
    sent: &str,
    date: &str,
    token: Option<String>,
    expires_seconds: Option<u64>,
    by_query: bool,
) -> Result<Parts, AuthError> {
    // A key id may hold slashes; the scope is what follows the last four of them.
    let mut fields = credential.rsplitn(5, '/');
    let mut next = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
    let (end, service, region, day, id) = (next(), next(), next(), next(), next());
    let (Some(end), Some(service), Some(region), Some(day), Some(access_key_id)) = (end, service, region, day, id)
    else {
        return incomplete("Credential must be of the form KEY-ID/YYYYMMDD/REGION/SERVICE/aws4_request.");
    };
    if end != TERMINATOR {
        return incomplete("Credential should be scoped with a valid terminator: 'aws4_request'.");
    }
    let signed_names: Vec<String> = names.split(';').map(str::to_ascii_lowercase).collect();
    if signed_names.len() > SIGNED_HEADERS_MAX || signed_names.iter().any(String::is_empty) {
        return incomplete("SignedHeaders is not a list of header names.");
    }
    if signed_names
        .iter()
        .enumerate()
        .any(|(at, name)| signed_names.iter().skip(at + 1).any(|other| other == name))
    {
        return incomplete("SignedHeaders names a header twice.");
    }
    // A signature of another length or alphabet cannot match, and is told apart from a malformed request as AWS does.
    let Some(signature) = unhex(sent) else {
        return Err(AuthError::Mismatch);
    };
    Ok(Parts {
        access_key_id,
        day,
        region,
        service,
        signed_names,
        signature,
        date: date.to_owned(),
        token,
        expires_seconds,
        by_query,
    })
}

/// Bounds what is copied and hashed.
fn check_size(head: &RequestHead<'_>, parts: &Parts) -> Result<(), AuthError> {
    let names = parts.signed_names.iter();
    let headers: usize = names
        .flat_map(|name| head.values(name).map(|value| name.len() + value.len() + 2))
        .sum();
    let hosts: usize = head.also_hosts.iter().map(|host| host.len()).sum();
    if head.method.len() + head.path.len() + head.query.len() + headers + hosts > CANONICAL_BYTES_MAX {
        return incomplete(format!(
            "What is signed of the request is larger than {CANONICAL_BYTES_MAX} bytes."
        ));
    }
    Ok(())
}

/// What must be signed is: the host, and every `x-amz-` header, because operations and their meaning hang on them.
fn check_coverage(head: &RequestHead<'_>, parts: &Parts) -> Result<(), AuthError> {
    if !parts
        .signed_names
        .iter()
        .any(|name| name == "host" || name == ":authority")
    {
        return incomplete("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.");
    }
    for (name, _) in head.headers {
        let name = name.to_ascii_lowercase();
        let needed = name.starts_with("x-amz-") && !MAY_BE_UNSIGNED.contains(&name.as_str());
        if needed && !parts.signed_names.contains(&name) {
            return incomplete(format!("The header '{name}' is sent but is not a 'SignedHeader'."));
        }
    }
    Ok(())
}

impl Claim {
    /// The signing name in the scope, e.g. `kinesisvideo`.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The region in the scope.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The key's account. Not proven before [`Claim::verify`].
    pub fn account(&self) -> AccountId {
        self.caller.account
    }

    /// The key id. Not proven before [`Claim::verify`].
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The caller, not proven, and the secret to prove it with: for a verifier of forms of signatures that
    /// [`Self::verify`] does not know (S3's, of bodies in signed chunks).
    pub fn unproven(&self) -> (&Caller, &Secret) {
        (&self.caller, &self.secret)
    }

    /// True when the client declared that it did not sign the body, so that [`PayloadHash::Sha256`] would be refused.
    pub fn declares_unsigned_payload(&self) -> bool {
        self.declared.as_deref() == Some(UNSIGNED)
    }

    /// Checks the signature against the body and gives the caller.
    pub fn verify(&self, payload: &PayloadHash) -> Result<Caller, AuthError> {
        let payloads = self.payloads(payload)?;
        let day = self.date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/{TERMINATOR}", self.region, self.service);
        let key = signing_key(self.secret.reveal(), day, self.region.as_str(), &self.service);
        let accept = |canonical: &[u8]| {
            let ours = signature(&key, &self.date, &scope, canonical);
            bool::from(ours.ct_eq(&self.signature))
        };
        if self.signed.iter().any(|signed| signed.any(&payloads, accept)) {
            return Ok(self.caller.clone());
        }
        Err(AuthError::Mismatch)
    }

    /// The payload hashes that the signature may name.
    fn payloads(&self, payload: &PayloadHash) -> Result<Vec<String>, AuthError> {
        let (hash, unsigned_allowed) = match payload {
            PayloadHash::Streaming => {
                let sent = self.declared.clone().filter(|declared| declared.len() <= 128);
                let known = [EMPTY_SHA256, STREAMING, UNSIGNED].map(str::to_owned);
                let mut all: Vec<String> = sent.into_iter().chain(known).collect();
                let mut seen = Vec::new();
                all.retain(|hash| {
                    !seen.contains(hash) && {
                        seen.push(hash.clone());
                        true
                    }
                });
                return Ok(all);
            }
            PayloadHash::Sha256(hash) => (hex(hash), false),
            PayloadHash::Sha256OrUnsigned(hash) => (hex(hash), true),
        };
        match &self.declared {
            None if unsigned_allowed && self.by_query => Ok(vec![hash, UNSIGNED.to_owned()]),
            None => Ok(vec![hash]),
            Some(declared) if declared == UNSIGNED && unsigned_allowed => Ok(vec![UNSIGNED.to_owned()]),
            Some(declared) if declared.eq_ignore_ascii_case(&hash) => Ok(vec![declared.clone()]),
            Some(declared) if declared == UNSIGNED => Err(AuthError::BadPayload(
                "This operation does not take an unsigned payload.".to_owned(),
            )),
            Some(_) => Err(AuthError::BadPayload(
                "The provided 'x-amz-content-sha256' header does not match what was computed.".to_owned(),
            )),
        }
    }
}
