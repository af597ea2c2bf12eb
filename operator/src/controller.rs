//! Reconciles EmbeddingModels: the order of the steps, and what happens to a step's error.

mod apply;
mod build;
mod failure;
mod holds;
mod policy;
mod predecessor;
mod progress;
mod prune;
mod rollouts;
mod status;
mod validate;

use std::{collections::HashMap, sync::Arc, time::Duration};

use embark_crds::{resolve::FieldError, v1alpha1::EmbeddingModel};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, future::ready};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Client, Resource as _, ResourceExt as _,
    core::error_boundary::InvalidObject,
    runtime::{
        Controller, Predicate as _, PredicateConfig, WatchStreamExt as _, controller,
        controller::Action,
        predicates, reflector,
        reflector::{ObjectRef, store::WriterDropped},
        watcher,
    },
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, field, info_span, warn};

use self::{
    apply::Applied,
    failure::ApplyError,
    rollouts::Rollouts,
    status::{Conditions, Observed, Statuses, Verdict},
    validate::ValidatedModel,
};
use crate::{
    children::Children,
    kube_ext::{Guarded, chain},
    metrics::Metrics,
    names,
    pods::{Reports, has_ended},
    settings::Settings,
    words::cleaned,
};

/// Models that are reconciled at a time.
const AT_A_TIME: u16 = 8;
/// How long a failed reconcile rests first. It doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest that it rests.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How often it is looked whether a model may be rolled that waits for others.
const WAITING_EVERY: Duration = Duration::from_secs(5);
/// When old revisions are looked at again that Kubernetes is about to delete.
const LEFT_FOR: Duration = Duration::from_secs(15);

/// Models whose failures are known at a time.
const MOST_FAILURES: usize = 10_000;

/// What every reconcile shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) children: Arc<Children>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) metrics: Arc<Metrics>,
    statuses: Statuses,
    /// What an upgrade of the operator is rolling.
    rollouts: Rollouts,
    /// Models that failed last.
    failures: Mutex<HashMap<ObjectRef<Guarded>, Failure>>,
}

/// How a model rests that has failed.
struct Failure {
    wait: Duration,
    until: Instant,
}

/// What is known of the cluster without asking for it.
pub(crate) struct Seen {
    pub(crate) children: Arc<Children>,
    pub(crate) reports: Arc<Reports>,
}

/// Why a reconcile failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the watches of children have ended")]
    Watches(#[source] WriterDropped),
    #[error(transparent)]
    Apply(ApplyError),
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
}

/// Reconciles until it is dropped.
pub(crate) async fn run(
    context: Arc<Context>,
    triggers: impl Stream<Item = ObjectRef<Guarded>> + Send + 'static,
) {
    let settings = controller::Config::default().concurrency(AT_A_TIME);
    let (reader, writer) = reflector::store();
    let work = context.metrics.work.clone();
    work.begin(reader.clone());
    let [in_changes, in_triggers, in_outcomes] = [(); 3].map(|()| work.clone());
    // What the operator itself writes into a status is no reason to look again.
    let scope = &context.settings.scope;
    let changes = scope
        .watch(&context.client, &watcher::Config::default(), reader.clone())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        )
        .inspect_ok(move |model| in_changes.changed(&ObjectRef::from_obj(model)));
    let triggers = triggers.inspect(move |model| in_triggers.changed(model));
    Controller::for_stream(changes, reader)
        .with_config(settings)
        .reconcile_on(triggers)
        .run(reconcile, after_error, context)
        .for_each(|outcome| {
            match outcome {
                // A model that is gone before its turn is nothing to tell of, and what failed was told of.
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(controller::Error::ObjectNotFound(model)) => in_outcomes.taken(&model),
                Err(error) => debug!("watching failed, and is tried again: {error}"),
            }
            ready(())
        })
        .await;
}

// === impl Context ===

impl Context {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        seen: Seen,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Seen { children, reports } = seen;
        let statuses = Statuses::new(client.clone());
        let (rollouts, failures) = (Rollouts::default(), Mutex::default());
        Context { client, settings, children, reports, metrics, statuses, rollouts, failures }
    }

    /// How long a model rests that has failed again. What happens to its children may wake it sooner; that it fails then
    /// tells nothing new, and makes no wait longer.
    fn failed(&self, model: ObjectRef<Guarded>) -> Duration {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        // Those of models that are gone meanwhile are never taken out one by one.
        if failures.len() >= MOST_FAILURES {
            failures.clear();
        }
        let failure = failures.entry(model).or_insert(Failure { wait: Duration::ZERO, until: now });
        if failure.until <= now {
            failure.wait = failure.wait.saturating_mul(2).clamp(FIRST_WAIT, LONGEST_WAIT);
            failure.until = now + failure.wait;
        }
        failure.until - now
    }

    fn succeeded(&self, model: &ObjectRef<Guarded>) {
        self.failures.lock().remove(model);
    }
}

// === impl Error ===

impl Error {
    /// One word of a closed list: the reason of a condition and of an event, and the label of a metric.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Error::Watches(_) => "WatchesEnded",
            Error::Apply(error) => error.reason(),
            Error::Status(_) => "StatusFailed",
        }
    }
}

// === free functions ===

