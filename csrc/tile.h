// What one thread of the CUDA kernels does, as functions of its number. They compile for the host too, where a test runs them thread by thread.
//
// A block works on tiles: a chunk of pixels of a unit (see shuffle.h), or as many short units as fit. It reads the tile's segments with 16-byte accesses, and
// puts the sigmoids into shared memory in the order that they came; then it gathers them from there in the order of
// the other side, again for 16-byte accesses. Global memory thus sees whole, coalesced runs on both sides in every layout.
#pragma once
#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include "shuffle.h"

namespace sr::cuda {

constexpr int threads = 256, tile_size = 4096, max_units = 32, max_segs = 64, max_values = 256;
// the order of a segment repeats after this many pixels, up to a constant; and it is whole vectors of any type
constexpr int period = 8;

template<class T, int n> struct alignas(sizeof(T)*n) Pack { T v[n]; };
template<class T> constexpr int lanes() { return sizeof(T) == 1 ? 8 : 16/int(sizeof(T)); }

SR_FN float widen(float v) { return v; }
SR_FN double widen(double v) { return v; }
SR_FN float widen(__half v) { return __half2float(v); }
SR_FN float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
SR_FN void narrow(float& to, float v) { to = v; }
SR_FN void narrow(double& to, double v) { to = v; }
SR_FN void narrow(__half& to, float v) { to = __float2half_rn(v); }
SR_FN void narrow(__nv_bfloat16& to, float v) { to = __float2bfloat16_rn(v); }
SR_FN void narrow(uint8_t& to, float v) { to = uint8_t(v); }

SR_FN double sigmoid(double x) { return 1/(1 + exp(-x)); }
SR_FN float sigmoid(float x) {
#ifdef __CUDA_ARCH__
  return __fdividef(1.f, 1.f + __expf(-x));
#else
  return 1/(1 + std::exp(-x));
#endif
}

// The transforms. `In` is what is read, `Acc` what it is computed in.
template<class T> struct Forward {
  using In = T;
  using Acc = decltype(widen(T()));
  const T* x;
  template<int n> SR_FN void operator()(Acc (&to)[n], int64_t at) const {
    auto p = *reinterpret_cast<const Pack<T, n>*>(x + at);
    for (int e = 0; e < n; e++) to[e] = sigmoid(widen(p.v[e]));
  }
};
template<class T> struct Quantise {
  using In = T;
  using Acc = float;
  const T* x;
  Thresholds t;
  SR_FN float level(float v) const { // nan to 0
    float q = 255*sigmoid(v);
    int k = q == q ? int(q) : 0;
    float d = q - k - .5f;
    return k + (fabsf(d) < near_half ? v >= t.least[k] : d > 0);
  }
  template<int n> SR_FN void operator()(float (&to)[n], int64_t at) const {
    auto p = *reinterpret_cast<const Pack<T, n>*>(x + at);
    for (int e = 0; e < n; e++) to[e] = level(widen(p.v[e]));
  }
};
template<class T> struct Backward {
  using In = T;
  using Acc = decltype(widen(T()));
  const T *g, *y;
  template<int n> SR_FN void operator()(Acc (&to)[n], int64_t at) const {
    auto a = *reinterpret_cast<const Pack<T, n>*>(g + at);
    auto b = *reinterpret_cast<const Pack<T, n>*>(y + at);
    for (int e = 0; e < n; e++) { Acc s = widen(b.v[e]); to[e] = widen(a.v[e])*s*(1 - s); }
  }
};

// division by multiplication, for numbers below 2^13
struct Div {
  uint32_t d, m;
  explicit Div(uint32_t d) : d(d), m(uint32_t(((uint64_t(1) << 32) + d - 1)/d)) {}
  SR_FN int of(int x) const { return d == 1 ? x : int(uint64_t(uint32_t(x))*m >> 32); }
};

// How one side's segments of a tile are cut into vectors of n values
struct Cut {
  int segs, per, n;
  Div unit, seg, phase; // vectors of a unit, of a segment, of a period
  Cut(const Order& o, int pixels, int n) : segs(o.segs()), per(o.per()), n(n), unit(segs*pixels*per/n), seg(pixels*per/n), phase(period*per/n) {}
};

template<class Fill, class T> struct Job {
  using Acc = typename Fill::Acc;
  static constexpr int reads = lanes<typename Fill::In>(), writes = lanes<T>();

  Layout l;
  Order from, to;
  int pixels, units; // of a tile
  int64_t chunks, tiles; // of a row; of all
  Cut in, out;
  bool fits, in_aligned, out_aligned;
  Fill fill;
  T* y;

  struct Shared {
    Acc values[tile_size + tile_size/32];
    uint16_t order[period*max_values];
    int place[max_segs]; // where a segment's first value is
    int64_t seg[2][max_segs], base[2][2][max_units]; // offsets in memory; base of two tiles in turn
  };

  static int pixels_of(const Layout& l) {
    int64_t most = tile_size/l.lr.values()/period*period;
    if (most < period) return period;
    int64_t chunks = (l.s.W + most - 1)/most;
    return int(((l.s.W + chunks - 1)/chunks + period - 1)/period*period);
  }
  Job(const Layout& l, bool back, Fill fill, const void* a, const void* b, T* y)
    : l(l), from(back ? l.hr : l.lr), to(back ? l.lr : l.hr), pixels(pixels_of(l)), chunks((l.s.W + pixels - 1)/pixels),
      in(from, pixels, reads), out(to, pixels, writes), fill(fill), y(y) {
    fits = l.s.C <= max_values && l.s.r <= max_values && l.lr.values() <= max_values && in.segs <= max_segs && out.segs <= max_segs;
    units = chunks > 1 || !fits ? 1 : std::min(max_units, tile_size/(pixels*l.lr.values()));
    tiles = chunks > 1 ? l.units()*chunks : (l.units() + units - 1)/units;
    in_aligned = aligned(from, a, sizeof(typename Fill::In), reads) && aligned(from, b, sizeof(typename Fill::In), reads);
    out_aligned = aligned(to, y, sizeof(T), writes);
  }
  // whether all segments of a side begin where a vector may
  bool aligned(const Order& o, const void* p, int size, int n) const {
    const Side& d = l.side(o);
    int64_t channels = o.inter ? 1 : l.s.C*(o.hr ? 1 : l.s.r*l.s.r), rows = l.s.H*(o.hr ? l.s.r : 1);
    return reinterpret_cast<uintptr_t>(p)%(size*n) == 0 && (l.s.N == 1 || d.n%n == 0) && (channels == 1 || d.c%n == 0) && (rows == 1 || d.h%n == 0);
  }

  static SR_FN int skew(int k) { return k + (k >> 5); } // against bank conflicts: gathers have strides of powers of two

  SR_FN void prepare(Shared& s, int tid) const {
    int c, i, j, p, g, q;
    for (int k = tid; k < period*out.per; k += threads) {
      to.value(0, k, c, i, j, p);
      from.place(c, i, j, p, g, q);
      s.order[k] = uint16_t(g*pixels*in.per + q);
    }
    for (int k = tid; k < out.segs; k += threads) {
      to.value(k, 0, c, i, j, p);
      from.place(c, i, j, p, g, q);
      s.place[k] = g*pixels*in.per + q;
      s.seg[1][k] = l.seg(to, k);
    }
    for (int k = tid; k < in.segs; k += threads) s.seg[0][k] = l.seg(from, k);
  }
  SR_FN int64_t first(int64_t tile) const { return chunks > 1 ? quotient(tile, chunks) : tile*units; }
  SR_FN int64_t left(int64_t tile) const { return chunks > 1 ? (tile - quotient(tile, chunks)*chunks)*pixels : 0; }
  SR_FN int count(int64_t tile) const { int64_t n = l.units() - first(tile); return n < units ? int(n) : units; }
  SR_FN int width(int64_t tile) const { int64_t n = l.s.W - left(tile); return n < pixels ? int(n) : pixels; }

  SR_FN void locate(Shared& s, int turn, int64_t tile, int tid) const {
    if (tile >= tiles || tid >= count(tile)) return;
    Unit u = l.unit(first(tile) + tid);
    s.base[turn][0][tid] = l.base(from, u, left(tile));
    s.base[turn][1][tid] = l.base(to, u, left(tile));
  }
  SR_FN void read(Shared& s, int turn, int64_t tile, int tid) const {
    int vectors = count(tile)*int(in.unit.d), length = width(tile)*in.per;
    for (int k = tid; k < vectors; k += threads) {
      int u = in.unit.of(k), rest = k - u*int(in.unit.d), g = in.seg.of(rest), q = (rest - g*int(in.seg.d))*reads, n = length - q;
      if (n <= 0) continue;
      int64_t at = s.base[turn][0][u] + s.seg[0][g] + q;
      int b = k*reads;
      if (in_aligned && n >= reads) {
        Acc v[reads];
        fill(v, at);
        for (int e = 0; e < reads; e++) s.values[skew(b + e)] = v[e];
      } else for (int e = 0; e < reads && e < n; e++) {
        Acc v[1];
        fill(v, at + e);
        s.values[skew(b + e)] = v[0];
      }
    }
  }
  SR_FN void write(Shared& s, int turn, int64_t tile, int tid) const {
    int vectors = count(tile)*int(out.unit.d), length = width(tile)*out.per, unit = int(in.unit.d)*reads;
    for (int k = tid; k < vectors; k += threads) {
      int u = out.unit.of(k), rest = k - u*int(out.unit.d), g = out.seg.of(rest), v = rest - g*int(out.seg.d), q = v*writes, n = length - q;
      if (n <= 0) continue;
      int cycle = out.phase.of(v), b = u*unit + s.place[g] + cycle*period*in.per;
      auto order = *reinterpret_cast<const Pack<uint16_t, writes>*>(s.order + (v - cycle*int(out.phase.d))*writes);
      T* at = y + s.base[turn][1][u] + s.seg[1][g] + q;
      if (out_aligned && n >= writes) {
        Pack<T, writes> p;
        for (int e = 0; e < writes; e++) narrow(p.v[e], s.values[skew(b + order.v[e])]);
        *reinterpret_cast<Pack<T, writes>*>(at) = p;
      } else for (int e = 0; e < writes && e < n; e++) narrow(at[e], s.values[skew(b + order.v[e])]);
    }
  }

  // Value k of all, for what doesn't fit into tiles: very many channels or a very large r
  SR_FN int64_t size() const { return l.s.N*l.s.C*l.s.r*l.s.r*l.s.H*l.s.W; }
  SR_FN void single(int64_t k) const {
    const Shape& s = l.s;
    int64_t K = s.C*s.r*s.r, w = k%s.W, h = k/s.W%s.H, v = k/s.W/s.H%K, n = k/s.W/s.H/K, c = v/s.r/s.r, i = v/s.r%s.r, j = v%s.r;
    int64_t lr = n*s.lr.n + (s.lr.inter ? v + w*K : v*s.lr.c + w) + h*s.lr.h;
    int64_t hr = n*s.hr.n + (s.hr.inter ? c + (w*s.r + j)*s.C : c*s.hr.c + w*s.r + j) + (h*s.r + i)*s.hr.h;
    Acc a[1];
    fill(a, from.hr ? hr : lr);
    narrow(y[to.hr ? hr : lr], a[0]);
  }
};

template<class T, class Launch> auto forward_from(const Layout& l, const void* x, Type type, void* y, Launch launch) {
  Forward<T> f{static_cast<const T*>(x)};
  if (type == Type::u8) return launch(Job<Quantise<T>, uint8_t>(l, false, {f.x, thresholds()}, x, x, static_cast<uint8_t*>(y)));
  if (type == Type::f32) return launch(Job<Forward<T>, float>(l, false, f, x, x, static_cast<float*>(y)));
  return launch(Job<Forward<T>, T>(l, false, f, x, x, static_cast<T*>(y)));
}
template<class Launch> auto forward(const Shape& s, Type lr_type, const void* lr, Type hr_type, void* hr, Launch launch) {
  Layout l(s);
  switch (lr_type) {
    case Type::f64: return launch(Job<Forward<double>, double>(l, false, {static_cast<const double*>(lr)}, lr, lr, static_cast<double*>(hr)));
    case Type::f16: return forward_from<__half>(l, lr, hr_type, hr, launch);
    case Type::bf16: return forward_from<__nv_bfloat16>(l, lr, hr_type, hr, launch);
    default: return forward_from<float>(l, lr, hr_type, hr, launch);
  }
}

template<class T, class D, class Launch> auto backward_to(const Layout& l, const void* g, const void* y, void* x, Launch launch) {
  return launch(Job<Backward<T>, D>(l, true, {static_cast<const T*>(g), static_cast<const T*>(y)}, g, y, static_cast<D*>(x)));
}
template<class Launch> auto backward(const Shape& s, Type hr_type, const void* g, const void* y, Type lr_type, void* lr, Launch launch) {
  Layout l(s);
  bool wide = hr_type == Type::f32;
  switch (lr_type) {
    case Type::f64: return backward_to<double, double>(l, g, y, lr, launch);
    case Type::f16: return wide ? backward_to<float, __half>(l, g, y, lr, launch) : backward_to<__half, __half>(l, g, y, lr, launch);
    case Type::bf16: return wide ? backward_to<float, __nv_bfloat16>(l, g, y, lr, launch) : backward_to<__nv_bfloat16, __nv_bfloat16>(l, g, y, lr, launch);
    default: return backward_to<float, float>(l, g, y, lr, launch);
  }
}

}  // namespace sr::cuda
