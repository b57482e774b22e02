// Allocation, pinned and managed memory, and what is known of an address.
#include <cstring>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/pool.h"
#include "cudart/stream.h"
#include "cudart/work.h"

namespace vgpu {
namespace {

constexpr size_t kPitch = 512;

void* allocate(Runtime& rt, size_t bytes, MemKind kind, const char* what) {
    if (bytes == 0) return nullptr;
    void* p = rt.memory->allocate(bytes, kind, what);
    if (!p)
        fail(kMemoryAllocation, std::to_string(bytes) + " bytes; in use " + std::to_string(rt.memory->used()) + " of " +
                                    std::to_string(rt.memory_limit));
    return p;
}

Error allocate_call(const char* name, void** out, size_t bytes, MemKind kind) {
    return api(name, Needs::context, [&] {
        Runtime& rt = runtime();
        if (!out) fail(kInvalidValue, "the pointer's address is null");
        rt.forbid_in_capture(name);
        *out = allocate(rt, bytes, kind, name);
        return kSuccess;
    });
}

Error host_alloc(const char* name, void** out, size_t bytes, unsigned flags) {
    if (flags & ~7u)
        return api(name, Needs::context, [&]() -> Error { fail(kInvalidValue, "flags " + std::to_string(flags)); });
    const Error error = allocate_call(name, out, bytes, MemKind::pinned_host);
    if (error == kSuccess && *out) {
        std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
        runtime().host_flags[reinterpret_cast<uint64_t>(*out)] = flags | 2;  // always mapped
    }
    return error;
}

}  // namespace

void release_memory(Runtime& rt, void* p, const char* what) {
    const auto owner = rt.pooled.find(reinterpret_cast<uint64_t>(p));
    const Allocation* allocation = rt.memory->find(p);
    const uint64_t size = allocation ? allocation->size : 0;
    if (!allocation || !rt.memory->release(p)) {
        Report report;
        report.code = "use-after-free";
        report.text = std::string(what) + " ran on memory that was released already: " + rt.describe(p);
        rt.report(report);
        if (rt.sticky == kSuccess) rt.sticky = kIllegalAddress;
        return;
    }
    if (owner != rt.pooled.end()) {
        owner->second->used -= size;
        rt.pooled.erase(owner);
    }
}

VGPU_API Error cudaMalloc(void** out, size_t bytes) { return allocate_call("cudaMalloc", out, bytes, MemKind::device); }

VGPU_API Error cudaMallocManaged(void** out, size_t bytes, unsigned flags) {
    if (bytes == 0 || (flags != 1 && flags != 2))
        return api("cudaMallocManaged", Needs::context,
                   [&]() -> Error { fail(kInvalidValue, bytes ? "flags must be 1 or 2" : "0 bytes"); });
    return allocate_call("cudaMallocManaged", out, bytes, MemKind::managed);
}

VGPU_API Error cudaMallocHost(void** out, size_t bytes) { return host_alloc("cudaMallocHost", out, bytes, 0); }
VGPU_API Error cudaHostAlloc(void** out, size_t bytes, unsigned flags) {
    return host_alloc("cudaHostAlloc", out, bytes, flags);
}

VGPU_API Error cudaMallocPitch(void** out, size_t* pitch, size_t width, size_t height) {
    return api("cudaMallocPitch", Needs::context, [&] {
        if (!out || !pitch) fail(kInvalidValue, "the pointer's or the pitch's address is null");
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaMallocPitch");
        *pitch = (width + kPitch - 1) / kPitch * kPitch;
        *out = allocate(rt, *pitch * height, MemKind::device, "cudaMallocPitch");
        return kSuccess;
    });
}

VGPU_API Error cudaMalloc3D(abi::PitchedPtr* out, abi::Extent extent) {
    return api("cudaMalloc3D", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the pointer's address is null");
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaMalloc3D");
        out->pitch = (extent.width + kPitch - 1) / kPitch * kPitch;
        out->xsize = extent.width;
        out->ysize = extent.height;
        out->ptr = allocate(rt, out->pitch * extent.height * extent.depth, MemKind::device, "cudaMalloc3D");
        return kSuccess;
    });
}

// Waits for the device first, as the real call does, unless the memory came from a pool: then the caller must have
// waited, and a kernel that still uses it is found.
VGPU_API Error cudaFree(void* p) {
    return api("cudaFree", Needs::context, [&] {
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaFree");
        if (!p) return Error(kSuccess);
        const Place place = rt.place(p);
        const bool pooled = rt.pooled.count(reinterpret_cast<uint64_t>(p)) != 0;
        const Allocation* allocation = rt.memory->find(p);
        if (!allocation || allocation->base != reinterpret_cast<uint64_t>(p) || place.kind == Place::pinned ||
            allocation->kind == MemKind::module_global || allocation->kind == MemKind::module_constant)
            fail(kInvalidValue, "no device allocation begins here: " + rt.describe(p));
        if (!pooled) finish_all();
        release_memory(rt, p, "cudaFree");
        return rt.sticky;
    });
}

