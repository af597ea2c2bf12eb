//! Traces: where a call's time went, as OpenTelemetry has it. A call goes on with its client's trace (W3C `traceparent`), and
//! each of its stages becomes a span when it is over: its time is known then, and nothing is kept open across threads.
//! Where nobody traces, or a trace is not sampled, there is nothing to be made and nothing to be kept.

mod export;

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{
        Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState,
        Tracer as _,
    },
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};

pub use export::{Export, NoTraces};

/// Codes of gRPC that OpenTelemetry takes for the server's failures: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE and DATA_LOSS.
const OF_THE_SERVER: [i32; 6] = [2, 4, 12, 13, 14, 15];
/// The most other calls that a run's span links to.
const MOST_LINKS: usize = 32;

/// Begins the traces of calls.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// The trace of one call. Clones are of the same, and may outlive it.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Call>>);

/// The trace of a call that is not answered yet: it ends with it, whether it is answered or given up.
#[derive(Debug)]
pub struct Begun(Trace);

#[derive(Debug)]
struct Call {
    tracer: SdkTracer,
    context: Context,
}

/// A part of a call that is over.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// How long it took, until now.
    pub took: Duration,
    /// Items that it was about.
    pub items: usize,
}

/// A row of a run that is over.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The call that it is of.
    pub trace: &'a Trace,
    /// How long it waited for the run.
    pub queued: Duration,
}

/// A run of rows that is over.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Its rows, of all calls.
    pub rows: usize,
}

/// Headers, to read a trace's state from.
struct Headers<'a>(&'a HeaderMap);

// === impl Tracer ===

impl Tracer {
    /// Begins the trace of a call of a method, such as `Embed` of `embark.v1.EmbeddingService`.
    pub fn begin(
        &self,
        (service, method): (&'static str, &'static str),
        headers: &HeaderMap,
    ) -> Begun {
        let Some(tracer) = &self.0 else { return Begun(Trace(None)) };
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        let about = [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", method)];
        let span = tracer
            .span_builder(format!("{service}/{method}"))
            .with_kind(SpanKind::Server)
            .with_attributes(about.map(|(name, value)| KeyValue::new(name, value)))
            .start_with_context(tracer, &parent);
        if !span.span_context().is_sampled() {
            return Begun(Trace(None));
        }
        let context = parent.with_span(span);
        Begun(Trace(Some(Arc::new(Call { tracer: tracer.clone(), context }))))
    }
}

// === impl Trace ===

impl Trace {
    /// Whether anything of it is kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says what the call is about.
    pub fn describe(&self, model: &str, items: usize) {
        let Some(call) = &self.0 else { return };
        let span = call.context.span();
        span.set_attribute(KeyValue::new("embark.model", model.to_owned()));
        span.set_attribute(count("embark.items", items));
    }

    /// Says how many of its items were answered from the cache.
    pub fn hits(&self, hits: usize) {
        if let Some(call) = &self.0 {
            call.context.span().set_attribute(count("embark.hits", hits));
        }
    }

    /// Adds a stage that has just ended.
    pub fn stage(&self, stage: Stage) {
        if let Some(call) = &self.0 {
            call.add(stage, Vec::new(), now());
        }
    }

    /// Adds a run, and what was waited for it, to every call that has rows in it. Each links to the others.
    pub fn run<'a>(rows: impl Iterator<Item = Row<'a>>, run: Run) {
        let mut calls: Vec<(&Arc<Call>, usize, Duration)> = Vec::new();
        for row in rows {
            let Some(call) = &row.trace.0 else { continue };
            match calls.iter_mut().find(|(known, ..)| Arc::ptr_eq(known, call)) {
                Some((_, rows, longest)) => {
                    (*rows, *longest) = (*rows + 1, row.queued.max(*longest))
                }
                None => calls.push((call, 1, row.queued)),
            }
        }
        for (at, (call, items, queued)) in calls.iter().enumerate() {
            let others = calls.iter().enumerate().filter(|(other, _)| *other != at);
            let links = others.map(|(_, (other, ..))| other.link()).take(MOST_LINKS).collect();
            let (items, queued) = (*items, *queued);
            let Run { ended, took, rows } = run;
            let began = ended.checked_sub(took).unwrap_or(ended);
            call.add(Stage { name: "queue", took: queued, items }, Vec::new(), began);
            let all = [count("embark.batch.items", rows)];
            call.add_with(Stage { name: "inference", took, items }, (links, ended), all);
        }
    }
}

// === impl Begun ===

impl Begun {
    /// Ends it with the code that the call is answered with, and the sentence of one that fails.
    pub fn end(self, code: i32, failure: Option<&str>) {
        let Some(call) = &self.0.0 else { return };
        let span = call.context.span();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        if let Some(sentence) = failure {
            span.set_attribute(KeyValue::new("embark.error", sentence.to_owned()));
            if OF_THE_SERVER.contains(&code) {
                span.set_status(Status::error(sentence.to_owned()));
            }
        }
    }
}

impl Deref for Begun {
    type Target = Trace;

    fn deref(&self) -> &Trace {
        &self.0
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(call) = &self.0.0 {
            call.context.span().end();
        }
    }
}

// === impl Call ===

impl Call {
    fn add(&self, stage: Stage, links: Vec<Link>, ended: SystemTime) {
        self.add_with(stage, (links, ended), []);
    }

    fn add_with<const N: usize>(
        &self,
        Stage { name, took, items }: Stage,
        (links, ended): (Vec<Link>, SystemTime),
        more: [KeyValue; N],
    ) {
        let mut span = self
            .tracer
            .span_builder(name)
            .with_start_time(ended.checked_sub(took).unwrap_or(ended))
            .with_attributes([count("embark.items", items)].into_iter().chain(more))
            .with_links(links)
            .start_with_context(&self.tracer, &self.context);
        span.end_with_timestamp(ended);
    }

    fn link(&self) -> Link {
        let span = self.context.span();
        let own = span.span_context();
        // Without the state that its caller sent, which may be long, and would be copied to each of the others.
        let (trace, span, flags) = (own.trace_id(), own.span_id(), own.trace_flags());
        Link::new(SpanContext::new(trace, span, flags, false, TraceState::NONE), Vec::new(), 0)
    }
}

// === impl Headers ===

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

// === free functions ===

/// The wall clock, by which a collector puts the spans of many processes in order. Nothing else goes by it.
pub fn now() -> SystemTime {
    opentelemetry::time::now()
}

fn count(name: &'static str, number: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX))
}
