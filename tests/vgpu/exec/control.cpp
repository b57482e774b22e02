// Branches, calls, returns, exit, traps, and the functions the device runtime provides (printf, assert).
#include <cstdio>

#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

// Sends some lanes of the current group to `target`; the others stay where they are.
void send(Warp& w, uint32_t lanes, uint32_t target) {
    Group& g = w.groups[w.current];
    if (target <= g.pc) ++g.backward;
    if (lanes == g.mask) {
        g.pc = target;
        return;
    }
    Group gone = g;
    gone.pc = target;
    gone.mask = lanes;
    g.mask &= ~lanes;
    w.groups.push_back(gone);
}
// As send(), and the lanes that stay go on with the next instruction.
void branch(Warp& w, uint32_t mask, uint32_t target) {
    bool all = mask == w.groups[w.current].mask;
    send(w, mask, target);
    if (!all) ++w.groups[w.current].pc;
}

Next bra(Warp& w, const Op& o, uint32_t mask) {
    branch(w, mask, uint32_t(o.imm));
    return Next::jumped;
}
Next brx(Warp& w, const Op& o, uint32_t mask) {
    const uint32_t* index = row<uint32_t>(w, o.a);
    bool all = mask == w.groups[w.current].mask;
    while (mask) {
        uint32_t value = index[first_lane(mask)], same = 0;
        VGPU_FOR_LANES(i, mask) same |= uint32_t(index[i] == value) << i;
        if (value >= o.x->targets.size()) {
            report(w, o, first_lane(mask), "trap",
                   "brx.idx index " + std::to_string(value) + " is outside its table of " +
                       std::to_string(o.x->targets.size()),
                   true);
            return Next::failed;
        }
        send(w, same, o.x->targets[value]);
        mask &= ~same;
    }
    if (!all) ++w.groups[w.current].pc;
    return Next::jumped;
}

// numbers: triples {from, to, bytes} of offsets in the lane's frame; then the jump.
void copy_frames(Warp& w, const Op& o, uint32_t mask) {
    const auto& n = o.x->numbers;
    VGPU_FOR_LANES(i, mask) {
        uint8_t* data = w.local + size_t(i) * w.local_stride;
        uint8_t* state = w.local_state + size_t(i) * w.local_stride;
        for (size_t k = 0; k + 2 < n.size(); k += 3) {
            std::memcpy(data + n[k + 1], data + n[k], n[k + 2]);
            std::memcpy(state + n[k + 1], state + n[k], n[k + 2]);
        }
    }
}
Next call(Warp& w, const Op& o, uint32_t mask) {
    copy_frames(w, o, mask);
    if (w.returns.empty()) w.returns.resize(32);
    VGPU_FOR_LANES(i, mask) w.returns[i].push_back(o.pc + 1);
    branch(w, mask, uint32_t(o.imm));
    return Next::jumped;
}
Next take_returns(Warp& w, const Op& o, uint32_t mask) {
    copy_frames(w, o, mask);
    return Next::step;
}
Next ret(Warp& w, const Op&, uint32_t mask) {
    bool all = mask == w.groups[w.current].mask;
    while (mask) {
        uint32_t target = w.returns[first_lane(mask)].back(), same = 0;
        VGPU_FOR_LANES(i, mask) same |= uint32_t(w.returns[i].back() == target) << i;
        VGPU_FOR_LANES(i, same) w.returns[i].pop_back();
        send(w, same, target);
        mask &= ~same;
    }
    if (!all) ++w.groups[w.current].pc;
    return Next::jumped;
}
Next exit_(Warp& w, const Op& o, uint32_t mask) {
    check_copies_at_exit(w, o, mask);
    w.live &= ~mask;
    w.groups[w.current].mask &= ~mask;
    return Next::exited;
}

Next trap(Warp& w, const Op& o, uint32_t mask) {
    report(w, o, first_lane(mask), o.mode ? "brkpt" : "trap", o.mode ? "breakpoint reached" : "trap executed", true);
    return Next::failed;
}
Next nop(Warp&, const Op&, uint32_t) { return Next::step; }
Next nanosleep(Warp&, const Op&, uint32_t) { return Next::yield; }

