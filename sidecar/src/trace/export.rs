//! Where traces go: to the collector that OpenTelemetry's own environment variables name, over gRPC. With none, nowhere.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData},
};
use prometheus_client::metrics::counter::Counter;
use tokio::task::spawn_blocking;
use tonic::transport::ClientTlsConfig;
use tracing::{info, warn};

use super::Tracer;

/// Where spans go; either names the collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How they go; either says it.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// The only way that is built in.
const GRPC: &str = "grpc";
/// What the process is called where the environment does not say it.
const SERVICE_NAME: &str = "embark-sidecar";
/// How long the last spans may take to go out at the end.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Sends traces, or does not.
#[derive(Debug, Default)]
pub struct Export(Option<SdkTracerProvider>);

/// Why traces cannot be sent as the environment asks.
#[derive(Debug, thiserror::Error)]
pub enum NoTraces {
    /// By another protocol.
    #[error("{name}: {value:?} is not supported; it must be {GRPC}")]
    Protocol {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// To no address.
    #[error("{name}: {value:?} is no address; it must begin with http:// or https://")]
    Address {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Something of it is malformed.
    #[error("{0}: traces cannot be sent there: {1}")]
    Endpoint(&'static str, opentelemetry_otlp::ExporterBuildError),
}

/// Says that spans are lost, and that they are not any more.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    failures: Counter,
    is_failing: AtomicBool,
}

// === impl Export ===

impl Export {
    /// Starts what the environment asks for, on the runtime at hand. `instance` is what the process calls itself; batches of
    /// spans that the collector does not take are counted in `failures`.
    ///
    /// # Errors
    /// What it asks for cannot be had.
    pub fn start(instance: &str, failures: Counter) -> Result<Self, NoTraces> {
        let found = ENDPOINTS.into_iter().find_map(|name| Some((name, said(name)?)));
        let Some((endpoint, address)) = found else { return Ok(Export(None)) };
        let is_off = said("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || said("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if is_off {
            return Ok(Export(None));
        }
        let is_tls = address.starts_with("https://");
        if !is_tls && !address.starts_with("http://") {
            return Err(NoTraces::Address { name: endpoint, value: address });
        }
        let protocol = PROTOCOLS.into_iter().find_map(|name| Some((name, said(name)?)));
        if let Some((name, value)) = protocol.filter(|(_, value)| value != GRPC) {
            return Err(NoTraces::Protocol { name, value });
        }
        let mut builder = SpanExporter::builder().with_tonic();
        if is_tls {
            // Those that the system trusts; none are by default.
            builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        let exporter = builder.build();
        let exporter = exporter.map_err(|error| NoTraces::Endpoint(endpoint, error))?;
        let telling = Telling { exporter, failures, is_failing: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(telling)
            .with_resource(resource(instance))
            .build();
        info!(collector = address, "traces are sent");
        Ok(Export(Some(provider)))
    }

    /// What begins traces.
    pub fn tracer(&self) -> Tracer {
        Tracer(self.0.as_ref().map(|provider| provider.tracer("embark")))
    }

    /// Sends what is left, for a while.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = spawn_blocking(move || provider.shutdown_with_timeout(LAST_WITHIN)).await;
        if let Ok(Err(error)) = ended {
            warn!("the last traces were not sent: {error}");
        }
    }
}

// === impl Telling ===

impl opentelemetry_sdk::trace::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) => {
                self.failures.inc();
                if !was_failing {
                    warn!("traces cannot be sent, and are lost until they can: {error}");
                }
            }
            Ok(()) if was_failing => info!("traces are sent again"),
            Ok(()) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

// === free functions ===

/// What the environment says of the process, and what it leaves out.
fn resource(instance: &str) -> Resource {
    let found = Resource::builder().build();
    let lacks = |key: &'static str| match found.get(&Key::from_static_str(key)) {
        None => true,
        // What the library says for want of a name.
        Some(value) => value.as_str().starts_with("unknown_service"),
    };
    let ours = [
        ("service.name", SERVICE_NAME.to_owned()),
        ("service.instance.id", instance.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let missing = ours.into_iter().filter(|(key, _)| lacks(key));
    let missing = missing.map(|(key, value)| KeyValue::new(key, value));
    Resource::builder().with_attributes(missing).build()
}

/// A variable of the environment; an empty one says nothing.
fn said(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
