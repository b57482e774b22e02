// Cache hints: without effect on values.
#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

Next hint(Warp&, const Op&, uint32_t) { return Next::step; }

// A policy is opaque: a number that nothing reads.
Next policy(Warp& w, const Op& o, uint32_t mask) {
    uint64_t* d = row<uint64_t>(w, o.d);
    VGPU_FOR_LANES(i, mask) d[i] = o.pc;
    return Next::step;
}

}  // namespace

void decode_prefetch(Decoder& d) {
    const std::string& name = d.in.parts[0];
    while (!d.peek().empty()) d.take_next();
    d.set(hint);
    if (name == "prefetch" || name == "prefetchu") return d.expect_operands(1, 1);
    d.expect_operands(2, 2);
    if (d.immediate(1) != 128) d.fail("the size is 128 bytes");
}

void decode_createpolicy(Decoder& d) {
    const int form = d.take_one({"fractional", "range", "cvt"});
    d.take_type();
    while (!d.peek().empty()) d.take_next();
    const size_t most[] = {2, 4, 2}, least[] = {1, 4, 2};
    d.expect_operands(least[form], most[form]);
    if (form == 0 && d.operands() > 1) d.source(1, 4, Type::f32);
    if (form == 1) d.source(2, 4), d.source(3, 4);
    if (form == 2 && d.register_bytes(d.operand(1)) != 8) d.fail("the policy comes in a register");
    d.op.d = d.destination(0, 8);
    d.set(policy);
}

}  // namespace vgpu
