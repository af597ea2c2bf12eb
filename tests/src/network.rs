//! A network of a test's own, whose only device is its loopback: with any address that the test likes, and nothing of the
//! machine's. A server in it may have a private address, a cloud's address of metadata or one that is public elsewhere. It
//! takes root.

mod names;
#[cfg(test)]
mod tests;
mod web;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    panic::resume_unwind,
    path::Path,
    process::{Command, Stdio},
    thread,
};

pub use names::Names;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
pub use web::{Answer, Seen, Web};

/// Addresses of the network beside 127.0.0.1 and ::1.
pub const ADDRESSES: [&str; 10] = [
    PRIVATE,
    OTHER_PRIVATE,
    NAME_SERVER,
    "192.168.7.7",
    "100.100.100.200",
    "169.254.169.254",
    "192.0.2.1",
    PUBLIC,
    PRIVATE_V6,
    "fd78::1",
];
/// A private address.
pub const PRIVATE: &str = "10.77.0.1";
/// Another, of another range.
pub const OTHER_PRIVATE: &str = "10.88.0.1";
/// An address that is public where it is not the network's own.
pub const PUBLIC: &str = "11.0.0.1";
/// A private address of IPv6.
pub const PRIVATE_V6: &str = "fd77::1";
/// Where [`Names`] answers.
pub const NAME_SERVER: &str = "10.77.0.53";

/// Runs a test in a network of its own: whatever it opens and starts is in it.
///
/// # Panics
/// The test does, or no network can be made.
pub fn run(test: impl AsyncFnOnce() + Send + 'static) {
    let within = move || {
        enter();
        // Its threads are made by this one, and so in the same network.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(test());
    };
    if let Err(panic) = thread::spawn(within).join() {
        resume_unwind(panic);
    }
}

/// What a sidecar stands behind that asks the network's name server, and is told of a proxy that nobody may ask.
pub fn wrapper(folder: &Path) -> Vec<std::ffi::OsString> {
    let file = folder.join("resolv.conf");
    let text = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n");
    std::fs::write(&file, text).expect("the folder is writable");
    let file = file.display();
    let script = format!("mount --bind {file} /etc/resolv.conf && exec \"$@\"");
    let proxy = format!("http://{PRIVATE}:9");
    let variables = ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut words = vec!["env".to_owned()];
    words.extend(variables.iter().map(|variable| format!("{variable}={proxy}")));
    words.extend(["unshare", "--mount", "--propagation", "private", "sh", "-c"].map(str::to_owned));
    words.extend([script, "sh".to_owned()]);
    words.into_iter().map(Into::into).collect()
}

/// Moves this thread into a new network.
fn enter() {
    let add = ADDRESSES.map(|address| {
        let options = if address.contains(':') { "/128 nodad" } else { "/32" };
        format!("ip address add dev lo {address}{options}")
    });
    let script = format!("ip link set lo up && {} && echo ready && read _", add.join(" && "));
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut said = String::new();
    let output = holder.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut said).expect("it is text");
    assert_eq!(said, "ready\n", "this test must be run as root, and be allowed to make networks");
    let network = File::open(format!("/proc/{}/ns/net", holder.id())).expect("it runs");
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("the network can be entered");
    // It ends with its input. The network stays as long as anybody is in it.
    drop(holder.stdin.take());
    let _ = holder.wait();
}
