//! Who may reach a model's pods, when the model says so.

use embark_crds::{
    contract::{ADMIN_PORT, GRPC_PORT, HTTP_PORT},
    v1alpha1,
};
use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{ValidatedModel, metadata};

pub(super) fn build(model: &ValidatedModel, asked: &v1alpha1::NetworkPolicy) -> NetworkPolicy {
    let port = |number: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    let served = NetworkPolicyIngressRule {
        from: Some(asked.from.clone()),
        ports: Some(vec![port(HTTP_PORT), port(GRPC_PORT)]),
    };
    // Kubelets probe it, the operator polls it and Prometheus scrapes it; nothing can be written there from outside.
    let looked_at = NetworkPolicyIngressRule { from: None, ports: Some(vec![port(ADMIN_PORT)]) };
    // To Kubernetes a rule without peers is one for everybody.
    let served = (!asked.from.is_empty()).then_some(served);
    NetworkPolicy {
        metadata: metadata(model, model.names().main()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(model.names().selector()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(served.into_iter().chain([looked_at]).collect()),
            ..NetworkPolicySpec::default()
        }),
    }
}
