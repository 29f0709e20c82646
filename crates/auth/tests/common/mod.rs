//! A server's keys with a stopped clock, requests that can be bent, and a signer written out by hand.

#![allow(dead_code)]

use std::sync::Arc;

use auth::{
    AuthError, Authenticator, Credentials, KeyRing, KeyStore, MemoryKeyTable, PayloadHash, RequestHead, Scope, Secret,
    Sts, payload_hash, sign, sts::AssumeRole,
};
use base::{AccountId, ManualClock, Timestamp};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub const NOW: Timestamp = Timestamp::from_millis(1_795_347_223_000);
pub const DATE: &str = "20261122T113343Z";
pub const ID: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const SCOPE: Scope<'static> = Scope {
    region: "us-west-2",
    service: "kinesisvideo",
};
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub struct House {
    pub clock: Arc<ManualClock>,
    pub keys: Arc<KeyStore>,
    pub gate: Authenticator,
}

pub fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

pub fn house() -> House {
    let clock = ManualClock::at(NOW);
    let ring = Arc::new(KeyRing::ephemeral().unwrap());
    let table = Arc::new(MemoryKeyTable::default());
    let keys = block(KeyStore::open(ring, table, clock.clone(), root(), AccountId::DEFAULT)).unwrap();
    let keys = Arc::new(keys);
    let gate = Authenticator::new(Arc::clone(&keys), clock.clone());
    House { clock, keys, gate }
}

pub fn root() -> Credentials {
    Credentials {
        access_key_id: ID.into(),
        secret: Secret::new(SECRET),
        session_token: None,
    }
}

/// A request that can be bent before it is shown to the gate.
#[derive(Clone, Debug)]
pub struct Req {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub port: Option<u16>,
    pub also: Vec<&'static str>,
}

impl Req {
    pub fn new(method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let owned = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
            .collect();
        Req {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            headers: owned,
            port: Some(4577),
            also: vec![],
        }
    }

    pub fn with<T>(&self, use_head: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        use_head(&RequestHead {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
            local_port: self.port,
            also_hosts: &self.also,
        })
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        let place = self.headers.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name));
        match place {
            Some((_, old)) => *old = value.as_bytes().to_vec(),
            None => self.headers.push((name.into(), value.as_bytes().to_vec())),
        }
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub fn signed(mut self, credentials: &Credentials, body: &str) -> Self {
        let hash = payload_hash(body.as_bytes());
        let added = self.with(|head| sign(head, credentials, SCOPE, NOW, &hash));
        self.headers.extend(added.into_iter().map(|(n, v)| (n, v.into_bytes())));
        self
    }

    pub fn try_with(&self, house: &House, payload: PayloadHash) -> Result<base::Caller, AuthError> {
        self.with(|head| house.gate.identify(head)?.verify(&payload))
    }

    pub fn tried(&self, house: &House, body: &str) -> Result<base::Caller, AuthError> {
        self.try_with(house, PayloadHash::of(body.as_bytes()))
    }
}

pub fn mac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap();
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Signs a canonical request that the test wrote out by hand.
pub fn by_hand(canonical: &str) -> String {
    let text = format!(
        "AWS4-HMAC-SHA256\n{DATE}\n20261122/us-west-2/kinesisvideo/aws4_request\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let day = mac(format!("AWS4{SECRET}").as_bytes(), "20261122");
    let key = mac(&mac(&mac(&day, "us-west-2"), "kinesisvideo"), "aws4_request");
    hex(&mac(&key, &text))
}

pub const PRODUCER_SIGNED: &str = "connection;host;transfer-encoding;user-agent;x-amz-date;\
    x-amzn-fragment-acknowledgment-required;x-amzn-fragment-timecode-type;x-amzn-producer-start-timestamp;\
    x-amzn-stream-name";

/// kvssink's /putMedia as recorded, signed over the given host and payload hash.
pub fn producer(host: &str, hash: &str) -> Req {
    let canonical = format!(
        "POST\n/putMedia\n\nconnection:keep-alive\nhost:{host}\ntransfer-encoding:chunked\n\
         user-agent:AWS-SDK-KVS-CPP-CLIENT/3.5.0/1.6.0 GCC/12.2.0 Linux/6.1 x86_64 CPPSDK\nx-amz-date:{DATE}\n\
         x-amzn-fragment-acknowledgment-required:1\nx-amzn-fragment-timecode-type:ABSOLUTE\n\
         x-amzn-producer-start-timestamp:1795347223.436\nx-amzn-stream-name:cam1\n\n{PRODUCER_SIGNED}\n{hash}"
    );
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={ID}/20261122/us-west-2/kinesisvideo/aws4_request, \
         SignedHeaders={PRODUCER_SIGNED}, Signature={}",
        by_hand(&canonical)
    );
    Req::new(
        "POST",
        "/putMedia",
        "",
        &[
            ("Host", "127.0.0.1"),
            ("Accept", "*/*"),
            ("Authorization", &authorization),
            ("connection", "keep-alive"),
            ("content-type", "application/json"),
            ("transfer-encoding", "chunked"),
            (
                "user-agent",
                "AWS-SDK-KVS-CPP-CLIENT/3.5.0/1.6.0 GCC/12.2.0 Linux/6.1 x86_64 CPPSDK",
            ),
            ("X-Amz-Date", DATE),
            ("x-amzn-fragment-acknowledgment-required", "1"),
            ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
            ("x-amzn-producer-start-timestamp", "1795347223.436"),
            ("x-amzn-stream-name", "cam1"),
            ("Expect", "100-continue"),
        ],
    )
}

pub fn session(house: &House, policy: Option<&str>) -> Credentials {
    let sts = Sts::new(Arc::clone(&house.keys), house.clock.clone());
    let caller = house.keys.root_caller("us-west-2".parse().unwrap());
    let input = AssumeRole {
        role_arn: "arn:aws:iam::000000000000:role/path/camera".into(),
        role_session_name: "door".into(),
        policy: policy.map(str::to_owned),
        duration_seconds: Some(900),
    };
    sts.assume_role(&caller, &input).unwrap().credentials.credentials
}
