//! What can go wrong with a call or with one of its items, as a closed list. It knows no transport: `grpc::status` maps
//! a kind to its code.

use std::{fmt, ops::Deref, time::Duration};

/// Why a call or an item failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No served model has the name.
    ModelUnknown,
    /// The model has no prompt of the name.
    PromptUnknown,
    /// A batch of nothing.
    ItemsEmpty,
    /// A batch over the model's limit.
    TooManyItems,
    /// An item without input, or of a kind that the model does not take.
    ItemKind,
    /// A text of no bytes.
    TextEmpty,
    /// A text over the model's limit.
    TextTooLong,
    /// A text that is not UTF-8.
    TextNotUtf8,
    /// Bytes that are no image, or one beyond the model's bounds.
    ImageUndecodable,
    /// A URL that is not fetched, or leads to where nothing is fetched from.
    UrlNotAllowed,
    /// A URL that no image comes from, for good.
    UrlFailed,
    /// A URL whose server failed or could not be reached.
    UrlUnavailable,
    /// More dimensions than the model has.
    Dimensions,
    /// Any other field that is malformed.
    Malformed,
    /// The caller expects vectors of another space.
    SpaceMismatch,
    /// The item is not cached, and nothing is computed for it.
    Miss,
    /// A tensor of another shape or element type than the model's.
    Shape,
    /// The queue is full.
    QueueFull,
    /// What waits already would take longer than the caller has time.
    WaitTooLong,
    /// As many bytes of calls are in flight as may.
    Memory,
    /// The caller's time was over before the item was computed.
    DeadlineExceeded,
    /// The process is going away.
    Draining,
    /// The model is not loaded.
    ModelNotReady,
    /// The thread that computed the item is gone.
    WorkerLost,
    /// The caller shows no token that the server knows.
    Unauthenticated,
    /// Callers may not invalidate.
    InvalidationOff,
    /// The model gave a vector with NaN or infinity in it.
    NotFinite,
    /// The model's runtime refused to run.
    Inference,
    /// The disk tier could not be told to forget.
    NotDurable,
}

/// One failure: a sentence, and the field it is about. A pointer, so that what does not fail is not as large as it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error(Box<Details>);

