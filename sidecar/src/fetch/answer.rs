//! What a server answers: judged by its head before a byte of the body is read, and read no further than allowed.

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION},
};

use super::{failure, unavailable};
use crate::{
    error::{Error, ErrorKind},
    input::{ImageUrl, URL_FIELD},
};

/// Types beside `image/…` that say nothing; the second is what S3 says of what it was told nothing of.
const UNKNOWN_TYPES: [&str; 2] = ["application/octet-stream", "binary/octet-stream"];
/// Bytes made room for before the first comes.
const FIRST_ROOM: u64 = 64 * 1024;

/// What an answer is.
pub(super) enum Answer {
    /// An image, of so many bytes at most.
    Image { response: Response, bytes: u64 },
    /// It is somewhere else.
    Moved(String),
}

/// What an answer is by its head.
///
/// # Errors
/// It is no image within the limit.
pub(super) fn of(url: &ImageUrl, response: Response, limit: u64) -> Result<Answer, Error> {
    let status = response.status();
    let headers = response.headers();
    match status {
        StatusCode::OK => {}
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let Some(location) = text(headers, LOCATION) else {
                return Err(failed(url, format!("is answered with {status} to nowhere")));
            };
            return Ok(Answer::Moved(location.to_owned()));
        }
        status if passes(status) => {
            return Err(unavailable(url, format!("is answered with {status}")));
        }
        status => return Err(failed(url, format!("is answered with {status}; 200 OK is allowed"))),
    }
    if let Some(encoding) = text(headers, CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let words = format!("is answered with an encoding ({encoding:.32}) that was not asked for");
        return Err(no_image(url, words));
    }
    judge_type(url, headers)?;
    let length = response.content_length();
    if let Some(length) = length.filter(|length| !(1..=limit).contains(length)) {
        return Err(too_large(url, &format!("{length} bytes"), limit));
    }
    Ok(Answer::Image { response, bytes: length.unwrap_or(limit) })
}

/// The whole body, which may be no longer than `limit`, whatever its head said.
///
/// # Errors
/// It is longer, empty, or ends early.
pub(super) async fn body(
    (url, mut response): (&ImageUrl, Response),
    limit: u64,
    expected: u64,
) -> Result<Vec<u8>, Error> {
    let room = usize::try_from(expected.min(FIRST_ROOM)).unwrap_or_default();
    let mut file = Vec::with_capacity(room);
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(url, error))? {
        if (file.len() + chunk.len()) as u64 > limit {
            return Err(too_large(url, "more bytes", limit));
        }
        file.extend_from_slice(&chunk);
    }
    if file.is_empty() {
        return Err(too_large(url, "0 bytes", limit));
    }
    Ok(file)
}

/// Whether another try may be answered otherwise.
fn passes(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::LOCKED
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        )
}

fn judge_type(url: &ImageUrl, headers: &HeaderMap) -> Result<(), Error> {
    if !headers.contains_key(CONTENT_TYPE) {
        return Ok(());
    }
    let given = text(headers, CONTENT_TYPE).unwrap_or("no text");
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.starts_with("image/svg") {
        let words = "is an SVG, a drawing; PNG, JPEG, WebP and GIF images are allowed";
        return Err(no_image(url, words.to_owned()));
    }
    if kind.starts_with("image/") || UNKNOWN_TYPES.contains(&kind.as_str()) {
        return Ok(());
    }
    let words = format!("is of type {kind:.64}; image/… and application/octet-stream are allowed");
    Err(no_image(url, words))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn too_large(url: &ImageUrl, given: &str, limit: u64) -> Error {
    let words = format!("has {given}; 1 to {limit} are allowed (spec.input.image.sizeLimit)");
    no_image(url, words)
}

fn no_image(url: &ImageUrl, words: String) -> Error {
    Error::of_field(ErrorKind::ImageUndecodable, URL_FIELD, &url.shown(), words)
}

fn failed(url: &ImageUrl, words: String) -> Error {
    Error::of_field(ErrorKind::UrlFailed, URL_FIELD, &url.shown(), words)
}
