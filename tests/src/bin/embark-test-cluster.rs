//! A cluster for tests, from its guard down. By hand, `embark-test-cluster guard control-plane` (or `node`, as root, with
//! image archives behind) starts one and prints its folder, which holds a `kubeconfig`; it ends with standard input.

use embark_tests::cluster;

// Of one thread: a child is killed when the thread that started it ends.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    cluster::main(std::env::args().skip(1).collect()).await
}
