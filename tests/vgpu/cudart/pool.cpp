// Stream-ordered allocation.
#include "cudart/pool.h"

#include <algorithm>
#include <cstring>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/stream.h"
#include "cudart/work.h"

namespace vgpu {
namespace {

Pool& pool_of(void* handle) {
    for (const auto& pool : runtime().pools)
        if (pool.get() == handle) return *pool;
    fail(kInvalidValue, "no such memory pool");
}

void check_device(int number) {
    if (number != 0) fail(kInvalidDevice, "device " + std::to_string(number) + "; there is one, 0");
}

// The address is known at once. Work of other streams that uses it without waiting is found when it finds the bytes
// undefined or gone.
void allocate(const char* name, void** out, size_t bytes, Pool& pool, void* handle) {
    Runtime& rt = runtime();
    if (!out) fail(kInvalidValue, "the pointer's address is null");
    Stream& stream = stream_of(handle);
    if (stream.capture) fail(kNotSupported, std::string(name) + " in a capture: allocation nodes are not implemented");
    if (stream.legacy) refuse_implicit_capture();
    *out = nullptr;
    if (bytes == 0) return;
    if (pool.max_size && pool.used + bytes > pool.max_size) fail(kMemoryAllocation, "the pool is full");
    void* p = rt.memory->allocate(bytes, MemKind::device, name);
    if (!p) fail(kMemoryAllocation, std::to_string(bytes) + " bytes");
    pool.used += bytes;
    pool.used_high = std::max(pool.used_high, pool.used);
    rt.pooled[reinterpret_cast<uint64_t>(p)] = &pool;
    *out = p;
}

}  // namespace

VGPU_API Error cudaMallocAsync(void** out, size_t bytes, void* stream) {
    return api("cudaMallocAsync", Needs::context, [&] {
        allocate("cudaMallocAsync", out, bytes, *runtime().current_pool, stream);
        return kSuccess;
    });
}
VGPU_API Error cudaMallocAsync_ptsz(void** out, size_t bytes, void* s) {
    return cudaMallocAsync(out, bytes, per_thread(s));
}

VGPU_API Error cudaMallocFromPoolAsync(void** out, size_t bytes, void* pool, void* stream) {
    return api("cudaMallocFromPoolAsync", Needs::context, [&] {
        allocate("cudaMallocFromPoolAsync", out, bytes, pool_of(pool), stream);
        return kSuccess;
    });
}
VGPU_API Error cudaMallocFromPoolAsync_ptsz(void** out, size_t bytes, void* pool, void* s) {
    return cudaMallocFromPoolAsync(out, bytes, pool, per_thread(s));
}

VGPU_API Error cudaFreeAsync(void* p, void* handle) {
    return api("cudaFreeAsync", Needs::context, [&] {
        Runtime& rt = runtime();
        Stream& stream = stream_of(handle);
        if (stream.capture) fail(kNotSupported, "cudaFreeAsync in a capture: release nodes are not implemented");
        const Allocation* allocation = p ? rt.memory->find(p) : nullptr;
        if (!allocation || allocation->base != reinterpret_cast<uint64_t>(p) || allocation->kind != MemKind::device)
            fail(kInvalidValue, "no device allocation begins here: " + rt.describe(p));
        Work work;
        work.type = abi::node_mem_free;
        work.what = "cudaFreeAsync";
        work.release = p;
        submit(stream, std::move(work));
        return kSuccess;
    });
}
VGPU_API Error cudaFreeAsync_ptsz(void* p, void* stream) { return cudaFreeAsync(p, per_thread(stream)); }

VGPU_API Error cudaDeviceGetDefaultMemPool(void** out, int number) {
    return api("cudaDeviceGetDefaultMemPool", Needs::context, [&] {
        check_device(number);
        if (!out) fail(kInvalidValue, "the pool's address is null");
        *out = runtime().pools.front().get();
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceGetMemPool(void** out, int number) {
    return api("cudaDeviceGetMemPool", Needs::context, [&] {
        check_device(number);
        if (!out) fail(kInvalidValue, "the pool's address is null");
        *out = runtime().current_pool;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceSetMemPool(int number, void* pool) {
    return api("cudaDeviceSetMemPool", Needs::context, [&] {
        check_device(number);
        runtime().current_pool = &pool_of(pool);
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolCreate(void** out, const abi::PoolProps* props) {
    return api("cudaMemPoolCreate", Needs::context, [&] {
        if (!out || !props) fail(kInvalidValue, "the pool's or the properties' address is null");
        if (props->alloc_type != 1 || props->location.type != 1 || props->location.id != 0)
            fail(kInvalidValue, "a pool is pinned memory of device 0");
        if (props->handle_types) fail(kNotSupported, "shareable pools");
        auto pool = std::make_unique<Pool>();
        pool->max_size = props->max_size;
        *out = pool.get();
        runtime().pools.push_back(std::move(pool));
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolDestroy(void* handle) {
    return api("cudaMemPoolDestroy", Needs::context, [&] {
        Runtime& rt = runtime();
        Pool* pool = &pool_of(handle);
        if (pool == rt.pools.front().get()) fail(kInvalidValue, "the default pool cannot be destroyed");
        // Memory of it that is still in use passes to the default pool's books.
        for (auto& entry : rt.pooled)
            if (entry.second == pool) {
                entry.second = rt.pools.front().get();
                const Allocation* allocation = rt.memory->find(reinterpret_cast<void*>(entry.first));
                entry.second->used += allocation ? allocation->size : 0;
            }
        if (rt.current_pool == pool) rt.current_pool = rt.pools.front().get();
        rt.pools.erase(std::find_if(rt.pools.begin(), rt.pools.end(), [&](const auto& p) { return p.get() == pool; }));
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolTrimTo(void* pool, size_t) {
    return api("cudaMemPoolTrimTo", Needs::context, [&] {
        pool_of(pool);
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolSetAccess(void* pool, const abi::MemAccess*, size_t) {
    return api("cudaMemPoolSetAccess", Needs::context, [&] {
        pool_of(pool);
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolGetAttribute(void* handle, int attribute, void* value) {
    return api("cudaMemPoolGetAttribute", Needs::context, [&] {
        Pool& pool = pool_of(handle);
        if (!value) fail(kInvalidValue, "the value's address is null");
        auto put = [&](auto number) { std::memcpy(value, &number, sizeof(number)); };
        switch (attribute) {
            case abi::pool_follow_events:
                put(pool.follow_events);
                break;
            case abi::pool_opportunistic:
                put(pool.opportunistic);
                break;
            case abi::pool_internal_dependencies:
                put(pool.internal_dependencies);
                break;
            case abi::pool_release_threshold:
                put(pool.release_threshold);
                break;
            case abi::pool_reserved_current:
            case abi::pool_used_current:
                put(pool.used);
                break;
            case abi::pool_reserved_high:
            case abi::pool_used_high:
                put(pool.used_high);
                break;
            default:
                fail(kInvalidValue, "pool attribute " + std::to_string(attribute));
        }
        return kSuccess;
    });
}

VGPU_API Error cudaMemPoolSetAttribute(void* handle, int attribute, void* value) {
    return api("cudaMemPoolSetAttribute", Needs::context, [&] {
        Pool& pool = pool_of(handle);
        if (!value) fail(kInvalidValue, "the value's address is null");
        auto get = [&](auto& number) { std::memcpy(&number, value, sizeof(number)); };
        switch (attribute) {
            case abi::pool_follow_events:
                get(pool.follow_events);
                break;
            case abi::pool_opportunistic:
                get(pool.opportunistic);
                break;
            case abi::pool_internal_dependencies:
                get(pool.internal_dependencies);
                break;
            case abi::pool_release_threshold:
                get(pool.release_threshold);
                break;
            case abi::pool_reserved_high:
            case abi::pool_used_high: {
                uint64_t zero = 1;
                get(zero);
                if (zero) fail(kInvalidValue, "high marks can only be reset to 0");
                pool.used_high = pool.used;
                break;
            }
            default:
                fail(kInvalidValue, "pool attribute " + std::to_string(attribute));
        }
        return kSuccess;
    });
}

}  // namespace vgpu
