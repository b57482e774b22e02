// The device: what it is, its attributes and limits, errors of the thread.
#include <cstdio>
#include <cstring>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

constexpr int kVersion = 13000;

void check_device(int number) {
    if (number != 0) fail(kInvalidDevice, "device " + std::to_string(number) + "; there is one, 0");
}

// cudaDevAttr numbers that have a value here. Texture and surface limits are refused: no texture works.
int attribute_value(const DeviceModel& d, int number) {
    switch (number) {
        case 1:
            return 1024;
        case 2:
        case 3:
            return 1024;
        case 4:
            return 64;
        case 5:
            return 0x7fffffff;
        case 6:
        case 7:
            return 65535;
        case 8:
            return int(d.smem_per_block);
        case 9:
            return 65536;
        case 10:
            return 32;
        case 11:
            return 0x7fffffff;
        case 12:
        case 82:
            return int(d.regs_per_sm);
        case 13:
            return int(d.clock_khz);
        case 14:
            return 512;
        case 15:
        case 19:
        case 31:
        case 41:
        case 78:
        case 79:
        case 80:
        case 83:
            return 1;
        case 16:
            return d.sms;
        case 17:
        case 18:
        case 20:
        case 32:
        case 33:
        case 34:
        case 35:
        case 50:
            return 0;
        case 30:
            return 512;
        case 36:
            return int(d.memory_clock_khz);
        case 37:
            return int(d.memory_bus_bits);
        case 38:
            return int(d.l2_bytes);
        case 39:
            return int(d.max_threads_per_sm);
        case 40:
            return 3;
        case 51:
            return 32;
        case 75:
            return d.major;
        case 76:
            return d.minor;
        case 81:
            return int(d.smem_per_sm);
        case 84:
        case 85:
        case 86:
        case 88:
        case 92:
        case 93:
        case 94:
        case 96:
        case 98:
        case 100:
        case 101:
            return 0;
        case 87:
            return d.minor == 0 ? 2 : 64;
        case 89:
        case 90:
        case 91:
        case 95:
        case 99:
        case 113:
        case 115:
            return 1;
        case 97:
            return int(d.smem_optin);
        case 106:
            return int(d.max_blocks_per_sm);
        case 108:
            return int(d.l2_bytes / 4 * 3);
        case 109:
            return 128 << 20;
        case 111:
            return 1024;
        case 112:
        case 114:
        case 116:
        case 117:
        case 118:
        case 119:
        case 121:
        case 125:
            return 0;
        case 120:
            return d.major >= 9;
        case 126:
            return d.major >= 9 ? 4 : 1;
        case 130:
        case 133:
            return 0;
        case 131:
        case 134:
            return -1;
        case 142:
        case 143:
        case 144:
        case 147:
            return 0;
        default:
            fail(kInvalidValue, "device attribute " + std::to_string(number) + " has no value here");
    }
}

size_t limits[7] = {1024, 1 << 20, 8 << 20, 2, 2048, 64, 0};

}  // namespace

VGPU_API Error cudaGetDeviceCount(int* count) {
    return api("cudaGetDeviceCount", Needs::nothing, [&] {
        if (!count) fail(kInvalidValue, "the count's address is null");
        *count = 1;
        return kSuccess;
    });
}

VGPU_API Error cudaGetDevice(int* number) {
    return api("cudaGetDevice", Needs::nothing, [&] {
        if (!number) fail(kInvalidValue, "the number's address is null");
        *number = 0;
        return kSuccess;
    });
}

VGPU_API Error cudaSetDevice(int number) {
    return api("cudaSetDevice", Needs::context, [&] {
        check_device(number);
        return kSuccess;
    });
}

VGPU_API Error cudaInitDevice(int number, unsigned, unsigned) {
    return api("cudaInitDevice", Needs::context, [&] {
        check_device(number);
        return kSuccess;
    });
}

VGPU_API Error cudaSetValidDevices(int* numbers, int count) {
    return api("cudaSetValidDevices", Needs::nothing, [&] {
        for (int i = 0; i < count; i++) check_device(numbers[i]);
        return kSuccess;
    });
}

