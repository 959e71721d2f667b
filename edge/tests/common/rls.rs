//! Requests and responses of Envoy's rate limit service, written in one line each, and a client
//! for them.
//!
//! A request is `domain: descriptor | descriptor ..`, a descriptor `key=value key=value ..` and
//! then, if wanted, `+3` (its hits), `-3` (given back) or `@5/minute` (a limit of its own).
//! `domain*3:` has hits for all of them. A response is `OK: ok 4 of 5/minute | ..`.

#![allow(clippy::unwrap_used)]

use claw_edge::proto::{
    Code, DescriptorStatus, Entry, RateLimitDescriptor, RateLimitOverride, RateLimitRequest,
    RateLimitResponse, Unit,
};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Reads a request.
pub fn request(text: &str) -> RateLimitRequest {
    let (domain, descriptors) = text.split_once(": ").unwrap_or((text, ""));
    let (domain, hits) = domain.split_once('*').unwrap_or((domain, "0"));
    RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors
            .split('|')
            .filter(|descriptor| !descriptor.trim().is_empty())
            .map(descriptor)
            .collect(),
        hits_addend: hits.parse().unwrap(),
    }
}

/// Reads a descriptor.
pub fn descriptor(text: &str) -> RateLimitDescriptor {
    let mut descriptor = RateLimitDescriptor::default();
    for word in text.split_whitespace() {
        if let Some(hits) = word.strip_prefix('+') {
            descriptor.hits_addend = Some(hits.parse().unwrap());
        } else if let Some(hits) = word.strip_prefix('-') {
            descriptor.hits_addend = Some(hits.parse().unwrap());
            descriptor.is_negative_hits = true;
        } else if let Some(limit) = word.strip_prefix('@') {
            let (requests, unit) = limit.split_once('/').unwrap();
            descriptor.limit = Some(RateLimitOverride {
                requests_per_unit: requests.parse().unwrap(),
                unit: Unit::named(unit).unwrap_or(Unit::Unknown).into(),
            });
        } else {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            descriptor.entries.push(Entry { key: key.to_owned(), value: value.to_owned() });
        }
    }
    descriptor
}

/// A response as one line.
pub fn line(response: &RateLimitResponse) -> String {
    let statuses: Vec<String> = response.statuses.iter().map(status).collect();
    let overall = if response.overall_code() == Code::OverLimit { "OVER" } else { "OK" };
    format!("{overall}: {}", statuses.join(" | "))
}

fn status(status: &DescriptorStatus) -> String {
    let code = if status.code() == Code::OverLimit { "over" } else { "ok" };
    match &status.current_limit {
        None if status.limit_remaining == u32::MAX => format!("{code} unlimited"),
        None => code.to_owned(),
        Some(limit) => format!(
            "{code} {} of {}/{}",
            status.limit_remaining,
            limit.requests_per_unit,
            limit.unit().name()
        ),
    }
}

/// A client over one connection, which is made by the first call.
#[derive(Clone, Debug)]
pub struct Client {
    pub channel: Channel,
}

impl Client {
    pub fn new(port: u16) -> Self {
        let endpoint = Endpoint::try_from(format!("http://127.0.0.1:{port}")).unwrap();
        Self { channel: endpoint.connect_lazy() }
    }

    /// `ShouldRateLimit`.
    pub async fn ask(&self, request: RateLimitRequest) -> Result<RateLimitResponse, Status> {
        self.send(Request::new(request)).await
    }

    /// `ShouldRateLimit`, with metadata.
    pub async fn send(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<RateLimitResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(claw_edge::rls::PATH);
        grpc.unary(request, path, ProstCodec::default()).await.map(tonic::Response::into_inner)
    }

    /// The response to a request, each as one line.
    pub async fn line(&self, text: &str) -> String {
        match self.ask(request(text)).await {
            Ok(response) => line(&response),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        }
    }
}
