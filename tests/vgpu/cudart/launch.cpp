// Kernel launches: the checks of the real runtime, in its order and with its codes, then the engine.
#include <cstdio>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/stream.h"
#include "cudart/work.h"

namespace vgpu {
namespace {

std::string text(const Dim3& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

void check_shape(const Dim3& grid, const Dim3& block) {
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        fail(kInvalidConfiguration, "grid " + text(grid) + "; allowed: 1 to (2147483647, 65535, 65535)");
    if (!block.x || !block.y || !block.z || block.x > 1024 || block.y > 1024 || block.z > 64 || block.count() > 1024)
        fail(kInvalidConfiguration, "block " + text(block) + "; allowed: 1 to (1024, 1024, 64), 1024 threads in all");
}

void check_limits(const Runtime& rt, const Kernel& kernel, const KernelLimits& limits, const KernelWork& work) {
    const uint64_t threads = work.block.count();
    const uint32_t bound = limits.info->max_threads ? limits.info->max_threads : 1024;
    if (threads > bound)
        fail(kInvalidValue, kernel.name + ": " + std::to_string(threads) +
                                " threads a block; its launch bounds allow " + std::to_string(bound));
    const uint32_t* required = limits.info->reqntid;
    if (required[0] && (work.block.x != required[0] || work.block.y != required[1] || work.block.z != required[2]))
        fail(kInvalidValue, kernel.name + ": block " + text(work.block) + "; the kernel was compiled for (" +
                                std::to_string(required[0]) + ", " + std::to_string(required[1]) + ", " +
                                std::to_string(required[2]) + ")");
    // The assembler, here the driver's, refuses this.
    if (limits.static_smem > 48 * 1024)
        fail(kInvalidPtx, kernel.name + ": " + std::to_string(limits.static_smem) +
                              " bytes of static shared memory; allowed: 49152");
    if (work.dynamic_smem > limits.max_dynamic_smem)
        fail(kInvalidValue, kernel.name + ": " + std::to_string(work.dynamic_smem) +
                                " bytes of dynamic shared memory; allowed: " + std::to_string(limits.max_dynamic_smem) +
                                " (cudaFuncAttributeMaxDynamicSharedMemorySize raises it to what the part has)");
    if (threads > limits.max_threads)
        fail(kLaunchOutOfResources, kernel.name + ": " + std::to_string(threads) + " threads of " +
                                        std::to_string(limits.registers) + " registers; a block has " +
                                        std::to_string(rt.device.regs_per_sm));
    if (work.cluster.count() != 1) {
        if (rt.device.major < 9) fail(kNotSupported, "clusters need compute capability 9.0");
        if (work.cluster.count() > (kernel.non_portable_cluster ? 16 : 8))
            fail(kInvalidClusterSize, "cluster " + text(work.cluster));
        if (work.grid.x % work.cluster.x || work.grid.y % work.cluster.y || work.grid.z % work.cluster.z)
            fail(kInvalidClusterSize, "grid " + text(work.grid) + " is no multiple of cluster " + text(work.cluster));
    }
    if (work.cooperative) {
        const uint64_t room =
            uint64_t(rt.device.sms) * uint64_t(blocks_per_sm(rt.device, limits, int(threads), work.dynamic_smem));
        if (work.grid.count() > room)
            fail(kCooperativeLaunchTooLarge,
                 std::to_string(work.grid.count()) + " blocks; the part holds " + std::to_string(room) + " at once");
    }
}

// Checks everything and copies the arguments: work that may be enqueued.
Work prepare(const void* function, Dim3 grid, Dim3 block, Dim3 cluster, bool cooperative, void** args, size_t smem) {
    Runtime& rt = runtime();
    Kernel& kernel = kernel_of(function);
    const KernelLimits limits = limits_of(kernel);
    check_shape(grid, block);
    if (smem > 0xffffffffu) fail(kInvalidValue, std::to_string(smem) + " bytes of dynamic shared memory");
    Work work;
    work.type = abi::node_kernel;
    work.what = "launch";
    work.kernel.kernel = &kernel;
    work.kernel.grid = grid;
    work.kernel.block = block;
    work.kernel.cluster = cluster;
    work.kernel.dynamic_smem = uint32_t(smem);
    work.kernel.cooperative = cooperative;
    check_limits(rt, kernel, limits, work.kernel);
    for (size_t i = 0; i < limits.info->params.size(); i++) {
        if (!args || !args[i])
            fail(kInvalidValue, kernel.name + ": the address of argument " + std::to_string(i) + " is null");
        const auto* value = static_cast<const uint8_t*>(args[i]);
        work.kernel.args.emplace_back(value, value + limits.info->params[i].size);
    }
    return work;
}

Error launch(const char* name, const void* function, Dim3 grid, Dim3 block, void** args, size_t smem, void* stream,
             bool cooperative = false) {
    return api(name, Needs::context, [&] {
        submit(stream_of(stream), prepare(function, grid, block, {1, 1, 1}, cooperative, args, smem));
        return kSuccess;
    });
}

// What hardware would return for a kernel that this finding stopped.
Error code_of(const Report& report) {
    const bool copy = report.opcode.compare(0, 8, "cp.async") == 0;
    const bool on_chip = copy ? report.text.find("shared offset") != std::string::npos
                              : report.opcode.find(".shared") != std::string::npos ||
                                    report.opcode.find(".local") != std::string::npos ||
                                    report.opcode.find(".param") != std::string::npos ||
                                    report.opcode.find("matrix") != std::string::npos;
    if (report.code == "oob") return on_chip ? kLaunchFailure : kIllegalAddress;
    if (report.code == "host-pointer" || report.code == "use-after-free") return kIllegalAddress;
    if (report.code == "misaligned") return kMisalignedAddress;
    if (report.code == "assert") return kAssert;
    if (report.code == "budget") return kLaunchTimeout;
    return kLaunchFailure;
}

}  // namespace

Work prepare_kernel_node(const abi::KernelNodeParams& params) {
    if (params.extra) fail(kNotSupported, "kernel arguments through `extra`");
    return prepare(params.function, params.grid, params.block, {1, 1, 1}, false, params.params, params.shared_bytes);
}

void run_kernel(Runtime& rt, const KernelWork& work) {
    Kernel& kernel = *work.kernel;
    const KernelLimits limits = limits_of(kernel);
    std::vector<const void*> args;
    for (const auto& value : work.args) args.push_back(value.data());
    LaunchConfig config;
    config.grid = work.grid;
    config.block = work.block;
    config.cluster = work.cluster;
    config.dynamic_smem = work.dynamic_smem;
    config.args = args.data();
    LaunchResult result = kernel.binary->program->launch(kernel.name, config, rt.options);
    LaunchRecord record;
    record.kernel = kernel.name;
    record.grid = work.grid;
    record.block = work.block;
    record.dynamic_smem = work.dynamic_smem;
    record.static_smem = limits.static_smem;
    record.registers = limits.registers;
    record.local_bytes = limits.local_bytes;
    record.registers_from_cubin = limits.from_cubin;
    record.blocks_per_sm = blocks_per_sm(rt.device, limits, int(work.block.count()), work.dynamic_smem);
    record.counters = std::move(result.counters);
    rt.coverage[kernel.name].add(record.counters);
    if (!rt.lines) record.counters.lines.clear(), record.counters.lines.shrink_to_fit();
    rt.launches.push_back(std::move(record));
    if (!result.printed.empty()) {
        std::fwrite(result.printed.data(), 1, result.printed.size(), stdout);
        std::fflush(stdout);
    }
    if (!result.ok && rt.sticky == kSuccess)
        rt.sticky = result.reports.empty() ? Error(kLaunchFailure) : code_of(result.reports.front());
    for (Report& report : result.reports) rt.report(std::move(report));
    for (Report& note : result.notes) rt.notes.push_back(std::move(note));
}

VGPU_API Error cudaLaunchKernel(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem, void* stream) {
    return launch("cudaLaunchKernel", f, grid, block, args, smem, stream);
}
VGPU_API Error cudaLaunchKernel_ptsz(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem, void* stream) {
    return launch("cudaLaunchKernel", f, grid, block, args, smem, per_thread(stream));
}
VGPU_API Error __cudaLaunchKernel(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem, void* stream) {
    return launch("<<<>>>", f, grid, block, args, smem, stream);
}
VGPU_API Error __cudaLaunchKernel_ptsz(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem, void* stream) {
    return launch("<<<>>>", f, grid, block, args, smem, per_thread(stream));
}
VGPU_API Error cudaLaunchCooperativeKernel(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem,
                                           void* stream) {
    return launch("cudaLaunchCooperativeKernel", f, grid, block, args, smem, stream, true);
}
VGPU_API Error cudaLaunchCooperativeKernel_ptsz(const void* f, Dim3 grid, Dim3 block, void** args, size_t smem,
                                                void* stream) {
    return launch("cudaLaunchCooperativeKernel", f, grid, block, args, smem, per_thread(stream), true);
}

namespace {

Error launch_ex(const abi::LaunchConfig* config, const void* function, void** args, bool own_default_stream) {
    return api("cudaLaunchKernelExC", Needs::context, [&] {
        if (!config) fail(kInvalidValue, "the configuration is null");
        if (config->attribute_count && !config->attributes) fail(kInvalidValue, "the attributes are null");
        Dim3 cluster{1, 1, 1};
        bool cooperative = false;
        for (unsigned i = 0; i < config->attribute_count; i++) {
            const abi::LaunchAttribute& attribute = config->attributes[i];
            switch (attribute.id) {
                case abi::attr_cluster_dim:
                    cluster = {attribute.value.dim[0], attribute.value.dim[1], attribute.value.dim[2]};
                    if (!cluster.count()) fail(kInvalidValue, "cluster " + text(cluster));
                    break;
                case abi::attr_cooperative:
                    cooperative = attribute.value.flag != 0;
                    break;
                case abi::attr_programmatic_serialization:
                    // Streams run their kernels one after the other here: a legal schedule of what it allows.
                    if (attribute.value.flag && runtime().device.major < 9)
                        fail(kNotSupported, "programmatic stream serialization needs compute capability 9.0");
                    break;
                // Hints: no effect on results.
                case abi::attr_ignore:
                case abi::attr_access_policy:
                case abi::attr_sync_policy:
                case abi::attr_cluster_policy:
                case abi::attr_priority:
                case abi::attr_sync_domain_map:
                case abi::attr_sync_domain:
                case abi::attr_preferred_cluster:
                case abi::attr_carveout:
                    break;
                default:
                    fail(kNotSupported, "launch attribute " + std::to_string(attribute.id));
            }
        }
        void* stream = own_default_stream ? per_thread(config->stream) : config->stream;
        submit(stream_of(stream),
               prepare(function, config->grid, config->block, cluster, cooperative, args, config->dynamic_shared));
        return kSuccess;
    });
}

}  // namespace

VGPU_API Error cudaLaunchKernelExC(const abi::LaunchConfig* config, const void* function, void** args) {
    return launch_ex(config, function, args, false);
}
VGPU_API Error cudaLaunchKernelExC_ptsz(const abi::LaunchConfig* config, const void* function, void** args) {
    return launch_ex(config, function, args, true);
}

namespace {

Error host_call(const char* name, void* handle, HostWork host) {
    return api(name, Needs::context, [&] {
        if (!host.function && !host.callback) fail(kInvalidValue, "the function is null");
        Work work;
        work.type = abi::node_host;
        work.what = name;
        work.host = host;
        Stream& stream = stream_of(handle);
        if (host.callback) refuse_while_capturing(stream, name);
        submit(stream, std::move(work));
        return kSuccess;
    });
}

}  // namespace

VGPU_API Error cudaLaunchHostFunc(void* stream, abi::HostFunction function, void* data) {
    return host_call("cudaLaunchHostFunc", stream, {function, nullptr, nullptr, data});
}
VGPU_API Error cudaLaunchHostFunc_ptsz(void* stream, abi::HostFunction function, void* data) {
    return cudaLaunchHostFunc(per_thread(stream), function, data);
}
VGPU_API Error cudaStreamAddCallback(void* stream, abi::StreamCallback callback, void* data, unsigned) {
    return host_call("cudaStreamAddCallback", stream, {nullptr, callback, stream, data});
}
VGPU_API Error cudaStreamAddCallback_ptsz(void* stream, abi::StreamCallback callback, void* data, unsigned flags) {
    return cudaStreamAddCallback(per_thread(stream), callback, data, flags);
}

}  // namespace vgpu
