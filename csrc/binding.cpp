// The operators of sr_fastai, for the CPU or, compiled with SR_CUDA, for CUDA. The schemas come with the CPU's library, which is always loaded first.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include "shuffle.h"
#ifdef SR_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include "cuda.h"
#else
#include <ATen/Parallel.h>
#include "cpu.h"
#endif

namespace {

using at::MemoryFormat;
using at::ScalarType;
using at::Tensor;

sr::Type type_of(ScalarType t) {
  switch (t) {
    case ScalarType::Double: return sr::Type::f64;
    case ScalarType::Float: return sr::Type::f32;
    case ScalarType::Half: return sr::Type::f16;
    case ScalarType::BFloat16: return sr::Type::bf16;
    default: return sr::Type::u8;
  }
}

// the same sentences as Python's `_check`, for calls that come past it
void check_types(ScalarType lr, ScalarType hr, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(type_of(lr) != sr::Type::u8, "pixel_shuffle_sigmoid: x must be float16, bfloat16, float32 or float64, not ", lr, "; its shape is ", shape);
  TORCH_CHECK_VALUE(hr == lr || (hr == ScalarType::Float && lr != ScalarType::Double),
    "pixel_shuffle_sigmoid: dtype must be that of x, ", lr, ", or float32 if that is wider, not ", hr, "; the shape of x is ", shape);
}

void check(const Tensor& x, int64_t r, ScalarType hr) {
  TORCH_CHECK_VALUE(x.dim() == 4, "pixel_shuffle_sigmoid: x must be of shape (N, C*r*r, H, W), not ", x.sizes());
  TORCH_CHECK_VALUE(r >= 1 && r < 1 << 15, "pixel_shuffle_sigmoid: upscale_factor must be an integer of at least 1, not ", r, "; the shape of x is ", x.sizes());
  TORCH_CHECK_VALUE(x.size(1)%(r*r) == 0, "pixel_shuffle_sigmoid: channels must be divisible by upscale_factor**2 = ", r*r, ", not ", x.size(1), "; the shape of x is ", x.sizes());
  check_types(x.scalar_type(), hr, x.sizes());
}

// n, c and row strides of a 4-d tensor, if the values of its rows lie side by side; else nothing
std::optional<sr::Side> side_of(const Tensor& x) {
  int64_t C = x.size(1), W = x.size(3), c = x.stride(1), w = x.stride(3);
  if (x.suggest_memory_format() == MemoryFormat::ChannelsLast) {
    if ((c == 1 || C == 1) && (w == C || W == 1)) return sr::Side{true, x.stride(0), 0, x.stride(2)};
  } else if (w == 1 || W == 1) return sr::Side{false, x.stride(0), c, x.stride(2)};
  return std::nullopt;
}

// shape of a shuffle between LR values `x` and HR values `y`, one channel wide where neither needs moving
sr::Shape shape_of(const Tensor& y, int64_t r, sr::Side lr, sr::Side hr) {
  sr::Shape s{y.size(0), y.size(1), y.size(2)/r, y.size(3)/r, int(r), lr, hr};
  if (r > 1 || lr.inter != hr.inter) return s;
  if (lr.inter) { s.W *= s.C; s.C = 1; s.lr.inter = s.hr.inter = false; }
  return s;
}

void run_forward(const Tensor& x, int64_t r, const Tensor& y) {
  if (!y.numel()) return;
  auto lr = side_of(x);
  if (!lr) return run_forward(x.contiguous(x.suggest_memory_format()), r, y);
  sr::Shape s = shape_of(y, r, *lr, *side_of(y));
  sr::Type from = type_of(x.scalar_type()), to = type_of(y.scalar_type());
  const void* in = x.const_data_ptr();
  void* out = y.mutable_data_ptr();
#ifdef SR_CUDA
  c10::cuda::CUDAGuard guard(x.device());
  const char* error = sr::cuda::forward(s, from, in, to, out, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(!error, "pixel_shuffle_sigmoid: ", error, " for x of shape ", x.sizes());
#else
  int64_t parts = sr::cpu::parts(s);
  at::parallel_for(0, parts, 1 + 32768*parts/y.numel(), [&](int64_t begin, int64_t end) { sr::cpu::forward(s, from, in, to, out, begin, end); });
#endif
}

Tensor forward(const Tensor& x, int64_t r, std::optional<ScalarType> dtype) {
  ScalarType out = dtype.value_or(x.scalar_type());
  check(x, r, out);
  Tensor y = at::empty({x.size(0), x.size(1)/(r*r), x.size(2)*r, x.size(3)*r}, x.options().dtype(out), x.suggest_memory_format());
  run_forward(x, r, y);
  return y;
}

Tensor forward_uint8(const Tensor& x, int64_t r, bool hwc) {
  check(x, r, x.scalar_type());
  if (x.scalar_type() == ScalarType::Double) return forward_uint8(x.to(ScalarType::Float), r, hwc);
  int64_t N = x.size(0), C = x.size(1)/(r*r), H = x.size(2)*r, W = x.size(3)*r;
  auto options = x.options().dtype(ScalarType::Byte);
  Tensor y = hwc ? at::empty({N, H, W, C}, options) : at::empty({N, C, H, W}, options);
  run_forward(x, r, hwc ? y.permute({0, 3, 1, 2}) : y);
  return y;
}

Tensor backward(const Tensor& grad, const Tensor& y, int64_t r, ScalarType dtype) {
  TORCH_CHECK(r >= 1 && y.dim() == 4 && grad.sizes() == y.sizes() && y.size(2)%r == 0 && y.size(3)%r == 0,
    "pixel_shuffle_sigmoid_backward: grad ", grad.sizes(), " and y ", y.sizes(), " must be alike, with sides divisible by upscale_factor ", r);
  TORCH_CHECK(grad.device() == y.device(), "pixel_shuffle_sigmoid_backward: grad is on ", grad.device(), ", y on ", y.device(), "; the shape of y is ", y.sizes());
  check_types(dtype, y.scalar_type(), y.sizes());
  auto format = y.suggest_memory_format();
  Tensor x = at::empty({y.size(0), y.size(1)*r*r, y.size(2)/r, y.size(3)/r}, y.options().dtype(dtype), format);
  if (!x.numel()) return x;
  // both as one side: read in step
  Tensor b = side_of(y) ? y : y.contiguous(format);
  Tensor a = grad.scalar_type() == b.scalar_type() && grad.strides() == b.strides() ? grad : at::empty_like(b).copy_(grad);
  sr::Shape s = shape_of(y, r, *side_of(x), *side_of(b));
  sr::Type from = type_of(b.scalar_type()), to = type_of(dtype);
#ifdef SR_CUDA
  c10::cuda::CUDAGuard guard(y.device());
  const char* error = sr::cuda::backward(s, from, a.const_data_ptr(), b.const_data_ptr(), to, x.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(!error, "pixel_shuffle_sigmoid_backward: ", error, " for y of shape ", y.sizes());
#else
  int64_t parts = sr::cpu::parts(s);
  const void *g = a.const_data_ptr(), *v = b.const_data_ptr();
  void* out = x.mutable_data_ptr();
  at::parallel_for(0, parts, 1 + 32768*parts/y.numel(), [&](int64_t begin, int64_t end) { sr::cpu::backward(s, from, g, v, to, out, begin, end); });
#endif
  return x;
}

}  // namespace

#ifdef SR_CUDA
#define KEY CUDA
#else
#define KEY CPU
TORCH_LIBRARY(sr_fastai, m) {
  m.def("pixel_shuffle_sigmoid(Tensor x, int upscale_factor, ScalarType? dtype=None) -> Tensor");
  m.def("pixel_shuffle_sigmoid_uint8(Tensor x, int upscale_factor, bool hwc) -> Tensor");
  m.def("pixel_shuffle_sigmoid_backward(Tensor grad, Tensor y, int upscale_factor, ScalarType dtype) -> Tensor");
}
#endif

TORCH_LIBRARY_IMPL(sr_fastai, KEY, m) {
  m.impl("pixel_shuffle_sigmoid", forward);
  m.impl("pixel_shuffle_sigmoid_uint8", forward_uint8);
  m.impl("pixel_shuffle_sigmoid_backward", backward);
}
