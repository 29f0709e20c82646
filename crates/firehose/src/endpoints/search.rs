//! OpenSearch, Elasticsearch and OpenSearch Serverless by their bulk interface: one document for each record, each with an
//! answer of its own. Documents that the engine may take later are sent again alone; the others are given up at once.
//!
//! With ids made here, a document that is sent twice is there once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::limits;
use super::parts::parts;
use super::retry::{Attempts, Trouble, shortened};
use super::rotation::Rotation;
use super::{Delivered, Delivery, Endpoint};
use crate::ports::{Answer, Call, CallError, HttpCaller};
use crate::types::{ErrorOutputType, Failed, Ready};

/// An index of a search engine, or a family of them by time.
pub struct SearchIndex {
    /// Makes the calls.
    pub http: Arc<dyn HttpCaller>,
    /// The engine's base URL, without a slash at its end.
    pub url: String,
    /// What is sent as `Authorization`.
    pub authorization: Option<String>,
    /// The index, or what its name begins with.
    pub index: String,
    /// How its name goes on.
    pub rotation: Rotation,
    /// The type, for engines that are so old that they want one.
    pub type_name: Option<String>,
    /// Whether documents have ids that are made here.
    pub ids: bool,
    /// How long it is tried again.
    pub retry: Duration,
    /// Which engine it is: it decides what error records look like.
    pub kind: ErrorOutputType,
}

/// A record on its way into the index.
struct Document {
    /// Its place in the delivery.
    place: usize,
    /// The lines of the bulk request.
    lines: Bytes,
    index: String,
    id: Option<Uuid>,
}

/// A document that the engine did not take.
struct Rejected {
    document: Document,
    trouble: Trouble,
}

#[async_trait]
impl Endpoint for SearchIndex {
    async fn deliver(&self, delivery: Delivery) -> Delivered {
        let mut delivered = Delivered::default();
        let mut documents = Vec::with_capacity(delivery.records.len());
        for (place, record) in delivery.records.iter().enumerate() {
            match self.document(delivery.id, place, record) {
                Ok(document) => documents.push(document),
                Err(rejected) => delivered.failed.push(self.failed(&delivery.records, &rejected, 0)),
            }
        }
        let size = |document: &Document| document.lines.len();
        let mut rest = documents;
        while !rest.is_empty() {
            let first = parts(&rest, limits::BULK_DOCUMENTS_MAX, limits::BULK_BYTES_MAX, size);
            let behind = rest.split_off(first.first().map_or(0, |part| part.len()));
            self.insist(rest, &delivery.records, &mut delivered).await;
            rest = behind;
        }
        delivered
    }
}

/// What a bulk request says of a document.
#[derive(Serialize)]
struct Action<'a> {
    index: Place<'a>,
}

#[derive(Serialize)]
struct Place<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type", skip_serializing_if = "Option::is_none")]
    type_name: Option<&'a str>,
    #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// What is answered to a bulk request.
#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<BulkItem>,
}

#[derive(Deserialize)]
struct BulkItem {
    index: ItemResult,
}

#[derive(Deserialize)]
struct ItemResult {
    #[serde(rename = "_id")]
    id: Option<String>,
    status: u16,
    error: Option<Box<RawValue>>,
}

