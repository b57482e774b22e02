// What a launcher may know of a GPU. Filled once per device by core/cuda/device.h.
#pragma once

#include <cstdint>
#include <string>

namespace ivk {

struct Device {
    int ordinal;
    std::string name;
    int major, minor;  // compute capability
    int multiprocessors;
    int64_t memory, l2_cache;           // bytes
    int64_t shared_block, shared_most;  // shared memory of a block in bytes: without and with opting in
    int threads_multiprocessor;
};

}  // namespace ivk
