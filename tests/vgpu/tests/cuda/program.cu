// A program as nvcc builds it: every way in which host code reaches the runtime. Prints "ok" or what was wrong.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(call)                                                                    \
    do {                                                                               \
        const cudaError_t error = (call);                                              \
        if (error != cudaSuccess) {                                                    \
            std::printf("%s: %d %s\n", #call, int(error), cudaGetErrorString(error));  \
            std::exit(1);                                                              \
        }                                                                              \
    } while (0)
#define EXPECT(condition)                                         \
    do {                                                          \
        if (!(condition)) {                                       \
            std::printf("line %d: %s\n", __LINE__, #condition);   \
            std::exit(1);                                         \
        }                                                         \
    } while (0)

__constant__ float factors[4];
__device__ int hits = 5;
__managed__ int shared_with_host = 1;

struct Block {  // a parameter wider than any register
    int numbers[40];
    double weight;
};

__global__ void scale(float* data, int n, Block block) {
    extern __shared__ float tile[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) tile[threadIdx.x] = data[i];
    __syncthreads();
    if (i < n) data[i] = tile[threadIdx.x] * factors[i % 4] + float(block.numbers[i % 40] * block.weight);
    if (i == 0) atomicAdd(&hits, 1), shared_with_host = 42;
}

__global__ void __launch_bounds__(64) bounded(int* out) { *out = threadIdx.x; }
__global__ void fails(int* p) { p[1 << 20] = 1; }
__global__ void speaks(int n) { printf("kernel says %d\n", n); }

static void plain() {
    const int n = 300;
    float host[n], *data;
    for (int i = 0; i < n; i++) host[i] = float(i);
    const float constants[4] = {1, 2, 3, 4};
    Block block;
    for (int i = 0; i < 40; i++) block.numbers[i] = i;
    block.weight = 0.5;
    CHECK(cudaMemcpyToSymbol(factors, constants, sizeof constants));
    CHECK(cudaMalloc(&data, sizeof host));
    CHECK(cudaMemcpy(data, host, sizeof host, cudaMemcpyHostToDevice));
    scale<<<3, 128, 128 * sizeof(float)>>>(data, n, block);
    CHECK(cudaGetLastError());
    float out[n];
    CHECK(cudaMemcpy(out, data, sizeof out, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) EXPECT(out[i] == host[i] * constants[i % 4] + (i % 40) * 0.5f);
    int count;
    CHECK(cudaMemcpyFromSymbol(&count, hits, sizeof count));
    EXPECT(count == 6);
    EXPECT(shared_with_host == 42);
    void* address;
    size_t size;
    CHECK(cudaGetSymbolAddress(&address, factors));
    CHECK(cudaGetSymbolSize(&size, factors));
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, address));
    EXPECT(size == 16 && attributes.type == cudaMemoryTypeDevice);

    // The same through a configuration with attributes.
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute priority[1] = {};
    priority[0].id = cudaLaunchAttributePriority;
    config.gridDim = 3;
    config.blockDim = 128;
    config.dynamicSmemBytes = 128 * sizeof(float);
    config.attrs = priority;
    config.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&config, scale, data, n, block));
    void* args[] = {&data, (void*)&n, &block};
    CHECK(cudaLaunchKernel((void*)scale, dim3(3), dim3(128), args, 128 * sizeof(float), 0));
    CHECK(cudaDeviceSynchronize());

    cudaFuncAttributes facts;
    CHECK(cudaFuncGetAttributes(&facts, scale));
    EXPECT(facts.numRegs > 4 && facts.numRegs < 64 && facts.maxThreadsPerBlock == 1024);
    EXPECT(facts.ptxVersion == 80 && facts.maxDynamicSharedSizeBytes == 48 * 1024);
    CHECK(cudaFuncGetAttributes(&facts, bounded));
    EXPECT(facts.maxThreadsPerBlock == 64);
    int blocks;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, scale, 1024, 0));
    EXPECT(blocks == 2 || blocks == 1);
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    EXPECT(std::strstr(properties.name, "vGPU") && properties.multiProcessorCount == 4 && properties.warpSize == 32);
    EXPECT(properties.sharedMemPerBlockOptin >= 99 * 1024 && properties.sharedMemPerBlock == 48 * 1024);
    int* number;
    CHECK(cudaMalloc(&number, 4));
    bounded<<<1, 65>>>(number);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    bounded<<<1, 64, 1 << 20>>>(number);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(cudaFree(number));
    CHECK(cudaFree(data));
    speaks<<<1, 1>>>(7);
    CHECK(cudaDeviceSynchronize());
}

static void fault() {
    int* number;
    CHECK(cudaMalloc(&number, 4));
    fails<<<1, 1>>>(number);
    EXPECT(cudaGetLastError() == cudaSuccess);
    EXPECT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    EXPECT(cudaFree(number) == cudaErrorIllegalAddress);
    EXPECT(cudaGetLastError() == cudaErrorIllegalAddress && cudaGetLastError() == cudaErrorIllegalAddress);
}

static void image() {  // a part for which the program has nothing
    int* number;
    CHECK(cudaMalloc(&number, 4));
    bounded<<<1, 1>>>(number);
    EXPECT(cudaGetLastError() == cudaErrorNoKernelImageForDevice);
    cudaFuncAttributes facts;
    EXPECT(cudaFuncGetAttributes(&facts, bounded) == cudaErrorNoKernelImageForDevice);
    CHECK(cudaDeviceSynchronize());
}

static void refused() {
    int count;
    EXPECT(cudaGetDeviceCount(&count) == cudaErrorInitializationError);
    bounded<<<1, 1>>>(nullptr);
    EXPECT(cudaGetLastError() == cudaErrorInitializationError);
}

int main(int, char** argv) {
    const char* what = argv[1];
    if (!std::strcmp(what, "plain")) plain();
    if (!std::strcmp(what, "fault")) fault();
    if (!std::strcmp(what, "image")) image();
    if (!std::strcmp(what, "refused")) refused();
    std::printf("ok\n");
}
