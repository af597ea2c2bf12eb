//! The Unix socket that the containers of a pod share.

use std::{fs, os::unix::net::UnixListener, path::Path};

use embark_tests::{Manifest, Sidecar, programs::embark, sidecar::Options};

fn options(folder: &Path, socket: &Path) -> Options {
    let mut options = Options::new(folder, &Manifest::tiny("tiny"));
    options.arguments = vec!["--socket".into(), socket.as_os_str().to_owned()];
    options
}

async fn embed(socket: &Path) -> i32 {
    let address = format!("unix://{}", socket.display());
    embark(["embed", "--address", &address, "a text"], b"").await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_serves_beside_the_port_and_goes_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("embark.sock");
    let options = options(folder.path(), &socket);
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(embed(&socket).await, 0);
    assert_eq!(sidecar.embed(&["a text"]).await.len(), 1);
    // Another process does not take it away.
    let ended = Sidecar::fail(&options).await;
    let said = format!("--socket: {}: another process listens there", socket.display());
    assert!(ended.code() == 1 && ended.log.contains(&said), "{}", ended.log);
    assert_eq!(embed(&socket).await, 0);
    sidecar.stop().await;
    assert!(!socket.exists());
    let finished =
        embark(["embed", "--address", &format!("unix://{}", socket.display()), "a"], b"").await;
    assert!(finished.errors.contains("cannot be reached: No such file"), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_a_process_that_was_killed_is_replaced_and_no_other_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("embark.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "as a killed process leaves it");
    let sidecar = Sidecar::start(&options(folder.path(), &socket)).await;
    assert_eq!(embed(&socket).await, 0);
    sidecar.stop().await;
    fs::write(&socket, "a file").unwrap();
    let ended = Sidecar::fail(&options(folder.path(), &socket)).await;
    assert!(ended.log.contains("is there already, and is no socket"), "{}", ended.log);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
}
