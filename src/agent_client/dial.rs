//! TCP connections to agents. In the first moments of a pod a network plugin may still drop its packets, or the agent
//! may not listen yet. The kernel repeats a lost SYN only after a second, so attempts are started anew after a short
//! time, while earlier ones still run.

use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// Delay between two attempts.
const STAGGER: Duration = Duration::from_millis(150);
/// Longest time of one attempt. It bounds the attempts that run at once to eight.
const ATTEMPT: Duration = STAGGER.saturating_mul(8);
/// Longest time for all attempts.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a young pod.
const YOUNG_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a young pod may refuse connections. Longer would delay the answer for one that has ended.
const YOUNG_REFUSALS: Duration = Duration::from_secs(3);
/// A pod is young for this long after its main container has started.
const YOUTH: Duration = Duration::from_secs(30);

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    /// Longest time for all attempts.
    timeout: Duration,
    /// How long attempts that fail, rather than wait, are followed by others.
    errors: Duration,
}

impl Patience {
    /// For a pod whose main container started at `started_at`.
    fn at(now: Timestamp, started_at: Option<Timestamp>) -> Patience {
        let age = started_at.map(|started| now.duration_since(started));
        let age = age.map(|age| Duration::try_from(age).unwrap_or_default());
        let left = age.map_or(Duration::ZERO, |age| YOUTH.saturating_sub(age));
        Patience {
            timeout: left.clamp(TIMEOUT, YOUNG_TIMEOUT),
            errors: left.min(YOUNG_REFUSALS),
        }
    }
}

/// Connects to the agent of a pod whose main container started at `started_at`. Dropping the future ends all attempts.
pub(super) async fn connect(address: SocketAddr, started_at: Option<Timestamp>) -> io::Result<TcpStream> {
    let stream = staggered(
        || TcpStream::connect(address),
        Patience::at(Timestamp::now(), started_at),
    )
    .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The first success of several attempts.
async fn staggered<T, F>(mut attempt: impl FnMut() -> F, patience: Patience) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let begin = Instant::now();
    let mut start = interval(STAGGER);
    start.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        tokio::select! {
            _ = start.tick() => attempts.push(timeout(ATTEMPT, attempt())),
            Some(result) = attempts.next() => match result {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) if begin.elapsed() >= patience.errors => return Err(error),
                Ok(Err(error)) => last_error = Some(error),
                Err(_) => {}
            },
            () = sleep_until(begin + patience.timeout) => return Err(last_error.unwrap_or_else(|| io::ErrorKind::TimedOut.into())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::future::{Either, pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpSocket;

    const YOUNG: Patience = Patience {
        timeout: YOUNG_TIMEOUT,
        errors: YOUNG_REFUSALS,
    };
    const OLD: Patience = Patience {
        timeout: TIMEOUT,
        errors: Duration::ZERO,
    };

    #[tokio::test(start_paused = true)]
    async fn dropped_packets_cost_no_more_than_the_time_in_which_they_are_dropped() {
        let (begin, mut count) = (Instant::now(), 0);
        let dropped_for = Duration::from_millis(400);
        let attempt = || {
            count += 1;
            if begin.elapsed() < dropped_for {
                Either::Left(pending())
            } else {
                Either::Right(ready(Ok(())))
            }
        };
        staggered(attempt, OLD).await.unwrap();
        assert_eq!((begin.elapsed(), count), (STAGGER * 3, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_connection_is_not_given_up_for_a_later_attempt() {
        let begin = Instant::now();
        let slow = STAGGER * 5;
        let attempt = || async {
            tokio::time::sleep(slow).await;
            Ok(())
        };
        staggered(attempt, OLD).await.unwrap();
        assert_eq!(begin.elapsed(), slow);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_young_pod_may_refuse_connections_for_a_while() {
        let (begin, mut count) = (Instant::now(), 0);
        let mut attempt = || {
            count += 1;
            ready(if count < 10 {
                Err(io::ErrorKind::ConnectionRefused.into())
            } else {
                Ok(())
            })
        };
        let error = staggered(&mut attempt, OLD).await.unwrap_err();
        assert_eq!(
            (error.kind(), begin.elapsed()),
            (io::ErrorKind::ConnectionRefused, Duration::ZERO)
        );
        staggered(&mut attempt, YOUNG).await.unwrap();
        assert_eq!(count, 10);

        let refused = || ready(Err::<(), _>(io::ErrorKind::ConnectionRefused.into()));
        let begin = Instant::now();
        let error = staggered(refused, YOUNG).await.unwrap_err();
        assert_eq!(
            (error.kind(), begin.elapsed()),
            (io::ErrorKind::ConnectionRefused, YOUNG_REFUSALS)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let attempt = || {
            let (guard, most) = (Running::new(&running), most.clone());
            async move {
                most.fetch_max(guard.0.load(Ordering::Relaxed), Ordering::Relaxed);
                pending::<io::Result<()>>().await
            }
        };
        let begin = Instant::now();
        let error = staggered(attempt, OLD).await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIMEOUT));
        assert!(most.load(Ordering::Relaxed) <= 9, "{most:?}");
        assert_eq!(running.load(Ordering::Relaxed), 0);
    }

    struct Running(Arc<AtomicUsize>);

    impl Running {
        fn new(count: &Arc<AtomicUsize>) -> Running {
            count.fetch_add(1, Ordering::Relaxed);
            Running(count.clone())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pod_is_young_for_a_while_after_its_start() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let youth = YOUTH.as_secs().cast_signed();
        let patience = |now: i64| Patience::at(at(now), Some(at(1_000)));
        assert_eq!(patience(1_000), YOUNG);
        assert_eq!(patience(990), YOUNG, "the node's clock is ahead");
        assert_eq!(patience(996 + youth).timeout, Duration::from_secs(4));
        let last = Patience {
            timeout: TIMEOUT,
            errors: Duration::from_secs(1),
        };
        assert_eq!(patience(999 + youth), last);
        assert_eq!(patience(1_000 + youth), OLD);
        assert_eq!(Patience::at(at(1_000), None), OLD);
    }

    /// The kernel drops a SYN for a listener whose queue is full.
    #[tokio::test]
    async fn a_connection_whose_first_packets_are_dropped_is_made() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let filler = TcpStream::connect(address).await.unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let dialing = {
            let count = count.clone();
            tokio::spawn(staggered(
                move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    TcpStream::connect(address)
                },
                YOUNG,
            ))
        };
        let three_attempts = async {
            while count.load(Ordering::Relaxed) < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(YOUTH, three_attempts).await.unwrap();
        assert!(!dialing.is_finished(), "the queue is full");
        let accepted = listener.accept().await.unwrap();
        dialing.await.unwrap().unwrap();
        drop((filler, accepted));
    }
}
