// Cache hints: accepted in the ISA's forms, and without effect on values. A form it has not is refused as elsewhere.
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
    d.set(hint);
    if (name == "prefetchu") {
        if (!d.take("L1")) d.fail("cache level");
        return d.expect_operands(1, 1);
    }
    const int space = name == "prefetch" ? d.take_one({"global", "local"}) : d.take("global") ? 0 : -1;
    if (name == "prefetch") {
        if (d.take_one({"L1", "L2"}) < 0 && (space != 0 || d.take_one({"L2::evict_last", "L2::evict_normal"}) < 0))
            d.fail("cache level");
        return d.expect_operands(1, 1);
    }
    if (!d.take(name == "discard" ? "L2" : "L2::evict_normal")) d.fail("cache level");
    d.expect_operands(2, 2);
    if (d.immediate(1) != 128) d.fail("the size is 128 bytes");
}

void decode_createpolicy(Decoder& d) {
    const int form = d.take_one({"fractional", "range", "cvt"});
    if (form < 0) d.fail("form");
    if (form == 1) d.take("global");
    const bool primary =
        form == 2 ? d.take("L2")
                  : d.take_one({"L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged"}) >= 0;
    if (!primary) d.fail("cache level");
    if (form != 2) d.take_one({"L2::evict_first", "L2::evict_unchanged"});
    if (d.take_type() != Type::b64) d.fail("type");
    const size_t most[] = {2, 4, 2}, least[] = {1, 4, 2};
    d.expect_operands(least[form], most[form]);
    d.op.d = d.destination(0, 8);
    d.set(policy);
}

}  // namespace vgpu
