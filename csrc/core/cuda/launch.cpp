#include "core/cuda/launch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/cuda/check.h"
#include "core/cuda/device.h"

namespace ivk {
namespace {

constexpr size_t kSharedUnasked = 48 << 10;  // what every kernel may have without opting in

std::string describe(const Launch& l) {
    std::ostringstream text;
    text << l.name << " <<<(" << l.grid.x << ", " << l.grid.y << ", " << l.grid.z << "), (" << l.block.x << ", "
         << l.block.y << ", " << l.block.z << "), " << l.shared << " bytes of shared memory, stream " << l.stream
         << ">>>";
    return text.str();
}

// At every launch: what was allowed before is forgotten when somebody resets the device.
void allow_shared(const Launch& l, const void* kernel) {
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.shared)),
               "shared memory of ", describe(l));
}

bool debugging() {
    static const bool on = [] {
        const char* value = std::getenv("IVK_DEBUG");
        return value != nullptr && std::strcmp(value, "0") != 0 && *value != '\0';
    }();
    return on;
}

}  // namespace

void launch_kernel(const Launch& l, const void* kernel, void** arguments) {
    if (l.shared > kSharedUnasked) allow_shared(l, kernel);
    cudaLaunchConfig_t config{};
    config.gridDim = l.grid;
    config.blockDim = l.block;
    config.dynamicSmemBytes = l.shared;
    config.stream = l.stream;
    if (debugging()) std::fprintf(stderr, "ivk: %s\n", describe(l).c_str());
    const cudaError_t error = cudaLaunchKernelExC(&config, kernel, arguments);
    if (error != cudaSuccess) fail_cuda(error, describe(l));
    if (debugging()) cuda_check(cudaStreamSynchronize(l.stream), describe(l));
}

}  // namespace ivk
