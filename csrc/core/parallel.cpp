#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/waiting.h"

namespace ivk {
namespace {

constexpr int kMaxThreads = 1024;

struct Job {
    Job(int64_t n, int64_t grain, ItemRange items, void* context)
        : n(n), grain(grain), items(items), context(context) {}

    int64_t n, grain;
    ItemRange items;
    void* context;
    alignas(64) std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    std::mutex error_mutex;

    void run() {
        while (!failed.load(std::memory_order_relaxed)) {
            const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
            if (begin >= n) return;
            try {
                items(context, begin, std::min(begin + grain, n));
            } catch (...) {
                std::lock_guard<std::mutex> lock(error_mutex);
                if (!error) error = std::current_exception();
                failed.store(true);
            }
        }
    }
};

thread_local bool inside_pool = false;

// What all threads of a pool look at, in one word: a worker joins by adding one to `running`, which fails unless the
// job is still open, and a caller that has closed its job waits for those alone that joined.
struct State {
    static constexpr int kCountBits = 11;
    static constexpr uint64_t kCount = (1u << kCountBits) - 1, kOpen = uint64_t{1} << (2 * kCountBits);
    uint64_t word;

    static uint64_t open(uint64_t generation, int helpers) {
        return generation << (2 * kCountBits + 1) | kOpen | static_cast<uint64_t>(helpers) << kCountBits;
    }
    uint64_t generation() const { return word >> (2 * kCountBits + 1); }
    bool is_open() const { return (word & kOpen) != 0; }
    int helpers() const { return static_cast<int>(word >> kCountBits & kCount); }
    int running() const { return static_cast<int>(word & kCount); }
};

// One job at a time: a second caller runs its work on its own thread. A caller waits only for workers that took part:
// one that wakes up late finds the job gone, so a busy machine costs no more than the caller's own time. Workers spin
// briefly between jobs, then sleep, each on its own condition variable. A pool is never destroyed: its workers end with
// the process.
class Pool {
  public:
    bool run(Job& job, int helpers) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        helpers = std::min(helpers, grow(helpers));
        job_ = &job;
        caller_processor_.store(sched_getcpu(), std::memory_order_relaxed);
        state_.store(State::open(++generation_, helpers));
        for (int i = 0; i < helpers; ++i) workers_[i]->wake(helpers + 1);
        inside_pool = true;
        job.run();
        inside_pool = false;
        state_.fetch_and(~State::kOpen);
        const auto all_left = [this] { return state().running() == 0; };
        if (!spin(helpers + 1, all_left)) {
            std::unique_lock<std::mutex> lock(mutex_);
            caller_sleeps_.store(true);
            left_.wait(lock, all_left);
            caller_sleeps_.store(false);
        }
        return true;
    }

  private:
    struct Worker {
        std::mutex mutex;
        std::condition_variable woken;
        std::atomic<bool> sleeps{false};
        pthread_t thread{};
        int barred = -1;
        bool crowded = false;  // others than the caller want its processor

        void wake(int threads) {
            if (!sleeps.load()) return;
            {
                std::lock_guard<std::mutex> lock(mutex);
                if (!sleeps.load()) return;
                if (!crowded) barred = bar(thread, threads);
                sleeps.store(false);
            }
            woken.notify_one();
        }

        // `ready` is asked again after `sleeps` is seen by a caller, which looks at `sleeps` after opening its job.
        template <typename Ready>
        void sleep(Ready&& ready, bool in_crowd) {
            std::unique_lock<std::mutex> lock(mutex);
            crowded = in_crowd;
            thread = pthread_self();
            sleeps.store(true);
            if (ready()) sleeps.store(false);
            woken.wait(lock, [this] { return !sleeps.load(); });
            lift(std::exchange(barred, -1));
        }
    };

    State state() const { return {state_.load()}; }

