//! The cluster itself: its version, and what others installed in it.

use k8s_openapi::apimachinery::pkg::version::Info;

use super::{Finding, Looker, words};
use crate::kube_ext::chain;

/// The oldest that the chart installs on. Everything that we ask of a cluster is on by default there, such as native sidecars,
/// which injection makes of ours.
const OLDEST: (u32, u32) = (1, 31);
/// Where autoscalers learn how busy pods are.
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
/// Where Prometheus' operator is told what to scrape.
const MONITORS: &str = "/apis/monitoring.coreos.com/v1";

/// Whether the version is one that we know to work.
pub(super) fn version(info: &Info) -> Finding {
    const CHECK: &str = "cluster";
    let said = format!("Kubernetes {}.{}", words(&info.major), words(&info.minor));
    match (number(&info.major), number(&info.minor)) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Finding::ok(CHECK, said),
        (Some(_), Some(_)) => {
            let message = format!("{said} is older than what the operator is made for");
            let todo = format!("use {}.{} or newer", OLDEST.0, OLDEST.1);
            Finding::failed(CHECK, message, todo)
        }
        _ => Finding::warning(
            CHECK,
            format!("{said} is no version that is known here"),
            format!("see that it is {}.{} or newer", OLDEST.0, OLDEST.1),
        ),
    }
}

/// Whether the APIs are there that some features take.
pub(super) async fn apis(looker: &Looker) -> Vec<Finding> {
    let metrics = match served(looker, METRICS).await {
        Ok(_) => Finding::ok("metrics-api", "served: models can be autoscaled"),
        Err(error) => Finding::warning(
            "metrics-api",
            format!("not served, so autoscaling by CPU has no numbers: {}", words(&chain(&error))),
            "install metrics-server, or leave spec.autoscaling out",
        ),
    };
    let monitors = match served(looker, MONITORS).await {
        Ok(resources) if resources.contains("\"podmonitors\"") => {
            Finding::info("pod-monitors", "the kind is there: each model gets a PodMonitor")
        }
        _ => Finding::info(
            "pod-monitors",
            "the kind is not there: Prometheus finds the pods some other way",
        ),
    };
    vec![metrics, monitors]
}

async fn served(looker: &Looker, path: &str) -> kube::Result<String> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    looker.client.request_text(request).await
}

/// The number that a text begins with: some clusters write `33+`.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn versions_are_read_as_clusters_write_them() {
        for (major, minor, level) in [
            ("1", "36", Level::Ok),
            ("1", "31+", Level::Ok),
            ("1", "30", Level::Failed),
            ("2", "0", Level::Ok),
            ("", "", Level::Warning),
            ("1", "99999999999999", Level::Warning),
        ] {
            let info = Info { major: major.into(), minor: minor.into(), ..Info::default() };
            assert_eq!(version(&info).level, level, "{major} {minor}");
        }
    }

    #[test]
    fn oldest_version_is_the_one_that_the_chart_and_the_documents_name() {
        let oldest = format!("{}.{}", OLDEST.0, OLDEST.1);
        for (file, line) in [
            ("charts/embark/Chart.yaml", format!("\nkubeVersion: \">={oldest}.0-0\"\n")),
            ("README.md", format!("\nIt takes Kubernetes {oldest} or newer, ")),
            ("docs/operator.md", format!(" the version of Kubernetes ({oldest} or newer), ")),
        ] {
            let text = std::fs::read_to_string(format!("../{file}")).unwrap();
            assert!(text.contains(&line), "{file} does not say {line:?}");
        }
    }
}
