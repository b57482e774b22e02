#include "core/cuda/graph.h"

#include "core/cuda/check.h"
#include "core/cuda/device.h"
#include "core/cuda/memory.h"

namespace ivk {

OwnStream::OwnStream() : device_(current_device()) {
    cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

OwnStream::~OwnStream() {
    try {
        const DeviceGuard guard(device_);
        (void)cudaStreamDestroy(stream_);
    } catch (const BackendError&) {  // at exit the runtime may be gone already
    }
}

Graph::~Graph() {
    abandon();
    if (executable_ == nullptr) return;
    try {
        const DeviceGuard guard(device_);
        (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_));
    } catch (const BackendError&) {
    }
}

void Graph::begin(Stream stream) {
    require(recording_ == nullptr && executable_ == nullptr, "Graph: records already; allowed: one recording each");
    require(stream != nullptr, "Graph: the default stream cannot record; allowed: another stream");
    device_ = current_device();
    hold_memory();
    const cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) release_memory();
    cuda_check(error, "cudaStreamBeginCapture");
    recording_ = stream;
}

void Graph::end() {
    require(recording_ != nullptr, "Graph: nothing was recorded; allowed: begin first");
    cudaGraph_t graph = nullptr;
    const Stream stream = recording_;
    recording_ = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    release_memory();
    cuda_check(ended, "cudaStreamEndCapture");
    size_t count = 0;
    cudaGraphExec_t made = nullptr;
    const cudaError_t counted = cudaGraphGetNodes(graph, nullptr, &count);
    const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
    (void)cudaGraphDestroy(graph);
    cuda_check(counted, "cudaGraphGetNodes");
    cuda_check(error, "cudaGraphInstantiate of ", count, " nodes");
    executable_ = made;
    nodes_ = static_cast<int64_t>(count);
}

void Graph::abandon() noexcept {
    if (recording_ == nullptr) return;
    cudaGraph_t graph = nullptr;
    (void)cudaStreamEndCapture(recording_, &graph);
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    recording_ = nullptr;
    release_memory();
}

void Graph::launch(Stream stream) const {
    require(executable_ != nullptr, "Graph: nothing was recorded; allowed: begin and end first");
    cuda_check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), stream), "cudaGraphLaunch of ", nodes_,
               " nodes");
}

}  // namespace ivk
