// The CUDA kernels, on the current device. Types and layouts as in cpu.h. Each returns nothing, or what CUDA says went wrong.
#pragma once
#include <cuda_runtime_api.h>
#include "shuffle.h"

namespace sr::cuda {

const char* forward(const Shape& s, Type lr_type, const void* lr, Type hr_type, void* hr, cudaStream_t stream);
const char* backward(const Shape& s, Type hr_type, const void* grad, const void* y, Type lr_type, void* lr, cudaStream_t stream);

}  // namespace sr::cuda
