// Libraries loaded at run time (fat binaries, cubins with PTX, bare PTX), and driver entry points.
#include <cstring>
#include <fstream>
#include <iterator>

#include "cudart/module.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

Binary& library_of(void* handle) {
    for (const auto& binary : runtime().binaries)
        if (binary.get() == handle && binary->library) return *binary;
    fail(kInvalidResourceHandle, "no such library");
}

void* add_library(std::unique_ptr<Binary> binary) {
    Runtime& rt = runtime();
    binary->library = true;
    binary->load();
    for (const std::string& name : binary->program->kernels()) add_kernel(*binary, name, nullptr);
    rt.binaries.push_back(std::move(binary));
    return rt.binaries.back().get();
}

// An image in memory: a fat binary with or without its wrapper, or PTX text that ends with a null.
std::unique_ptr<Binary> image_at(const void* code) {
    auto binary = std::make_unique<Binary>();
    uint32_t magic;
    std::memcpy(&magic, code, sizeof(magic));
    if (magic == 0x464c457fu) fail(kNoKernelImageForDevice, "a bare cubin; the virtual GPU runs PTX");
    if (magic == 0x466243b1u) {
        binary->wrapper = code;
    } else if (magic == 0xba55ed50u) {
        binary->own_wrapper.data = code;
        binary->wrapper = &binary->own_wrapper;
    } else {
        binary->file = static_cast<const char*>(code);
    }
    return binary;
}

void forbid_options(unsigned jit, unsigned options) {
    if (jit || options) fail(kNotSupported, "options of the compiler or the library");
}

}  // namespace

VGPU_API Error cudaLibraryLoadData(void** out, const void* code, void*, void**, unsigned jit, void*, void**,
                                   unsigned n) {
    return api("cudaLibraryLoadData", Needs::context, [&] {
        if (!out || !code) fail(kInvalidValue, "the library's or the code's address is null");
        forbid_options(jit, n);
        *out = add_library(image_at(code));
        return kSuccess;
    });
}

VGPU_API Error cudaLibraryLoadFromFile(void** out, const char* path, void*, void**, unsigned jit, void*, void**,
                                       unsigned n) {
    return api("cudaLibraryLoadFromFile", Needs::context, [&] {
        if (!out || !path) fail(kInvalidValue, "the library's or the path's address is null");
        forbid_options(jit, n);
        std::ifstream file(path, std::ios::binary);
        if (!file) fail(kFileNotFound, path);
        auto binary = std::make_unique<Binary>();
        binary->file.assign(std::istreambuf_iterator<char>(file), {});
        *out = add_library(std::move(binary));
        return kSuccess;
    });
}

VGPU_API Error cudaLibraryUnload(void* handle) {
    return api("cudaLibraryUnload", Needs::context, [&] {
        Runtime& rt = runtime();
        Binary* library = &library_of(handle);
        finish_all();
        for (const auto& kernel : library->kernels) rt.kernel_handles.erase(kernel.get());
        for (auto at = rt.binaries.begin(); at != rt.binaries.end(); ++at)
            if (at->get() == library) {
                rt.binaries.erase(at);
                break;
            }
        return rt.sticky;
    });
}

VGPU_API Error cudaLibraryGetKernel(void** out, void* library, const char* name) {
    return api("cudaLibraryGetKernel", Needs::context, [&] {
        if (!out || !name) fail(kInvalidValue, "the kernel's or the name's address is null");
        for (const auto& kernel : library_of(library).kernels)
            if (kernel->name == name) {
                *out = kernel.get();
                return kSuccess;
            }
        fail(kSymbolNotFound, std::string("the library holds no kernel ") + name);
    });
}

VGPU_API Error cudaLibraryGetKernelCount(unsigned* out, void* library) {
    return api("cudaLibraryGetKernelCount", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the count's address is null");
        *out = unsigned(library_of(library).kernels.size());
        return kSuccess;
    });
}

VGPU_API Error cudaLibraryEnumerateKernels(void** out, unsigned count, void* library) {
    return api("cudaLibraryEnumerateKernels", Needs::context, [&] {
        const Binary& from = library_of(library);
        if (!out) fail(kInvalidValue, "the kernels' address is null");
        for (unsigned i = 0; i < count && i < from.kernels.size(); i++) out[i] = from.kernels[i].get();
        return kSuccess;
    });
}

VGPU_API Error cudaLibraryGetGlobal(void** out, size_t* bytes, void* library, const char* name) {
    return api("cudaLibraryGetGlobal", Needs::context, [&] {
        if (!name) fail(kInvalidValue, "the name is null");
        size_t size = 0;
        void* p = library_of(library).load().variable(name, &size);
        if (!p) fail(kSymbolNotFound, std::string("the library holds no variable ") + name);
        if (out) *out = p;
        if (bytes) *bytes = size;
        return kSuccess;
    });
}

// No driver function is offered yet: a caller that needs one is told so by the status, as by an older driver.
VGPU_API Error cudaGetDriverEntryPointByVersion(const char* name, void** out, unsigned, unsigned long long,
                                                int* status) {
    return api("cudaGetDriverEntryPointByVersion", Needs::nothing, [&] {
        if (!name || !out) fail(kInvalidValue, "the name's or the function's address is null");
        *out = nullptr;
        if (status) *status = 1;  // cudaDriverEntryPointSymbolNotFound
        if (!status) fail(kSymbolNotFound, std::string("the virtual GPU has no driver function ") + name);
        return kSuccess;
    });
}
VGPU_API Error cudaGetDriverEntryPointByVersion_ptsz(const char* name, void** out, unsigned version,
                                                     unsigned long long flags, int* status) {
    return cudaGetDriverEntryPointByVersion(name, out, version, flags, status);
}
VGPU_API Error cudaGetDriverEntryPoint(const char* name, void** out, unsigned long long flags, int* status) {
    return cudaGetDriverEntryPointByVersion(name, out, 13000, flags, status);
}
VGPU_API Error cudaGetDriverEntryPoint_ptsz(const char* name, void** out, unsigned long long flags, int* status) {
    return cudaGetDriverEntryPointByVersion(name, out, 13000, flags, status);
}

}  // namespace vgpu