/// What is known of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Why.
    pub kind: ErrorKind,
    /// The field, or empty.
    pub field: String,
    /// The value as given, cut to a readable length; or empty.
    pub value: String,
    /// What is allowed; or empty.
    pub allowed: String,
    /// The sentence.
    pub message: String,
    /// When it may have passed, where that is known.
    pub retry_after: Option<Duration>,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// Every kind.
    pub const ALL: &'static [ErrorKind] = &[
        ErrorKind::ModelUnknown,
        ErrorKind::PromptUnknown,
        ErrorKind::ItemsEmpty,
        ErrorKind::TooManyItems,
        ErrorKind::ItemKind,
        ErrorKind::TextEmpty,
        ErrorKind::TextTooLong,
        ErrorKind::TextNotUtf8,
        ErrorKind::ImageUndecodable,
        ErrorKind::UrlNotAllowed,
        ErrorKind::UrlFailed,
        ErrorKind::UrlUnavailable,
        ErrorKind::Dimensions,
        ErrorKind::Malformed,
        ErrorKind::SpaceMismatch,
        ErrorKind::Miss,
        ErrorKind::Shape,
        ErrorKind::QueueFull,
        ErrorKind::WaitTooLong,
        ErrorKind::Memory,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Draining,
        ErrorKind::ModelNotReady,
        ErrorKind::WorkerLost,
        ErrorKind::Unauthenticated,
        ErrorKind::InvalidationOff,
        ErrorKind::NotFinite,
        ErrorKind::Inference,
        ErrorKind::NotDurable,
    ];

    /// Whether the same input fails again whenever it is tried: such a failure may be remembered. What a URL may lead to is
    /// judged anew each time.
    pub fn is_for_good(self) -> bool {
        matches!(self, ErrorKind::ImageUndecodable | ErrorKind::UrlFailed)
    }

    /// The reason as it stands in error details and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorKind::ModelUnknown => "MODEL_UNKNOWN",
            ErrorKind::PromptUnknown => "PROMPT_UNKNOWN",
            ErrorKind::ItemsEmpty => "ITEMS_EMPTY",
            ErrorKind::TooManyItems => "TOO_MANY_ITEMS",
            ErrorKind::ItemKind => "ITEM_KIND",
            ErrorKind::TextEmpty => "TEXT_EMPTY",
            ErrorKind::TextTooLong => "TEXT_TOO_LONG",
            ErrorKind::TextNotUtf8 => "TEXT_NOT_UTF8",
            ErrorKind::ImageUndecodable => "IMAGE_UNDECODABLE",
            ErrorKind::UrlNotAllowed => "URL_NOT_ALLOWED",
            ErrorKind::UrlFailed => "URL_FAILED",
            ErrorKind::UrlUnavailable => "URL_UNAVAILABLE",
            ErrorKind::Dimensions => "DIMENSIONS",
            ErrorKind::Malformed => "MALFORMED",
            ErrorKind::SpaceMismatch => "SPACE_MISMATCH",
            ErrorKind::Miss => "MISS",
            ErrorKind::Shape => "SHAPE",
            ErrorKind::QueueFull => "QUEUE_FULL",
            ErrorKind::WaitTooLong => "WAIT_TOO_LONG",
            ErrorKind::Memory => "MEMORY",
            ErrorKind::DeadlineExceeded => "DEADLINE_EXCEEDED",
            ErrorKind::Draining => "DRAINING",
            ErrorKind::ModelNotReady => "MODEL_NOT_READY",
            ErrorKind::WorkerLost => "WORKER_LOST",
            ErrorKind::Unauthenticated => "UNAUTHENTICATED",
            ErrorKind::InvalidationOff => "INVALIDATION_OFF",
            ErrorKind::NotFinite => "NOT_FINITE",
            ErrorKind::Inference => "INFERENCE",
            ErrorKind::NotDurable => "NOT_DURABLE",
        }
    }
}

// === impl Error ===

impl Error {
    /// A failure that is about no field.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (field, value, allowed) = Default::default();
        let (message, retry_after) = (message.into(), None);
        Error(Box::new(Details { kind, field, value, allowed, message, retry_after }))
    }

    /// A failure of a field: the sentence is made of its name, the value and what is allowed.
    pub fn of_field(
        kind: ErrorKind,
        field: impl Into<String>,
        value: &str,
        allowed: impl Into<String>,
    ) -> Self {
        let (field, value, allowed) = (field.into(), abbreviate(value), allowed.into());
        let message = format!("{field}: {value:?} {allowed}");
        Error(Box::new(Details { kind, field, value, allowed, message, retry_after: None }))
    }

    /// The same failure, with the field and the value that it is about.
    #[must_use]
    pub fn about(mut self, field: impl Into<String>, value: &str) -> Self {
        (self.0.field, self.0.value) = (field.into(), abbreviate(value));
        self
    }

    /// The same failure of another field, in the sentence that opens with it too.
    #[must_use]
    pub fn of_other_field(mut self, field: &str) -> Self {
        if let Some(rest) = self.message.strip_prefix(&self.field) {
            self.0.message = format!("{field}{rest}");
        }
        field.clone_into(&mut self.0.field);
        self
    }

    /// The same failure, with its field below `parent`, in the sentence that opens with it too.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        let field = format!("{parent}.{}", self.field);
        if let Some(rest) = self.message.strip_prefix(&self.field) {
            self.0.message = format!("{field}{rest}");
        }
        self.0.field = field;
        self
    }

    /// The same failure, with what is allowed.
    #[must_use]
    pub fn allowing(mut self, allowed: impl Into<String>) -> Self {
        self.0.allowed = allowed.into();
        self
    }

    /// The same failure, with when it may have passed.
    #[must_use]
    pub fn passing_in(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }
}

impl Deref for Error {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// === free functions ===

/// An error and each of its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// At most 64 characters of a value, so that a message never carries a caller's whole input.
fn abbreviate(value: &str) -> String {
    match value.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
