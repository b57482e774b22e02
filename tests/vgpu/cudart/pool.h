// Memory pools of stream-ordered allocation.
#pragma once

#include <cstdint>

namespace vgpu {

struct Pool {
    uint64_t release_threshold = 0, used = 0, used_high = 0;
    int follow_events = 1, opportunistic = 1, internal_dependencies = 1;
    uint64_t max_size = 0;  // 0: no bound of its own
};

}  // namespace vgpu
