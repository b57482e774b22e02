// Liveness over the control flow graph, one register at a time: only blocks where it is live are visited.
#include <algorithm>

#include "ptx/allocate.h"

namespace vgpu {
namespace {

void collect(const Operand& operand, std::vector<int32_t>& into) {
    if (operand.reg >= 0) into.push_back(operand.reg);
    if (operand.reg2 >= 0) into.push_back(operand.reg2);
    for (const Operand& element : operand.elements) collect(element, into);
}

struct Graph {
    std::vector<int32_t> begin;                      // first instruction of each block, then the code size
    std::vector<int32_t> block_of;                   // instruction -> block
    std::vector<std::vector<int32_t>> predecessors;  // block -> blocks
};

void labels_of(const Instruction& instruction, std::vector<int32_t>& into) {
    for (const Operand& operand : instruction.operands) {
        if (operand.kind == OperandKind::label) into.push_back(operand.label);
        for (const Operand& element : operand.elements)
            if (element.kind == OperandKind::label) into.push_back(element.label);
    }
}

bool leaves(const Instruction& instruction) {  // no lane goes on to the next instruction
    const std::string& name = instruction.parts[0];
    return instruction.guard < 0 && (name == "ret" || name == "exit" || name == "bra" || name == "brx");
}

Graph build_graph(const std::vector<Instruction>& code) {
    const size_t n = code.size();
    std::vector<char> starts(n + 1, 0);
    starts[0] = starts[n] = 1;
    std::vector<int32_t> labels;
    for (size_t i = 0; i < n; ++i) {
        labels.clear();
        labels_of(code[i], labels);
        for (int32_t label : labels) starts[size_t(label)] = 1;
        if (!labels.empty() || leaves(code[i])) starts[i + 1] = 1;
    }
    Graph graph;
    graph.block_of.resize(n);
    for (size_t i = 0; i < n; ++i) {
        if (starts[i]) graph.begin.push_back(int32_t(i));
        graph.block_of[i] = int32_t(graph.begin.size()) - 1;
    }
    graph.predecessors.resize(graph.begin.size());
    graph.begin.push_back(int32_t(n));
    for (size_t block = 0; block + 1 < graph.begin.size(); ++block) {
        const size_t last = size_t(graph.begin[block + 1]) - 1;
        labels.clear();
        labels_of(code[last], labels);
        for (int32_t& label : labels) label = graph.block_of[size_t(label)];
        if (!leaves(code[last]) && block + 2 < graph.begin.size()) labels.push_back(int32_t(block) + 1);
        std::sort(labels.begin(), labels.end());
        labels.erase(std::unique(labels.begin(), labels.end()), labels.end());
        for (int32_t successor : labels) graph.predecessors[size_t(successor)].push_back(int32_t(block));
    }
    return graph;
}

// The accumulators and A registers of wgmma are written and read until a wait: every wait counts as reading them all.
std::vector<int32_t> registers_in_flight(const std::vector<Instruction>& code) {
    std::vector<int32_t> found;
    for (const Instruction& instruction : code)
        if (instruction.parts[0] == "wgmma" && instruction.parts.size() > 1 && instruction.parts[1] == "mma_async")
            for (size_t i = 0; i < 2 && i < instruction.operands.size(); ++i)
                if (instruction.operands[i].kind == OperandKind::vector) collect(instruction.operands[i], found);
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

struct Event {  // of one register
    int32_t instruction;
    bool read, writes, kills;  // kills: a write that every lane makes
};

}  // namespace

RowAccess access_of(const Instruction& instruction) {
    RowAccess access;
    access.certain = instruction.guard < 0;
    if (instruction.guard >= 0) access.reads.push_back(instruction.guard);
    const size_t written = size_t(destination_count(instruction));
    for (size_t i = 0; i < instruction.operands.size(); ++i)
        collect(instruction.operands[i], i < written ? access.writes : access.reads);
    const bool accumulates = instruction.parts[0] == "wgmma" && written > 0;  // D = A B + D
    if (accumulates) access.reads.insert(access.reads.end(), access.writes.begin(), access.writes.end());
    return access;
}

Liveness find_liveness(const Function& function) {
    const std::vector<Instruction>& code = function.code;
    const size_t n = code.size(), count = function.registers.size();
    Liveness live;
    live.spans.resize(count);
    if (n == 0) return live;
    const Graph graph = build_graph(code);
    const size_t blocks = graph.predecessors.size();

    std::vector<std::vector<Event>> events(count);  // in order of the code
    const std::vector<int32_t> in_flight = registers_in_flight(code);
    for (size_t i = 0; i < n; ++i) {
        RowAccess access = access_of(code[i]);
        if (code[i].parts[0] == "wgmma" && code[i].parts.size() > 1 && code[i].parts[1] == "wait_group")
            access.reads.insert(access.reads.end(), in_flight.begin(), in_flight.end());
        for (int pass = 0; pass < 2; ++pass)
            for (int32_t reg : pass == 0 ? access.reads : access.writes) {
                auto& list = events[size_t(reg)];
                if (list.empty() || list.back().instruction != int32_t(i))
                    list.push_back({int32_t(i), false, false, false});
                if (pass == 0)
                    list.back().read = true;
                else
                    list.back().writes = true, list.back().kills = access.certain;
            }
    }

    std::vector<int32_t> change32(2 * n + 2, 0), change_pred(2 * n + 2, 0);  // differences of the number live
    std::vector<int32_t> seen(blocks, -1), work;
    for (size_t reg = 0; reg < count; ++reg) {
        const auto& list = events[reg];
        if (list.empty()) continue;
        const Type type = function.registers[reg].type;
        auto& change = type == Type::pred ? change_pred : change32;
        const int32_t weight = type == Type::pred ? 1 : std::max(1, size_of(type) / 4);
        auto& spans = live.spans[reg];
        const auto mark = [&](int32_t from, int32_t to) {
            change[size_t(from)] += weight;
            change[size_t(to) + 1] -= weight;
            spans.push_back({from, to});
        };
        // Blocks where it is live at the start: those that read it before a certain write, and back from there.
        work.clear();
        const auto wanted = [&](int32_t block) {
            if (seen[size_t(block)] == int32_t(reg)) return;
            seen[size_t(block)] = int32_t(reg);
            work.push_back(block);
        };
        const auto first_in = [&](int32_t block) {
            return std::lower_bound(list.begin(), list.end(), graph.begin[size_t(block)],
                                    [](const Event& event, int32_t at) { return event.instruction < at; });
        };
        const auto killed_in = [&](int32_t block) {
            for (auto at = first_in(block); at != list.end() && at->instruction < graph.begin[size_t(block) + 1]; ++at)
                if (at->kills) return true;
            return false;
        };
        for (size_t i = 0; i < list.size();) {
            const int32_t block = graph.block_of[size_t(list[i].instruction)];
            bool decided = false;
            for (; i < list.size() && graph.block_of[size_t(list[i].instruction)] == block; ++i) {
                if (!decided && list[i].read) wanted(block);
                decided |= list[i].read || list[i].kills;
            }
        }
        std::vector<int32_t> live_out;
        while (!work.empty()) {
            const int32_t block = work.back();
            work.pop_back();
            for (int32_t before : graph.predecessors[size_t(block)]) {
                live_out.push_back(before);
                if (seen[size_t(before)] != int32_t(reg) && !killed_in(before)) wanted(before);
            }
        }
        std::sort(live_out.begin(), live_out.end());
        live_out.erase(std::unique(live_out.begin(), live_out.end()), live_out.end());
        // Inside a block the live points lie between what makes the value and what reads it last.
        const auto scan = [&](int32_t block) {
            const bool out = std::binary_search(live_out.begin(), live_out.end(), block);
            const int32_t begin = 2 * graph.begin[size_t(block)], end = 2 * graph.begin[size_t(block) + 1] - 1;
            auto first = first_in(block), last = first;
            while (last != list.end() && 2 * last->instruction < end) ++last;
            int32_t until = out ? end : -1;  // live from here back
            while (last != first) {
                const Event& event = *--last;
                const int32_t before = 2 * event.instruction, after = before + 1;
                if (event.kills) {
                    mark(after, std::max(until, after));  // a value nobody reads still has to go somewhere
                    until = -1;
                } else if (until < 0 && event.writes) {
                    mark(after, after);
                }
                if (event.read && until < 0) until = before;
            }
            if (until >= 0) mark(begin, until);
        };
        int32_t previous = -1;
        for (const Event& event : list) {
            const int32_t block = graph.block_of[size_t(event.instruction)];
            if (block != previous) scan(block);
            previous = block;
        }
        for (int32_t block : live_out)  // passes through, nothing of it in the block
            if (auto at = first_in(block); at == list.end() || at->instruction >= graph.begin[size_t(block) + 1])
                mark(2 * graph.begin[size_t(block)], 2 * graph.begin[size_t(block) + 1] - 1);
        std::sort(spans.begin(), spans.end());
        size_t kept = 0;
        for (const Span& span : spans) {
            if (kept && span.first <= spans[kept - 1].second + 1)
                spans[kept - 1].second = std::max(spans[kept - 1].second, span.second);
            else
                spans[kept++] = span;
        }
        spans.resize(kept);
    }
    int32_t now32 = 0, now_pred = 0;
    for (size_t point = 0; point < 2 * n; ++point) {
        live.pressure = std::max(live.pressure, now32 += change32[point]);
        live.pressure_pred = std::max(live.pressure_pred, now_pred += change_pred[point]);
    }
    return live;
}

}  // namespace vgpu
