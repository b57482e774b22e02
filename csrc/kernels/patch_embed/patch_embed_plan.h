// How the blocks of CUDA's patch embedding share y, and the rule that chooses. Bits do not depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ivk {

struct PatchEmbedPlan {
    int columns = 0;  // of y that a block multiplies at a time, 128 or 256; 0: the rule's choice
    int each = 0;     // so many times, one after the other, with one reading of the pixels; 0: the rule's choice
};

constexpr int kPanelRows = 64;     // of the patch matrix, of a block
constexpr int kPixelColumns = 80;  // of y whose products take as long as a block's pixels, about
constexpr int kPaceOf128 = 130;    // percent of the time of 256: four warps alone on a multiprocessor
constexpr int kMostEach = 64;

inline int64_t patch_embed_panels(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
inline int64_t patch_embed_blocks(PatchEmbedPlan plan, int64_t rows, int64_t width) {
    const int64_t at_once = int64_t{plan.columns} * plan.each;
    return patch_embed_panels(rows) * ((width + at_once - 1) / at_once);
}

// Time of the busiest multiprocessor, which holds one block, in columns of y for one panel.
inline int64_t patch_embed_cost(PatchEmbedPlan plan, int64_t rows, int64_t width, int multiprocessors) {
    const int64_t rounds = (patch_embed_blocks(plan, rows, width) + multiprocessors - 1) / multiprocessors;
    return rounds *
           (int64_t{plan.columns} * plan.each * (plan.columns == 128 ? kPaceOf128 : 100) / 100 + kPixelColumns);
}

// The plan with the least cost among those that `asked` leaves open; wide: 256 columns are possible.
inline PatchEmbedPlan choose_patch_embed_plan(int64_t rows, int64_t width, int multiprocessors, bool wide,
                                              PatchEmbedPlan asked = {}) {
    PatchEmbedPlan best;
    for (int columns : {128, 256}) {
        if (columns == 256 ? !wide || asked.columns == 128 : wide && asked.columns == 256) continue;
        const int tiles = static_cast<int>((width + columns - 1) / columns);
        const int least = asked.each ? asked.each : 1, most = asked.each ? asked.each : std::min(tiles, kMostEach);
        for (int each = least; each <= most; ++each)
            if (best.columns == 0 || patch_embed_cost({columns, each}, rows, width, multiprocessors) <
                                         patch_embed_cost(best, rows, width, multiprocessors))
                best = {columns, each};
    }
    return best;
}

}  // namespace ivk
