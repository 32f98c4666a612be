// A persistent pool of threads that never waits for one of its own to arrive.
//
// A job is a number of items, claimed from one counter: large stretches first, then ever smaller ones (guided
// self-scheduling, Polychronopoulos and Kuck 1987), so that a thread reads long streams and yet all finish together. The
// caller works too, and is done when every item is done, so a helper that sleeps, or that the system has put aside for
// another program, costs its share of speed and nothing else: only a stretch already begun is waited for. Helpers look for
// work for a bounded time, then sleep.
#pragma once
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>

namespace myna {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
  public:
    using Work = void (*)(void* context, int64_t begin, int64_t end);

    static Pool& get() {
        static Pool* pool = new Pool();  // never destroyed: its threads may outlive main
        return *pool;
    }

    void resize(int threads) {
        if (forked_) return;
        std::lock_guard<std::mutex> busy(callers_);
        wanted_ = threads - 1;
        for (; helpers_ < wanted_; helpers_++) {
            int number = helpers_;
            std::thread([this, number] { help(number); }).detach();
        }
    }

    int threads() const { return wanted_ + 1; }

    void run(int64_t items, int64_t grain, Work work, void* context) {
        if (items <= 0) return;
        // Alone, small, or called from a second thread: do it here. After a fork the helpers are in the other process.
        if (wanted_ == 0 || forked_ || items <= grain || !callers_.try_lock()) {
            work(context, 0, items);
            return;
        }
        // Between jobs the ticket is one that nobody can claim, so a late helper cannot pair an old ticket with new work.
        uint64_t job = (ticket_.load(std::memory_order_relaxed) / JOB + 2) * JOB;
        ticket_.store(job - 1, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        work_.store(work, std::memory_order_relaxed), context_.store(context, std::memory_order_relaxed);
        items_.store(items, std::memory_order_relaxed), grain_.store(grain, std::memory_order_relaxed);
        threads_.store(threads(), std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        ticket_.store(job, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst)) wake();
        while (claim(job / JOB)) {}
        for (int spins = 0; done_.load(std::memory_order_acquire) < items; spins++)
            spins < 4000 ? relax() : std::this_thread::yield();
        callers_.unlock();
    }

  private:
    static constexpr uint64_t JOB = 1ull << 24;  // the ticket's low bits count the claims of a job, the rest numbers jobs
    static constexpr int SPINS = 20000;          // about 50 microseconds: longer than what lies between two operations

    Pool() {
        pthread_atfork(nullptr, nullptr, [] { Pool::get().forked_ = true; });
    }

    // Where stretch `number` starts. Each round of as many stretches as threads takes half of what is left, while that is
    // `grain` items and more for each; what is left then goes by `grain`.
    static int64_t start(int64_t number, int64_t items, int64_t grain, int64_t threads) {
        int64_t left = items;
        for (; left >= 2 * threads * grain; left -= left / 2, number -= threads)
            if (number < threads) return items - left + left / 2 * number / threads;
        int64_t at = items - left + number * grain;
        return at < items ? at : items;
    }

    // Take the next items of this job and do them. A claim that succeeds proves that the job is still going on, so what
    // was read of it before is of this job.
    bool claim(uint64_t job) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        for (;;) {
            if (ticket / JOB != job) return false;
            int64_t items = items_.load(std::memory_order_relaxed), grain = grain_.load(std::memory_order_relaxed);
            Work work = work_.load(std::memory_order_relaxed);
            void* context = context_.load(std::memory_order_relaxed);
            int64_t threads = threads_.load(std::memory_order_relaxed), number = int64_t(ticket % JOB);
            int64_t begin = start(number, items, grain, threads), end = start(number + 1, items, grain, threads);
            if (begin >= items) return false;
            std::atomic_thread_fence(std::memory_order_acquire);
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            work(context, begin, end);
            done_.fetch_add(end - begin, std::memory_order_release);
            return true;
        }
    }

    void help(int number) {
        uint64_t seen = 0;
        for (;;) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            for (int spins = 0; ticket / JOB == seen && spins < SPINS; spins++)
                relax(), ticket = ticket_.load(std::memory_order_acquire);
            if (ticket / JOB == seen) {
                sleep(seen);
                continue;
            }
            seen = ticket / JOB;
            if (number < wanted_)
                while (claim(seen)) {}
        }
    }

    void sleep(uint64_t seen) {
        std::unique_lock<std::mutex> lock(sleeping_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wakeup_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) / JOB != seen; });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

    void wake() {
        { std::lock_guard<std::mutex> lock(sleeping_); }
        wakeup_.notify_all();
    }

    alignas(128) std::atomic<uint64_t> ticket_{0};
    alignas(128) std::atomic<int64_t> done_{0};
    alignas(128) std::atomic<Work> work_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int64_t> items_{0}, grain_{1}, threads_{1};
    std::atomic<int> sleepers_{0}, wanted_{0};
    std::atomic<bool> forked_{false};
    int helpers_ = 0;
    std::mutex callers_, sleeping_;
    std::condition_variable wakeup_;
};

// work(begin, end) over [0, items) in stretches of `grain` items or more.
template <class F> void parallel(int64_t items, int64_t grain, F&& work) {
    Pool::get().run(
        items, grain < 1 ? 1 : grain,
        [](void* context, int64_t begin, int64_t end) { (*static_cast<std::remove_reference_t<F>*>(context))(begin, end); },
        &work);
}

}  // namespace myna
