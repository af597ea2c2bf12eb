//! Files of object stores: S3 and what speaks like it, Google's and Azure's. The library signs and finds credentials; how
//! often is tried, and how long, is decided where all transfers are.

use std::{str::FromStr, sync::Arc};

use futures_util::StreamExt as _;
use object_store::{
    Certificate, ClientOptions, Error, GetOptions, GetRange, ObjectStore, RetryConfig,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path,
};
use reqwest::{StatusCode, header::HeaderValue};
use tokio::time::timeout;
use url::Url;

use super::{
    Environment, FetchCause,
    body::{Failure, FetchSettings, Opened},
    http::install_tls_provider,
    mounts::Secret,
};
use crate::model::refusal::quote;

/// A file of a bucket.
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    address: String,
    settings: FetchSettings,
}

/// What a store is reached by.
pub(super) struct Access<'a> {
    /// The credentials that the spec names.
    pub(super) secret: &'a Secret<'a>,
    /// What stands for them otherwise.
    pub(super) environment: &'a Environment,
    /// Certificates that are trusted beside the system's, in PEM.
    pub(super) bundle: Option<&'a [u8]>,
    /// The bounds of a fetch.
    pub(super) settings: FetchSettings,
}

/// How many requests the library may need until the first byte: for credentials, and for the file.
const REQUESTS_TO_OPEN: u32 = 3;

// === impl Object ===

impl Object {
    /// The file at `scheme://bucket/key`.
    ///
    /// # Errors
    /// The credentials are not there, or are none.
    pub(super) fn new(url: &str, access: &Access<'_>) -> Result<Self, FetchCause> {
        let wrong =
            |problem: &str| FetchCause::Reference { problem: problem.to_owned(), transient: false };
        let parsed = Url::parse(url).map_err(|_| wrong("is no URL"))?;
        let bucket = parsed.host_str().ok_or_else(|| wrong("names no bucket"))?;
        let path = Path::from_url_path(parsed.path())
            .map_err(|_| wrong("has a key that no object has"))?;
        // Without a provider the client's builder panics.
        install_tls_provider();
        let store = store(parsed.scheme(), bucket, access)?;
        Ok(Object { store, path, address: url.to_owned(), settings: access.settings })
    }

    /// What it is called in sentences.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    pub(super) async fn open(&self, from: u64, validator: Option<&str>) -> Result<Opened, Failure> {
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            if_match: validator.map(str::to_owned),
            ..GetOptions::default()
        };
        let FetchSettings { connect_timeout, idle_timeout, .. } = self.settings;
        let time = (connect_timeout + idle_timeout) * REQUESTS_TO_OPEN;
        let opening = timeout(time, self.store.get_opts(&self.path, options));
        let result = opening.await.map_err(|_| Failure::idle())?.map_err(failure)?;
        let (begins, total) = (result.range.start, result.meta.size);
        if begins != from {
            let problem = "answered with a part that was not asked for";
            return Err(Failure { start_over: true, ..Failure::transient(problem) });
        }
        let validator = result.meta.e_tag.clone();
        let body = result.into_stream().map(|chunk| chunk.map_err(failure)).boxed();
        Ok(Opened { from, total: Some(total), validator, body })
    }
}

// === free functions ===

fn store(
    scheme: &str,
    bucket: &str,
    access: &Access<'_>,
) -> Result<Arc<dyn ObjectStore>, FetchCause> {
    let options = options(access)?;
    // One try: the transfer tries again, from where it was.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let built: Result<Arc<dyn ObjectStore>, Error> = match scheme {
        "s3" => {
            let builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
            let values = values("AWS_", "AWS_ACCESS_KEY_ID", access)?;
            let builder =
                configured(builder, &values, |builder, key, value| builder.with_config(key, value));
            builder.with_bucket_name(bucket).build().map(|store| Arc::new(store) as _)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::new()
                // As it is where options are not given: https is in the default address.
                .with_client_options(options.with_allow_http(true))
                .with_retry(retry);
            let values = values("GOOGLE_", "GOOGLE_SERVICE_ACCOUNT_KEY", access)?;
            let builder =
                configured(builder, &values, |builder, key, value| builder.with_config(key, value));
            builder.with_bucket_name(bucket).build().map(|store| Arc::new(store) as _)
        }
        _ => {
            let builder =
                MicrosoftAzureBuilder::new().with_client_options(options).with_retry(retry);
            let values = values("AZURE_", "AZURE_STORAGE_ACCOUNT_NAME", access)?;
            let builder =
                configured(builder, &values, |builder, key, value| builder.with_config(key, value));
            builder.with_container_name(bucket).build().map(|store| Arc::new(store) as _)
        }
    };
    // What the library says of a value may repeat it.
    built.map_err(|error| FetchCause::Reference {
        problem: match error {
            Error::UnknownConfigurationKey { key, .. } => {
                format!("has a key that is not known: {key}")
            }
            _ => "is not what the store is reached by: a value is missing or is none of its kind"
                .to_owned(),
        },
        transient: false,
    })
}

