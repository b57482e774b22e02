// A persistent pool with an explicit cap. Work is cut into `n` numbered items; which thread runs an item never changes
// its result, so every kernel gives the same bits with 1 and with 64 threads.
#pragma once

#include <cstdint>

namespace ivk {

using ItemRange = void (*)(void* context, int64_t begin, int64_t end);

// Runs items [0, n) in chunks of `grain` on at most `threads` threads, the caller's included; returns when all are
// done. Workers spin for up to 0.1 ms between jobs, then sleep; torch's own (OpenMP) threads spin for milliseconds and
// hold a processor meanwhile, so a run of small ops is best all ours or all torch's. The first exception of an item is
// rethrown here. Safe after fork (the child starts a new pool) and when nested (inner calls run on the calling thread).
void parallel_for(int64_t n, int64_t grain, int threads, ItemRange items, void* context);

template <typename F>
void parallel_for(int64_t n, int64_t grain, int threads, F&& items) {
    parallel_for(
        n, grain, threads, [](void* f, int64_t begin, int64_t end) { (*static_cast<F*>(f))(begin, end); }, &items);
}

// The cap used by ops that are given threads = 0. Starts at 1: never all cores unasked.
int default_threads();
void set_default_threads(int threads);

// The calling thread's scratch memory: `floats` of it at a 64-byte boundary, contents undefined. It grows to the
// largest request and stays with the thread, so a kernel asks for all that it needs in one call.
float* scratch(int64_t floats);

}  // namespace ivk
