//! Health, as `grpc.health.v1` tells it: is the process alive, and may calls be sent to it?

use chassis::Host;
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::{mem, sync::Arc};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

/// SERVING as long as the runtime answers: nothing outside can make the process be restarted.
const LIVENESS: &str = "liveness";

/// The health of a server, known by the full name of each of its services and as the whole server's, "". A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    services: Vec<&'static str>,
    ready: watch::Sender<bool>,
    stopping: CancellationToken,
    draining: CancellationToken,
}

impl Health {
    /// Not ready, until it is told so; and not any more, once the host stops.
    pub(crate) fn new(host: &Host, services: Vec<&'static str>) -> Self {
        let ready = watch::Sender::new(false);
        let (stopping, draining) = (host.stopping(), host.draining());
        let health = Self(Arc::new(Inner { services, ready, stopping, draining }));
        let (stopped, stopping) = (health.clone(), host.stopping());
        host.track(async move {
            stopping.cancelled().await;
            stopped.0.ready.send_if_modified(mem::take);
        });
        health
    }

    /// Whether calls are welcome; never again once the host stops.
    pub(crate) fn tell(&self, now: bool) {
        let Inner { ready, stopping, .. } = &*self.0;
        ready.send_if_modified(|ready| {
            let now = now && !stopping.is_cancelled();
            mem::replace(ready, now) != now
        });
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.0.services.contains(&service)
    }
}

#[async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let Inner { ready, stopping, .. } = &*self.0;
        if service == LIVENESS {
            Ok(Response::new(told(ServingStatus::Serving)))
        } else if self.knows(&service) {
            Ok(Response::new(readiness(*ready.borrow() && !stopping.is_cancelled())))
        } else {
            Err(Status::not_found("no such service is known here"))
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        // it ends with the drain, so that the connection does; what is told last is told even if nobody had the time before
        let drained = self.0.draining.clone().cancelled_owned();
        let changes = if self.knows(&service) {
            let changes = WatchStream::new(self.0.ready.subscribe()).map(readiness).map(Ok);
            let last = stream::iter([Ok(readiness(false))]);
            changes.take_until(drained).chain(last).boxed()
        } else {
            let status = match &*service {
                LIVENESS => ServingStatus::Serving,
                // the protocol's word for it; the stream stays, for the service may come
                _ => ServingStatus::ServiceUnknown,
            };
            stream::iter([Ok(told(status))]).chain(stream::pending().take_until(drained)).boxed()
        };
        Ok(Response::new(changes))
    }
}

fn readiness(ready: bool) -> HealthCheckResponse {
    told(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
