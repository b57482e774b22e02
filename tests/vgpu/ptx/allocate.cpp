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
// A register that is written anew in every turn of a loop leaves holes between its live spans, and others fit in there:
// a row keeps all spans that it holds. What an instruction writes never shares a row with another register that it
// reads: an executor may write results before it has read every lane.
#include "ptx/allocate.h"

#include <algorithm>

namespace vgpu {
namespace {

enum Class { pred, narrow, wide, widest };

Class class_of(Type type) {
    if (type == Type::pred) return pred;
    const int bytes = size_of(type);
    return bytes <= 4 ? narrow : bytes == 8 ? wide : widest;
}

class Row {  // spans in order, apart
  public:
    bool fits(const std::vector<Span>& wanted) const {
        if (held_.empty() || held_.back().second < wanted.front().first) return true;
        return std::none_of(wanted.begin(), wanted.end(), [&](const Span& span) {
            const auto after = std::upper_bound(held_.begin(), held_.end(), Span(span.second, INT32_MAX));
            return after != held_.begin() && std::prev(after)->second >= span.first;
        });
    }

    void hold(const std::vector<Span>& taken) {
        const size_t before = held_.size();
        held_.insert(held_.end(), taken.begin(), taken.end());
        std::inplace_merge(held_.begin(), held_.begin() + std::ptrdiff_t(before), held_.end());
    }

  private:
    std::vector<Span> held_;
};

}  // namespace

void allocate_registers(Function& function) {
    Liveness live = find_liveness(function);
    const size_t count = function.registers.size();
    function.pressure = live.pressure;
    function.pressure_pred = live.pressure_pred;
    function.row_of.assign(count, 0);

    std::vector<int32_t> order;  // by first live point
    for (size_t reg = 0; reg < count; ++reg) {
        auto& spans = live.spans[reg];
        for (Span& span : spans)  // a write already occupies what is read beside it
            if (function.code[size_t(span.first / 2)].parts[0] != "mma") span.first &= ~1;
        if (!spans.empty()) order.push_back(int32_t(reg));
    }
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return live.spans[size_t(a)].front().first < live.spans[size_t(b)].front().first;
    });

    std::vector<Row> rows[3];
    int32_t pairs = 0;
    for (int32_t reg : order) {
        const auto& spans = live.spans[size_t(reg)];
        const Class kind = class_of(function.registers[size_t(reg)].type);
        int32_t& row = function.row_of[size_t(reg)];
        if (kind == widest) {  // rare: a pair of its own, behind the shared rows
            row = pairs++;
            continue;
        }
        const auto found =
            std::find_if(rows[kind].begin(), rows[kind].end(), [&](const Row& r) { return r.fits(spans); });
        row = int32_t(found - rows[kind].begin());
        if (found == rows[kind].end()) rows[kind].emplace_back();
        rows[kind][size_t(row)].hold(spans);
    }
    function.rows_pred = int32_t(rows[pred].size());
    function.rows32 = int32_t(rows[narrow].size());
    function.rows64 = int32_t(rows[wide].size()) + 2 * pairs;
    for (size_t reg = 0; reg < count; ++reg)
        if (class_of(function.registers[reg].type) == widest)
            function.row_of[reg] = int32_t(rows[wide].size()) + 2 * function.row_of[reg];
}

}  // namespace vgpu
