#include <cstring>

#include "kernels/embed/embed.h"

namespace ivk {
namespace IVK_ISA {
namespace {

void embed_rows(const EmbedParams& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = p.source[i];
        const char* from = row >= 0 ? p.table + row * p.table_stride : p.visual + (-1 - row) * p.visual_stride;
        std::memcpy(p.y + i * p.row_bytes, from, p.row_bytes);
    }
}

}  // namespace

const EmbedTable embed_table = {embed_rows};

}  // namespace IVK_ISA
}  // namespace ivk