    // The number of workers, after an attempt to have `wanted`: the system may refuse more threads.
    int grow(int wanted) {
        workers_.reserve(wanted);
        while (static_cast<int>(workers_.size()) < wanted) {
            auto worker = std::make_unique<Worker>();
            try {
                std::thread([this, mine = worker.get(), i = static_cast<int>(workers_.size())] {
                    loop(*mine, i);
                }).detach();
            } catch (const std::system_error&) {
                break;
            }
            workers_.push_back(std::move(worker));
        }
        return static_cast<int>(workers_.size());
    }

    [[noreturn]] void loop(Worker& mine, int index) {
        inside_pool = true;
        uint64_t seen = 0;
        int threads = 1, rest = 0;
        const auto ready = [&] {
            const State now = state();
            return now.is_open() && now.generation() != seen && index < now.helpers();
        };
        for (;;) {
            bool lost = false;
            const bool come = rest > 0 ? ready() : spin(threads, ready, &lost);
            rest = lost && sched_getcpu() != caller_processor_.load() ? kRest : std::max(rest - 1, 0);
            if (!come) mine.sleep(ready, rest > 0);
            State now = state();
            while (now.is_open() && now.generation() != seen && index < now.helpers()) {
                if (!state_.compare_exchange_weak(now.word, now.word + 1)) continue;
                seen = now.generation();
                threads = now.helpers() + 1;
                job_->run();
                const State after{state_.fetch_sub(1) - 1};
                if (after.running() == 0 && !after.is_open() && caller_sleeps_.load()) {
                    {
                        std::lock_guard<std::mutex> lock(mutex_);
                    }
                    left_.notify_one();
                }
                break;
            }
        }
    }

    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::mutex turn_;
    std::vector<std::unique_ptr<Worker>> workers_;  // read and changed by the caller that has the turn
    uint64_t generation_ = 0;
    std::atomic<int> caller_processor_{-1};
    Job* job_ = nullptr;  // read by workers that joined
    std::mutex mutex_;
    std::condition_variable left_;
    std::atomic<bool> caller_sleeps_{false};
};

// A child of fork has none of its parent's threads: it forgets the old pool (without touching its locks) and starts
// anew.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<int> thread_cap{1};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });

Pool& pool() {
    Pool* current = the_pool.load();
    if (current == nullptr) {
        auto fresh = std::make_unique<Pool>();
        if (the_pool.compare_exchange_strong(current, fresh.get())) current = fresh.release();
    }
    return *current;
}

struct Scratch {
    float* data = nullptr;
    int64_t floats = 0;
    ~Scratch() { ::operator delete[](data, std::align_val_t{64}); }
};

}  // namespace

float* scratch(int64_t floats) {
    thread_local Scratch mine;
    if (floats > mine.floats) {
        ::operator delete[](std::exchange(mine.data, nullptr), std::align_val_t{64});
        mine.floats = 0;
        mine.data =
            static_cast<float*>(::operator new[](static_cast<size_t>(floats) * sizeof(float), std::align_val_t{64}));
        mine.floats = floats;
    }
    return mine.data;
}

void parallel_for(int64_t n, int64_t grain, int threads, ItemRange items, void* context) {
    if (n <= 0) return;
    require(threads >= 0 && threads <= kMaxThreads, "threads: ", threads, "; allowed: 0 (the default cap) to ",
            kMaxThreads);
    grain = std::max<int64_t>(grain, 1);
    const int wanted = threads == 0 ? default_threads() : threads;
    const int useful = static_cast<int>(std::min<int64_t>(wanted, (n + grain - 1) / grain));
    if (useful <= 1 || inside_pool) {
        items(context, 0, n);
        return;
    }
    Job job(n, grain, items, context);
    if (!pool().run(job, useful - 1)) job.run();
    if (job.error) std::rethrow_exception(job.error);
}

int default_threads() { return thread_cap.load(std::memory_order_relaxed); }

void set_default_threads(int threads) {
    require(threads >= 1 && threads <= kMaxThreads, "threads: ", threads, "; allowed: 1 to ", kMaxThreads);
    thread_cap.store(threads);
}

}  // namespace ivk
