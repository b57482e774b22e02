// Stream capture: calls on a capturing stream become nodes of a graph.
#pragma once

#include <memory>
#include <set>
#include <thread>

#include "cudart/graph.h"
#include "cudart/stream.h"

namespace vgpu {

struct Capture {
    uint64_t id = 0;
    int mode = abi::capture_global;
    bool spoiled = false;
    Stream* origin = nullptr;
    std::thread::id thread;
    std::set<Stream*> streams;
    std::unique_ptr<Graph> graph;
};

void add_to_capture(Stream&, Work);
// cudaStreamWaitEvent: `stream` joins the capture that `event` belongs to. False if no capture is involved.
bool join_capture(Stream&, const Event&);
Capture* capture_of(uint64_t id);
// Throws cudaErrorStreamCaptureImplicit if the legacy stream would have to wait for a capturing stream.
void refuse_implicit_capture();
// Throws cudaErrorStreamCaptureUnsupported and spoils the capture, if `stream` captures.
void refuse_while_capturing(Stream&, const char* call);
void drop_captures();

}  // namespace vgpu
