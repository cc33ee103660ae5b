//! `starcoffee mesh`: how the services' calls to each other fare.

use super::{
    events::{Failures, Hearer, Ops},
    failure::Failure,
    output::Output,
    say,
    shop::{Peer, Shop, ask},
    table::{Cell, Column, Row, duration, state, time},
};
use contract::ops::v1::{EndpointState, GetMeshRequest, GetMeshResponse, MethodPolicy, Upstream};
use futures::future::join_all;
use tonic::{Response, Status};

pub(super) const HELP: &str = "\
BREAKER is CLOSED (calls pass), OPEN (calls are answered at once, with a refusal), HALF_OPEN (one call at a time tries
whether the upstream is back) or OFF. FAILED counts attempts of the last seconds, of which the breaker judges; BUDGET is
how many retries are allowed now: it grows with the calls. Of a service with several URLs each is asked: AT says which.

Examples:
  starcoffee mesh
  starcoffee mesh order -o json | jq -r '.upstreams[].breakerState'";

/// Whose calls.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Whose calls
    #[arg(default_value = "all")]
    service: Hearer,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peers = self.service.peers(shop).into_iter().flat_map(replicas);
        // each has its own time: one that is away keeps nobody waiting for the others
        let asked = join_all(peers.map(calls)).await;
        let (mut told, mut failures) = (Vec::new(), Failures::default());
        for (peer, answer) in asked.into_iter().collect::<Result<Vec<_>, _>>()? {
            match answer {
                Ok(answer) => told.push((peer.url, answer.upstreams)),
                Err(status) => failures.add(peer, &status)?,
            }
        }
        if !told.is_empty() {
            show(shop, &told)?;
        }
        failures.end()
    }
}

/// Each process that is one service.
fn replicas(peer: Peer<'_>) -> impl Iterator<Item = Peer<'_>> {
    peer.url.split(',').map(move |url| Peer { url: url.trim(), ..peer })
}

async fn calls(peer: Peer<'_>) -> Result<(Peer<'_>, Result<GetMeshResponse, Status>), Failure> {
    let answer = Ops::at(peer)?.client.get_mesh(ask(GetMeshRequest {})).await;
    Ok((peer, answer.map(Response::into_inner)))
}

/// What each of them told, by where it is.
fn show(shop: &Shop, told: &[(&str, Vec<Upstream>)]) -> Result<(), Failure> {
    let mut output = Output::new(shop);
    let upstreams: Vec<_> = told
        .iter()
        .flat_map(|(at, upstreams)| upstreams.iter().map(move |upstream| Called { at, upstream }))
        .collect();
    let all = upstreams.iter().map(|called| called.upstream.clone()).collect();
    output.list(&GetMeshResponse { upstreams: all }, &upstreams)?;
    if upstreams.is_empty() {
        say("nobody is called from there");
        return Ok(());
    }
    let endpoints = upstreams.iter().flat_map(|called| {
        called.upstream.endpoint_states.iter().map(|endpoint| Endpoint(*called, endpoint))
    });
    output.also(&endpoints.collect::<Vec<_>>())?;
    let mut policies: Vec<_> =
        upstreams.iter().flat_map(|called| called.upstream.policies.iter().map(Policy)).collect();
    // replicas have the same, once each has read what changed
    let mut seen = Vec::new();
    policies.retain(|Policy(policy)| {
        let new = !seen.contains(policy);
        seen.push(*policy);
        new
    });
    Ok(output.also(&policies)?)
}

/// An upstream, and where the process is that calls it.
#[derive(Clone, Copy)]
struct Called<'a> {
    at: &'a str,
    upstream: &'a Upstream,
}

/// Where an upstream is found.
struct Endpoint<'a>(Called<'a>, &'a EndpointState);

/// How one of its methods is called.
struct Policy<'a>(&'a MethodPolicy);

impl Row for Called<'_> {
    const COLUMNS: &'static [Column] = &[
        ("SERVICE", 0),
        ("AT", 0),
        ("UPSTREAM", 0),
        ("BREAKER", 0),
        ("SINCE", 0),
        ("FAILED", 0),
        ("BUDGET", 0),
        ("CALLS", 0),
        ("ATTEMPTS", 0),
        ("RETRIES", 0),
        ("REFUSED", 0),
        ("OPENED", 0),
    ];

    fn cells(&self) -> Vec<Cell> {
        let Self { at, upstream } = self;
        let counts = upstream.counts.unwrap_or_default();
        let counts =
            [counts.calls, counts.attempts, counts.retries, counts.refusals, counts.openings];
        let mut cells = vec![
            upstream.service.as_str().into(),
            (*at).into(),
            upstream.name.as_str().into(),
            state(if upstream.breaker_off {
                "OFF"
            } else {
                upstream.breaker_state().as_str_name()
            }),
            time(upstream.breaker_change_time),
            format!("{}/{}", upstream.breaker_failures, upstream.breaker_calls).into(),
            upstream.retry_budget.to_string().into(),
        ];
        cells.extend(counts.map(|count| count.to_string().into()));
        cells
    }
}

impl Row for Endpoint<'_> {
    const COLUMNS: &'static [Column] = &[
        ("AT", 0),
        ("UPSTREAM", 0),
        ("ENDPOINT", 0),
        ("STATE", 0),
        ("CALLS", 0),
        ("SINCE", 0),
        ("WHY", 0),
    ];

    fn cells(&self) -> Vec<Cell> {
        let Self(Called { at, upstream }, endpoint) = self;
        vec![
            (*at).into(),
            upstream.name.as_str().into(),
            endpoint.endpoint.as_str().into(),
            state(if endpoint.in_use { "IN_USE" } else { "TAKEN_OUT" }),
            endpoint.calls_under_way.to_string().into(),
            time(endpoint.change_time),
            endpoint.reason.as_str().into(),
        ]
    }
}

impl Row for Policy<'_> {
    const COLUMNS: &'static [Column] =
        &[("METHOD", 0), ("TIMEOUT", 0), ("ATTEMPT", 0), ("ATTEMPTS", 0), ("IDEMPOTENT", 0)];

    fn cells(&self) -> Vec<Cell> {
        let Self(policy) = self;
        vec![
            policy.method.as_str().into(),
            duration(policy.timeout),
            duration(policy.attempt_timeout),
            policy.max_attempts.to_string().into(),
            if policy.idempotent { "yes" } else { "no" }.into(),
        ]
    }
}
