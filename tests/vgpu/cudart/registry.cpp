// What nvcc's host code calls before main: fat binaries, kernels and variables announce themselves. Nothing is loaded
// here, and all of it works before activation, because it runs while libraries are being loaded.
#include <cstring>

#include "cudart/module.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

// Launch configurations of <<<>>> between push and pop, per host thread.
struct Pushed {
    Dim3 grid, block;
    size_t shared;
    void* stream;
};
thread_local std::vector<Pushed> pushed;

Binary& binary_of(void** handle) { return *reinterpret_cast<Binary*>(handle); }

}  // namespace

VGPU_API void** __cudaRegisterFatBinary(void* wrapper) {
    Runtime& rt = runtime();
    std::lock_guard<std::recursive_mutex> lock(rt.mutex);
    auto binary = std::make_unique<Binary>();
    binary->wrapper = wrapper;
    rt.binaries.push_back(std::move(binary));
    return reinterpret_cast<void**>(rt.binaries.back().get());
}

VGPU_API void __cudaRegisterFatBinaryEnd(void** handle) { binary_of(handle).complete = true; }

VGPU_API void __cudaUnregisterFatBinary(void** handle) {
    Runtime& rt = runtime();
    std::lock_guard<std::recursive_mutex> lock(rt.mutex);
    Binary* binary = &binary_of(handle);
    for (auto at = rt.binaries.begin(); at != rt.binaries.end(); ++at)
        if (at->get() == binary) {
            finish_all();
            for (const auto& kernel : binary->kernels) {
                rt.kernel_handles.erase(kernel.get());
                const auto host = rt.kernels_by_host.find(kernel->host);
                if (host != rt.kernels_by_host.end() && host->second == kernel.get()) rt.kernels_by_host.erase(host);
            }
            for (auto variable = rt.variables_by_host.begin(); variable != rt.variables_by_host.end();)
                variable = variable->second.first == binary ? rt.variables_by_host.erase(variable) : ++variable;
            rt.binaries.erase(at);
            return;
        }
}

VGPU_API void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, void*, void*, void*,
                                     void*, int*) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    add_kernel(binary_of(handle), name, host);
}

VGPU_API void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t, int, int) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    runtime().variables_by_host[host] = {&binary_of(handle), name};
}

VGPU_API void __cudaRegisterManagedVar(void** handle, void** host, char*, const char* name, int, size_t, int, int) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    binary_of(handle).managed.push_back({host, name});
    runtime().variables_by_host[host] = {&binary_of(handle), name};
}

VGPU_API char __cudaInitModule(void** handle) {
    const Error error = api("__cudaInitModule", Needs::context, [&] {
        binary_of(handle).load();
        return kSuccess;
    });
    return error == kSuccess;
}

VGPU_API unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void* stream) {
    pushed.push_back({grid, block, shared, stream});
    return 0;
}

VGPU_API Error __cudaPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void* stream) {
    return api("__cudaPopCallConfiguration", Needs::nothing, [&] {
        if (pushed.empty()) fail(kMissingConfiguration, "a kernel stub was called without <<<>>>");
        const Pushed top = pushed.back();
        pushed.pop_back();
        *grid = top.grid;
        *block = top.block;
        *shared = top.shared;
        std::memcpy(stream, &top.stream, sizeof(top.stream));
        return kSuccess;
    });
}

// Kernel handles exist before activation: stubs keep the first answer in a static.
VGPU_API Error __cudaGetKernel(void** out, const void* host) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    const auto found = runtime().kernels_by_host.find(host);
    if (found == runtime().kernels_by_host.end()) return last_error() = kInvalidDeviceFunction;
    *out = found->second;
    return kSuccess;
}

VGPU_API Error cudaGetKernel(void** out, const void* host) {
    return api("cudaGetKernel", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the handle's address is null");
        *out = &kernel_of(host);
        return kSuccess;
    });
}

VGPU_API Error cudaGetFuncBySymbol(void** out, const void* host) {
    return api("cudaGetFuncBySymbol", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the handle's address is null");
        *out = &kernel_of(host);
        return kSuccess;
    });
}

}  // namespace vgpu
