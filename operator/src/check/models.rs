//! Which models are not served.

use kube::{Api, api::ListParams};

use super::{Finding, Looker, words};
use crate::{
    kube_ext::{Guarded, is_gone},
    watches::Scope,
};

const CHECK: &str = "models";
/// Models that are asked for at a time.
const AT_A_TIME: u32 = 500;
/// The most that are looked at, and the most that are told of.
const MOST: usize = 10_000;
const MOST_TOLD: usize = 10;

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    let scope = Scope::new(looker.installed.namespaces.iter().cloned());
    let mut models = Vec::new();
    for api in &scope.each(&looker.client) {
        match list(api, &mut models).await {
            Ok(()) => {}
            // The definition's own finding says it.
            Err(error) if is_gone(&error) => return Vec::new(),
            Err(error) => return vec![Finding::unseen(CHECK, "models", &error)],
        }
    }
    judge(&models)
}

/// Adds what there is, as far as so many are looked at.
async fn list(api: &Api<Guarded>, models: &mut Vec<Guarded>) -> kube::Result<()> {
    let mut parameters = ListParams::default().limit(AT_A_TIME);
    while models.len() < MOST {
        let list = api.list(&parameters).await?;
        models.extend(list.items);
        match list.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => parameters = parameters.continue_token(&more),
            None => break,
        }
    }
    Ok(())
}

fn judge(models: &[Guarded]) -> Vec<Finding> {
    let unready: Vec<(String, String)> = models.iter().filter_map(unready).collect();
    let ready = models.len() - unready.len();
    let all = format!("{ready} of {} are ready", models.len());
    let mut findings = vec![match unready.len() {
        0 => Finding::ok(CHECK, all),
        _ => Finding::info(CHECK, all),
    }];
    findings.extend(unready.iter().take(MOST_TOLD).map(|(place, why)| {
        let (namespace, name) = place.split_once('/').unwrap_or_default();
        let todo = format!("kubectl describe embm {name} --namespace {namespace}");
        Finding::warning(CHECK, format!("{place} is not ready: {why}"), todo)
    }));
    if let Some(more) = unready.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        let todo = "kubectl get embm --all-namespaces";
        findings.push(Finding::warning(CHECK, format!("{more} more are not ready"), todo));
    }
    findings
}

/// A model that is not served, and why.
fn unready(model: &Guarded) -> Option<(String, String)> {
    let (metadata, why) = match &model.0 {
        Err(malformed) => {
            (&malformed.metadata, format!("Malformed: {}", words(&malformed.to_string())))
        }
        Ok(model) => {
            let mut conditions = model.status.iter().flat_map(|status| &status.conditions);
            let why = match conditions.find(|condition| condition.type_ == "Ready") {
                Some(ready) if ready.status == "True" => return None,
                Some(ready) => format!("{}: {}", ready.reason, words(&ready.message)),
                None => "no operator has looked at it yet".to_owned(),
            };
            (&model.metadata, why)
        }
    };
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    Some((format!("{}/{}", part(&metadata.namespace), part(&metadata.name)), why))
}
