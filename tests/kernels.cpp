// The kernels without torch, for tests/test_ops_kernels.py. The CUDA kernels' threads run one after the other, in an odd order, between the points where a block waits for all of them.
#include <algorithm>
#include <random>
#include <vector>
#include "cpu.h"
#include "tile.h"

namespace {

struct Run {
  int blocks;
  template<class J> void operator()(const J& job) const {
    auto all = [](auto f) { for (int k = 0; k < sr::cuda::threads; k++) f(k*97%sr::cuda::threads); };
    if (!job.fits) { for (int64_t k = job.size(); k-- > 0;) job.single(k); return; }
    std::vector<typename J::Shared> room(1);
    auto& s = room[0];
    for (int b = blocks; b-- > 0;) {
      std::memset(static_cast<void*>(&s), 0x7f, sizeof s); // what is used without having been written shows
      int turn = 0;
      all([&](int k) { job.prepare(s, k); job.locate(s, turn, b, k); });
      for (int64_t t = b; t < job.tiles; t += blocks, turn ^= 1) {
        all([&](int k) { job.read(s, turn, t, k); });
        all([&](int k) { job.write(s, turn, t, k); job.locate(s, turn ^ 1, t + blocks, k); });
      }
    }
  }
};

// N, C, H, W, r, then for LR and HR: interleaved, strides of image, channel, row
sr::Shape shape(const int64_t* a) { return {a[0], a[1], a[2], a[3], int(a[4]), {bool(a[5]), a[6], a[7], a[8]}, {bool(a[9]), a[10], a[11], a[12]}}; }

}  // namespace

extern "C" void forward(const int64_t* a, int lr_type, const void* lr, int hr_type, void* hr) {
  sr::cuda::forward(shape(a), sr::Type(lr_type), lr, sr::Type(hr_type), hr, Run{3});
}
extern "C" void backward(const int64_t* a, int hr_type, const void* grad, const void* y, int lr_type, void* lr) {
  sr::cuda::backward(shape(a), sr::Type(hr_type), grad, y, sr::Type(lr_type), lr, Run{3});
}

// Under the address sanitizer: every layout and size in memory of exactly its size, on both kernels
int main() {
  using sr::Type;
  std::mt19937 random(0);
  auto pick = [&](int n) { return int(random()%n); };
  int sizes[] = {8, 4, 2, 2, 1};
  Type types[][2] = {{Type::f64, Type::f64}, {Type::f32, Type::f32}, {Type::f16, Type::f16}, {Type::bf16, Type::bf16}, {Type::f16, Type::f32}, {Type::bf16, Type::f32},
    {Type::f32, Type::u8}, {Type::f16, Type::u8}, {Type::bf16, Type::u8}};
  for (int round = 0; round < 600; round++) {
    int64_t N = 1 + pick(2), C = 1 + pick(4), H = 1 + pick(4), W = 1 + pick(round%10 ? 70 : 2500), r = 1 + pick(5);
    auto [lr_type, hr_type] = types[round%9];
    bool lr_inter = pick(2), hr_inter = hr_type == Type::u8 ? pick(2) : lr_inter;
    int64_t K = C*r*r, n = N*K*H*W;
    sr::Shape s{N, C, H, W, int(r), {lr_inter, K*H*W, H*W, lr_inter ? W*K : W}, {hr_inter, K*H*W, H*W*r*r, (hr_inter ? C : 1)*W*r}};
    std::vector<char> lr(n*sizes[int(lr_type)]), hr(n*sizes[int(hr_type)]), grad(hr.size());
    int64_t parts = sr::cpu::parts(s), half = parts/2;
    sr::cpu::forward(s, lr_type, lr.data(), hr_type, hr.data(), 0, half);
    sr::cpu::forward(s, lr_type, lr.data(), hr_type, hr.data(), half, parts);
    sr::cuda::forward(s, lr_type, lr.data(), hr_type, hr.data(), Run{3});
    if (hr_type == Type::u8) continue;
    sr::cpu::backward(s, hr_type, grad.data(), hr.data(), lr_type, lr.data(), 0, parts);
    sr::cuda::backward(s, hr_type, grad.data(), hr.data(), lr_type, lr.data(), Run{3});
  }
}
