// Operands to rows.
#include "exec/decode.h"

#include <cstring>

#include "exec/numerics.h"
#include "exec/warp.h"

namespace vgpu {

uint64_t float_immediate(const Operand& o, Type type) {
    if (!o.imm_is_float) return o.imm;
    double v = o.imm_is_f64 ? bits_to_double(o.imm) : double(bits_to_float(uint32_t(o.imm)));
    switch (type) {
        case Type::f64:
            return double_to_bits(v);
        case Type::f32:
            return o.imm_is_f64 ? float_to_bits(float(v)) : uint32_t(o.imm);
        case Type::f16:
            return round_double(kF16, v, Rounding::nearest);
        case Type::bf16:
            return round_double(kBf16, v, Rounding::nearest);
        default:
            return o.imm;
    }
}

uint32_t ImageBuilder::constant32(uint32_t bits) {
    auto [it, fresh] = constants32.try_emplace(bits, uint32_t(image.constants.size()));
    if (fresh) {
        image.constants.resize(image.constants.size() + 128);
        for (int i = 0; i < 32; ++i) std::memcpy(&image.constants[it->second + 4 * i], &bits, 4);
    }
    return it->second | kConstantRow;
}
uint32_t ImageBuilder::constant64(uint64_t bits) {
    auto [it, fresh] = constants64.try_emplace(bits, uint32_t(image.constants.size()));
    if (fresh) {
        image.constants.resize(image.constants.size() + 256);
        for (int i = 0; i < 32; ++i) std::memcpy(&image.constants[it->second + 8 * i], &bits, 8);
    }
    return it->second | kConstantRow;
}

Decoder::Decoder(ImageBuilder& b, int f, const Instruction& i, Op& o)
    : builder(b), function(b.module.functions[f]), function_index(f), in(i), op(o) {
    for (size_t k = 1; k < in.parts.size(); ++k) left_.push_back(in.parts[k]);
    if (in.guard >= 0) {
        Operand g;
        g.kind = OperandKind::reg;
        g.reg = in.guard;
        op.guard = raw(g, 0);
        op.guard_flip = in.guard_negated ? ~0u : 0;
        op.guard_id = id(g);
    }
}

void Decoder::fail(const std::string& why) const { throw DecodeError(why); }

bool Decoder::take(std::string_view part) {
    for (size_t i = 0; i < left_.size(); ++i)
        if (left_[i] == part) {
            left_.erase(left_.begin() + i);
            return true;
        }
    return false;
}
int Decoder::take_one(std::initializer_list<std::string_view> parts) {
    for (size_t i = 0; i < left_.size(); ++i) {
        int k = 0;
        for (std::string_view p : parts) {
            if (left_[i] == p) {
                left_.erase(left_.begin() + i);
                return k;
            }
            ++k;
        }
    }
    return -1;
}
Type Decoder::take_type() {
    for (size_t i = 0; i < left_.size(); ++i) {
        Type t = type_from_name(left_[i]);
        if (t != Type::none) {
            left_.erase(left_.begin() + i);
            return t;
        }
    }
    fail("needs a type");
}
bool Decoder::has_type() const {
    for (auto p : left_)
        if (type_from_name(p) != Type::none) return true;
    return false;
}
std::string_view Decoder::peek(size_t i) const { return i < left_.size() ? left_[i] : std::string_view(); }
std::string Decoder::take_next() {
    if (left_.empty()) fail("modifier missing");
    std::string s(left_.front());
    left_.erase(left_.begin());
    return s;
}
void Decoder::expect_operands(size_t least, size_t most) const {
    if (in.operands.size() < least || in.operands.size() > most) fail("wrong number of operands");
}
void Decoder::expect_width(size_t i, Type type) const {
    const Operand& o = operand(i);
    if (o.kind == OperandKind::reg && o.reg >= 0 && size_of(function.registers[o.reg].type) != size_of(type))
        fail("register " + function.registers[o.reg].name + " has the wrong width");
}
const Operand& Decoder::operand(size_t i) const {
    if (i >= in.operands.size()) fail("operand missing");
    return in.operands[i];
}
bool Decoder::in_entry() const { return function.entry; }

int Decoder::register_bytes(const Operand& o) const {
    if (o.kind != OperandKind::reg || o.reg < 0) return 0;
    int n = size_of(function.registers[o.reg].type);
    return n == 16 ? 16 : n == 8 ? 8 : 4;
}
uint16_t Decoder::id_of(int32_t reg) {
    const ImageBuilder::Frame& f = builder.frames.at(function_index);
    Type t = function.registers[reg].type;
    uint32_t r = uint32_t(function.row_of[reg]);
    uint32_t i = t == Type::pred   ? 1 + builder.image.rows64 + builder.image.rows32 + f.row_pred + r
                 : size_of(t) >= 8 ? 1 + f.row64 + r
                                   : 1 + builder.image.rows64 + f.row32 + r;
    if (i >= kNoId) fail("too many registers");
    return uint16_t(i);
}
uint16_t Decoder::id(const Operand& o) { return o.kind == OperandKind::reg && o.reg >= 0 ? id_of(o.reg) : kNoId; }

uint32_t Decoder::raw(const Operand& o, int bytes, Type type) {
    const KernelImage& image = builder.image;
    switch (o.kind) {
        case OperandKind::reg: {
            const ImageBuilder::Frame& f = builder.frames.at(function_index);
            Type t = function.registers[o.reg].type;
            uint32_t r = uint32_t(function.row_of[o.reg]);
            if (t == Type::pred) {
                if (bytes != 0) fail("predicate where a register is needed");
                return image.rows64 * 256 + image.rows32 * 128 + (f.row_pred + r) * 4;
            }
            if (bytes == 0) fail("register where a predicate is needed");
            if ((size_of(t) == 8 ? 8 : 4) != bytes)
                fail("register " + function.registers[o.reg].name + " has the wrong width");
            return bytes == 8 ? (f.row64 + r) * 256 : image.rows64 * 256 + (f.row32 + r) * 128;
        }
        case OperandKind::imm: {
            uint64_t v = float_immediate(o, type);
            if (size_of(type) < 4 && size_of(type) > 0 && bytes == 4) v &= (uint64_t(1) << 8 * size_of(type)) - 1;
            return bytes == 8 ? builder.constant64(v) : builder.constant32(uint32_t(v));
        }
        case OperandKind::symbol: {
            uint64_t v = symbol_value(o);
            return bytes == 8 ? builder.constant64(v) : builder.constant32(uint32_t(v));
        }
        case OperandKind::special: {
            uint16_t unused;
            return builder.special(o.special, bytes == 8, &unused);
        }
        default:
            fail("operand of an unexpected kind");
    }
}
uint32_t Decoder::source(const Operand& o, int bytes, Type type) {
    uint32_t r = raw(o, bytes, type);
    uint16_t i = id(o);
    if (i != kNoId)
        sources_.push_back(i);
    else if (keep_constants)
        sources_.push_back(0);
    return r;
}
uint32_t Decoder::source(size_t i, int bytes, Type type) { return source(operand(i), bytes, type); }
uint32_t Decoder::must(const Operand& o, int bytes, Type type) {
    uint32_t r = raw(o, bytes, type);
    uint16_t i = id(o);
    if (i != kNoId) musts_.push_back(i);
    return r;
}
uint32_t Decoder::destination(const Operand& o, int bytes) {
    if (o.kind == OperandKind::sink || (o.kind == OperandKind::reg && o.reg < 0)) return builder.scratch_row;
    if (o.kind != OperandKind::reg) fail("destination is no register");
    uint32_t r = raw(o, bytes);
    if (!own_destinations) destinations_.push_back(id(o));
    return r;
}
uint32_t Decoder::destination(size_t i, int bytes) { return destination(operand(i), bytes); }
uint32_t Decoder::predicate(const Operand& o, bool* negated) {
    *negated = o.negated;
    if (o.kind == OperandKind::imm) {
        if (keep_constants) sources_.push_back(0);
        return builder.constant32(o.imm ? ~0u : 0);
    }
    return source(o, 0);
}
uint32_t Decoder::predicate(size_t i, bool* negated) { return predicate(operand(i), negated); }
uint32_t Decoder::predicate_destination(size_t i) {
    const Operand& o = operand(i);
    if (o.kind == OperandKind::sink || (o.kind == OperandKind::reg && o.reg < 0)) return kNoRow;
    if (o.kind != OperandKind::reg) fail("destination is no register");
    uint32_t r = raw(o, 0);
    if (!own_destinations) destinations_.push_back(id(o));
    return r;
}
uint32_t Decoder::predicate_destination_second(size_t i) {
    const Operand& o = operand(i);
    pair_taken_ = true;
    if (o.reg2 < 0) return kNoRow;
    Operand second;
    second.kind = OperandKind::reg;
    second.reg = o.reg2;
    uint32_t r = raw(second, 0);
    if (!own_destinations) destinations_.push_back(id(second));
    return r;
}
bool Decoder::is_immediate(size_t i) const { return operand(i).kind == OperandKind::imm; }
uint64_t Decoder::immediate(size_t i) const {
    if (!is_immediate(i)) fail("operand must be an immediate");
    return operand(i).imm;
}

Space Decoder::symbol_space(const Operand& o) const {
    switch (o.symbol_scope) {
        case scope_module:
            return builder.module.variables[o.symbol].space;
        case scope_param:
            return function.entry ? Space::param : Space::local;
        case scope_local: {
            Space s = function.locals[o.symbol].space;
            return s == Space::param ? Space::local : s;
        }
        default:
            return Space::global;
    }
}
uint64_t Decoder::symbol_value(const Operand& o) const {
    const ImageBuilder::Frame& f = builder.frames.at(function_index);
    uint64_t base = 0;
    switch (o.symbol_scope) {
        case scope_module: {
            const Variable& v = builder.module.variables[o.symbol];
            base = v.space == Space::shared ? shared_base(0) + builder.shared_offsets.at(v.name)
                                            : builder.variable_address(v);
            break;
        }
        case scope_param:
            base = f.params[o.symbol] + (function.entry ? 0 : kLocalSkip);
            break;
        case scope_local: {
            const Variable& v = function.locals[o.symbol];
            base = f.locals[o.symbol] + (v.space == Space::shared ? shared_base(0) : kLocalSkip);
            break;
        }
        default:
            fail("address of a function");
    }
    return base + o.imm;
}

void Decoder::address_of(size_t i, Space space, bool checked) {
    const Operand& o = operand(i);
    if (o.kind != OperandKind::address) fail("operand is no address");
    if (!o.elements.empty()) fail("address with coordinates");
    if (o.reg >= 0) {
        Operand base;
        base.kind = OperandKind::reg;
        base.reg = o.reg;
        int bytes = register_bytes(base);
        op.a = checked ? must(base, bytes) : raw(base, bytes);
        op.imm = o.imm;
        if (bytes == 4) op.flags |= kAddress32;
        if (space == Space::param && !function.entry) space = Space::local;
    } else if (o.symbol >= 0) {
        Space s = symbol_space(o);
        if (space == Space::param) space = s;  // a device function's parameters live in its frame
        if (space == Space::generic && (s == Space::shared || s == Space::local)) space = s;
        if (space != s && space != Space::generic) fail("symbol of another space");
        op.a = builder.constant64(symbol_value(o));
        op.imm = 0;
    } else {
        op.a = builder.constant64(o.imm);
        op.imm = 0;
    }
    op.space = uint8_t(space);
}

OpExtra& Decoder::extra() {
    if (!op.x) {
        builder.image.extras.push_back(std::make_unique<OpExtra>());
        op.x = builder.image.extras.back().get();
    }
    return const_cast<OpExtra&>(*op.x);
}

void Decoder::finish(Class cls) {
    if (!left_.empty()) fail("modifier ." + std::string(left_.front()));
    if (!op.fn) fail("no handler");
    if (!pair_taken_ && !in.operands.empty() && in.operands[0].reg2 >= 0) fail("second destination");
    op.cls = cls;
    if (sources_.size() > 255 || destinations_.size() > 255) fail("too many operands");
    op.sources = uint8_t(sources_.size());
    op.musts = uint8_t(musts_.size());
    op.destinations = uint8_t(destinations_.size());
    size_t n = sources_.size() + musts_.size() + destinations_.size();
    if (n == 0) return;
    auto list = std::make_unique<uint16_t[]>(n);
    uint16_t* at = list.get();
    for (uint16_t i : sources_) *at++ = i;
    for (uint16_t i : musts_) *at++ = i;
    for (uint16_t i : destinations_) *at++ = i;
    op.ids = list.get();
    builder.image.id_lists.push_back(std::move(list));
}

}  // namespace vgpu
