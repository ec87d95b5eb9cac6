//! Many exchanges at once, in random order, against a worker that keeps the rules: every stream ends as its worker ended it, credit
//! is never overdrawn, and nothing is left behind.

use std::collections::HashMap;

use futures_util::FutureExt as _;

use super::*;

/// xorshift: the same storm for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What the worker still owes a stream: bytes of the body, and the credit it has.
struct Owed {
    bytes: usize,
    credit: usize,
    headless: bool,
}

/// Answers every request with as many bytes as it asks for, as its credit allows, in random order and pieces.
async fn play(mut worker: Worker, mut random: Random) {
    let mut open: HashMap<u16, Owed> = HashMap::new();
    loop {
        let sendable: Vec<u16> = open
            .iter()
            .filter(|(_, owed)| owed.credit > 0 || owed.bytes == 0)
            .map(|(number, _)| *number)
            .collect();
        if sendable.is_empty() || random.below(3) == 0 {
            let heard = if sendable.is_empty() {
                worker.hear().await
            } else {
                tokio::task::yield_now().await;
                match worker.hear().now_or_never() {
                    Some(heard) => heard,
                    None => continue,
                }
            };
            let Some((number, kind, _, payload)) = heard else { return };
            match kind {
                Kind::Request => {
                    let bytes = random.below(600_000) as usize;
                    open.insert(number, Owed { bytes, credit: WINDOW_BYTES as usize, headless: true });
                }
                Kind::CreditToWorker => {
                    if let Some(owed) = open.get_mut(&number) {
                        owed.credit += decode_credit(&payload).expect("credit") as usize;
                        assert!(owed.credit <= WINDOW_BYTES as usize, "more than a window");
                    }
                }
                Kind::Cancel => {
                    if open.remove(&number).is_some() {
                        worker.say(number, Kind::ResponseBody, Flags::ABORT, b"").await;
                    }
                }
                other => panic!("{other:?}"),
            }
            continue;
        }
        let number = sendable[random.below(sendable.len() as u64) as usize];
        let owed = open.get_mut(&number).expect("chosen from it");
        if std::mem::take(&mut owed.headless) {
            worker.head(number, 200, "text/plain", Flags::NONE, b"").await;
            continue;
        }
        let piece = (1 + random.below(40_000) as usize).min(owed.bytes).min(owed.credit);
        owed.bytes -= piece;
        owed.credit -= piece;
        let flags = if owed.bytes == 0 { Flags::END } else { Flags::NONE };
        worker.say(number, Kind::ResponseBody, flags, &vec![b'x'; piece]).await;
        if flags.is_end() {
            open.remove(&number);
        }
    }
}

#[tokio::test]
async fn every_stream_ends_and_nothing_is_left() {
    for seed in 1..20_u64 {
        let site = Site::new();
        let worker = site.worker(1, 40);
        let playing = tokio::spawn(play(worker, Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..40_u64 {
            let links = Arc::clone(&site.links);
            clients.spawn(async move {
                let mut random = Random((seed * 1000 + client).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
                let request =
                    |out: &mut Vec<u8>| out.extend(py_link::frame(Kind::Request, Flags::NONE, b"GET"));
                for _ in 0..3 {
                    let Ok(stream) = links.begin(0, PATIENCE, request).await else {
                        continue;
                    };
                    // Some leave at once, some in the middle, some never read fast.
                    let patience = random.below(30);
                    for _ in 0..patience {
                        if next(&stream).await.is_err() {
                            break;
                        }
                        if random.below(4) == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    if random.below(2) == 0 {
                        while next(&stream).await.is_ok() {}
                        assert!(matches!(next(&stream).await, Err(End::Complete(None))), "seed {seed}");
                    }
                }
            });
        }
        while let Some(done) = timeout(SOON * 3, clients.join_next()).await.expect("a client hangs") {
            done.expect("no panic");
        }
        // What was cancelled is ended by the worker.
        timeout(SOON, async {
            while site.links.loads() != [(1, 0)] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: {:?} are left", site.links.loads()));
        playing.abort();
    }
}