uint64_t frame_value(Warp& w, int lane, uint64_t offset, int bytes) {
    uint64_t v = 0;
    std::memcpy(&v, w.local + size_t(lane) * w.local_stride + offset, bytes);
    return v;
}
// Text at a generic address, up to 4096 characters.
std::string text_at(Warp& w, int lane, uint64_t address) {
    std::string s;
    if ((address & kTagMask) == kLocalTag) {
        uint64_t at = (address & ~kTagMask) - kLocalSkip;
        for (; at < w.local_stride && s.size() < 4096; ++at) {
            char c = char(w.local[size_t(lane) * w.local_stride + at]);
            if (!c) break;
            s += c;
        }
        return s;
    }
    const Allocation* a = find_allocation(*w.worker, address);
    if (!a) return "(bad address " + hex(address) + ")";
    for (; address < a->base + a->size && s.size() < 4096; ++address) {
        char c = *reinterpret_cast<const char*>(address);
        if (!c) break;
        s += c;
    }
    return s;
}
// printf: the format walks a buffer of arguments, each aligned to its size (8 for %s, pointers and doubles).
std::string format_printf(Warp& w, int lane, const std::string& f, uint64_t buffer) {
    uint8_t* base = nullptr;
    uint64_t size = 0;
    if ((buffer & kTagMask) == kLocalTag) {
        uint64_t at = (buffer & ~kTagMask) - kLocalSkip;
        if (at < w.local_stride) base = w.local + size_t(lane) * w.local_stride + at, size = w.local_stride - at;
    } else if (const Allocation* a = find_allocation(*w.worker, buffer)) {
        base = reinterpret_cast<uint8_t*>(buffer), size = a->base + a->size - buffer;
    }
    uint64_t at = 0;
    auto next = [&](uint64_t bytes) -> uint64_t {
        at = (at + bytes - 1) / bytes * bytes;
        uint64_t v = 0;
        if (at + bytes <= size) std::memcpy(&v, base + at, bytes);
        at += bytes;
        return v;
    };
    std::string out;
    for (size_t i = 0; i < f.size(); ++i) {
        if (f[i] != '%') {
            out += f[i];
            continue;
        }
        if (i + 1 < f.size() && f[i + 1] == '%') {
            out += '%', ++i;
            continue;
        }
        std::string spec = "%";
        bool wide = false;
        for (++i; i < f.size() && !std::isalpha(uint8_t(f[i])); ++i) {
            if (f[i] == '*')
                spec += std::to_string(int32_t(next(4)));
            else
                spec += f[i];
        }
        for (; i < f.size() && std::string("hlLjzt").find(f[i]) != std::string::npos; ++i) wide |= f[i] != 'h';
        if (i >= f.size()) break;
        char c = f[i], text[512];
        if (std::string("di").find(c) != std::string::npos)
            snprintf(text, sizeof text, (spec + "lld").c_str(),
                     wide ? (long long)next(8) : (long long)int32_t(next(4)));
        else if (std::string("uxXo").find(c) != std::string::npos)
            snprintf(text, sizeof text, (spec + "ll" + c).c_str(), wide ? next(8) : next(4));
        else if (c == 'c')
            snprintf(text, sizeof text, (spec + "c").c_str(), int(next(4)));
        else if (std::string("fFeEgGaA").find(c) != std::string::npos) {
            uint64_t b = next(8);
            double v;
            std::memcpy(&v, &b, 8);
            snprintf(text, sizeof text, (spec + c).c_str(), v);
        } else if (c == 's') {
            out += text_at(w, lane, next(8));
            continue;
        } else if (c == 'p')
            snprintf(text, sizeof text, "0x%llx", (unsigned long long)next(8));
        else
            snprintf(text, sizeof text, "%%%c", c);
        out += text;
    }
    return out;
}
Next vprintf_(Warp& w, const Op& o, uint32_t mask) {
    std::string all;
    const auto& n = o.x->numbers;  // format, buffer, result offset (or ~0)
    VGPU_FOR_LANES(i, mask) {
        std::string f = text_at(w, int(i), frame_value(w, int(i), n[0], 8));
        all += format_printf(w, int(i), f, frame_value(w, int(i), n[1], 8));
        if (n[2] != ~0ull) {
            int32_t count = 0;
            for (size_t k = 0; k + 1 < f.size(); ++k) count += f[k] == '%';
            std::memcpy(w.local + size_t(i) * w.local_stride + n[2], &count, 4);
            std::memset(w.local_state + size_t(i) * w.local_stride + n[2], kDefined, 4);
        }
    }
    std::lock_guard<std::mutex> lock(w.worker->launch.mutex);
    w.worker->launch.printed += all;
    return Next::step;
}
Next assert_fail(Warp& w, const Op& o, uint32_t mask) {
    int i = first_lane(mask);
    const auto& n = o.x->numbers;  // message, file, line, function
    std::string text = "assertion `" + text_at(w, i, frame_value(w, i, n[0], 8)) + "` failed at " +
                       text_at(w, i, frame_value(w, i, n[1], 8)) + ":" + std::to_string(frame_value(w, i, n[2], 4)) +
                       " in " + text_at(w, i, frame_value(w, i, n[3], 8));
    report(w, o, i, "assert", text, true);
    return Next::failed;
}

