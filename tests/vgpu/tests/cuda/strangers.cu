// Unmodified CUTLASS 2.x GEMMs for sm_80, one per STRANGER: 0 bf16 + GELU, 1 f16 split over k in series, 2 tf32, 3 s8
// with saturation, 4 f16 with both operands "the other way round" (transposed ldmatrix).
#include <cutlass/epilogue/thread/linear_combination_clamp.h>
#include <cutlass/epilogue/thread/linear_combination_gelu.h>
#include <cutlass/gemm/device/gemm.h>
#include <cutlass/gemm/device/gemm_universal.h>

using Row = cutlass::layout::RowMajor;
using Column = cutlass::layout::ColumnMajor;
template <int M, int N, int K>
using Shape = cutlass::gemm::GemmShape<M, N, K>;
using Swizzle = cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>;

// A and B of one type, 16 bytes of D at a time.
template <class T, class LayoutA, class LayoutB, class D, class Sum, class Tile, class Warp, class Mma, int Stages,
          bool Serial = false>
using Stranger = cutlass::gemm::device::Gemm<T, LayoutA, T, LayoutB, D, Row, Sum, cutlass::arch::OpClassTensorOp,
                                             cutlass::arch::Sm80, Tile, Warp, Mma,
                                             cutlass::epilogue::thread::LinearCombination<D, 16 / sizeof(D), Sum, Sum>,
                                             Swizzle, Stages, 16 / sizeof(T), 16 / sizeof(T), Serial>;

#if STRANGER == 0
using Element = cutlass::bfloat16_t;
using Gemm = cutlass::gemm::device::GemmUniversal<
    Element, Row, Element, Column, Element, Row, float, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80,
    Shape<128, 128, 32>, Shape<64, 64, 32>, Shape<16, 8, 16>,
    cutlass::epilogue::thread::LinearCombinationGELU<Element, 8, float, float>, Swizzle, 4>;
#define UNIVERSAL 1
#elif STRANGER == 1
using Element = cutlass::half_t;
using Gemm =
    Stranger<Element, Row, Column, Element, float, Shape<64, 64, 32>, Shape<32, 32, 32>, Shape<16, 8, 16>, 3, true>;
#elif STRANGER == 2
using Element = float;
using Gemm = Stranger<Element, Row, Column, Element, float, Shape<64, 64, 16>, Shape<32, 32, 16>, Shape<16, 8, 8>, 4>;
#elif STRANGER == 3
using Element = int8_t;
using Gemm =
    Stranger<Element, Row, Column, int32_t, int32_t, Shape<64, 64, 64>, Shape<32, 32, 64>, Shape<16, 8, 32>, 3>;
#else
using Element = cutlass::half_t;
using Gemm = Stranger<Element, Column, Row, Element, float, Shape<64, 64, 32>, Shape<32, 32, 32>, Shape<16, 8, 16>, 3>;
#endif

using Out = typename Gemm::ElementC;
using Compute = typename Gemm::EpilogueOutputOp::ElementCompute;

// D = f(alpha A B + beta C); leading dimensions of dense matrices. 0, or CUTLASS's status.
extern "C" int run_gemm(int m, int n, int k, const void* a, const void* b, const void* c, void* d, float alpha,
                        float beta, int splits, void* workspace) {
    int lda = STRANGER == 4 ? m : k, ldb = STRANGER == 4 ? n : k;
    auto* pa = static_cast<const Element*>(a);
    auto* pb = static_cast<const Element*>(b);
    auto* pc = static_cast<const Out*>(c);
#ifdef UNIVERSAL
    typename Gemm::Arguments args(cutlass::gemm::GemmUniversalMode::kGemm, {m, n, k}, splits,
                                  {Compute(alpha), Compute(beta)}, pa, pb, pc, d, int64_t(m) * k, int64_t(n) * k,
                                  int64_t(m) * n, int64_t(m) * n, lda, ldb, n, n);
#else
    typename Gemm::Arguments args({m, n, k}, {pa, lda}, {pb, ldb}, {pc, n}, {static_cast<Out*>(d), n},
                                  {Compute(alpha), Compute(beta)}, splits);
#endif
    Gemm gemm;
    cutlass::Status status = gemm.can_implement(args);
    if (status == cutlass::Status::kSuccess) status = gemm.initialize(args, workspace);
    if (status == cutlass::Status::kSuccess) status = gemm();
    return int(status);
}
