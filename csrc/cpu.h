// The CPU kernels. Each does the parts [begin, end) of parts(shape) and may run beside itself on other parts.
#pragma once
#include "shuffle.h"

namespace sr::cpu {

int64_t parts(const Shape& s);
// hr = sigmoid(lr), shuffled; as u8 round(255*sigmoid(lr)). lr: f32, f16, bf16 or f64; hr: the same, f32 or (not from f64) u8
void forward(const Shape& s, Type lr_type, const void* lr, Type hr_type, void* hr, int64_t begin, int64_t end);
// lr = grad*y*(1-y), unshuffled. grad and y are laid out alike, and of hr_type
void backward(const Shape& s, Type hr_type, const void* grad, const void* y, Type lr_type, void* lr, int64_t begin, int64_t end);

}  // namespace sr::cpu
