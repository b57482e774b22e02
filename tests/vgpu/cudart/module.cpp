// Loading of images, kernels and their limits.
#include "cudart/module.h"

#include <algorithm>
#include <cstring>

#include "ptx/ir.h"

namespace vgpu {
namespace {

constexpr uint32_t kDefaultSmem = 48 * 1024;

uint32_t round_up(uint32_t value, uint32_t step) { return (value + step - 1) / step * step; }

// One image from bare PTX text. Its .target says which part it is for.
FatImage bare_ptx(std::string_view text) {
    const size_t target = text.find("sm_", text.find(".target"));
    const size_t end = target == text.npos ? target : text.find_first_not_of("0123456789", target + 3);
    if (end == text.npos) throw FatbinError("PTX without .target sm_NN");
    FatImage image;
    image.payload = text;
    image.arch = uint32_t(std::stoul(std::string(text.substr(target + 3, end - target - 3))));
    image.arch_specific = text[end] == 'a';
    return image;
}

std::vector<FatImage> images_of(const Binary& binary) {
    if (binary.wrapper) return list_images_of_wrapper(binary.wrapper);
    const std::string_view bytes = binary.file;
    const bool ptx = bytes.find(".version") < bytes.find(".target") &&
                     bytes.substr(0, 4) !=
                         "\x7f"
                         "ELF" &&
                     bytes.substr(0, 4) != "\x50\xed\x55\xba";
    if (ptx) return {bare_ptx(bytes)};
    return list_images_in_file(bytes);
}

}  // namespace

Program& Binary::load() {
    if (!tried) {
        tried = true;
        Runtime& rt = runtime();
        const std::string origin = library ? "library" : "fat binary";
        try {
            const std::vector<FatImage> images = images_of(*this);
            const FatImage* ptx = choose_ptx(images, rt.device.major, rt.device.minor);
            if (!ptx) {
                error = kNoKernelImageForDevice;
                why = origin + " holds no PTX for " + rt.device_name + " (sm_" + std::to_string(rt.device.major) +
                      std::to_string(rt.device.minor) + "); it holds " +
                      (images.empty() ? "nothing" : describe(images));
            } else {
                ptx_arch = int(ptx->arch);
                binary_arch = rt.device.major * 10 + rt.device.minor;
                if (const FatImage* cubin = choose_cubin(images, rt.device.major, rt.device.minor)) {
                    facts = cubin_facts(unpack(*cubin));
                    binary_arch = int(cubin->arch);
                }
                Module module = parse(unpack(*ptx), ptx->identifier.empty() ? origin : ptx->identifier);
                for (Function& function : module.functions)
                    if (function.defined) allocate_registers(function);
                program = std::make_unique<Program>(std::move(module), *rt.memory, rt.device);
                for (const ManagedVariable& variable : managed)
                    *variable.host = program->variable(variable.name, nullptr);
            }
        } catch (const FatbinError& e) {
            error = kInvalidKernelImage;
            why = origin + ": " + e.what();
        } catch (const ParseError& e) {
            error = kInvalidPtx;
            why = origin + ": " + e.what();
        }
        if (error != kSuccess) program.reset();
    }
    if (error != kSuccess) fail(error, why);
    return *program;
}

void Binary::unload() {
    program.reset();
    facts.clear();
    tried = false;
    error = kSuccess;
    why.clear();
}

Kernel& add_kernel(Binary& binary, const std::string& name, const void* host) {
    auto kernel = std::make_unique<Kernel>();
    kernel->binary = &binary;
    kernel->name = name;
    kernel->host = host;
    binary.kernels.push_back(std::move(kernel));
    Kernel& added = *binary.kernels.back();
    runtime().kernel_handles.insert(&added);
    if (host) runtime().kernels_by_host[host] = &added;
    return added;
}

Kernel& kernel_of(const void* function) {
    Runtime& rt = runtime();
    const auto found = rt.kernels_by_host.find(function);
    if (found != rt.kernels_by_host.end()) return *found->second;
    if (!rt.kernel_handles.count(function))
        fail(kInvalidDeviceFunction, function ? "no kernel is registered under this address" : "the kernel is null");
    return *static_cast<Kernel*>(const_cast<void*>(function));
}

KernelLimits limits_of(Kernel& kernel) {
    Runtime& rt = runtime();
    Program& program = kernel.binary->load();
    KernelLimits limits;
    limits.info = program.kernel(kernel.name);
    if (!limits.info) fail(kInvalidDeviceFunction, "the image holds no kernel " + kernel.name);
    limits.registers = limits.info->registers;
    limits.static_smem = limits.info->static_smem;
    limits.local_bytes = limits.info->local_bytes;
    limits.max_threads = limits.info->max_threads ? limits.info->max_threads : 1024;
    const auto facts = kernel.binary->facts.find(kernel.name);
    if (facts != kernel.binary->facts.end()) {
        limits.from_cubin = true;
        limits.registers = facts->second.registers;
        limits.static_smem = facts->second.static_shared;
        limits.local_bytes = facts->second.frame_bytes;
        if (facts->second.max_threads) limits.max_threads = std::min(limits.max_threads, facts->second.max_threads);
    }
    // Without launch bounds a block is as large as its registers allow.
    if (limits.registers > 0) {
        const uint32_t warps = rt.device.regs_per_sm / round_up(limits.registers * 32, 256) / 4 * 4;
        limits.max_threads = std::min(limits.max_threads, warps * 32);
    }
    limits.max_dynamic_smem = kernel.max_dynamic_smem >= 0        ? uint32_t(kernel.max_dynamic_smem)
                              : limits.static_smem < kDefaultSmem ? kDefaultSmem - limits.static_smem
                                                                  : 0;
    return limits;
}

int blocks_per_sm(const DeviceModel& device, const KernelLimits& limits, int block_threads, size_t dynamic_smem) {
    if (block_threads > int(limits.max_threads) || dynamic_smem > limits.max_dynamic_smem) return 0;
    const uint32_t warps = uint32_t(block_threads + 31) / 32;
    uint32_t blocks = std::min(device.max_blocks_per_sm, device.max_threads_per_sm / 32 / warps);
    if (limits.registers > 0) {
        // Four sub-partitions, each with a quarter of the registers, handed out to warps in steps of 256.
        const uint32_t per_warp = round_up(limits.registers * 32, 256);
        blocks = std::min(blocks, device.regs_per_sm / 4 / per_warp * 4 / warps);
    }
    // Since compute capability 8.0 each block takes 1 KiB for the system; steps of 128 bytes.
    const uint32_t smem = round_up(limits.static_smem + uint32_t(dynamic_smem) + 1024, 128);
    return int(std::min(blocks, device.smem_per_sm / smem));
}

}  // namespace vgpu
