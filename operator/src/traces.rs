//! Where spans go: to the collector that OpenTelemetry's own environment variables name, over gRPC. With none, nowhere. The
//! spans are those of `tracing`: what a reconcile is, and its steps.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData},
};
use prometheus_client::metrics::counter::Counter;
use tokio::task::spawn_blocking;
use tonic::transport::ClientTlsConfig;
use tracing::{info, warn};

/// Where spans go; either names the collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How they go; either says it.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// The only way that is built in.
const GRPC: &str = "grpc";
/// What the process is called where the environment does not say it.
const SERVICE_NAME: &str = "embark-operator";
/// How long the last spans may take to go out at the end.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Sends spans, or does not.
#[derive(Debug, Default)]
pub struct Export {
    sending: Option<(SdkTracerProvider, String)>,
    failures: Counter,
}

/// Why spans cannot be sent as the environment asks.
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
    #[error("{name}: traces cannot be sent there")]
    Endpoint {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        source: opentelemetry_otlp::ExporterBuildError,
    },
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
    /// Starts what the environment asks for, on the runtime at hand. `instance` is what the process calls itself.
    ///
    /// # Errors
    /// What it asks for cannot be had.
    pub fn start(instance: &str) -> Result<Self, NoTraces> {
        let found = ENDPOINTS.into_iter().find_map(|name| Some((name, said(name)?)));
        let is_off = said("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || said("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        let Some((name, address)) = found.filter(|_| !is_off) else { return Ok(Export::default()) };
        let is_tls = address.starts_with("https://");
        if !is_tls && !address.starts_with("http://") {
            return Err(NoTraces::Address { name, value: address });
        }
        let protocol = PROTOCOLS.into_iter().find_map(|name| Some((name, said(name)?)));
        if let Some((name, value)) = protocol.filter(|(_, value)| value != GRPC) {
            return Err(NoTraces::Protocol { name, value });
        }
        // It fails only when one was installed before, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = SpanExporter::builder().with_tonic();
        if is_tls {
            // Those that the system trusts; none are by default.
            builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        let exporter = builder.build().map_err(|source| NoTraces::Endpoint { name, source })?;
        let failures = Counter::default();
        let is_failing = AtomicBool::new(false);
        let telling = Telling { exporter, failures: failures.clone(), is_failing };
        let provider = SdkTracerProvider::builder().with_batch_exporter(telling);
        let provider = provider.with_resource(resource(instance)).build();
        Ok(Export { sending: Some((provider, address)), failures })
    }

    /// What takes spans; none: nobody asked for them.
    pub(crate) fn tracer(&self) -> Option<SdkTracer> {
        self.sending.as_ref().map(|(provider, _)| provider.tracer("embark"))
    }

    /// Batches of spans that the collector did not take.
    pub(crate) fn failures(&self) -> Counter {
        self.failures.clone()
    }

    /// Logs where spans go.
    pub(crate) fn tell(&self) {
        if let Some((_, address)) = &self.sending {
            info!(collector = address, "traces are sent");
        }
    }

    /// Sends what is left, for a while.
    pub(crate) async fn end(self) {
        let Some((provider, _)) = self.sending else { return };
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

/// What the process is; what the environment says of it wins.
fn resource(instance: &str) -> Resource {
    let ours = [
        ("service.name", SERVICE_NAME.to_owned()),
        ("service.instance.id", instance.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let said = Resource::builder().build();
    // What the library says for want of a name.
    let is_said = |key: &str| {
        let value = said.get(&opentelemetry::Key::new(key.to_owned()));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let missing = ours.into_iter().filter(|(key, _)| !is_said(key));
    let missing = missing.map(|(key, value)| KeyValue::new(key, value));
    Resource::builder().with_attributes(missing).build()
}

/// A variable of the environment; an empty one says nothing.
fn said(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
