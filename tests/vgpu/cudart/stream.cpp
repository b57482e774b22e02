// Queues of work and the order in which they are served.
#include "cudart/stream.h"

#include <algorithm>

#include "cudart/capture.h"

namespace vgpu {
namespace {

bool ready(const StreamWork& op) {
    return op.stream->queue.front().get() == &op &&
           std::all_of(op.after.begin(), op.after.end(), [](const auto& before) { return before->done; });
}

void run(const std::shared_ptr<StreamWork>& op) {
    op->stream->queue.pop_front();
    op->after.clear();
    // A sticky error discards what is still queued, as a dead context does.
    if (op->run && runtime().sticky == kSuccess) op->run();
    op->run = nullptr;
    op->done = true;
}

// Heads of queues that may run now, in order of issue.
std::vector<std::shared_ptr<StreamWork>> candidates() {
    std::vector<std::shared_ptr<StreamWork>> out;
    for (const auto& stream : runtime().streams)
        if (!stream->queue.empty() && ready(*stream->queue.front())) out.push_back(stream->queue.front());
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a->id < b->id; });
    return out;
}

// Runs exactly what `op` depends on, then `op`.
void force(const std::shared_ptr<StreamWork>& op) {
    while (!op->done) {
        const std::shared_ptr<StreamWork> head = op->stream->queue.front();
        for (const auto& before : std::vector<std::shared_ptr<StreamWork>>(head->after)) force(before);
        run(head);
    }
}

bool run_random() {
    const auto heads = candidates();
    if (heads.empty()) return false;
    run(heads[runtime().random() % heads.size()]);
    return true;
}

}  // namespace

Stream& legacy_stream() { return *runtime().streams.front(); }

Stream& stream_of(void* handle) {
    Runtime& rt = runtime();
    const auto number = reinterpret_cast<uintptr_t>(handle);
    if (number <= 1) return legacy_stream();
    if (number == 2) {
        for (const auto& stream : rt.streams)
            if (stream->per_thread && stream->thread == std::this_thread::get_id()) return *stream;
        auto stream = std::make_unique<Stream>();
        stream->id = rt.next_id++;
        stream->per_thread = true;
        stream->thread = std::this_thread::get_id();
        rt.streams.push_back(std::move(stream));
        return *rt.streams.back();
    }
    for (const auto& stream : rt.streams)
        if (stream.get() == handle && stream->alive && !stream->legacy && !stream->per_thread) return *stream;
    fail(kInvalidResourceHandle, "no such stream");
}

Event& event_of(void* handle) {
    if (!runtime().events.count(handle)) fail(kInvalidResourceHandle, "no such event");
    return *static_cast<Event*>(handle);
}

std::shared_ptr<StreamWork> enqueue(Stream& stream, std::function<void()> work) {
    Runtime& rt = runtime();
    auto op = std::make_shared<StreamWork>();
    op->id = rt.next_id++;
    op->stream = &stream;
    op->run = std::move(work);
    op->after.swap(stream.waits);
    // The legacy stream and the blocking streams wait for one another.
    if (stream.legacy) {
        for (const auto& other : rt.streams)
            if (other->blocking && !other->legacy && other->last && !other->last->done)
                op->after.push_back(other->last);
    } else if (stream.blocking) {
        const auto& last = legacy_stream().last;
        if (last && !last->done) op->after.push_back(last);
    }
    stream.queue.push_back(op);
    stream.last = op;
    if (rt.host_order == HostOrder::eager) force(op);
    return op;
}

void finish(const std::shared_ptr<StreamWork>& op) {
    if (!op) return;
    if (runtime().host_order == HostOrder::random)
        while (!op->done && run_random()) {
        }
    force(op);
}

void finish_all() {
    Runtime& rt = runtime();
    if (rt.host_order == HostOrder::random)
        while (run_random()) {
        }
    // Latest first: work that forgot to wait for another stream runs before it.
    for (;;) {
        const auto heads = candidates();
        if (heads.empty()) break;
        run(heads.back());
    }
    forget_idle_streams();
}

void make_progress(Runtime& rt) {
    if (rt.host_order != HostOrder::random) return;
    while (rt.random() % 4 == 0 && run_random()) {
    }
}

void nudge(const std::shared_ptr<StreamWork>& op) {
    if (!op || op->done) return;
    // One step towards `op`, so that polling ends.
    std::shared_ptr<StreamWork> head = op->stream->queue.front();
    for (bool moved = true; moved;) {
        moved = false;
        for (const auto& before : head->after)
            if (!before->done) {
                head = before->stream->queue.front();
                moved = true;
                break;
            }
    }
    run(head);
}

void drop_all_work() {
    for (const auto& stream : runtime().streams) {
        for (const auto& op : stream->queue) op->done = true, op->run = nullptr, op->after.clear();
        stream->queue.clear();
        stream->waits.clear();
    }
}

void forget_idle_streams() {
    auto& streams = runtime().streams;
    streams.erase(std::remove_if(streams.begin(), streams.end(),
                                 [](const auto& stream) { return !stream->alive && stream->queue.empty(); }),
                  streams.end());
}

}  // namespace vgpu
