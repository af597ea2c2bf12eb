//! The URI of an artifact, taken apart. Its shape has been judged by the rules before.

use crate::{contract::Location, v1alpha1::Artifact};

/// Where an artifact is.
///
/// # Errors
/// What is wrong with the URI, as words that go behind its value.
pub(crate) fn locate(artifact: &Artifact) -> Result<Location, String> {
    let uri = artifact.uri.as_str();
    let (scheme, rest) = uri.split_once("://").ok_or("must be a URI")?;
    let rest = || rest.to_owned();
    match scheme {
        "builtin" => Ok(Location::Builtin { path: rest() }),
        "file" => Ok(Location::File { path: rest() }),
        "http" | "https" => Ok(Location::Http { url: url(uri)? }),
        "s3" | "gs" | "az" => Ok(Location::ObjectStore { url: url(uri)? }),
        "oci" => {
            let title = artifact.path.clone().ok_or("needs path, the title of the layer")?;
            Ok(Location::Oci { reference: rest(), title })
        }
        "hf" => hugging_face(&rest())
            .ok_or_else(|| "must be hf://organisation/repository@commit/file".to_owned()),
        "pvc" => {
            let rest = rest();
            let (claim, path) = rest.split_once('/').ok_or("must be pvc://claim/path")?;
            Ok(Location::Pvc { claim: claim.to_owned(), path: path.to_owned() })
        }
        _ => Err(format!("has the scheme {scheme}, which is not known")),
    }
}

fn url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("must name a host".to_owned());
    }
    Ok(text.to_owned())
}

fn hugging_face(text: &str) -> Option<Location> {
    let (repository, rest) = text.split_once('@')?;
    let (revision, file) = rest.split_once('/')?;
    Some(Location::Hf {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        file: file.to_owned(),
    })
}