VGPU_API Error cudaSetDeviceFlags(unsigned flags) {
    return api("cudaSetDeviceFlags", Needs::nothing, [&] {
        if (flags & ~0xffu) fail(kInvalidValue, "flags " + std::to_string(flags));
        return kSuccess;
    });
}

VGPU_API Error cudaGetDeviceFlags(unsigned* flags) {
    return api("cudaGetDeviceFlags", Needs::nothing, [&] {
        if (!flags) fail(kInvalidValue, "the flags' address is null");
        *flags = 8;  // cudaDeviceMapHost: always on
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceGetAttribute(int* value, int attribute, int number) {
    return api("cudaDeviceGetAttribute", Needs::nothing, [&] {
        if (!value) fail(kInvalidValue, "the value's address is null");
        check_device(number);
        *value = attribute_value(runtime().device, attribute);
        return kSuccess;
    });
}

VGPU_API Error cudaGetDeviceProperties(abi::DeviceProp* p, int number) {
    return api("cudaGetDeviceProperties", Needs::nothing, [&] {
        if (!p) fail(kInvalidValue, "the properties' address is null");
        check_device(number);
        const Runtime& rt = runtime();
        const DeviceModel& d = rt.device;
        std::memset(p, 0, sizeof(*p));
        std::snprintf(p->name, sizeof(p->name), "vGPU %s (functional simulator)", rt.device_name.c_str());
        std::memcpy(p->uuid, "virtual-gpu-0000", 16);
        p->total_global = rt.memory_limit;
        p->shared_per_block = d.smem_per_block;
        p->regs_per_block = p->regs_per_sm = int(d.regs_per_sm);
        p->warp_size = 32;
        p->mem_pitch = 0x7fffffff;
        p->max_threads_per_block = 1024;
        p->max_threads_dim[0] = p->max_threads_dim[1] = 1024;
        p->max_threads_dim[2] = 64;
        p->max_grid[0] = 0x7fffffff;
        p->max_grid[1] = p->max_grid[2] = 65535;
        p->total_const = 65536;
        p->major = d.major;
        p->minor = d.minor;
        p->texture_alignment = p->surface_alignment = 512;
        p->texture_pitch_alignment = 32;
        p->sms = d.sms;
        p->can_map_host = p->concurrent_kernels = p->unified_addressing = p->stream_priorities = 1;
        p->async_engines = 3;
        p->memory_bus_width = int(d.memory_bus_bits);
        p->l2_bytes = int(d.l2_bytes);
        p->persisting_l2_max = attribute_value(d, 108);
        p->max_threads_per_sm = int(d.max_threads_per_sm);
        p->global_l1 = p->local_l1 = p->managed_memory = p->concurrent_managed = p->compute_preemption = 1;
        p->shared_per_sm = d.smem_per_sm;
        p->host_pointer_for_registered = p->cooperative_launch = 1;
        p->shared_optin = d.smem_optin;
        p->max_blocks_per_sm = int(d.max_blocks_per_sm);
        p->access_policy_window = attribute_value(d, 109);
        p->reserved_shared_per_block = 1024;
        p->host_register = p->host_register_read_only = p->memory_pools = 1;
        p->cluster_launch = d.major >= 9;
        p->numa_id = p->host_numa_id = -1;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceSynchronize() {
    return api("cudaDeviceSynchronize", Needs::context, [&] {
        runtime().forbid_in_capture("cudaDeviceSynchronize");
        finish_all();
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceReset() {
    return api("cudaDeviceReset", Needs::context, [&] {
        runtime().forbid_in_capture("cudaDeviceReset");
        finish_all();
        Runtime& rt = runtime();
        if (rt.sticky != kSuccess) return rt.sticky;
        // Findings outlive the context: they belong to the test.
        auto reports = std::move(rt.reports);
        auto notes = std::move(rt.notes);
        auto launches = std::move(rt.launches);
        rt.reset(true);
        rt.reports = std::move(reports);
        rt.notes = std::move(notes);
        rt.launches = std::move(launches);
        return Error(kSuccess);
    });
}

VGPU_API Error cudaDeviceGetLimit(size_t* value, int limit) {
    return api("cudaDeviceGetLimit", Needs::context, [&] {
        if (!value) fail(kInvalidValue, "the value's address is null");
        if (limit < 0 || limit > 6) fail(kUnsupportedLimit, "limit " + std::to_string(limit));
        *value = limits[limit];
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceSetLimit(int limit, size_t value) {
    return api("cudaDeviceSetLimit", Needs::context, [&] {
        if (limit < 0 || limit > 6) fail(kUnsupportedLimit, "limit " + std::to_string(limit));
        limits[limit] = value;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceGetCacheConfig(int* config) {
    return api("cudaDeviceGetCacheConfig", Needs::context, [&] {
        if (!config) fail(kInvalidValue, "the address is null");
        *config = 0;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceSetCacheConfig(int) {
    return api("cudaDeviceSetCacheConfig", Needs::context, [] { return kSuccess; });
}

VGPU_API Error cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    return api("cudaDeviceGetStreamPriorityRange", Needs::context, [&] {
        if (least) *least = 0;
        if (greatest) *greatest = -5;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceGetPCIBusId(char* out, int length, int number) {
    return api("cudaDeviceGetPCIBusId", Needs::nothing, [&] {
        check_device(number);
        if (!out || length < 13) fail(kInvalidValue, "13 bytes are needed");
        std::snprintf(out, size_t(length), "0000:00:00.0");
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceGetByPCIBusId(int* number, const char* id) {
    return api("cudaDeviceGetByPCIBusId", Needs::nothing, [&] {
        if (!number || !id || std::strcmp(id, "0000:00:00.0") != 0) fail(kInvalidValue, "the device is 0000:00:00.0");
        *number = 0;
        return kSuccess;
    });
}

VGPU_API Error cudaDeviceCanAccessPeer(int* can, int number, int peer) {
    return api("cudaDeviceCanAccessPeer", Needs::nothing, [&] {
        if (!can) fail(kInvalidValue, "the address is null");
        check_device(number);
        check_device(peer);
        *can = 0;
        return kSuccess;
    });
}

VGPU_API Error cudaDriverGetVersion(int* version) {
    return api("cudaDriverGetVersion", Needs::nothing, [&] {
        if (!version) fail(kInvalidValue, "the version's address is null");
        *version = kVersion;
        return kSuccess;
    });
}

VGPU_API Error cudaRuntimeGetVersion(int* version) {
    return api("cudaRuntimeGetVersion", Needs::nothing, [&] {
        if (!version) fail(kInvalidValue, "the version's address is null");
        *version = kVersion;
        return kSuccess;
    });
}

VGPU_API Error cudaProfilerStart() {
    return api("cudaProfilerStart", Needs::context, [] { return kSuccess; });
}
VGPU_API Error cudaProfilerStop() {
    return api("cudaProfilerStop", Needs::context, [] { return kSuccess; });
}
VGPU_API Error cudaCtxResetPersistingL2Cache() {
    return api("cudaCtxResetPersistingL2Cache", Needs::context, [] { return kSuccess; });
}

VGPU_API abi::ChannelDesc cudaCreateChannelDesc(int x, int y, int z, int w, int kind) { return {x, y, z, w, kind}; }

// A sticky error stays; another one is handed out once.
VGPU_API Error cudaGetLastError() {
    Runtime& rt = runtime();
    if (!rt.active) return kInitializationError;
    const Error error = rt.sticky != kSuccess ? rt.sticky : last_error();
    last_error() = kSuccess;
    return error;
}

VGPU_API Error cudaPeekAtLastError() {
    Runtime& rt = runtime();
    if (!rt.active) return kInitializationError;
    return rt.sticky != kSuccess ? rt.sticky : last_error();
}

}  // namespace vgpu
