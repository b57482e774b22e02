// Register compaction by linear scan: nvcc writes PTX in single-assignment form, thousands of registers of which a few
// hundred live at once.
//
// Why this is sound for a warp whose lanes take different paths: a row holds one value for each of 32 lanes, and every
// write touches the lanes that execute it and no others (guards included). So a lane's part of a row changes only by
// instructions on that lane's own path, whatever the order in which the engine runs the groups of a warp. Two registers
// may share a row if they are never both live at one point of any path, and that is what liveness on the control flow
// graph says. A guarded write ends no earlier value: the lanes that skip it keep theirs. Instructions that read other
// lanes' registers (shfl, mma, …) read them while those lanes stand at the same instruction, where they are live.
//
// A register's range is the hull of its live points, so that one comparison decides. What an instruction writes never
// shares a row with another register that it reads: an executor may write results before it has read every lane.
#include "ptx/allocate.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace vgpu {
namespace {

using Least = std::priority_queue<int32_t, std::vector<int32_t>, std::greater<int32_t>>;

enum Class { pred, narrow, wide, widest };

Class class_of(Type type) {
    if (type == Type::pred) return pred;
    const int bytes = size_of(type);
    return bytes <= 4 ? narrow : bytes == 8 ? wide : widest;
}

}  // namespace

void allocate_registers(Function& function) {
    const Liveness live = find_liveness(function);
    const size_t count = function.registers.size();
    function.pressure = live.pressure;
    function.pressure_pred = live.pressure_pred;
    function.row_of.assign(count, 0);

    std::vector<int32_t> order;  // by first live point
    for (size_t reg = 0; reg < count; ++reg)
        if (live.range[reg].first >= 0) order.push_back(int32_t(reg));
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return live.range[size_t(a)].first / 2 < live.range[size_t(b)].first / 2;
    });

    int32_t rows[3] = {0, 0, 0};
    Least free[3];
    using Ending = std::pair<int32_t, int32_t>;  // last live point, register
    std::priority_queue<Ending, std::vector<Ending>, std::greater<Ending>> active[3];
    for (int32_t reg : order) {
        const Class kind = class_of(function.registers[size_t(reg)].type);
        int32_t& row = function.row_of[size_t(reg)];
        if (kind == widest) {  // rare: a pair of its own
            row = rows[wide];
            rows[wide] += 2;
            continue;
        }
        const int32_t start = live.range[size_t(reg)].first / 2 * 2;  // a write already occupies what is read beside it
        while (!active[kind].empty() && active[kind].top().first < start) {
            free[kind].push(function.row_of[size_t(active[kind].top().second)]);
            active[kind].pop();
        }
        if (free[kind].empty()) {
            row = rows[kind]++;
        } else {
            row = free[kind].top();
            free[kind].pop();
        }
        active[kind].push({live.range[size_t(reg)].second, reg});
    }
    function.rows_pred = rows[pred];
    function.rows32 = rows[narrow];
    function.rows64 = rows[wide];
}

}  // namespace vgpu
