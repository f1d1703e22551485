//! Remembers answers of the API server for a while: bounded, and each question is asked once however many wait for its answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

type Slot<V> = Arc<OnceCell<(V, Instant)>>;

/// Answers by question, each until its own moment.
pub struct Remember<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Remember<K, V> {
    /// Room for so many answers.
    pub fn new(capacity: usize) -> Remember<K, V> {
        Remember {
            slots: Mutex::default(),
            capacity,
        }
    }

    /// The answer to `key`; if none is remembered, what `ask` says, which holds for as long as it says too. Errors are not remembered.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn get<E>(&self, key: &K, now: Instant, ask: impl Future<Output = Result<(V, Duration), E>>) -> Result<V, E> {
        let slot = self.slot(key, now);
        let ask = async { ask.await.map(|(value, lasts)| (value, now + lasts)) };
        slot.get_or_try_init(|| ask).await.map(|(value, _)| value.clone())
    }

    fn slot(&self, key: &K, now: Instant) -> Slot<V> {
        // A slot without an answer is waited for by those who hold it.
        let holds = |slot: &Slot<V>| match slot.get() {
            Some((_, until)) => *until > now,
            None => Arc::strong_count(slot) > 1,
        };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key).filter(|s| holds(s)) {
            return slot.clone();
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| holds(slot));
        }
        if slots.len() >= self.capacity {
            // Whichever: it is only asked again.
            let any = slots.keys().next().cloned();
            any.and_then(|key| slots.remove(&key));
        }
        let slot = Slot::default();
        slots.insert(key.clone(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_answer_holds_for_as_long_as_it_says_and_errors_do_not() {
        let (memory, asked, start) = (Remember::new(8), AtomicU32::new(0), Instant::now());
        let asked = &asked;
        let ask = |result: Result<Duration, ()>| async move { result.map(|lasts| (asked.fetch_add(1, Ordering::Relaxed), lasts)) };
        assert_eq!(memory.get(&"a", start, ask(Err(()))).await, Err(()));
        assert_eq!(memory.get(&"a", start, ask(Ok(MINUTE))).await, Ok(0));
        let nearly = start + MINUTE - Duration::from_millis(1);
        assert_eq!(memory.get(&"a", nearly, ask(Ok(MINUTE))).await, Ok(0));
        assert_eq!(memory.get(&"a", start + MINUTE, ask(Ok(MINUTE))).await, Ok(1));
        assert_eq!(memory.get(&"b", start, ask(Ok(MINUTE))).await, Ok(2));
    }

    #[tokio::test]
    async fn many_who_wait_ask_once_and_an_asker_who_goes_away_is_replaced() {
        let (memory, asked) = (Remember::new(8), AtomicU32::new(0));
        let now = Instant::now();
        let slow = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>(((), MINUTE))
        };
        // The first one is dropped while it asks.
        let _ = tokio::time::timeout(Duration::from_millis(1), memory.get(&1, now, slow())).await;
        let all = (0..50).map(|_| memory.get(&1, now, slow()));
        assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn there_is_no_more_room_than_given() {
        let (memory, now) = (Remember::new(8), Instant::now());
        for i in 0..1000 {
            let answer = async { if i % 2 == 0 { Ok((i, MINUTE)) } else { Err(()) } };
            let _ = memory.get(&i, now, answer).await;
        }
        assert!(memory.slots.lock().unwrap().len() <= 8);
    }
}
