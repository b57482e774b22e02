#include <sstream>

#include "core/check.h"
#include "kernels/embed/embed.h"

namespace ivk {

EmbedParams embed_problem(const TensorView& ids, const TensorView& table, const TensorView& visual, const TensorView& y,
                          std::optional<int64_t> image_id, std::vector<int64_t>& source) {
    require(ids.ndim == 1 && ids.dtype == DType::i64, "embed_tokens: input_ids is ", ids, "; allowed: int64");
    require(table.ndim == 2 && table.shape[1] >= 1, "embed_tokens: table is ", table, "; allowed: [V, H] with H >= 1");
    require(table.dtype == DType::f32 || table.dtype == DType::bf16 || table.dtype == DType::f16,
            "embed_tokens: table is ", table, "; allowed dtypes: float32, bfloat16, float16");
    const int64_t n = ids.shape[0], rows = table.shape[0], cols = table.shape[1];
    for (const TensorView* v : {&table, &visual}) {
        if (!v->defined()) continue;
        const char* name = v == &table ? "table" : "visual";
        require(v->ndim == 2 && v->shape[1] == cols && v->dtype == table.dtype, "embed_tokens: ", name, " is ", *v,
                "; allowed: rows of the table, ", table);
        require((cols == 1 || v->stride[1] == 1) && (v->shape[0] <= 1 || v->stride[0] >= cols), "embed_tokens: ", name,
                " is ", *v, "; allowed: contiguous rows that do not overlap");
    }
    require(y.ndim == 2 && y.shape[0] == n && y.shape[1] == cols && y.dtype == table.dtype && y.contiguous(),
            "embed_tokens: result is ", y, "; allowed: contiguous [", n, ", ", cols, "] of the table's dtype");
    require(!overlap(y, table) && !overlap(y, visual), "embed_tokens: the result overlaps an input; allowed: apart");

    const int64_t* id = ids.as<const int64_t>();
    source.resize(static_cast<size_t>(n));
    int64_t images = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t token = id[i * ids.stride[0]];
        if (image_id.has_value() && token == *image_id) {
            source[i] = -1 - images++;
        } else {
            require(token >= 0 && token < rows, "embed_tokens: input_ids holds ", token, " at position ", i,
                    "; allowed: 0 to ", rows - 1, ", the rows of the table");
            source[i] = token;
        }
    }
    const int64_t visual_rows = visual.defined() ? visual.shape[0] : 0;
    require(images == visual_rows, "embed_tokens: ", images, " image positions (id ", image_id.value_or(-1), ") for ",
            visual_rows, " visual rows; allowed: equal numbers");

    const int64_t size = size_of(table.dtype);
    return {source.data(),
            table.as<const char>(),
            visual.as<const char>(),
            y.as<char>(),
            cols * size,
            n,
            table.stride[0] * size,
            visual.stride[0] * size,
            table.dtype};
}

std::string describe(const EmbedParams& p) {
    std::ostringstream text;
    text << "embedding of " << p.rows << " rows of " << p.row_bytes << " bytes of " << name_of(p.dtype)
         << ", row strides " << p.table_stride << " (table) and " << p.visual_stride
         << " (visual) bytes, addresses table " << static_cast<const void*>(p.table) << " visual "
         << static_cast<const void*>(p.visual) << " y " << static_cast<const void*>(p.y);
    return text.str();
}

}  // namespace ivk
