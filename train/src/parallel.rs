//! Work on several threads whose result does not depend on how many there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// `work(0)` to `work(count - 1)`, in this order.
pub fn map<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= count || sender.send((nth, work(nth))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut all: Vec<(usize, T)> = receiver.iter().collect();
        all.sort_by_key(|(nth, _)| *nth);
        all.into_iter().map(|(_, result)| result).collect()
    })
}
