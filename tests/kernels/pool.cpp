// Hammers the thread pool: a program of its own, for ThreadSanitizer and for plain runs. Items write plain memory that
// their caller reads afterwards, so a hand-off without order is a race. "pool race" has one on purpose.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/parallel.h"

namespace {

using ivk::parallel_for;

void expect(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "pool: %s\n", what);
    std::_Exit(1);
}

// One job: every item once, its result seen by the caller.
void job(std::vector<int64_t>& out, int64_t grain, int threads, int64_t salt) {
    const int64_t n = static_cast<int64_t>(out.size());
    parallel_for(n, grain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] += salt + i;
    });
    for (int64_t i = 0; i < n; ++i) {
        expect(out[i] == salt + i, "an item ran twice, or not at all");
        out[i] = 0;
    }
}

void jobs_of_all_sizes(int count) {
    std::vector<int64_t> out;
    for (int i = 0; i < count; ++i) {
        out.assign(1 + i % 37, 0);
        job(out, 1 + i % 5, 1 + i % 5, i);  // the cap changes with every job
    }
}

// Pauses around the length of a worker's spin: jobs meet workers that spin, that are about to sleep, and that sleep.
void jobs_after_pauses(int count) {
    std::vector<int64_t> out(8);
    for (int i = 0; i < count; ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(i % 40 * 8));
        job(out, 1, 2 + i % 2, i);
    }
}

void exceptions(int count) {
    for (int i = 0; i < count; ++i) {
        std::string caught;
        try {
            parallel_for(64, 1, 3, [&](int64_t begin, int64_t) {
                if (begin == i % 64) throw std::runtime_error("item");
            });
        } catch (const std::runtime_error& error) {
            caught = error.what();
        }
        expect(caught == "item", "an item's exception is lost");
    }
}

void nested(int count) {
    for (int i = 0; i < count; ++i) {
        std::vector<std::vector<int64_t>> out(6, std::vector<int64_t>(9));
        parallel_for(6, 1, 3, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) job(out[k], 1, 3, k);
        });
    }
}

void callers_at_once(int count) {
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; ++c)
        callers.emplace_back([count] {
            jobs_of_all_sizes(count);
            exceptions(count / 10);
        });
    for (std::thread& caller : callers) caller.join();
}

// Two items that wait for each other end only if two threads run them, so a pool that was not started anew hangs.
void two_threads_take_part() {
    std::atomic<int> arrived{0};
    parallel_for(2, 1, 2, [&](int64_t, int64_t) {
        ++arrived;
        while (arrived.load() < 2) std::this_thread::yield();
    });
}

void fork_after_use() {
    two_threads_take_part();
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        two_threads_take_part();
        jobs_of_all_sizes(200);
        std::_Exit(0);
    }
    int status = -1;
    expect(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a forked child failed or hung");
    two_threads_take_part();
}

void default_cap() {
    for (int cap : {4, 1, 2, 3}) {
        ivk::set_default_threads(cap);
        std::vector<int64_t> out(50);
        for (int i = 0; i < 20; ++i) job(out, 1, 0, i);
    }
}

}  // namespace

int main(int count, char** values) {
    alarm(120);
    if (count > 1 && std::string(values[1]) == "race") {
        volatile int64_t sum = 0;
        std::atomic<int> arrived{0};
        parallel_for(2, 1, 2, [&](int64_t, int64_t) {
            arrived.fetch_add(1, std::memory_order_relaxed);
            while (arrived.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
            for (int i = 0; i < 10000; ++i) sum = sum + 1;  // two writes at the very same moment go unseen
        });
        return sum < 0;
    }
    jobs_of_all_sizes(20000);
    jobs_after_pauses(2000);
    exceptions(500);
    nested(500);
    callers_at_once(3000);
    fork_after_use();
    default_cap();
    std::puts("pool: well");
}
