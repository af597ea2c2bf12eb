//! A name server that says what a test wants, and may say another thing the next time.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::NAME_SERVER;

/// Types of questions.
const A: u16 = 1;
const AAAA: u16 = 28;
/// An answer without an error, with recursion.
const FOUND: u16 = 0x8180;
/// No such name.
const NOT_FOUND: u16 = 0x8183;

/// A name server. It ends with the test.
#[derive(Clone, Debug)]
pub struct Names(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The answers of each name, one after the other; the last stays.
    answers: BTreeMap<String, VecDeque<Vec<IpAddr>>>,
    /// Questions for addresses of IPv4 by name.
    asked: BTreeMap<String, usize>,
}

// === impl Names ===

impl Names {
    /// Answers at [`NAME_SERVER`].
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((NAME_SERVER, 53)).await.expect("the network is the test's");
        let names = Names(Arc::default());
        let state = Arc::clone(&names.0);
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let answer = answer(&mut state.lock(), &packet[..length]);
                if let Some(answer) = answer {
                    // Who asked may have left.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        names
    }

    /// Has a name answered with these addresses.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.set_in_turn(name, &[addresses]);
    }

    /// Has a name answered with these addresses, one list after the other; the last stays.
    pub fn set_in_turn(&self, name: &str, answers: &[&[&str]]) {
        let parse = |text: &&str| text.parse().expect("an address");
        let answers = answers.iter().map(|list| list.iter().map(parse).collect()).collect();
        self.0.lock().answers.insert(name.to_owned(), answers);
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.0.lock().asked.get(name).copied().unwrap_or_default()
    }
}

// === free functions ===

/// The answer to a packet with one question.
fn answer(state: &mut State, packet: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question = packet.get(12..at + 4)?;
    let kind = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let name = labels.join(".");
    let list = state.answers.get_mut(&name);
    let (code, found) = match list {
        None => (NOT_FOUND, Vec::new()),
        Some(list) => {
            let found: Vec<IpAddr> = list.front().cloned().unwrap_or_default();
            // The other question, for the other type, is asked at the same time and says nothing of the next answer.
            if kind == A && list.len() > 1 {
                list.pop_front();
            }
            (FOUND, found)
        }
    };
    if kind == A {
        *state.asked.entry(name).or_default() += 1;
    }
    let records: Vec<Vec<u8>> = found.iter().filter_map(|address| record(kind, *address)).collect();
    let count = u16::try_from(records.len()).ok()?;
    let mut answer = packet[..2].to_vec();
    for number in [code, 1, count, 0, 0] {
        answer.extend(number.to_be_bytes());
    }
    answer.extend(question);
    answer.extend(records.into_iter().flatten());
    Some(answer)
}

/// The record of an address, where that is what was asked for.
fn record(kind: u16, address: IpAddr) -> Option<Vec<u8>> {
    let bytes = match (kind, address) {
        (A, IpAddr::V4(address)) => address.octets().to_vec(),
        (AAAA, IpAddr::V6(address)) => address.octets().to_vec(),
        _ => return None,
    };
    let length = u16::try_from(bytes.len()).ok()?;
    // The name is that of the question; it holds for no time.
    let mut record = vec![0xc0, 12];
    for number in [kind, 1, 0, 0, length] {
        record.extend(number.to_be_bytes());
    }
    record.extend(bytes);
    Some(record)
}
