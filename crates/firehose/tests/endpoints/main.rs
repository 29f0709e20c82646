//! Delivery to endpoints that fail, hang and lie: what each request says, what counts as taken, what is tried again and for
//! how long, and what ends in the error output with which code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod http;
mod search;
mod settings;
mod splunk;

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base::Timestamp;
use bytes::Bytes;
use firehose::endpoints::{self, Delivered, Delivery, Opened, Secrets};
use firehose::ports::{Answer, Call, CallError, Domain, Domains, HttpCaller, Ports};
use firehose::types::{About, ErrorOutputType, Ready};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;
use wire::firehose as fh;

type Answered = Result<Answer, CallError>;
type Script = Box<dyn FnMut(&Call) -> Answered + Send>;

/// Answers as the test says, and keeps what was asked.
#[derive(Default)]
struct Fake {
    next: Mutex<VecDeque<Script>>,
    otherwise: Mutex<Option<Script>>,
    calls: Mutex<Vec<Call>>,
}

impl Fake {
    fn then(&self, answer: impl FnMut(&Call) -> Answered + Send + 'static) -> &Self {
        self.next.lock().unwrap().push_back(Box::new(answer));
        self
    }

    fn always(answer: impl FnMut(&Call) -> Answered + Send + 'static) -> Arc<Self> {
        let fake = Fake::default();
        *fake.otherwise.lock().unwrap() = Some(Box::new(answer));
        Arc::new(fake)
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl HttpCaller for Fake {
    async fn post(&self, call: Call) -> Answered {
        self.calls.lock().unwrap().push(call.clone());
        let next = self.next.lock().unwrap().pop_front();
        let answer = match next {
            Some(mut answer) => answer(&call),
            None => self
                .otherwise
                .lock()
                .unwrap()
                .as_mut()
                .expect("a call that was not expected")(&call),
        };
        if answer == Err(CallError::TimedOut(call.within)) {
            tokio::time::sleep(call.within).await;
        }
        answer
    }
}

const LOGS: &str = "arn:aws:es:us-east-1:000000000000:domain/logs";

struct OneDomain;

impl Domains for OneDomain {
    fn domain(&self, name: &str) -> Option<Domain> {
        (name == LOGS).then(|| Domain {
            url: "http://127.0.0.1:9200/".to_owned(),
            authorization: Some("Basic eDp5".to_owned()),
        })
    }
}

fn about() -> About {
    About {
        account: "000000000000".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        name: "s".to_owned(),
        arn: "arn:aws:firehose:us-east-1:000000000000:deliverystream/s".to_owned(),
        source_arn: None,
    }
}

fn ports(fake: &Arc<Fake>) -> Ports {
    Ports {
        http: fake.clone(),
        domains: Arc::new(OneDomain),
        ..Ports::default()
    }
}

fn asked(change: impl FnOnce(&mut fh::CreateDeliveryStreamInput)) -> fh::CreateDeliveryStreamInput {
    let mut input = fh::CreateDeliveryStreamInput::default();
    change(&mut input);
    input
}

fn opened(fake: &Arc<Fake>, input: &fh::CreateDeliveryStreamInput) -> Opened {
    let (description, secrets) = endpoints::describe(input).unwrap().unwrap();
    endpoints::open(&description, &secrets, &about(), &ports(fake))
        .unwrap()
        .unwrap()
}

fn s3() -> fh::S3DestinationConfiguration {
    fh::S3DestinationConfiguration {
        role_arn: "arn:aws:iam::000000000000:role/r".to_owned(),
        bucket_arn: "arn:aws:s3:::backup".to_owned(),
        ..Default::default()
    }
}

const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const ARRIVAL: i64 = 1_600_000_000_000;

fn delivery<'a>(records: impl IntoIterator<Item = &'a str>) -> Delivery {
    let ready = |data: &'a str| Ready {
        data: Bytes::copy_from_slice(data.as_bytes()),
        arrival: Timestamp::from_millis(ARRIVAL),
        ..Ready::default()
    };
    Delivery {
        id: ID,
        records: records.into_iter().map(ready).collect(),
    }
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        headers: vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())],
        body: Bytes::from(body.to_string()),
    }
}

fn says(status: u16, body: Value) -> impl FnMut(&Call) -> Answered + Send + 'static {
    move |_| Ok(answer(status, &body))
}

fn fails(error: CallError) -> impl FnMut(&Call) -> Answered + Send + 'static {
    move |_| Err(error.clone())
}

fn hangs(call: &Call) -> Answered {
    Err(CallError::TimedOut(call.within))
}

fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.headers
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
}

/// Codes and attempts of what was not taken, each once.
fn codes(delivered: &Delivered) -> Vec<(&str, u32)> {
    let mut codes: Vec<_> = delivered.failed.iter().map(|f| (f.code.as_str(), f.attempts)).collect();
    codes.dedup();
    codes
}
