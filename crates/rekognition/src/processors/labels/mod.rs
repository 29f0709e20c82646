//! Label-detection processors: people and pets in a stretch of a video stream. [`settings`] is what is kept of one and how
//! it is created and updated, [`region`] where in the picture it looks. A start begins a [`session`] of at most two minutes
//! of video, which [`run`] carries out fragment by fragment: [`fragment`] gathers the frames and says which are looked at,
//! [`look`] finds the labels and puts their pictures into the bucket, [`message`] is what the topic is told, and [`outbox`]
//! tells it.
//!
//! A session is durable: what was found, the notification of it and how far the session has come are one commit, so that a
//! restart goes on after the last fragment that was done and finds nothing a second time.

pub(crate) mod control;
mod fragment;
mod look;
mod message;
mod outbox;
pub(crate) mod region;
mod run;
pub(crate) mod session;
pub(crate) mod settings;

use std::sync::Arc;

use base::{AccountId, ApiError};
use bytes::Bytes;
use objects::{Buckets, ObjectError, PutOptions};
use storage::{Catalog, CatalogError};
use tokio::sync::Semaphore;
use video_streams::ports::Topics;

use crate::processors::metrics::ProcessorMetrics;
use crate::{error, limits};
use outbox::Outbox;
use settings::LabelDetection;

/// What the sessions of all label-detection processors share.
pub(crate) struct Labels {
    pub(crate) buckets: Arc<dyn Buckets>,
    pub(crate) topics: Arc<dyn Topics>,
    pub(crate) outbox: Arc<Outbox>,
    /// One for each session that runs.
    pub(crate) permits: Arc<Semaphore>,
}

impl Labels {
    pub(crate) fn new(
        buckets: Arc<dyn Buckets>,
        topics: Arc<dyn Topics>,
        catalog: Arc<dyn Catalog>,
        metrics: ProcessorMetrics,
    ) -> Self {
        Labels {
            outbox: Outbox::new(catalog, topics.clone(), metrics),
            buckets,
            topics,
            permits: Arc::new(Semaphore::new(limits::LABEL_SESSIONS_MAX)),
        }
    }

    /// Goes on with the notifications that were not taken.
    pub(crate) async fn resume(&self) -> Result<(), CatalogError> {
        self.outbox.resume().await
    }

    pub(crate) async fn shutdown(&self) {
        self.outbox.shutdown().await;
    }

    /// Refuses a bucket that is not there and a topic without an address.
    pub(crate) async fn check_places(&self, account: AccountId, detection: &LabelDetection) -> Result<(), ApiError> {
        let opened = self.buckets.open(account, &detection.bucket).await;
        opened.map_err(|why| error::invalid_parameter(format!("Output.S3Destination.Bucket: {why}")))?;
        if let Some(topic) = detection.topic.as_ref().filter(|topic| !self.topics.knows(topic)) {
            return Err(error::invalid_parameter(format!(
                "the topic {topic} has no address; the operator gives it one in [topics]"
            )));
        }
        Ok(())
    }

    /// Puts an object into a bucket of the account; it is durable when this answers.
    async fn put(
        &self,
        account: AccountId,
        bucket: &str,
        key: &str,
        (content_type, content): (&str, Bytes),
    ) -> Result<(), ObjectError> {
        let bucket = self.buckets.open(account, bucket).await?;
        let options = PutOptions {
            content_type: Some(content_type.to_owned()),
            ..PutOptions::default()
        };
        bucket.put(key, options, content).await.map(drop)
    }
}