/// What begins with `prefix`, of the Secret that the spec names or of the environment.
fn values(
    prefix: &str,
    example: &str,
    access: &Access<'_>,
) -> Result<Vec<(String, String)>, FetchCause> {
    let environment = || {
        let variables = access.environment.with_prefix(prefix);
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let found = match access.secret {
        Secret::None => return Ok(environment()),
        Secret::Environment(_) => environment(),
        Secret::Mounted(keys) => {
            let ours = keys.iter().filter(|(key, _)| key.starts_with(prefix));
            ours.map(|(key, value)| (key.clone(), value.clone())).collect()
        }
    };
    if found.is_empty() {
        let what = format!("{prefix}…, such as {example}");
        return Err(access.secret.lacks(&format!("key {what}"), &what));
    }
    Ok(found)
}

/// A builder with every value whose name it knows. Others may be meant for other programs.
fn configured<B, K: FromStr>(
    builder: B,
    values: &[(String, String)],
    with: impl Fn(B, K, &str) -> B,
) -> B {
    values.iter().fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => with(builder, key, value),
        Err(_) => builder,
    })
}

fn options(access: &Access<'_>) -> Result<ClientOptions, FetchCause> {
    let agent = HeaderValue::from_static(concat!("embark-sidecar/", env!("CARGO_PKG_VERSION")));
    let mut options = ClientOptions::new()
        .with_user_agent(agent)
        .with_connect_timeout(access.settings.connect_timeout)
        // A large file takes its time; the transfer ends one that stands still.
        .with_timeout_disabled();
    let wrong = |problem: &str| FetchCause::Reference {
        problem: format!("the CA bundle {problem}"),
        transient: false,
    };
    if let Some(bundle) = access.bundle {
        let certificates =
            Certificate::from_pem_bundle(bundle).map_err(|_| wrong("cannot be read"))?;
        if certificates.is_empty() {
            return Err(wrong("holds no certificate in PEM"));
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::NotFound { .. } => Failure::answered(StatusCode::NOT_FOUND),
        Error::PermissionDenied { .. } => Failure::answered(StatusCode::FORBIDDEN),
        Error::Unauthenticated { .. } => Failure::answered(StatusCode::UNAUTHORIZED),
        Error::Precondition { .. } => {
            Failure { start_over: true, ..Failure::transient("changed while it came in") }
        }
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failure::lasting("is nothing that the store can give")
        }
        other => of_words(&last_words(&other)),
    }
}

/// The library keeps an answer's status in its words alone.
fn of_words(words: &str) -> Failure {
    let status = words.split_once("status code: ").and_then(|(_, rest)| rest.get(..3));
    let status = status.and_then(|status| status.parse::<StatusCode>().ok());
    match status {
        // A part past the end: it is another file by now.
        Some(StatusCode::RANGE_NOT_SATISFIABLE) => {
            let answered = Failure::answered(StatusCode::RANGE_NOT_SATISFIABLE);
            Failure { start_over: true, transient: true, ..answered }
        }
        Some(status) => Failure::answered(status),
        None => Failure::transient(quote(format!("cannot be fetched: {words}"))),
    }
}

/// The words of the innermost cause, without addresses: their queries may be signatures.
fn last_words(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let words = innermost.to_string();
    let words = words.rsplit_once(" - ").map_or(words.as_str(), |(_, words)| words);
    let shown = words.split_whitespace().map(|word| if word.contains("://") { "…" } else { word });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
