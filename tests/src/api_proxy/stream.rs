//! The answer of a watch, which a test can cut off or silence at any time.

use std::io;

use axum::body::{Body, BodyDataStream, Bytes};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

/// What a test does to an open watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The connection breaks off.
    Break,
    /// It ends as API servers end it.
    End,
    /// It says that what is watched is too old, and ends.
    Expire,
    /// It says nothing any more, and stays.
    Mute,
}

/// Chunks that may wait for whoever watches; then the API server waits.
const WAITING: usize = 16;

/// A body that follows orders.
pub(super) fn controlled(body: Body) -> (mpsc::Sender<Order>, Body) {
    let (orders, given) = mpsc::channel(1);
    let (chunks, passed) = mpsc::channel(WAITING);
    tokio::spawn(run(body.into_data_stream(), given, chunks));
    (orders, Body::from_stream(ReceiverStream::new(passed)))
}

async fn run(
    mut body: BodyDataStream,
    mut orders: mpsc::Receiver<Order>,
    chunks: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut is_mute = false;
    loop {
        let order = tokio::select! {
            chunk = body.next() => match chunk {
                // Who watches may have gone: that is seen below.
                Some(Ok(chunk)) if !is_mute => {
                    let _ = chunks.send(Ok(chunk)).await;
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) => Order::Break,
                None => Order::End,
            },
            order = orders.recv() => order.unwrap_or(Order::End),
            () = chunks.closed() => return,
        };
        let last = match order {
            Order::Mute => {
                is_mute = true;
                continue;
            }
            Order::End => return,
            Order::Break => Err(io::ErrorKind::ConnectionReset.into()),
            Order::Expire => Ok(expired()),
        };
        let _ = chunks.send(last).await;
        return;
    }
}

fn expired() -> Bytes {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "too old resource version: made up by a test", "reason": "Expired", "code": 410,
    });
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}