impl SearchIndex {
    /// The lines of a record. What is no JSON document never goes out: a line break in it would let it speak for others.
    fn document(&self, delivery: Uuid, place: usize, record: &Ready) -> Result<Document, Box<Rejected>> {
        let index = self.rotation.index(&self.index, record.arrival);
        let id = Some(Uuid::new_v5(&delivery, place.to_string().as_bytes()));
        let mut document = Document {
            place,
            lines: Bytes::new(),
            index,
            id,
        };
        let parsed = std::str::from_utf8(&record.data)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str::<&RawValue>(text).map_err(|error| error.to_string()));
        let json = match parsed {
            Ok(json) if json.get().starts_with('{') => json.get(),
            Ok(_) => return Err(not_json(document, "it is no object")),
            Err(why) => return Err(not_json(document, &why)),
        };
        let action = Action {
            index: Place {
                index: &document.index,
                type_name: self.type_name.as_deref(),
                id: id.filter(|_| self.ids).map(|id| id.to_string()),
            },
        };
        let action = serde_json::to_vec(&action).map_err(|why| not_json(empty(&document), &why.to_string()))?;
        let mut lines = BytesMut::with_capacity(action.len() + json.len() + 2);
        lines.extend_from_slice(&action);
        lines.extend_from_slice(b"\n");
        // In JSON a line break is white space: inside a text it is escaped.
        lines.extend(
            json.bytes()
                .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        );
        lines.extend_from_slice(b"\n");
        document.lines = lines.freeze();
        Ok(document)
    }

    /// Delivers what fits into one request, and sends again what the engine may take later.
    async fn insist(&self, mut documents: Vec<Document>, records: &[Ready], delivered: &mut Delivered) {
        let mut attempts = Attempts::new(self.retry);
        loop {
            let rejected = self.attempt(documents).await;
            let passing = rejected.iter().any(|rejected| rejected.trouble.again);
            if rejected.is_empty() {
                return;
            }
            let another = attempts.another(passing).await;
            documents = Vec::new();
            for rejected in rejected {
                if another && rejected.trouble.again {
                    documents.push(rejected.document);
                } else {
                    delivered.failed.push(self.failed(records, &rejected, attempts.made()));
                }
            }
            if documents.is_empty() {
                return;
            }
        }
    }

    /// Sends documents once; what is not listed in the answer was taken.
    async fn attempt(&self, documents: Vec<Document>) -> Vec<Rejected> {
        let all = |documents: Vec<Document>, trouble: &Trouble| {
            tracing::debug!(
                url = self.url,
                code = trouble.code,
                why = trouble.message,
                "a search engine took nothing"
            );
            let rejected = |document| Rejected {
                document,
                trouble: trouble.clone(),
            };
            documents.into_iter().map(rejected).collect()
        };
        let mut body = BytesMut::with_capacity(documents.iter().map(|document| document.lines.len()).sum());
        for document in &documents {
            body.extend_from_slice(&document.lines);
        }
        let mut headers = vec![("content-type".to_owned(), "application/x-ndjson".to_owned())];
        headers.extend(
            self.authorization
                .iter()
                .map(|value| ("authorization".to_owned(), value.clone())),
        );
        let call = Call {
            url: format!("{}/_bulk", self.url),
            headers,
            body: body.freeze(),
            within: limits::BULK_ANSWER_WITHIN,
            answer_bytes_max: limits::BULK_ANSWER_BYTES_MAX,
        };
        let answered = self.http.post(call).await.map_err(|error| no_answer(&error));
        match answered.and_then(|answer| self.items(&answer, &documents)) {
            Ok(items) => documents.into_iter().zip(items).filter_map(rejected).collect(),
            Err(trouble) => all(documents, &trouble),
        }
    }

    /// The answers to each document, if the engine answered as it must.
    fn items(&self, answer: &Answer, documents: &[Document]) -> Result<Vec<ItemResult>, Trouble> {
        let status = answer.status;
        if status != 200 {
            let message = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(Trouble::passing(&status.to_string(), message));
        }
        let invalid = |why: String| Trouble::passing("500", format!("the answer to a bulk request is invalid: {why}"));
        let parsed: BulkAnswer = serde_json::from_slice(&answer.body).map_err(|why| invalid(why.to_string()))?;
        if parsed.items.len() != documents.len() {
            return Err(invalid(format!(
                "{} items for {} documents",
                parsed.items.len(),
                documents.len()
            )));
        }
        let items: Vec<_> = parsed.items.into_iter().map(|item| item.index).collect();
        let of_another = |(item, document): (&ItemResult, &Document)| {
            let sent = document.id.filter(|_| self.ids).map(|id| id.to_string());
            sent.is_some() && item.id.is_some() && item.id != sent
        };
        if items.iter().zip(documents).any(of_another) {
            return Err(invalid("it names other documents than were sent".to_owned()));
        }
        Ok(items)
    }

    fn failed(&self, records: &[Ready], rejected: &Rejected, attempts: u32) -> Failed {
        let Rejected { document, trouble } = rejected;
        let record = records.get(document.place).cloned().unwrap_or_default();
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let id = document
            .id
            .filter(|_| self.ids)
            .map_or_else(|| "null".to_owned(), |id| text(&id.to_string()));
        let more = match self.kind {
            ErrorOutputType::OpenSearchServerless => {
                vec![("osDocumentId", id), ("osIndexName", text(&document.index))]
            }
            _ => vec![
                ("esDocumentId", id),
                ("esIndexName", text(&document.index)),
                ("esTypeName", text(self.type_name.as_deref().unwrap_or_default())),
            ],
        };
        Failed {
            raw: record.data,
            arrival: record.arrival,
            code: trouble.code.clone(),
            message: trouble.message.clone(),
            attempts,
            kind: self.kind,
            sequence: None,
            more,
        }
    }
}

fn empty(document: &Document) -> Document {
    Document {
        lines: Bytes::new(),
        index: document.index.clone(),
        ..*document
    }
}

fn not_json(document: Document, why: &str) -> Box<Rejected> {
    let trouble = Trouble::lasting("400", format!("The record is not a JSON object: {why}"));
    Box::new(Rejected { document, trouble })
}

/// What became of a document that was answered; `None` if it was taken.
fn rejected((document, item): (Document, ItemResult)) -> Option<Rejected> {
    if (200..300).contains(&item.status) {
        return None;
    }
    let message = item.error.map_or_else(String::new, |error| error.get().to_owned());
    let trouble = Trouble {
        code: item.status.to_string(),
        message: shortened(message),
        // Too busy, failing, or (403) an index that is blocked because its disk is full.
        again: matches!(item.status, 403 | 408 | 429) || item.status >= 500,
    };
    Some(Rejected { document, trouble })
}

fn no_answer(error: &CallError) -> Trouble {
    match error {
        CallError::Refused(why) => Trouble::lasting("503", why),
        CallError::TimedOut(_) => Trouble::passing("504", error.to_string()),
        _ => Trouble::passing("503", error.to_string()),
    }
}
