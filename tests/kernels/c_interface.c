/* A program that knows neither Python nor torch: RMSNorm, LayerNorm with a residual, products and pixel shuffle
 * through ivk.h.
 */
#include <internvl_kernels/ivk.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the CUDA runtime, so that the program needs none of its headers. */
int cudaMalloc(void** address, size_t bytes);
int cudaFree(void* address);
int cudaMemcpy(void* to, const void* from, size_t bytes, int kind);

enum { ROWS = 3, COLS = 100, SIDE = 4, WIDTH = 8 };
static int failures = 0;

static void expect(int good, const char* what) {
    if (good) return;
    fprintf(stderr, "failed: %s; last error: %s\n", what, ivk_last_error());
    ++failures;
}

static float* on_device(const float* values, size_t count) {
    void* address = NULL;
    if (cudaMalloc(&address, count * sizeof(float)) != 0) exit(3);
    if (values != NULL && cudaMemcpy(address, values, count * sizeof(float), 1) != 0) exit(3);
    return address;
}

static void read_back(float* to, const float* from, size_t count) {
    if (cudaMemcpy(to, from, count * sizeof(float), 2) != 0) exit(3);
}

static ivk_tensor tensor(void* data, int ndim, int64_t a, int64_t b, int64_t c) {
    ivk_tensor t = {data, IVK_FLOAT32, ndim, {a, b, c}, {0}};
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; --d) {
        t.stride[d] = step;
        step *= t.shape[d];
    }
    return t;
}

static void norms(void) {
    float x[ROWS * COLS], branch[ROWS * COLS], weight[COLS], h[ROWS * COLS], y[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; ++i) {
        x[i] = sinf(0.37f * i) * 3.0f;
        branch[i] = cosf(0.11f * i);
    }
    for (int i = 0; i < COLS; ++i) weight[i] = 1.0f + 0.01f * i;
    ivk_tensor dx = tensor(on_device(x, ROWS * COLS), 2, ROWS, COLS, 0);
    ivk_tensor db = tensor(on_device(branch, ROWS * COLS), 2, ROWS, COLS, 0);
    ivk_tensor dw = tensor(on_device(weight, COLS), 1, COLS, 0, 0);
    ivk_tensor dh = tensor(on_device(NULL, ROWS * COLS), 2, ROWS, COLS, 0);
    ivk_tensor dy = tensor(on_device(NULL, ROWS * COLS), 2, ROWS, COLS, 0);

    expect(ivk_norm(&dx, NULL, NULL, &dw, NULL, NULL, &dy, 1e-6f, 1, NULL) == IVK_OK, "RMSNorm runs");
    read_back(y, dy.data, ROWS * COLS);
    for (int r = 0; r < ROWS; ++r) {
        double squares = 0.0, worst = 0.0;
        for (int c = 0; c < COLS; ++c) squares += (double)x[r * COLS + c] * x[r * COLS + c];
        for (int c = 0; c < COLS; ++c)
            worst = fmax(worst, fabs(y[r * COLS + c] - x[r * COLS + c] / sqrt(squares / COLS + 1e-6) * weight[c]));
        expect(worst < 1e-5, "RMSNorm's values");
    }
    expect(ivk_norm(&dx, &db, NULL, &dw, NULL, &dh, &dy, 1e-6f, 0, NULL) == IVK_OK, "add_norm runs");
    read_back(h, dh.data, ROWS * COLS);
    read_back(y, dy.data, ROWS * COLS);
    for (int r = 0; r < ROWS; ++r) {
        double mean = 0.0, variance = 0.0, worst = 0.0;
        for (int c = 0; c < COLS; ++c) mean += h[r * COLS + c] / (double)COLS;
        for (int c = 0; c < COLS; ++c) variance += pow(h[r * COLS + c] - mean, 2.0) / COLS;
        for (int c = 0; c < COLS; ++c) {
            const int i = r * COLS + c;
            worst = fmax(worst, fabs(y[i] - (h[i] - mean) / sqrt(variance + 1e-6) * weight[c]));
            expect(h[i] == x[i] + branch[i], "the sum");
        }
        expect(worst < 1e-5, "LayerNorm's values");
    }
    ivk_tensor host = dx;
    host.data = x;
    expect(ivk_norm(&host, NULL, NULL, &dw, NULL, NULL, &dy, 1e-6f, 1, NULL) == IVK_UNSUPPORTED, "host memory refused");
    expect(strstr(ivk_last_error(), "x at") != NULL && strstr(ivk_last_error(), "host memory") != NULL, "its reason");
    host.data = NULL;
    expect(ivk_norm(&host, NULL, NULL, &dw, NULL, NULL, &dy, 1e-6f, 1, NULL) == IVK_UNSUPPORTED, "null refused");
    dw.shape[0] = COLS - 1;
    expect(ivk_norm(&dx, NULL, NULL, &dw, NULL, NULL, &dy, 1e-6f, 1, NULL) == IVK_UNSUPPORTED, "wrong weight refused");
    expect(strstr(ivk_last_error(), "weight is float32[99]") != NULL, "its reason");
    cudaFree(dx.data), cudaFree(db.data), cudaFree(dw.data), cudaFree(dh.data), cudaFree(dy.data);
}

