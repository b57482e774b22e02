#include "core/cuda/memory.h"

#include <mutex>
#include <utility>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/device.h"

namespace ivk {
namespace {

void give_back(int device, void* data) {
    try {
        const DeviceGuard guard(device);
        (void)cudaFree(data);  // waits for work that uses it; at exit the runtime may be gone already
    } catch (const BackendError&) {
    }
}

// A free would spoil a recording, and Python's collector may free at any time.
class Held {
  public:
    bool keep(int device, void* data) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (recordings_ > 0) waiting_.push_back({device, data});
        return recordings_ > 0;
    }
    void change(int by) {
        std::vector<std::pair<int, void*>> due;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            recordings_ += by;
            if (recordings_ == 0) due.swap(waiting_);
        }
        for (const auto& [device, data] : due) give_back(device, data);
    }

  private:
    std::mutex mutex_;
    int recordings_ = 0;
    std::vector<std::pair<int, void*>> waiting_;
};

Held& held() {
    static Held* const one = new Held;  // outlives whoever frees at exit
    return *one;
}

}  // namespace

DeviceMemory::DeviceMemory(int64_t bytes) : device_(current_device()) {
    if (bytes > 0)
        cuda_check(cudaMalloc(&data_, static_cast<size_t>(bytes)), "cudaMalloc of ", bytes, " bytes on device ",
                   device_);
}

DeviceMemory::~DeviceMemory() {
    if (data_ != nullptr && !held().keep(device_, data_)) give_back(device_, data_);
}

void hold_memory() { held().change(1); }
void release_memory() { held().change(-1); }

void copy_bytes(void* to, const void* from, int64_t bytes, Stream stream) {
    if (bytes <= 0) return;
    cuda_check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream), "cudaMemcpyAsync of ",
               bytes, " bytes from ", from, " to ", to);
}

void copy_rows(Strided to, Strided from, int64_t width, int64_t rows, Stream stream) {
    if (width <= 0 || rows <= 0) return;
    if (rows == 1 || (to.pitch == width && from.pitch == width))
        return copy_bytes(to.data, from.data, width * rows, stream);
    cuda_check(cudaMemcpy2DAsync(to.data, to.pitch, from.data, from.pitch, width, rows, cudaMemcpyDefault, stream),
               "cudaMemcpy2DAsync of ", rows, " rows of ", width, " bytes, ", from.pitch, " apart, to rows ", to.pitch,
               " apart");
}

void synchronize(Stream stream) { cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }

void order(Stream first, Stream later) {
    if (first == later) return;
    cudaEvent_t event = nullptr;
    cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    cudaError_t error = cudaEventRecord(event, first);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(later, event, 0);
    (void)cudaEventDestroy(event);
    cuda_check(error, "making one stream wait for another");
}

}  // namespace ivk
