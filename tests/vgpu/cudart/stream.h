// Streams: a queue of work each, and the order in which queues are served.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cudart/runtime.h"

namespace vgpu {

struct Node;

// One piece of enqueued work. It may run when it heads its stream's queue and everything in `after` is done.
struct StreamWork {
    uint64_t id = 0;
    Stream* stream = nullptr;
    std::vector<std::shared_ptr<StreamWork>> after;
    std::function<void()> run;  // empty: a marker
    bool done = false;
};

struct Stream {
    uint64_t id = 0;
    bool legacy = false, blocking = true, alive = true;
    bool per_thread = false;
    std::thread::id thread;
    unsigned flags = 0;
    int priority = 0;
    std::deque<std::shared_ptr<StreamWork>> queue;
    std::shared_ptr<StreamWork> last;                // newest work, done or not
    std::vector<std::shared_ptr<StreamWork>> waits;  // events that the next work must follow
    Capture* capture = nullptr;
    std::vector<Node*> tail;  // while capturing: what the next node follows
};

struct Event {
    unsigned flags = 0;
    bool recorded = false;
    std::shared_ptr<StreamWork> op;
    uint64_t capture_id = 0;  // recorded in a capture: which one, and the nodes it stands for
    std::vector<Node*> nodes;
};

// The stream behind a handle (0 and 1 legacy, 2 the calling thread's); throws cudaErrorInvalidResourceHandle.
Stream& stream_of(void* handle);
Stream& legacy_stream();
Event& event_of(void* handle);

// Appends work. The stream must not be capturing.
std::shared_ptr<StreamWork> enqueue(Stream&, std::function<void()> run);
// Runs what must run before `op` may be awaited (random order: perhaps more).
void finish(const std::shared_ptr<StreamWork>& op);
void finish_all();
// Work moves on by itself: called at every API call (random order) and by queries.
void make_progress(Runtime&);
void nudge(const std::shared_ptr<StreamWork>& op);
// Queues are emptied without running (after a sticky error, at a reset).
void drop_all_work();
void forget_idle_streams();

inline void* per_thread(void* stream) { return stream ? stream : reinterpret_cast<void*>(2); }

}  // namespace vgpu