static void shuffle(void) {
    enum { PATCHES = SIDE * SIDE, SIZE = (1 + PATCHES) * WIDTH, TOKEN = 4 * WIDTH };
    float x[SIZE], y[PATCHES * WIDTH];
    for (int i = 0; i < SIZE; ++i) x[i] = (float)i;
    ivk_tensor dx = tensor(on_device(x, SIZE), 3, 1, 1 + PATCHES, WIDTH);
    ivk_tensor dy = tensor(on_device(NULL, PATCHES * WIDTH), 3, 1, PATCHES / 4, TOKEN);
    expect(ivk_pixel_shuffle(&dx, NULL, NULL, &dy, SIDE, SIDE, 2, 0, 1, 1e-5f, NULL) == IVK_OK, "pixel shuffle runs");
    read_back(y, dy.data, PATCHES * WIDTH);
    for (int r = 0; r < SIDE; ++r)
        for (int c = 0; c < SIDE; ++c)
            for (int i = 0; i < WIDTH; ++i) {
                const int token = r / 2 * (SIDE / 2) + c / 2, chunk = r % 2 * 2 + c % 2;
                expect(y[token * TOKEN + chunk * WIDTH + i] == x[(1 + r * SIDE + c) * WIDTH + i], "its order");
            }
    expect(ivk_pixel_shuffle(&dx, NULL, NULL, &dy, 3, SIDE, 2, 0, 1, 1e-5f, NULL) == IVK_UNSUPPORTED, "3 rows refused");
    cudaFree(dx.data), cudaFree(dy.data);
}

/* Small whole numbers in bfloat16: the upper half of a float. */
static void* halves(const float* values, size_t count) {
    uint16_t* bits = malloc(count * sizeof *bits);
    for (size_t i = 0; i < count; ++i) memcpy(&bits[i], (const char*)&values[i] + 2, sizeof *bits);
    void* address = NULL;
    if (cudaMalloc(&address, count * sizeof *bits) != 0 || cudaMemcpy(address, bits, count * sizeof *bits, 1) != 0)
        exit(3);
    free(bits);
    return address;
}

static void products(void) {
    enum { M = 5, N = 24, K = 40 };
    float x[M * K], weight[N * K], residual[M * N], y[M * N];
    for (int i = 0; i < M * K; ++i) x[i] = (float)(i % 7 - 3);
    for (int i = 0; i < N * K; ++i) weight[i] = (float)(i % 5 - 2);
    for (int i = 0; i < M * N; ++i) residual[i] = 70000.0f + i;
    ivk_tensor dx = tensor(halves(x, M * K), 2, M, K, 0), dw = tensor(halves(weight, N * K), 2, N, K, 0);
    ivk_tensor dr = tensor(on_device(residual, M * N), 2, M, N, 0);
    dx.dtype = dw.dtype = IVK_BFLOAT16;
    expect(ivk_gemm(&dx, &dw, NULL, NULL, &dr, &dr, IVK_RESIDUAL, NULL) == IVK_OK, "a product runs");
    read_back(y, dr.data, M * N);
    for (int i = 0; i < M * N; ++i) {
        float sum = 0.0f;
        for (int k = 0; k < K; ++k) sum += x[i / N * K + k] * weight[i % N * K + k];
        expect(y[i] == residual[i] + sum, "its values");
    }
    expect(ivk_gemm(&dx, &dw, NULL, NULL, NULL, &dr, 2, NULL) == IVK_UNSUPPORTED, "another epilogue refused");
    expect(ivk_gemm(&dx, &dw, NULL, NULL, NULL, &dr, IVK_LINEAR, NULL) == IVK_UNSUPPORTED, "a result in float32 refused");
    cudaFree(dx.data), cudaFree(dw.data), cudaFree(dr.data);
}

int main(void) {
    expect(ivk_c_version() == IVK_C_VERSION, "header and library are of one version");
    norms();
    products();
    shuffle();
    if (failures == 0) printf("all good\n");
    return failures != 0;
}
