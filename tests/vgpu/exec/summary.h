#pragma once

#include "exec/worker.h"

namespace vgpu {

// Counters of a launch; clears the "touched by this launch" marks of the memory it used.
void sum_counters(const Launch&, const std::vector<std::unique_ptr<Worker>>&, Counters&);

}  // namespace vgpu
