// One of each thing that nvcc writes into PTX: initialised variables, addresses of variables and functions, .func calls
// direct and indirect, printf, local arrays, structures by value, dynamic shared memory, assembly with its own scope.
#include <cstdio>

__constant__ float table[4] = {1.f, 2.f, 3.f, 4.f};
__device__ int counter = 7;
__device__ const int* pointers[2] = {&counter, &counter + 1};
__device__ char text[] = "a\"b\n";

using Function = float (*)(float);
__device__ __noinline__ float square(float x) { return x * x; }
__device__ __noinline__ float cube(float x) { return x * x * x; }
__device__ Function functions[2] = {square, cube};

extern __shared__ float dynamic[];

struct alignas(16) Big {
    float values[20];
    int n;
};

__global__ void __launch_bounds__(128, 2) features(const Big big, float* out, int n) {
    __shared__ float tile[128];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < n ? out[i] : 0.f;
    __syncthreads();
    float x = tile[threadIdx.x ^ 1] * table[i & 3] + big.values[i % 20];
    for (int k = 0; k < big.n; ++k) x = functions[k & 1](x) + __shfl_xor_sync(~0u, x, 1);
    if (i < n) {
        out[i] = x + dynamic[threadIdx.x];
        atomicAdd(&counter, 1);
    }
    if (x > 1e30f) printf("big %f %d\n", x, i);
}

__global__ void locals(float* out, int n) {
    float stack[64];
    for (int i = 0; i < 64; ++i) stack[i] = out[i];
    float s = square(out[1]);
    for (int i = 0; i < n; ++i) s += stack[(i * 7) % 64];
    // The same names twice, as inlined assembly does.
    asm volatile("{ .reg .pred p; setp.gt.f32 p, %0, 0f00000000; @p bra DONE; add.f32 %0, %0, 0f3F800000; DONE: }"
                 : "+f"(s));
    asm volatile("{ .reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p bra DONE; add.f32 %0, %0, 0f40000000; DONE: }"
                 : "+f"(s));
    out[0] = s;
}

int main() {
    features<<<1, 128>>>(Big{}, nullptr, 0);
    locals<<<1, 1>>>(nullptr, 0);
}
