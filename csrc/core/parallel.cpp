#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"

namespace ivk {
namespace {

constexpr int kMaxThreads = 1024;

struct Job {
    Job(int64_t n, int64_t grain, ItemRange items, void* context)
        : n(n), grain(grain), items(items), context(context) {}

    int64_t n, grain;
    ItemRange items;
    void* context;
    std::atomic<int64_t> next{0};
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

// Workers sleep between jobs. A caller waits only for workers that took part: one that wakes up late finds the job
// gone, so a busy machine costs no more than the caller's own time. One job at a time: a second caller runs its work on
// its own thread.
class Pool {
  public:
    bool run(Job& job, int helpers) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (static_cast<int>(workers_.size()) < helpers)
                workers_.emplace_back([this, index = static_cast<int>(workers_.size())] { loop(index); });
            job_ = &job;
            helpers_ = helpers;
            ++generation_;
        }
        wake_.notify_all();
        inside_pool = true;
        job.run();
        inside_pool = false;
        std::unique_lock<std::mutex> lock(mutex_);
        job_ = nullptr;
        done_.wait(lock, [this] { return running_ == 0; });
        return true;
    }

  private:
    [[noreturn]] void loop(int index) {
        inside_pool = true;
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && index < helpers_ && job_ != nullptr; });
            seen = generation_;
            Job* job = job_;
            ++running_;
            lock.unlock();
            job->run();
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    Job* job_ = nullptr;
    int helpers_ = 0, running_ = 0;
    uint64_t generation_ = 0;
};

// A child of fork has none of its parent's threads: it forgets the old pool (without touching its locks) and starts
// anew.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<int> thread_cap{1};

Pool& pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
    (void)registered;
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
