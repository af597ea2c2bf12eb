//! Where callers find the model: one address that spreads connections, and one that names every pod.

use embark_crds::contract::GRPC_PORT;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{ValidatedModel, metadata};

/// The name of the gRPC port, at the Service and at the container.
pub(super) const GRPC: &str = "grpc";

pub(super) fn build(model: &ValidatedModel) -> Vec<Service> {
    let names = model.names();
    let has_tls = model.contract.serving.endpoint.is_some_and(|endpoint| endpoint.tls);
    // Gateways and meshes treat HTTP/2 without TLS as what it is. With TLS it has to be said, too: those that go by the
    // port's name would take it for plain text.
    let protocol = if has_tls { "https" } else { "kubernetes.io/h2c" };
    let service = |name: String, cluster_ip: Option<&str>| Service {
        metadata: metadata(model, name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: cluster_ip.map(str::to_owned),
            selector: Some(names.selector()),
            ports: Some(vec![ServicePort {
                name: Some(GRPC.to_owned()),
                port: i32::from(GRPC_PORT),
                target_port: Some(IntOrString::String(GRPC.to_owned())),
                protocol: Some("TCP".to_owned()),
                app_protocol: Some(protocol.to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    vec![service(names.main(), None), service(names.pods(), Some("None"))]
}
