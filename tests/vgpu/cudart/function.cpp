// Attributes of kernels and occupancy.
#include <cstring>

#include "cudart/module.h"

namespace vgpu {

VGPU_API Error cudaFuncGetAttributes(abi::FuncAttributes* out, const void* function) {
    return api("cudaFuncGetAttributes", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the attributes' address is null");
        Kernel& kernel = kernel_of(function);
        const KernelLimits limits = limits_of(kernel);
        std::memset(out, 0, sizeof(*out));
        out->shared_bytes = limits.static_smem;
        out->local_bytes = limits.local_bytes;
        out->max_threads_per_block = int(limits.max_threads);
        out->num_regs = int(limits.registers);
        out->ptx_version = kernel.binary->ptx_arch;
        out->binary_version = kernel.binary->binary_arch;
        out->max_dynamic_shared_bytes = int(limits.max_dynamic_smem);
        out->preferred_carveout = kernel.carveout;
        out->non_portable_cluster_allowed = kernel.non_portable_cluster;
        out->cluster_dim_must_be_set = kernel.cluster_must_be_set;
        out->required_cluster_width = kernel.cluster_width;
        out->required_cluster_height = kernel.cluster_height;
        out->required_cluster_depth = kernel.cluster_depth;
        return kSuccess;
    });
}

VGPU_API Error cudaFuncSetAttribute(const void* function, int attribute, int value) {
    return api("cudaFuncSetAttribute", Needs::context, [&] {
        Kernel& kernel = kernel_of(function);
        const KernelLimits limits = limits_of(kernel);
        const DeviceModel& device = runtime().device;
        switch (attribute) {
            case abi::max_dynamic_shared:
                if (value < 0 || uint64_t(value) + limits.static_smem > device.smem_optin)
                    fail(kInvalidValue, kernel.name + ": " + std::to_string(value) + " bytes of dynamic and " +
                                            std::to_string(limits.static_smem) +
                                            " of static shared memory; a block of this part may have " +
                                            std::to_string(device.smem_optin));
                kernel.max_dynamic_smem = value;
                return kSuccess;
            case abi::carveout:
                if (value < -1 || value > 100)
                    fail(kInvalidValue, "carveout " + std::to_string(value) + "; allowed: -1 to 100");
                kernel.carveout = value;
                return kSuccess;
            case abi::non_portable_cluster:
                kernel.non_portable_cluster = value != 0;
                return kSuccess;
            case abi::cluster_scheduling:
                return kSuccess;
            case abi::cluster_width:
                kernel.cluster_width = value;
                return kSuccess;
            case abi::cluster_height:
                kernel.cluster_height = value;
                return kSuccess;
            case abi::cluster_depth:
                kernel.cluster_depth = value;
                return kSuccess;
            default:
                fail(kInvalidValue, "function attribute " + std::to_string(attribute));
        }
    });
}

VGPU_API Error cudaFuncSetCacheConfig(const void* function, int) {
    return api("cudaFuncSetCacheConfig", Needs::context, [&] {
        kernel_of(function);
        return kSuccess;
    });
}

VGPU_API Error cudaFuncGetName(const char** out, const void* function) {
    return api("cudaFuncGetName", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the name's address is null");
        *out = kernel_of(function).name.c_str();
        return kSuccess;
    });
}

VGPU_API Error cudaFuncGetParamInfo(const void* function, size_t index, size_t* offset, size_t* size) {
    return api("cudaFuncGetParamInfo", Needs::context, [&] {
        const KernelLimits limits = limits_of(kernel_of(function));
        if (!offset || index >= limits.info->params.size())
            fail(kInvalidValue,
                 "parameter " + std::to_string(index) + " of " + std::to_string(limits.info->params.size()));
        *offset = limits.info->params[index].offset;
        if (size) *size = limits.info->params[index].size;
        return kSuccess;
    });
}

VGPU_API Error cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, const void* function, int threads,
                                                                      size_t dynamic_smem, unsigned flags) {
    return api("cudaOccupancyMaxActiveBlocksPerMultiprocessor", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        if (threads <= 0) fail(kInvalidValue, "a block of " + std::to_string(threads) + " threads");
        if (flags > 1) fail(kInvalidValue, "flags " + std::to_string(flags));
        *out = blocks_per_sm(runtime().device, limits_of(kernel_of(function)), threads, dynamic_smem);
        return kSuccess;
    });
}

VGPU_API Error cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* out, const void* function, int threads,
                                                             size_t dynamic_smem) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out, function, threads, dynamic_smem, 0);
}

VGPU_API Error cudaOccupancyAvailableDynamicSMemPerBlock(size_t* out, const void* function, int blocks, int threads) {
    return api("cudaOccupancyAvailableDynamicSMemPerBlock", Needs::context, [&] {
        if (!out || blocks <= 0 || threads <= 0) fail(kInvalidValue, "blocks and threads must be positive");
        const DeviceModel& device = runtime().device;
        KernelLimits limits = limits_of(kernel_of(function));
        limits.max_dynamic_smem = device.smem_optin - std::min(device.smem_optin, limits.static_smem);
        if (blocks_per_sm(device, limits, threads, 0) < blocks)
            fail(kInvalidValue, std::to_string(blocks) + " blocks do not fit, whatever their shared memory");
        const size_t each = device.smem_per_sm / unsigned(blocks) / 128 * 128;
        *out = std::min<size_t>(limits.max_dynamic_smem, each - std::min<size_t>(each, limits.static_smem + 1024));
        return kSuccess;
    });
}

}  // namespace vgpu
