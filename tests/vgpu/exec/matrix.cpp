// ldmatrix and stmatrix: 8x8 matrices of 16-bit elements (or 8-bit pairs) between shared memory and fragments.
// Row r of matrix j lies at the address that lane 8j + r gives; lane l holds elements (l / 4, 2 (l % 4) + {0, 1}), and
// with .trans elements (2 (l % 4) + {0, 1}, l / 4).
#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

// count: matrices; mode bit 0: .trans
template <bool kStore>
Next matrix(Warp& w, const Op& o, uint32_t mask) {
    Group& g = w.groups[w.current];
    if (mask != ~0u) {
        if (w.live == ~0u && g.mask != ~0u) {
            g.state = State::collect;
            g.need = ~0u;
            return Next::blocked;
        }
        report(w, o, first_lane(mask), "collective", "ldmatrix and stmatrix need all 32 lanes", true);
        return Next::failed;
    }
    alignas(32) uint64_t address[32];
    request_addresses(w, o, address);
    if (Space(o.space) == Space::generic)
        for (uint64_t& a : address) {
            if ((a & kTagMask) != kSharedTag) {
                report(w, o, 0, "oob", "generic address " + hex(a) + " is not in shared memory", true);
                return Next::failed;
            }
            a &= ~kTagMask;
        }
    uint32_t lanes = o.count == 4 ? ~0u : (1u << 8 * o.count) - 1;
    if (w.worker->definedness) {  // only the lanes whose addresses count
        uint32_t bad = lanes & ~read_defined(w, o.x->ids[4]);
        if (bad)
            report(w, o, first_lane(bad), "undefined",
                   "a value that was never written is used as an address or operand");
    }
    Access a;
    a.bytes = a.align = 16;
    a.write = kStore;
    Target t;
    if (!access_shared(w, o, lanes, address, a, t)) return Next::failed;
    for (uint32_t j = 0; j < o.count; ++j) {
        uint32_t* r = row<uint32_t>(w, o.x->rows[j]);
        if (kStore) {
            uint32_t defined = read_defined(w, o.x->ids[j]);
            for (int l = 0; l < 32; ++l)
                for (int h = 0; h < 2; ++h) {
                    int at_row = o.mode & 1 ? 2 * (l % 4) + h : l / 4, at_col = o.mode & 1 ? l / 4 : 2 * (l % 4) + h;
                    uint16_t v = uint16_t(r[l] >> 16 * h);
                    std::memcpy(t.data[8 * j + at_row] + 2 * at_col, &v, 2);
                    uint8_t s = defined >> l & 1 ? kDefined : 0;
                    std::memset(t.state[8 * j + at_row] + 2 * at_col, s, 2);
                }
            continue;
        }
        alignas(32) uint16_t m[8][8], s[8][8];
        for (int k = 0; k < 8; ++k) std::memcpy(m[k], t.data[8 * j + k], 16), std::memcpy(s[k], t.state[8 * j + k], 16);
        uint32_t defined = 0;
        if (o.mode & 1) {
            for (int l = 0; l < 32; ++l) {
                int k = 2 * (l % 4), c = l / 4;
                r[l] = m[k][c] | uint32_t(m[k + 1][c]) << 16;
                defined |= uint32_t((s[k][c] & s[k + 1][c] & 0x0101) == 0x0101) << l;
            }
        } else {
            std::memcpy(r, m, 128);
            uint32_t state[32];
            std::memcpy(state, s, 128);
            for (uint32_t l = 0; l < 32; ++l) defined |= uint32_t((state[l] & 0x01010101u) == 0x01010101u) << l;
        }
        write_defined(w, o.x->ids[j], ~0u, defined);
    }
    return Next::step;
}

}  // namespace

void decode_ldmatrix(Decoder& d) {
    bool store = d.in.parts[0] == "stmatrix";
    for (std::string_view part : {"sync", "aligned", "m8n8"}) d.take(part);
    int count = d.take_one({"x1", "x2", "x4"});
    if (d.take("trans")) d.op.mode = 1;
    bool shared = d.take_one({"shared", "shared::cta"}) >= 0;
    d.take_type();
    d.expect_operands(2, 2);
    d.op.count = uint8_t(1 << count);
    OpExtra& x = d.extra();
    const Operand& value = d.operand(store ? 1 : 0);
    const std::vector<Operand>& elements = value.elements;
    if (elements.size() != d.op.count) d.fail("vector of another length");
    x.ids.assign(5, kNoId);
    for (size_t i = 0; i < elements.size(); ++i) {
        x.rows.push_back(d.raw(elements[i], 4));
        x.ids[i] = d.id(elements[i]);
    }
    d.address_unchecked(store ? 0 : 1, shared ? Space::shared : Space::generic);
    const Operand& at = d.operand(store ? 0 : 1);
    if (at.reg >= 0) x.ids[4] = d.id_of(at.reg);
    d.set(store ? matrix<true> : matrix<false>);
}

}  // namespace vgpu
