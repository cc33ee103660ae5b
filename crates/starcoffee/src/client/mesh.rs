//! `starcoffee mesh`: how the services' calls to each other fare.

use super::{
    events::{Failures, Hearer, Ops},
    failure::Failure,
    output::Output,
    say,
    shop::{Shop, ask},
    table::{Cell, Column, Row, duration, state, time},
};
use contract::ops::v1::{EndpointState, GetMeshRequest, GetMeshResponse, MethodPolicy, Upstream};

pub(super) const HELP: &str = "\
BREAKER is CLOSED (calls pass), OPEN (calls are answered at once, with a refusal), HALF_OPEN (one call at a time tries
whether the upstream is back) or OFF. FAILED counts attempts of the last seconds, of which the breaker judges; BUDGET is
how many retries are allowed now: it grows with the calls.

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
        let (mut all, mut failures) = (GetMeshResponse::default(), Failures::default());
        let mut answered = false;
        for peer in self.service.peers(shop) {
            match Ops::at(peer)?.client.get_mesh(ask(GetMeshRequest {})).await {
                Ok(answer) => {
                    answered = true;
                    all.upstreams.extend(answer.into_inner().upstreams);
                }
                Err(status) => failures.add(peer, &status)?,
            }
        }
        if answered {
            show(shop, &all)?;
        }
        failures.end()
    }
}

fn show(shop: &Shop, all: &GetMeshResponse) -> Result<(), Failure> {
    let mut output = Output::new(shop);
    output.list(all, &all.upstreams)?;
    if all.upstreams.is_empty() {
        say("nobody is called from there");
        return Ok(());
    }
    let upstreams = || all.upstreams.iter();
    let endpoints = upstreams().flat_map(|upstream| {
        upstream.endpoint_states.iter().map(|endpoint| Endpoint(upstream, endpoint))
    });
    output.also(&endpoints.collect::<Vec<_>>())?;
    let policies = upstreams().flat_map(|upstream| upstream.policies.iter().map(Policy));
    Ok(output.also(&policies.collect::<Vec<_>>())?)
}

/// Where an upstream is found.
struct Endpoint<'a>(&'a Upstream, &'a EndpointState);

/// How one of its methods is called.
struct Policy<'a>(&'a MethodPolicy);

impl Row for Upstream {
    const COLUMNS: &'static [Column] = &[
        ("SERVICE", 0),
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
        let counts = self.counts.unwrap_or_default();
        let counts =
            [counts.calls, counts.attempts, counts.retries, counts.refusals, counts.openings];
        let mut cells = vec![
            self.service.as_str().into(),
            self.name.as_str().into(),
            state(if self.breaker_off { "OFF" } else { self.breaker_state().as_str_name() }),
            time(self.breaker_change_time),
            format!("{}/{}", self.breaker_failures, self.breaker_calls).into(),
            self.retry_budget.to_string().into(),
        ];
        cells.extend(counts.map(|count| count.to_string().into()));
        cells
    }
}

impl Row for Endpoint<'_> {
    const COLUMNS: &'static [Column] =
        &[("UPSTREAM", 0), ("ENDPOINT", 0), ("STATE", 0), ("CALLS", 0), ("SINCE", 0), ("WHY", 0)];

    fn cells(&self) -> Vec<Cell> {
        let Self(upstream, endpoint) = self;
        vec![
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
