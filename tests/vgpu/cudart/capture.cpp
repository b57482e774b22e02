// Stream capture and its rules.
#include "cudart/capture.h"

#include <algorithm>

namespace vgpu {
namespace {

thread_local int exchanged_mode = abi::capture_global;

void end(Capture& capture) {
    for (Stream* stream : capture.streams) stream->capture = nullptr, stream->tail.clear();
    auto& all = runtime().captures;
    all.erase(std::find_if(all.begin(), all.end(), [&](const auto& c) { return c.get() == &capture; }));
}

bool reaches(const std::vector<Node*>& from, const Node* target) {
    std::set<const Node*> seen;
    std::vector<const Node*> stack(from.begin(), from.end());
    while (!stack.empty()) {
        const Node* node = stack.back();
        stack.pop_back();
        if (node == target) return true;
        if (seen.insert(node).second) stack.insert(stack.end(), node->after.begin(), node->after.end());
    }
    return false;
}

}  // namespace

Capture* capture_of(uint64_t id) {
    for (const auto& capture : runtime().captures)
        if (capture->id == id) return capture.get();
    return nullptr;
}

void add_to_capture(Stream& stream, Work work) {
    Capture& capture = *stream.capture;
    if (capture.spoiled) fail(kStreamCaptureInvalidated, "an earlier error spoiled this capture");
    Node& node = add_node(*capture.graph, std::move(work), stream.tail);
    stream.tail = {&node};
}

bool join_capture(Stream& stream, const Event& event) {
    Capture* from = event.capture_id ? capture_of(event.capture_id) : nullptr;
    if (event.capture_id && !from) fail(kCapturedEvent, "the event was last recorded in a capture that has ended");
    if (!from && !stream.capture) return false;
    if (!from) {
        stream.capture->spoiled = true;
        fail(kStreamCaptureIsolation, "the event was recorded outside this capture");
    }
    if (stream.legacy) {
        from->spoiled = true;
        fail(kStreamCaptureImplicit, "the legacy stream cannot join a capture");
    }
    if (stream.capture && stream.capture != from) {
        from->spoiled = stream.capture->spoiled = true;
        fail(kStreamCaptureMerge, "stream and event belong to different captures");
    }
    if (from->spoiled) fail(kStreamCaptureInvalidated, "an earlier error spoiled this capture");
    stream.capture = from;
    from->streams.insert(&stream);
    for (Node* node : event.nodes)
        if (std::find(stream.tail.begin(), stream.tail.end(), node) == stream.tail.end()) stream.tail.push_back(node);
    return true;
}

void refuse_implicit_capture() {
    for (const auto& capture : runtime().captures)
        for (const Stream* stream : capture->streams)
            if (stream->blocking) {
                capture->spoiled = true;
                fail(kStreamCaptureImplicit, "the legacy stream would have to wait for a capturing stream");
            }
}

void refuse_while_capturing(Stream& stream, const char* call) {
    if (!stream.capture) return;
    stream.capture->spoiled = true;
    fail(kStreamCaptureUnsupported, std::string(call) + " is not permitted on a capturing stream");
}

void Runtime::forbid_in_capture(const char* call) {
    if (exchanged_mode == abi::capture_relaxed) return;
    for (const auto& capture : captures) {
        const bool own = capture->thread == std::this_thread::get_id();
        const bool forbids = own ? capture->mode != abi::capture_relaxed
                                 : capture->mode == abi::capture_global && exchanged_mode == abi::capture_global;
        if (!forbids) continue;
        capture->spoiled = true;
        fail(kStreamCaptureUnsupported, std::string(call) + " is not permitted while a stream captures");
    }
}

void drop_captures() {
    while (!runtime().captures.empty()) end(*runtime().captures.front());
}

VGPU_API Error cudaStreamBeginCapture(void* handle, int mode) {
    return api("cudaStreamBeginCapture", Needs::context, [&] {
        Runtime& rt = runtime();
        Stream& stream = stream_of(handle);
        if (mode < abi::capture_global || mode > abi::capture_relaxed)
            fail(kInvalidValue, "capture mode " + std::to_string(mode) + "; allowed: 0, 1, 2");
        if (stream.legacy) fail(kStreamCaptureUnsupported, "the legacy stream cannot capture");
        if (stream.capture) fail(kIllegalState, "the stream captures already");
        auto capture = std::make_unique<Capture>();
        capture->id = rt.next_id++;
        capture->mode = mode;
        capture->origin = &stream;
        capture->thread = std::this_thread::get_id();
        capture->streams = {&stream};
        capture->graph = std::make_unique<Graph>();
        stream.capture = capture.get();
        stream.tail.clear();
        rt.captures.push_back(std::move(capture));
        return kSuccess;
    });
}
VGPU_API Error cudaStreamBeginCapture_ptsz(void* s, int mode) { return cudaStreamBeginCapture(per_thread(s), mode); }

VGPU_API Error cudaStreamEndCapture(void* handle, void** out) {
    return api("cudaStreamEndCapture", Needs::context, [&] {
        Runtime& rt = runtime();
        Stream& stream = stream_of(handle);
        if (!out) fail(kInvalidValue, "the graph's address is null");
        *out = nullptr;
        if (!stream.capture) fail(kIllegalState, "the stream does not capture");
        Capture& capture = *stream.capture;
        if (capture.origin != &stream) {
            capture.spoiled = true;
            fail(kStreamCaptureUnmatched, "the capture began in another stream");
        }
        if (capture.mode != abi::capture_relaxed && capture.thread != std::this_thread::get_id())
            fail(kStreamCaptureWrongThread, "the capture began in another thread");
        if (capture.spoiled) {
            end(capture);
            fail(kStreamCaptureInvalidated, "an earlier error spoiled this capture");
        }
        for (Stream* other : capture.streams)
            for (const Node* node : other->tail)
                if (!reaches(stream.tail, node)) {
                    end(capture);
                    fail(kStreamCaptureUnjoined, "a stream that joined the capture was not joined back");
                }
        Graph* graph = capture.graph.release();
        rt.graphs.insert(graph);
        end(capture);
        *out = graph;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamEndCapture_ptsz(void* s, void** out) { return cudaStreamEndCapture(per_thread(s), out); }

VGPU_API Error cudaStreamIsCapturing(void* handle, int* status) {
    return api("cudaStreamIsCapturing", Needs::context, [&] {
        if (!status) fail(kInvalidValue, "the status' address is null");
        Stream& stream = stream_of(handle);
        if (stream.legacy) refuse_implicit_capture();
        *status = !stream.capture           ? abi::capture_none
                  : stream.capture->spoiled ? abi::capture_invalidated
                                            : abi::capture_active;
        return kSuccess;
    });
}
VGPU_API Error cudaStreamIsCapturing_ptsz(void* s, int* status) { return cudaStreamIsCapturing(per_thread(s), status); }

VGPU_API Error cudaStreamGetCaptureInfo(void* handle, int* status, unsigned long long* id, void** graph,
                                        Node* const** dependencies, const abi::EdgeData** edges, size_t* count) {
    return api("cudaStreamGetCaptureInfo", Needs::context, [&] {
        if (!status) fail(kInvalidValue, "the status' address is null");
        Stream& stream = stream_of(handle);
        if (stream.legacy) refuse_implicit_capture();
        Capture* capture = stream.capture;
        *status = !capture ? abi::capture_none : capture->spoiled ? abi::capture_invalidated : abi::capture_active;
        if (*status != abi::capture_active) return kSuccess;
        if (id) *id = capture->id;
        if (graph) *graph = capture->graph.get();
        if (dependencies) *dependencies = stream.tail.data();
        if (edges) *edges = nullptr;
        if (count) *count = stream.tail.size();
        return kSuccess;
    });
}
VGPU_API Error cudaStreamGetCaptureInfo_ptsz(void* s, int* status, unsigned long long* id, void** graph,
                                             Node* const** dependencies, const abi::EdgeData** edges, size_t* count) {
    return cudaStreamGetCaptureInfo(per_thread(s), status, id, graph, dependencies, edges, count);
}

VGPU_API Error cudaThreadExchangeStreamCaptureMode(int* mode) {
    return api("cudaThreadExchangeStreamCaptureMode", Needs::nothing, [&] {
        if (!mode || *mode < abi::capture_global || *mode > abi::capture_relaxed)
            fail(kInvalidValue, "no capture mode");
        std::swap(*mode, exchanged_mode);
        return kSuccess;
    });
}

}  // namespace vgpu