uint64_t frame_offset(Decoder& d, const Operand& o) {
    if (o.kind != OperandKind::symbol || d.symbol_space(o) != Space::local)
        d.fail("call with an operand that is no .param variable");
    return d.symbol_value(o) - kLocalSkip;
}

}  // namespace

void decode_bra(Decoder& d) {
    d.take("uni");
    d.expect_operands(1, 1);
    if (d.operand(0).kind != OperandKind::label) d.fail("target is no label");
    d.op.imm = d.builder.frames.at(d.function_index).pc_of[d.operand(0).label];
    d.set(bra);
}

void decode_brx(Decoder& d) {
    if (!d.take("idx")) d.fail("form");
    d.take("uni");
    d.expect_operands(2, 2);
    d.op.a = d.must(d.operand(0), 4, Type::u32);
    for (const Operand& l : d.operand(1).elements)
        d.extra().targets.push_back(d.builder.frames.at(d.function_index).pc_of[l.label]);
    d.extra();
    d.set(brx);
}

void decode_call(Decoder& d) {
    d.take("uni");
    if (d.in.callee < 0) d.fail("indirect call");
    const Function& callee = d.builder.module.functions[d.in.callee];
    const auto &results = d.operand(0).elements, &arguments = d.operand(1).elements;
    OpExtra& x = d.extra();
    if (!callee.defined) {
        for (const Operand& o : arguments) x.numbers.push_back(frame_offset(d, o));
        if (callee.name == "vprintf" && arguments.size() == 2) {
            x.numbers.push_back(results.empty() ? ~0ull : frame_offset(d, results[0]));
            return d.set(vprintf_);
        }
        if (callee.name == "__assertfail" && arguments.size() >= 4) return d.set(assert_fail);
        d.fail("call of " + callee.name + ", which has no body");
    }
    const ImageBuilder::Frame& frame = d.builder.frames.at(d.in.callee);
    if (arguments.size() != callee.params.size() || results.size() != callee.returns.size())
        d.fail("call of " + callee.name + " with other parameters");
    if (d.op.mode == 1) {  // second half: results
        for (size_t i = 0; i < results.size(); ++i) {
            x.numbers.insert(x.numbers.end(), {frame.params[callee.params.size() + i], frame_offset(d, results[i]),
                                               callee.returns[i].size});
        }
        return d.set(take_returns);
    }
    for (size_t i = 0; i < arguments.size(); ++i)
        x.numbers.insert(x.numbers.end(), {frame_offset(d, arguments[i]), frame.params[i], callee.params[i].size});
    d.op.imm = frame.code;
    d.set(call);
}

void decode_ret(Decoder& d) {
    d.take("uni");
    d.set(d.in_entry() ? exit_ : ret);
}
void decode_exit(Decoder& d) { d.set(exit_); }
void decode_trap(Decoder& d) {
    d.op.mode = d.in.parts[0] == "brkpt";
    d.set(trap);
}
void decode_nop(Decoder& d) {
    while (!d.peek().empty()) d.take_next();
    d.set(nop);
}
void decode_nanosleep(Decoder& d) {
    d.take_type();
    d.set(nanosleep);
}

}  // namespace vgpu
