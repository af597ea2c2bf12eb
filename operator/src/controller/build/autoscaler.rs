//! How many pods there are while load moves: by the CPU of the container that serves, or by the metrics that a model names.

use embark_crds::v1alpha1::Autoscaling;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
    MetricSpec, MetricTarget,
};

use super::{ValidatedModel, metadata};
use crate::names::CONTAINER;

/// How long load must have been low before a pod is taken away: its cache goes with it.
const DOWN_AFTER_SECONDS: i32 = 600;
/// A new pod begins with nothing remembered: at most one in this time.
const UP_EVERY_SECONDS: i32 = 60;

pub(super) fn build(model: &ValidatedModel, autoscaling: &Autoscaling) -> HorizontalPodAutoscaler {
    let metrics = match autoscaling.metrics.as_slice() {
        [] => vec![cpu(autoscaling.target_cpu_utilization_percentage)],
        metrics => metrics.to_vec(),
    };
    HorizontalPodAutoscaler {
        metadata: metadata(model, model.names().main()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: model.names().main(),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(metrics),
            behavior: Some(autoscaling.behavior.clone().unwrap_or_else(behavior)),
        }),
        ..HorizontalPodAutoscaler::default()
    }
}

fn cpu(percentage: i32) -> MetricSpec {
    MetricSpec {
        type_: "ContainerResource".to_owned(),
        container_resource: Some(ContainerResourceMetricSource {
            container: CONTAINER.to_owned(),
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percentage),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn behavior() -> HorizontalPodAutoscalerBehavior {
    let one_pod =
        HPAScalingPolicy { type_: "Pods".to_owned(), value: 1, period_seconds: UP_EVERY_SECONDS };
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(HPAScalingRules {
            policies: Some(vec![one_pod]),
            stabilization_window_seconds: Some(0),
            ..HPAScalingRules::default()
        }),
        scale_down: Some(HPAScalingRules {
            stabilization_window_seconds: Some(DOWN_AFTER_SECONDS),
            ..HPAScalingRules::default()
        }),
    }
}
