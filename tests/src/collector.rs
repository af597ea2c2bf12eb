//! A collector of traces, as OpenTelemetry has it: what it is sent, it keeps.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::sidecar::until;

/// What a collector was sent.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// The spans.
    pub spans: Arc<Mutex<Vec<Span>>>,
    /// What the processes that sent them say of themselves: `service.name=x`.
    pub services: Arc<Mutex<BTreeSet<String>>>,
}

// === impl Collector ===

impl Collector {
    /// Listens, and says where.
    pub async fn start() -> (Self, String) {
        let (collector, address) = Self::start_by(Server::builder()).await;
        (collector, format!("http://{address}"))
    }

    /// Listens with a server of the test's own, and says where.
    pub async fn start_by(mut server: Server) -> (Self, SocketAddr) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let serving = server.add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    /// The spans of a trace so far.
    pub fn of(&self, trace: u128) -> Vec<Span> {
        let spans = self.spans.lock();
        spans.iter().filter(|span| span.trace_id == trace.to_be_bytes()).cloned().collect()
    }

    /// Waits until a trace has these spans.
    pub async fn wait_for(&self, trace: u128, names: &[&str]) -> Vec<Span> {
        until(&format!("there are {names:?}"), async || {
            let spans = self.of(trace);
            names.iter().all(|name| spans.iter().any(|span| span.name == *name))
        })
        .await;
        self.of(trace)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            for attribute in resource.resource.into_iter().flat_map(|resource| resource.attributes)
            {
                if let Some(Value::StringValue(value)) =
                    attribute.value.and_then(|value| value.value)
                {
                    self.services.lock().insert(format!("{}={value}", attribute.key));
                }
            }
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
