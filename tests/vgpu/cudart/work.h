// What a stream or a graph can hold: kernels, copies, fills, host functions, releases.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cudart/runtime.h"

namespace vgpu {

struct KernelWork {
    Kernel* kernel = nullptr;
    Dim3 grid, block, cluster{1, 1, 1};
    uint32_t dynamic_smem = 0;
    bool cooperative = false;
    std::vector<std::vector<uint8_t>> args;  // the values at the time of the call
};

// Rows of `width` bytes; height rows a plane, depth planes.
struct CopyWork {
    uint8_t* dst = nullptr;
    const uint8_t* src = nullptr;
    size_t width = 0, height = 1, depth = 1;
    size_t dst_pitch = 0, src_pitch = 0, dst_plane = 0, src_plane = 0;
    int kind = abi::default_kind;
    std::shared_ptr<std::vector<uint8_t>> staged;  // pageable source, packed: read when the call was made
};

struct FillWork {
    uint8_t* dst = nullptr;
    size_t pitch = 0, width = 0, height = 1, depth = 1, plane = 0;  // width in elements
    uint32_t value = 0, element = 1;
};

struct HostWork {
    abi::HostFunction function = nullptr;
    abi::StreamCallback callback = nullptr;  // instead of function; gets the stream and the error
    void* stream = nullptr;
    void* data = nullptr;
};

struct Work {
    abi::NodeType type = abi::node_empty;
    const char* what = "";  // API call, for reports
    KernelWork kernel;
    CopyWork copy;
    FillWork fill;
    HostWork host;
    void* release = nullptr;                         // node_mem_free
    std::shared_ptr<const std::vector<Work>> graph;  // node_graph: a child's work in order

    void run(Runtime&) const;
};

// Runs a kernel through the engine and keeps its record and findings.
void run_kernel(Runtime&, const KernelWork&);
// Throws unless both sides lie where `kind` says and inside their allocations. Returns false for an empty copy.
CopyWork linear(void* dst, const void* src, size_t bytes, int kind);
bool check_copy(Runtime&, CopyWork&);
bool check_fill(Runtime&, const FillWork&);
// Returns memory to the table (and its pool).
void release_memory(Runtime&, void*, const char* what);

// To the stream's queue, or as a node into the graph that the stream captures. Null when captured.
std::shared_ptr<StreamWork> submit(Stream&, Work);
// The same for a call that waits for its own work (cudaMemcpy and friends): refused while anything captures.
void submit_and_wait(Stream&, Work, const char* call);

}  // namespace vgpu
