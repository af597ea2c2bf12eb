//! What is kept of a cluster when a test fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{ControlPlane, guard, state};

/// What is asked of the API server: a file, and the words for kubectl. NAMESPACE stands for the test's.
const QUESTIONS: [(&str, &str); 6] = [
    ("events.txt", "get events --all-namespaces --sort-by=.metadata.creationTimestamp"),
    ("pods.txt", "get pods --all-namespaces --output=wide"),
    ("nodes.txt", "describe nodes"),
    ("describe.txt", "describe all,configmaps,pdb,hpa,networkpolicies --namespace=NAMESPACE"),
    ("objects.yaml", "get all,configmaps,pdb --namespace=NAMESPACE --output=yaml"),
    // Apart, since the CRD may not be there.
    ("models.yaml", "get embeddingmodels --namespace=NAMESPACE --output=yaml"),
];

/// The operator's pods, wherever a release put them.
const OPERATORS: &str = "--all-namespaces --selector=app.kubernetes.io/component=operator";
/// Keeps the components' logs and what the API server and the pods say, in the folder that is returned. What cannot be
/// had is told there.
pub(super) fn keep(plane: &ControlPlane, namespace: Option<&str>) -> anyhow::Result<PathBuf> {
    let folder = if plane.is_ours() {
        guard::keep_logs(plane.folder())?
    } else {
        fs::create_dir_all(state::kept())?;
        tempfile::tempdir_in(state::kept())?.keep()
    };
    for (file, question) in QUESTIONS {
        if let Some(namespace) = namespace {
            ask(plane, &folder.join(file), &question.replace("NAMESPACE", namespace))?;
        } else if !question.contains("NAMESPACE") {
            ask(plane, &folder.join(file), question)?;
        }
    }
    let test = namespace.map(|namespace| format!("--namespace={namespace}"));
    for pods in [test, Some(OPERATORS.to_owned())].into_iter().flatten() {
        keep_logs(plane, &folder, &pods)?;
    }
    Ok(folder)
}

/// Keeps what these pods' containers say, and what those before them said.
fn keep_logs(plane: &ControlPlane, folder: &Path, pods: &str) -> anyhow::Result<()> {
    let columns = "--no-headers --output=custom-columns=N:.metadata.namespace,P:.metadata.name";
    let names = ask(plane, &folder.join("pod-names.txt"), &format!("get pods {pods} {columns}"))?;
    for line in names.lines() {
        let mut words = line.split_whitespace();
        let (Some(namespace), Some(pod)) = (words.next(), words.next()) else { continue };
        for (suffix, previous) in [("", "false"), ("-before", "true")] {
            let question = format!(
                "logs {pod} --namespace={namespace} --all-containers --prefix --previous={previous}"
            );
            ask(plane, &folder.join(format!("pod-{pod}{suffix}.log")), &question)?;
        }
    }
    Ok(())
}

fn ask(plane: &ControlPlane, file: &Path, question: &str) -> anyhow::Result<String> {
    let mut kubectl = plane.command("kubectl").into_std();
    let output = kubectl.args(question.split(' ')).arg("--request-timeout=20s").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(file, format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(text)
}
