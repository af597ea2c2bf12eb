//! Waits for a future in tests that are no tasks, or that must not give up their thread.

/// What a future gives, driven on a thread of its own.
pub(crate) fn block_on<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    let drive = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime starts").block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(drive).join()).expect("it does not panic")
}
