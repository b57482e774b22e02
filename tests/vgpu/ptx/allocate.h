// Which registers an instruction reads and writes, and between which points a register holds a value that is still
// read.
#pragma once

#include <utility>
#include <vector>

#include "ptx/ir.h"

namespace vgpu {

struct RowAccess {
    std::vector<int32_t> reads, writes;  // registers, maybe repeated
    bool certain = true;                 // false: a guarded write keeps the old value in some lanes
};

RowAccess access_of(const Instruction&);

// Points: 2 i is "before instruction i" (what it reads), 2 i + 1 is "after" (what it writes).
using Span = std::pair<int32_t, int32_t>;  // first and last point
struct Liveness {
    std::vector<std::vector<Span>> spans;  // per register, in order, apart; empty if it is never mentioned
    int32_t pressure = 0, pressure_pred = 0;
};

Liveness find_liveness(const Function&);

}  // namespace vgpu
