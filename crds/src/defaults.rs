//! The default of every field of an EmbeddingModel, declared once: serde fills it in and the schema shows it.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::v1alpha1::{DurationText, Quantity};

pub(crate) fn replicas() -> i32 {
    1
}

pub(crate) fn min_replicas() -> i32 {
    1
}

pub(crate) fn target_cpu_utilization_percentage() -> i32 {
    70
}

pub(crate) fn model_size_limit() -> Quantity {
    Quantity::from("2Gi")
}

pub(crate) fn max_tokens() -> u32 {
    256
}

pub(crate) fn text_size_limit() -> Quantity {
    Quantity::from("256Ki")
}

pub(crate) fn image_size_limit() -> Quantity {
    Quantity::from("10Mi")
}

pub(crate) fn max_pixels() -> u64 {
    50_000_000
}

pub(crate) fn url_timeout() -> DurationText {
    DurationText::from("2s")
}

pub(crate) fn ttl() -> DurationText {
    DurationText::from("24h")
}

pub(crate) fn ttl_jitter_percent() -> u8 {
    10
}

pub(crate) fn stale_while_revalidate() -> DurationText {
    DurationText::from("0s")
}

pub(crate) fn negative_ttl() -> DurationText {
    DurationText::from("0s")
}

pub(crate) fn memory_size_limit() -> Quantity {
    Quantity::from("128Mi")
}

pub(crate) fn disk_size_limit() -> Quantity {
    Quantity::from("2Gi")
}

pub(crate) fn epoch() -> u64 {
    0
}

pub(crate) fn batch_max_items() -> u32 {
    32
}

pub(crate) fn batch_max_tokens() -> u32 {
    4096
}

pub(crate) fn max_duration() -> DurationText {
    DurationText::from("50ms")
}

pub(crate) fn max_delay() -> DurationText {
    DurationText::from("0ms")
}

pub(crate) fn queue_max_items() -> u32 {
    4096
}

pub(crate) fn queue_max_tokens() -> u32 {
    262_144
}

pub(crate) fn max_unavailable() -> IntOrString {
    IntOrString::Int(1)
}

pub(crate) fn token_key() -> String {
    "token".to_owned()
}

pub(crate) fn ca_key() -> String {
    "ca.crt".to_owned()
}
