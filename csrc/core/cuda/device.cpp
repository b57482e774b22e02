#include "core/cuda/device.h"

#include <map>
#include <memory>
#include <mutex>

#include "core/cuda/check.h"

namespace ivk {

int device_count() {
    int count = 0;
    cuda_check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    return count;
}

const Device& device(int ordinal) {
    static std::mutex mutex;
    static std::map<int, std::unique_ptr<const Device>> known;
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<const Device>& entry = known[ordinal];
    if (entry == nullptr) {
        cudaDeviceProp found;
        cuda_check(cudaGetDeviceProperties(&found, ordinal), "cudaGetDeviceProperties of device ", ordinal);
        entry.reset(new Device{ordinal, found.name, found.major, found.minor, found.multiProcessorCount,
                               static_cast<int64_t>(found.totalGlobalMem), found.l2CacheSize,
                               static_cast<int64_t>(found.sharedMemPerBlock),
                               static_cast<int64_t>(found.sharedMemPerBlockOptin), found.maxThreadsPerMultiProcessor});
    }
    return *entry;
}

int current_device() {
    int ordinal = 0;
    cuda_check(cudaGetDevice(&ordinal), "cudaGetDevice");
    return ordinal;
}

int device_of(const void* address) {
    if (address == nullptr) return -1;
    cudaPointerAttributes found;
    cuda_check(cudaPointerGetAttributes(&found, address), "cudaPointerGetAttributes of ", address);
    return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged ? found.device : -1;
}

DeviceGuard::DeviceGuard(int ordinal) {
    const int before = current_device();
    if (before == ordinal) return;
    cuda_check(cudaSetDevice(ordinal), "cudaSetDevice to ", ordinal);
    before_ = before;
}

DeviceGuard::~DeviceGuard() {
    if (before_ >= 0) (void)cudaSetDevice(before_);
}

}  // namespace ivk