VGPU_API Error cudaFreeHost(void* p) {
    return api("cudaFreeHost", Needs::context, [&] {
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaFreeHost");
        if (!p) return Error(kSuccess);
        const Allocation* allocation = rt.memory->find(p);
        if (!allocation || allocation->base != reinterpret_cast<uint64_t>(p) ||
            allocation->kind != MemKind::pinned_host || allocation->adopted)
            fail(kInvalidValue, "no pinned allocation begins here: " + rt.describe(p));
        finish_all();
        rt.host_flags.erase(reinterpret_cast<uint64_t>(p));
        release_memory(rt, p, "cudaFreeHost");
        return rt.sticky;
    });
}

VGPU_API Error cudaHostRegister(void* p, size_t bytes, unsigned flags) {
    return api("cudaHostRegister", Needs::context, [&] {
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaHostRegister");
        if (!p || !bytes || (flags & ~0xfu)) fail(kInvalidValue, "null, 0 bytes or unknown flags");
        const auto begin = reinterpret_cast<uint64_t>(p);
        const auto after = rt.registered.lower_bound(begin);
        if ((after != rt.registered.end() && after->first < begin + bytes) || rt.place(p).kind != Place::pageable)
            fail(kHostMemoryAlreadyRegistered, "part of the range is registered already");
        if (!rt.memory->adopt(p, bytes, "cudaHostRegister")) fail(kMemoryAllocation, "the host is out of memory");
        rt.registered[begin] = flags;
        return kSuccess;
    });
}

VGPU_API Error cudaHostUnregister(void* p) {
    return api("cudaHostUnregister", Needs::context, [&] {
        Runtime& rt = runtime();
        rt.forbid_in_capture("cudaHostUnregister");
        if (!p) fail(kInvalidValue, "the pointer is null");
        if (!rt.registered.count(reinterpret_cast<uint64_t>(p)))
            fail(kHostMemoryNotRegistered, "no registered range begins here");
        finish_all();
        rt.memory->disown(p);
        rt.registered.erase(reinterpret_cast<uint64_t>(p));
        return rt.sticky;
    });
}

VGPU_API Error cudaHostGetDevicePointer(void** out, void* p, unsigned flags) {
    return api("cudaHostGetDevicePointer", Needs::context, [&] {
        if (!out || flags) fail(kInvalidValue, "the result's address is null, or flags are not 0");
        if (runtime().place(p).kind != Place::pinned)
            fail(kInvalidValue, "not pinned memory: " + runtime().describe(p));
        *out = p;
        return kSuccess;
    });
}

VGPU_API Error cudaHostGetFlags(unsigned* out, void* p) {
    return api("cudaHostGetFlags", Needs::context, [&] {
        Runtime& rt = runtime();
        const Place place = rt.place(p);
        if (!out || place.kind != Place::pinned) fail(kInvalidValue, "not pinned memory");
        const auto flags = rt.host_flags.find(place.base);
        *out = flags != rt.host_flags.end() ? flags->second : rt.registered[place.base] | 2;
        return kSuccess;
    });
}

VGPU_API Error cudaPointerGetAttributes(abi::PointerAttributes* out, const void* p) {
    return api("cudaPointerGetAttributes", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the attributes' address is null");
        std::memset(out, 0, sizeof(*out));
        void* pointer = const_cast<void*>(p);
        switch (runtime().place(p).kind) {
            case Place::pageable:
                out->type = abi::type_unregistered;
                out->device = -2;
                out->host_pointer = pointer;
                break;
            case Place::device:
                out->type = abi::type_device;
                out->device_pointer = pointer;
                break;
            case Place::pinned:
                out->type = abi::type_host;
                out->device_pointer = out->host_pointer = pointer;
                break;
            case Place::managed:
                out->type = abi::type_managed;
                out->device_pointer = out->host_pointer = pointer;
                break;
        }
        return kSuccess;
    });
}

VGPU_API Error cudaMemGetInfo(size_t* free, size_t* total) {
    return api("cudaMemGetInfo", Needs::context, [&] {
        Runtime& rt = runtime();
        if (!free || !total) fail(kInvalidValue, "a result's address is null");
        *total = rt.memory_limit;
        *free = rt.memory_limit - std::min(rt.memory_limit, rt.memory->used());
        return kSuccess;
    });
}

// Hints about managed memory have no effect on results.
VGPU_API Error cudaMemPrefetchAsync(const void* p, size_t bytes, abi::MemLocation, unsigned, void* stream) {
    return api("cudaMemPrefetchAsync", Needs::context, [&] {
        const Place place = runtime().place(p);
        if (place.kind != Place::managed || reinterpret_cast<uint64_t>(p) - place.base + bytes > place.size)
            fail(kInvalidValue, "not a range of managed memory: " + runtime().describe(p));
        Stream& into = stream_of(stream);
        refuse_while_capturing(into, "cudaMemPrefetchAsync");
        submit(into, Work{});
        return kSuccess;
    });
}
VGPU_API Error cudaMemPrefetchAsync_ptsz(const void* p, size_t n, abi::MemLocation to, unsigned flags, void* stream) {
    return cudaMemPrefetchAsync(p, n, to, flags, per_thread(stream));
}

VGPU_API Error cudaMemAdvise(const void* p, size_t bytes, int, abi::MemLocation) {
    return api("cudaMemAdvise", Needs::context, [&] {
        const Place place = runtime().place(p);
        if (place.kind != Place::managed || reinterpret_cast<uint64_t>(p) - place.base + bytes > place.size)
            fail(kInvalidValue, "not a range of managed memory: " + runtime().describe(p));
        return kSuccess;
    });
}

}  // namespace vgpu
