// The CUDA kernels' launches; what they do is in tile.h. No torch headers: nvcc takes seconds.
#include "cuda.h"
#include "tile.h"

namespace sr::cuda {
namespace {

template<class J> __global__ void __launch_bounds__(threads) tiles(const __grid_constant__ J job) {
  __shared__ typename J::Shared s;
  int turn = 0;
  job.prepare(s, threadIdx.x);
  job.locate(s, turn, blockIdx.x, threadIdx.x);
  __syncthreads();
  for (int64_t t = blockIdx.x; t < job.tiles; t += gridDim.x, turn ^= 1) {
    job.read(s, turn, t, threadIdx.x);
    __syncthreads();
    job.write(s, turn, t, threadIdx.x);
    job.locate(s, turn ^ 1, t + gridDim.x, threadIdx.x);
    __syncthreads();
  }
}

template<class J> __global__ void __launch_bounds__(threads) singles(const __grid_constant__ J job) {
  for (int64_t k = blockIdx.x*int64_t(threads) + threadIdx.x; k < job.size(); k += gridDim.x*int64_t(threads)) job.single(k);
}

struct Launch {
  cudaStream_t stream;
  template<class J> const char* operator()(const J& job) const {
    int device, processors, blocks;
    auto kernel = job.fits ? tiles<J> : singles<J>;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (e == cudaSuccess) e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0);
    if (e == cudaSuccess) {
      int64_t work = job.fits ? job.tiles : (job.size() + threads - 1)/threads;
      kernel<<<unsigned(std::min<int64_t>(work, int64_t(processors)*blocks)), threads, 0, stream>>>(job);
      e = cudaGetLastError();
    }
    return e == cudaSuccess ? nullptr : cudaGetErrorString(e);
  }
};

}  // namespace

const char* forward(const Shape& s, Type lr_type, const void* lr, Type hr_type, void* hr, cudaStream_t stream) {
  return forward(s, lr_type, lr, hr_type, hr, Launch{stream});
}
const char* backward(const Shape& s, Type hr_type, const void* grad, const void* y, Type lr_type, void* lr, cudaStream_t stream) {
  return backward(s, hr_type, grad, y, lr_type, lr, Launch{stream});
}

}  // namespace sr::cuda
