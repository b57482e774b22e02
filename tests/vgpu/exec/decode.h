// What the decode functions of the opcode classes see: one PTX instruction, its modifiers and operands.
#pragma once

#include <functional>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "exec/op.h"

namespace vgpu {

// Thrown for an opcode, modifier or operand that is not known; becomes a report "unsupported" when the kernel is
// launched.
class DecodeError : public std::runtime_error {
  public:
    explicit DecodeError(const std::string& what) : std::runtime_error(what) {}
};

// The kernel under construction: rows, constants, layout of symbols.
struct ImageBuilder {
    KernelImage& image;
    const Module& module;
    std::function<uint64_t(const Variable&)> variable_address;  // .global and .const variables of the module
    const std::vector<int>* function_order = nullptr;
    struct Frame {                                    // of one function
        uint32_t row64 = 0, row32 = 0, row_pred = 0;  // first rows
        std::vector<uint64_t> params, locals;         // offsets: params followed by returns
        uint32_t code = 0;
        std::vector<uint32_t> pc_of;  // instruction index -> pc
    };
    std::unordered_map<int, Frame> frames;
    std::unordered_map<std::string, uint64_t> shared_offsets;  // module-level .shared
    std::unordered_map<uint64_t, uint32_t> constants32, constants64;
    uint32_t constant32(uint32_t bits);
    uint32_t constant64(uint64_t bits);
    uint32_t special(const std::string& name, bool wide, uint16_t* id);
    uint32_t scratch_row = 0, scratch_pred = 0;
};

class Decoder {
  public:
    Decoder(ImageBuilder& b, int function, const Instruction& in, Op& op);

    // Modifiers: every dot part after the first must be taken by someone, else finish() throws.
    bool take(std::string_view part);
    int take_one(std::initializer_list<std::string_view> parts);  // index, or -1
    Type take_type();  // first part left that names a type; throws if there is none
    bool has_type() const;
    std::string_view peek(size_t i = 0) const;  // i-th part not taken yet, "" if none
    std::string take_next();
    [[noreturn]] void fail(const std::string& why) const;
    void expect_operands(size_t least, size_t most) const;
    void expect_width(size_t i, Type type) const;  // of a register; only ld, st and cvt may have wider ones
    size_t operands() const { return in.operands.size(); }
    const Operand& operand(size_t i) const;

    // Rows of operands; bytes is 4 (registers of up to 32 bits) or 8. Sources are checked or propagated for
    // definedness: source() propagates, must() demands (addresses, branch conditions).
    uint32_t source(size_t i, int bytes, Type type = Type::b32);
    uint32_t source(const Operand&, int bytes, Type type = Type::b32);
    uint32_t must(const Operand&, int bytes, Type type = Type::b32);
    uint32_t destination(size_t i, int bytes);
    uint32_t destination(const Operand&, int bytes);
    uint32_t predicate(size_t i, bool* negated);  // source
    uint32_t predicate(const Operand&, bool* negated);
    uint32_t predicate_destination(size_t i);
    uint32_t predicate_destination_second(size_t i);  // %r|%p or %p|%q; kNoRow if absent
    uint16_t id(const Operand&);                      // definedness id of a register operand, kNoId for others
    uint16_t id_of(int32_t reg);
    // Row without definedness bookkeeping (the handler does its own).
    uint32_t raw(const Operand&, int bytes, Type type = Type::b32);
    int register_bytes(const Operand&) const;  // 4 or 8; immediates: 0
    uint64_t immediate(size_t i) const;        // throws if it is not one
    bool is_immediate(size_t i) const;
    // [reg + imm] or [symbol + imm] -> op.a (row) and op.imm; kAddress32 in flags for 32-bit rows.
    void address(size_t i, Space space) { address_of(i, space, true); }
    void address_unchecked(size_t i, Space space) { address_of(i, space, false); }  // the handler checks definedness
    uint64_t symbol_value(const Operand&) const;  // address in its own space, with the operand's offset
    Space symbol_space(const Operand&) const;
    bool in_entry() const;

    OpExtra& extra();
    void set(Handler h) { op.fn = h; }
    void finish(Class cls);  // writes the definedness ids, checks that all modifiers were taken

    ImageBuilder& builder;
    const Function& function;
    const int function_index;
    const Instruction& in;
    Op& op;
    bool keep_constants = false;    // constants stay in the list of sources, as id 0 (always defined)
    bool own_destinations = false;  // the handler writes definedness of its destinations itself

  private:
    bool pair_taken_ = false;
    void address_of(size_t i, Space space, bool checked);
    std::vector<std::string_view> left_;
    std::vector<uint16_t> sources_, musts_, destinations_;
};

// Throws DecodeError unless the opcode has these modifiers with these types on the part of the module's .target.
void check_form(const Instruction& in, const std::string& target);

using DecodeFunction = void (*)(Decoder&);
struct OpcodeRow {
    Class cls;
    DecodeFunction decode;
};
// The one opcode table: first dot part -> class and decode function. Null if unknown.
const OpcodeRow* find_opcode(std::string_view name);
std::vector<std::string> opcode_names();

uint64_t float_immediate(const Operand&, Type type);

}  // namespace vgpu