async fn reconcile(model: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    context.metrics.work.taken(&ObjectRef::from_obj(&*model));
    let span = info_span!(
        "reconcile",
        model = model.meta().name,
        namespace = model.meta().namespace,
        reason = field::Empty,
        otel.status_code = field::Empty,
    );
    let outcome = attempt(&model, &context).instrument(span.clone()).await;
    let reason = outcome.as_ref().err().map_or("Ok", Error::reason);
    span.record("reason", reason);
    if outcome.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    context.metrics.reconciled(reason, started.elapsed());
    let version = model.meta().resource_version.as_deref();
    span.in_scope(|| debug!(version, reason, "reconciled"));
    if outcome.is_ok() {
        context.succeeded(&ObjectRef::from_obj(&*model));
    }
    outcome
}

fn after_error(model: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let wait = context.failed(ObjectRef::from_obj(&*model));
    let (name, namespace) = (model.meta().name.clone(), model.meta().namespace.clone());
    warn!(
        model = name,
        namespace,
        reason = error.reason(),
        "tried again in {wait:?}: {}",
        chain(error)
    );
    Action::requeue(wait)
}

async fn attempt(model: &Guarded, context: &Context) -> Result<Action, Error> {
    // Before that, nothing is known of any child.
    context.children.ready().await.map_err(Error::Watches)?;
    let model = match &model.0 {
        Ok(model) => &*context.statuses.newest(model),
        Err(malformed) => return refuse_malformed(model, malformed, context).await,
    };
    if model.metadata.deletion_timestamp.is_some() {
        // Its children are owned by it and go with it.
        return Ok(Action::await_change());
    }
    if model.annotations().get(names::PAUSED).is_some_and(|paused| paused == "true") {
        return pause(model, context).await;
    }
    let validated = match validate::validate(model) {
        Ok(validated) => validated,
        Err(errors) => return refuse(model, &errors, context).await,
    };
    let applying = apply(&validated, context);
    match applying.instrument(info_span!("apply")).await {
        Ok(Some(applied)) => tell(model, &validated, &applied, context).await,
        Ok(None) => Ok(Action::requeue(FIRST_WAIT)),
        Err(error) => {
            let (reason, message) = (error.reason(), cleaned(&chain(&error)));
            let verdicts = vec![
                Verdict::new("Accepted", Some(true), "Accepted", "the spec is valid"),
                Verdict::new("Ready", Some(false), reason, message),
            ];
            let status = status::of_refused(model, verdicts, Timestamp::now());
            context.statuses.write(model, status).await.map_err(Error::Status)?;
            Err(Error::Apply(error))
        }
    }
}

/// `None`: what another model of the name has left was taken over, which the watches are still to tell of.
async fn apply(
    validated: &ValidatedModel,
    context: &Context,
) -> Result<Option<Applied>, ApplyError> {
    if predecessor::inherit(context, validated).await? {
        return Ok(None);
    }
    let prepared = build::build(validated, &context.settings);
    apply::apply(context, validated, prepared).await.map(Some)
}

/// Says how a model is that was applied.
async fn tell(
    model: &EmbeddingModel,
    validated: &ValidatedModel,
    applied: &Applied,
    context: &Context,
) -> Result<Action, Error> {
    let mut pods = context.children.of_model::<Pod>(&validated.namespace, &validated.name);
    pods.retain(|pod| !has_ended(pod));
    let view = |pod: &Arc<Pod>| {
        let report = pod.uid().and_then(|uid| context.reports.of(&uid));
        status::view(pod, report)
    };
    let observed = Observed {
        validated,
        deployment: &applied.deployment,
        pods: pods.iter().map(view).collect(),
        waits: applied.waits,
    };
    let status = status::of_applied(model, &observed, Timestamp::now());
    context.statuses.write(model, status).await.map_err(Error::Status)?;
    policy::refresh(context, validated, &pods).await;
    Ok(match applied {
        Applied { waits: true, .. } => Action::requeue(WAITING_EVERY),
        Applied { has_leftovers: true, .. } => Action::requeue(LEFT_FOR),
        _ => Action::await_change(),
    })
}

/// Leaves all that there is of a model alone, and says so.
async fn pause(model: &EmbeddingModel, context: &Context) -> Result<Action, Error> {
    let namespace = model.namespace().unwrap_or_default();
    let deployment = context.children.get::<Deployment>(&namespace, &model.name_any());
    let status = status::of_paused(model, deployment.as_deref(), Timestamp::now());
    context.statuses.write(model, status).await.map_err(Error::Status)?;
    Ok(Action::await_change())
}

/// Says what is wrong with a model. Nothing of what runs is touched; only a change of the spec is of any use.
async fn refuse(
    model: &EmbeddingModel,
    errors: &[FieldError],
    context: &Context,
) -> Result<Action, Error> {
    let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let sentences = cleaned(&sentences.join("; "));
    let no = |type_| Verdict::new(type_, Some(false), "Invalid", sentences.clone());
    let status = status::of_refused(model, vec![no("Accepted"), no("Ready")], Timestamp::now());
    context.statuses.write(model, status).await.map_err(Error::Status)?;
    Ok(Action::await_change())
}

/// Says so of an object that is stored and cannot be read: the schema was looser once, or is not this operator's.
async fn refuse_malformed(
    object: &Guarded,
    malformed: &InvalidObject,
    context: &Context,
) -> Result<Action, Error> {
    let sentence = cleaned(&format!("the object cannot be read: {malformed}"));
    let no = |type_| Verdict::new(type_, Some(false), "Malformed", sentence.clone());
    let conditions = Conditions {
        object: object.object_ref(&()),
        generation: malformed.metadata.generation,
        verdicts: vec![no("Accepted"), no("Ready")],
    };
    context.statuses.write_conditions(conditions).await.map_err(Error::Status)?;
    Ok(Action::await_change())
}
