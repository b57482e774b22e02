// Streams and events.
#include <algorithm>

#include "cudart/capture.h"
#include "cudart/stream.h"
#include "cudart/work.h"

namespace vgpu {
namespace {

constexpr int kHighest = -5;

Error create_stream(const char* name, void** out, unsigned flags, int priority) {
    return api(name, Needs::context, [&] {
        Runtime& rt = runtime();
        if (!out) fail(kInvalidValue, "the stream's address is null");
        if (flags > 1) fail(kInvalidValue, "flags " + std::to_string(flags) + "; allowed: 0, 1");
        auto stream = std::make_unique<Stream>();
        stream->id = rt.next_id++;
        stream->flags = flags;
        stream->blocking = flags == 0;
        stream->priority = std::min(0, std::max(kHighest, priority));
        *out = stream.get();
        rt.streams.push_back(std::move(stream));
        return kSuccess;
    });
}

bool idle(const std::shared_ptr<StreamWork>& op) { return !op || op->done; }

// Null if everything in the stream is done; for the legacy stream also in those that it waits for.
std::shared_ptr<StreamWork> unfinished(const Stream& stream) {
    if (!idle(stream.last)) return stream.last;
    for (const auto& wait : stream.waits)
        if (!idle(wait)) return wait;
    if (stream.legacy)
        for (const auto& other : runtime().streams)
            if (other->blocking && !idle(other->last)) return other->last;
    return nullptr;
}

void synchronize(Stream& stream) {
    // A marker also waits for events that no work has followed yet.
    if (unfinished(stream)) finish(enqueue(stream, nullptr));
}

}  // namespace

VGPU_API Error cudaStreamCreate(void** out) { return create_stream("cudaStreamCreate", out, 0, 0); }
VGPU_API Error cudaStreamCreateWithFlags(void** out, unsigned flags) {
    return create_stream("cudaStreamCreateWithFlags", out, flags, 0);
}
VGPU_API Error cudaStreamCreateWithPriority(void** out, unsigned flags, int priority) {
    return create_stream("cudaStreamCreateWithPriority", out, flags, priority);
}

// The handle dies at once, its work goes on.
VGPU_API Error cudaStreamDestroy(void* handle) {
    return api("cudaStreamDestroy", Needs::context, [&] {
        Stream& stream = stream_of(handle);
        if (stream.legacy || stream.per_thread) fail(kInvalidResourceHandle, "a default stream cannot be destroyed");
        refuse_while_capturing(stream, "cudaStreamDestroy");
        stream.alive = false;
        forget_idle_streams();
        return kSuccess;
    });
}

VGPU_API Error cudaStreamSynchronize(void* handle) {
    return api("cudaStreamSynchronize", Needs::context, [&] {
        Stream& stream = stream_of(handle);
        refuse_while_capturing(stream, "cudaStreamSynchronize");
        if (stream.legacy) refuse_implicit_capture();
        runtime().forbid_in_capture("cudaStreamSynchronize");
        synchronize(stream);
        return kSuccess;
    });
}
VGPU_API Error cudaStreamSynchronize_ptsz(void* stream) { return cudaStreamSynchronize(per_thread(stream)); }

VGPU_API Error cudaStreamQuery(void* handle) {
    return api("cudaStreamQuery", Needs::context, [&] {
        Stream& stream = stream_of(handle);
        refuse_while_capturing(stream, "cudaStreamQuery");
        if (stream.legacy) refuse_implicit_capture();
        const auto op = unfinished(stream);
        if (!op) return Error(kSuccess);
        nudge(op);
        return runtime().sticky != kSuccess ? runtime().sticky : Error(kNotReady);
    });
}
VGPU_API Error cudaStreamQuery_ptsz(void* stream) { return cudaStreamQuery(per_thread(stream)); }

VGPU_API Error cudaStreamGetPriority(void* handle, int* out) {
    return api("cudaStreamGetPriority", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        *out = stream_of(handle).priority;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamGetPriority_ptsz(void* s, int* out) { return cudaStreamGetPriority(per_thread(s), out); }

VGPU_API Error cudaStreamGetFlags(void* handle, unsigned* out) {
    return api("cudaStreamGetFlags", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        *out = stream_of(handle).flags;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamGetFlags_ptsz(void* s, unsigned* out) { return cudaStreamGetFlags(per_thread(s), out); }

VGPU_API Error cudaStreamGetId(void* handle, unsigned long long* out) {
    return api("cudaStreamGetId", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        *out = stream_of(handle).id;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamGetId_ptsz(void* s, unsigned long long* out) { return cudaStreamGetId(per_thread(s), out); }

VGPU_API Error cudaStreamGetDevice(void* handle, int* out) {
    return api("cudaStreamGetDevice", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        stream_of(handle);
        *out = 0;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamGetDevice_ptsz(void* s, int* out) { return cudaStreamGetDevice(per_thread(s), out); }

VGPU_API Error cudaStreamWaitEvent(void* handle, void* event_handle, unsigned flags) {
    return api("cudaStreamWaitEvent", Needs::context, [&] {
        Stream& stream = stream_of(handle);
        const Event& event = event_of(event_handle);
        if (flags > 1) fail(kInvalidValue, "flags " + std::to_string(flags) + "; allowed: 0, 1");
        if (flags == 1 && stream.capture) fail(kNotSupported, "cudaEventWaitExternal in a capture");
        if (join_capture(stream, event) || idle(event.op)) return kSuccess;
        if (stream.legacy) refuse_implicit_capture();
        stream.waits.push_back(event.op);
        // On the legacy stream the wait itself holds up the blocking streams.
        if (stream.legacy) enqueue(stream, nullptr);
        return kSuccess;
    });
}
VGPU_API Error cudaStreamWaitEvent_ptsz(void* stream, void* event, unsigned flags) {
    return cudaStreamWaitEvent(per_thread(stream), event, flags);
}

VGPU_API Error cudaEventCreateWithFlags(void** out, unsigned flags) {
    return api("cudaEventCreate", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the event's address is null");
        if (flags > 7) fail(kInvalidValue, "flags " + std::to_string(flags) + "; allowed: 0 to 7");
        if (flags & 4) fail(kNotSupported, "events between processes");
        auto* event = new Event();
        event->flags = flags;
        runtime().events.insert(event);
        *out = event;
        return kSuccess;
    });
}
VGPU_API Error cudaEventCreate(void** out) { return cudaEventCreateWithFlags(out, 0); }

VGPU_API Error cudaEventDestroy(void* handle) {
    return api("cudaEventDestroy", Needs::context, [&] {
        Event* event = &event_of(handle);
        runtime().events.erase(event);
        delete event;
        return kSuccess;
    });
}

VGPU_API Error cudaEventRecordWithFlags(void* handle, void* stream_handle, unsigned flags) {
    return api("cudaEventRecord", Needs::context, [&] {
        Event& event = event_of(handle);
        Stream& stream = stream_of(stream_handle);
        if (flags > 1) fail(kInvalidValue, "flags " + std::to_string(flags) + "; allowed: 0, 1");
        if (stream.capture) {
            if (flags == 1) fail(kNotSupported, "cudaEventRecordExternal in a capture");
            if (stream.capture->spoiled) fail(kStreamCaptureInvalidated, "an earlier error spoiled this capture");
            event.capture_id = stream.capture->id;
            event.nodes = stream.tail;
            event.op = nullptr;
        } else {
            if (stream.legacy) refuse_implicit_capture();
            event.capture_id = 0;
            event.nodes.clear();
            event.op = enqueue(stream, nullptr);
        }
        event.recorded = true;
        return kSuccess;
    });
}
VGPU_API Error cudaEventRecordWithFlags_ptsz(void* event, void* stream, unsigned flags) {
    return cudaEventRecordWithFlags(event, per_thread(stream), flags);
}
VGPU_API Error cudaEventRecord(void* event, void* stream) { return cudaEventRecordWithFlags(event, stream, 0); }
VGPU_API Error cudaEventRecord_ptsz(void* event, void* stream) {
    return cudaEventRecordWithFlags(event, per_thread(stream), 0);
}

VGPU_API Error cudaEventQuery(void* handle) {
    return api("cudaEventQuery", Needs::context, [&] {
        const Event& event = event_of(handle);
        if (event.capture_id) {
            if (Capture* capture = capture_of(event.capture_id)) capture->spoiled = true;
            fail(kCapturedEvent, "the event was last recorded in a capture");
        }
        if (idle(event.op)) return Error(kSuccess);
        nudge(event.op);
        return runtime().sticky != kSuccess ? runtime().sticky : Error(kNotReady);
    });
}

VGPU_API Error cudaEventSynchronize(void* handle) {
    return api("cudaEventSynchronize", Needs::context, [&] {
        const Event& event = event_of(handle);
        if (event.capture_id) {
            if (Capture* capture = capture_of(event.capture_id)) capture->spoiled = true;
            fail(kCapturedEvent, "the event was last recorded in a capture");
        }
        runtime().forbid_in_capture("cudaEventSynchronize");
        finish(event.op);
        return kSuccess;
    });
}

// There is no time here: a number would be taken for one.
VGPU_API Error cudaEventElapsedTime(float* ms, void* begin_handle, void* end_handle) {
    return api("cudaEventElapsedTime", Needs::context, [&]() -> Error {
        if (!ms) fail(kInvalidValue, "the result's address is null");
        const Event &begin = event_of(begin_handle), &end = event_of(end_handle);
        if (!begin.recorded || !end.recorded || (begin.flags | end.flags) & 2)
            fail(kInvalidResourceHandle, "both events must have been recorded, with timing");
        if (!idle(begin.op) || !idle(end.op)) return kNotReady;
        fail(kNotSupported, "the virtual GPU counts what a kernel does and has no time");
    });
}

}  // namespace vgpu
