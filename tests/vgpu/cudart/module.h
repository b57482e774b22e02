// Registered fat binaries and loaded libraries: their image for this part, their kernels and variables.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cudart/runtime.h"
#include "fatbin/fatbin.h"

namespace vgpu {

struct Kernel {
    Binary* binary = nullptr;
    std::string name;
    const void* host = nullptr;  // the host stub, null for a library's kernel
    int max_dynamic_smem = -1;   // -1: the default, what 48 KiB leave
    int carveout = -1;
    bool non_portable_cluster = false;
    int cluster_width = 0, cluster_height = 0, cluster_depth = 0;
    bool cluster_must_be_set = false;
};

struct ManagedVariable {
    void** host = nullptr;  // where the program keeps the address
    std::string name;
};

// Loaded at first use, as the real runtime does.
struct Binary {
    struct Wrapper {
        uint32_t magic = 0x466243b1, version = 1;
        const void* data = nullptr;
        void* reserved = nullptr;
    } own_wrapper;
    const void* wrapper = nullptr;  // registered by a program, or own_wrapper
    std::string file;               // or a library's bytes: a file with fat binaries, or PTX text
    bool library = false, complete = false;
    std::vector<std::unique_ptr<Kernel>> kernels;
    std::vector<ManagedVariable> managed;

    bool tried = false;
    Error error = kSuccess;
    std::string why;
    std::unique_ptr<Program> program;
    std::map<std::string, KernelFacts> facts;  // from the machine code a driver would run; empty if there is none
    int ptx_arch = 0, binary_arch = 0;         // 80

    // Throws ApiError if there is nothing to run on this part.
    Program& load();
    void unload();
};

// What a launch must respect: from the cubin where there is one, else from the PTX.
struct KernelLimits {
    const KernelInfo* info = nullptr;
    uint32_t registers = 0, static_smem = 0, local_bytes = 0, max_threads = 1024;
    bool from_cubin = false;
    uint32_t max_dynamic_smem = 0;  // with cudaFuncSetAttribute
};
KernelLimits limits_of(Kernel&);
// Blocks of the kernel that one multiprocessor holds.
int blocks_per_sm(const DeviceModel&, const KernelLimits&, int block_threads, size_t dynamic_smem);

// A host stub or a cudaKernel_t; throws cudaErrorInvalidDeviceFunction.
Kernel& kernel_of(const void* function);
Kernel& add_kernel(Binary&, const std::string& name, const void* host);

}  // namespace vgpu
