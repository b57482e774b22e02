// GPUs as the runtime sees them, and where a pointer lives.
#pragma once

#include "core/device.h"
#include "core/stream.h"

namespace ivk {

int device_count();                 // throws BackendError without a driver
const Device& device(int ordinal);  // properties, asked once per device
int current_device();

// The device whose kernels may use this address in place (cudaMalloc and managed memory), or -1 for host memory.
int device_of(const void* address);

// Makes a device current for a scope; work, memory and events belong to it.
class DeviceGuard {
  public:
    explicit DeviceGuard(int ordinal);
    ~DeviceGuard();
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = -1;  // -1: nothing to restore
};

}  // namespace ivk
