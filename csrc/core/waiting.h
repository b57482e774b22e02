// How a thread of the pool waits, and where it wakes up.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace ivk {

// A worker that lost its processor to others while it spun sleeps at once after this many jobs, and wakes up wherever
// the system puts it: torch's threads spin for milliseconds after each of torch's own parallel regions.
constexpr int kRest = 16;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

// The processors that the calling thread may run on; 1 where the mask cannot be read, so that nobody spins.
inline int processors() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

// A woken thread may be put behind its waker on one processor though others are idle (virtual machines, where an idle
// processor looks as if it were taken), and stays there for longer than most jobs. So a sleeping worker is barred from
// its caller's processor before it is woken, and lifts the bar itself. Returns that processor; -1 where nothing
// changed.
inline int bar(pthread_t sleeper, int threads) {
    cpu_set_t set;
    const int mine = sched_getcpu();
    if (mine < 0 || mine >= CPU_SETSIZE || pthread_getaffinity_np(sleeper, sizeof(set), &set) != 0) return -1;
    if (!CPU_ISSET(mine, &set) || CPU_COUNT(&set) < std::max(threads, 2)) return -1;
    CPU_CLR(mine, &set);
    return pthread_setaffinity_np(sleeper, sizeof(set), &set) == 0 ? mine : -1;
}

inline void lift(int processor) {
    cpu_set_t set;
    if (processor < 0 || sched_getaffinity(0, sizeof(set), &set) != 0) return;
    CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

// Waits for `ready` without sleeping, because being woken costs more than a short job. Gives up after kSpin, at once
// where `threads` do not have a processor each, and when this one was taken away. Whoever else is runnable here
// (torch's threads, the caller itself) goes first: that is sched_yield. `lost` is set when the processor was taken.
template <typename Ready>
bool spin(int threads, Ready&& ready, bool* lost = nullptr) {
    using Clock = std::chrono::steady_clock;
    constexpr auto kSpin = std::chrono::microseconds(100), kLost = std::chrono::microseconds(20);
    if (ready()) return true;
    if (threads > processors()) return false;
    const Clock::time_point begin = Clock::now();
    for (Clock::time_point now = begin, last; now - begin < kSpin;) {
        for (int i = 0; i < 32; ++i) {
            pause();
            if (ready()) return true;
        }
        sched_yield();
        last = std::exchange(now, Clock::now());
        if (now - last > kLost) {
            if (lost != nullptr) *lost = true;
            break;
        }
    }
    return ready();
}

}  // namespace ivk
