// The pixel shuffle with the sigmoid on the CPU, in GCC's portable vectors: build with -O3 -march=native.
//
// A part of a row (a chunk of pixels of a unit, see shuffle.h) is read run by run, goes through the sigmoid as float vectors and lands in a buffer
// that stays in the first-level cache. Its values are then picked from there in the order of the other side by two-source
// lane shuffles, after a plan made once per call.
#include "cpu.h"
#include <algorithm>
#include <type_traits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sr::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int V = 16;
#elif defined(__AVX__)
constexpr int V = 8;
#else
constexpr int V = 4;
#endif
typedef float F __attribute__((vector_size(4*V)));
typedef int32_t I __attribute__((vector_size(4*V)));
typedef uint32_t U __attribute__((vector_size(4*V)));
typedef uint16_t H __attribute__((vector_size(2*V)));
typedef uint8_t B __attribute__((vector_size(V)));

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template<class T, class P> T read(const P* p) { T v; std::memcpy(&v, p, sizeof v); return v; }
template<class T, class P> void write(P* p, T v) { std::memcpy(p, &v, sizeof v); }

// a vector of any type to and from floats
F load(const float* p) { return read<F>(p); }
F load(const bf16* p) { return (F)(__builtin_convertvector(read<H>(p), U) << 16); }
void store(float* p, F v) { write(p, v); }
void store(bf16* p, F v) {
  U u = (U)v;
  u = v == v ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fc0 + U{}; // to nearest even
  write(p, __builtin_convertvector(u, H));
}
void store(uint8_t* p, F v) { write(p, __builtin_convertvector(__builtin_convertvector((U)v, H), B)); } // a level, see `levels`; in two steps, since GCC takes one lane by lane
// maskz: GCC's headers warn of themselves in the plain forms
#if defined(__AVX512F__)
F load(const f16* p) { return (F)_mm512_maskz_cvtph_ps(-1, read<__m256i>(p)); }
void store(f16* p, F v) { write(p, _mm512_maskz_cvtps_ph(-1, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
#elif defined(__F16C__)
F load(const f16* p) { return (F)_mm256_cvtph_ps(read<__m128i>(p)); }
void store(f16* p, F v) { write(p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
#else
F load(const f16* p) {
  U h = __builtin_convertvector(read<H>(p), U), sign = (h & 0x8000) << 16, u = (h & 0x7fff) << 13;
  F v = (F)u * 0x1p112f; // moves the exponent's bias, and is right for subnormals
  return (F)((u >= 0x0f800000 ? u | 0x7f800000 : (U)v) | sign);
}
void store(f16* p, F v) {
  U u = (U)v, sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  U normal = (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13, small = (U)((F)u + .5f) - 0x3f000000;
  U h = u > 0x7f800000 ? 0x7e00 + U{} : u >= 0x477ff000 ? 0x7c00 + U{} : u < 0x38800000 ? small : normal;
  write(p, __builtin_convertvector(h | sign, H));
}
#endif

constexpr float magic = 12582912; // 1.5*2^23: v + magic has v, rounded to nearest even, as an integer in its low bits

// 1/(1 + 2^t), t = -x*log2(e), by the Cephes polynomial for powers of 2: within 2e-7, and small values within 1e-5 of themselves. nan stays nan
// (or gives 0), and what overflows gives 0 as it does in torch.
template<bool nan_to_0 = false> F sigmoid(F x) {
  const F most = 128 + F{}, least = -126 + F{};
  F t = x*-1.44269504f;
  t = t < least ? least : t;
  if (nan_to_0) t = t < most ? t : most;
  else t = most < t ? most : t;
  F v = t + magic;
  F f = t - (v - magic);
  F p = 1.535336188319500e-4f + F{};
  p = p*f + 1.339887440266574e-3f;
  p = p*f + 9.618437357674640e-3f;
  p = p*f + 5.550332471162809e-2f;
  p = p*f + 2.402264791363012e-1f;
  p = p*f + 6.931472028550421e-1f;
  p = p*f + 1;
  return 1/(1 + p*(F)(((I)v << 23) + 0x3f800000));
}

bool any(I m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m);
#elif defined(__AVX__)
  return _mm256_movemask_ps((__m256)m);
#else
  return m[0] | m[1] | m[2] | m[3];
#endif
}

// round(255*sigmoid(x)), nan to 0, of n vectors, in their low bits
template<int n> void levels(F (&x)[n]) {
  const Thresholds& t = thresholds();
  F v[n], far = F{};
  for (int k = 0; k < n; k++) {
    F q = 255*sigmoid<true>(x[k]);
    v[k] = q + magic;
    F d = q - (v[k] - magic);
    d = d < 0 ? -d : d;
    far = far < d ? d : far;
  }
  if (__builtin_expect(any(far > .5f - near_half), 0)) for (int k = 0; k < n; k++) {
    F s = sigmoid<true>(x[k]);
    for (int l = 0; l < V; l++) {
      float q = v[k][l] - magic, d = 255*s[l] - q;
      if (d > .5f - near_half) q += x[k][l] >= t.least[int(q)];
      else if (d < near_half - .5f) q -= x[k][l] < t.least[int(q) - 1];
      v[k][l] = q + magic;
    }
  }
  for (int k = 0; k < n; k++) x[k] = v[k];
}

// What is read: n values from `at` on, transformed, to the buffer. Meanwhile the caches fetch what is read `ahead` from there, and `dst`, which is written next:
// the runs are too short for the processor to foresee.
template<class T> void fetch_ahead(const T* x, int64_t ahead) { __builtin_prefetch(x + ahead, 0, 2); }
void fetch_to_write(const char* p) { __builtin_prefetch(p, 1, 3); }

template<class T, bool quantise> struct Forward {
  const T* x;
  static constexpr int group = quantise ? 4 : 2;
  template<int n> static void transform(F (&v)[n]) {
    if constexpr (quantise) levels(v);
    else for (F& u : v) u = sigmoid(u);
  }
  void operator()(float* to, int64_t at, int n, int64_t ahead, const char* dst, int size) const {
    int k = 0;
    for (; k + group*V <= n; k += group*V) {
      F v[group];
      for (int g = 0; g < group; g++) {
        fetch_ahead(x + at + k + g*V, ahead);
        fetch_to_write(dst + (k + g*V)*size);
        v[g] = load(x + at + k + g*V);
      }
      transform(v);
      for (int g = 0; g < group; g++) write(to + k + g*V, v[g]);
    }
    for (; k < n; k += V) {
      T part[V] = {};
      int m = std::min(V, n - k);
      std::memcpy(part, x + at + k, m*sizeof(T));
      F v[1] = {load(part)};
      transform(v);
      std::memcpy(to + k, v, m*sizeof(float));
    }
  }
};
template<> struct Forward<double, false> {
  const double* x;
  void operator()(double* to, int64_t at, int n, int64_t, const char*, int) const { for (int k = 0; k < n; k++) to[k] = 1/(1 + std::exp(-x[at + k])); }
};
template<class T> struct Backward {
  const T *g, *y;
  static F one(F g, F y) { return g*y*(1 - y); }
  void operator()(float* to, int64_t at, int n, int64_t ahead, const char* dst, int size) const {
    int k = 0;
    for (; k + V <= n; k += V) {
      fetch_ahead(g + at + k, ahead);
      fetch_ahead(y + at + k, ahead);
      fetch_to_write(dst + k*size);
      write(to + k, one(load(g + at + k), load(y + at + k)));
    }
    if (k == n) return;
    T gs[V] = {}, ys[V] = {};
    std::memcpy(gs, g + at + k, (n - k)*sizeof(T));
    std::memcpy(ys, y + at + k, (n - k)*sizeof(T));
    F v = one(load(gs), load(ys));
    std::memcpy(to + k, &v, (n - k)*sizeof(float));
  }
};
template<> struct Backward<double> {
  const double *g, *y;
  void operator()(double* to, int64_t at, int n, int64_t, const char*, int) const { for (int k = 0; k < n; k++) { double s = y[at + k]; to[k] = g[at + k]*s*(1 - s); } }
};

// Pixels of a unit that fill the buffer, whole vectors of them. It may fill half of the first-level cache (32 KB) where that makes longer runs to read;
// where all that is read is one run, less leaves more for what is written.
int chunk(const Layout& l) {
  int room = l.lr.inter ? 2048 : 4096;
  return std::max(V, int(std::min<int64_t>(room/l.lr.values(), (l.s.W + V - 1)/V*V))/V*V);
}

// Picks one vector: lane l is lane pick[l] of vectors from[0] and from[1] laid end to end; where pick is -1, a later pick of the vector has it
struct Pick { I pick; int from[2]; };

// For V pixels: where in the buffer each value to be written is, and the picks that fetch them a vector at a time
struct Plan {
  std::vector<int> where;
  std::vector<Pick> picks;
  int depth = 1; // picks per vector

  Plan(const Order& from, const Order& to, int pixels) {
    int n = V*to.per();
    where.resize(n*to.segs());
    for (int g = 0; g < to.segs(); g++) for (int q = 0; q < n; q++) {
      int c, i, j, p, seg, at;
      to.value(g, q, c, i, j, p);
      from.place(c, i, j, p, seg, at);
      where[g*n + q] = seg*pixels*from.per() + at;
    }
    std::vector<std::vector<int>> sources;
    for (size_t v = 0; v < where.size(); v += V) {
      std::vector<int> s;
      for (int l = 0; l < V; l++) s.push_back(where[v + l]/V);
      std::sort(s.begin(), s.end());
      s.erase(std::unique(s.begin(), s.end()), s.end());
      depth = std::max(depth, int(s.size() + 1)/2);
      sources.push_back(s);
    }
    for (size_t v = 0; v < sources.size(); v++) for (int d = 0; d < depth; d++) {
      Pick k = {I{} - 1, {0, 0}};
      for (int e = 0; e < 2 && 2*d + e < int(sources[v].size()); e++) {
        k.from[e] = sources[v][2*d + e]*V;
        for (int l = 0; l < V; l++) if (where[v*V + l]/V == sources[v][2*d + e]) k.pick[l] = e*V + where[v*V + l]%V;
      }
      picks.push_back(k);
    }
  }
};

F fetch(const float* from, const Pick& k) {
  F a = read<F>(from + k.from[0]), b = read<F>(from + k.from[1]);
#if defined(__clang__)
  F v;
  for (int l = 0; l < V; l++) { int i = k.pick[l] & (2*V - 1); v[l] = i < V ? a[i] : b[i - V]; }
  return v;
#else
  return __builtin_shuffle(a, b, k.pick);
#endif
}

// `n` vectors to `to` from the buffer; `fixed` is plan.depth where known at compile time
template<int fixed, class T> void put(T* to, const float* from, const Pick* k, int n, int depth) {
  if (fixed) depth = fixed;
  for (int v = 0; v < n; v++, k += depth) {
    F x = fetch(from, k[0]);
    for (int d = 1; d < depth; d++) { F y = fetch(from, k[d]); x = k[d].pick >= 0 ? y : x; }
    store(to + v*V, x);
  }
}
template<class T> void put(T* to, const float* from, const Plan& plan, int first, int n) {
  const Pick* k = &plan.picks[first*plan.depth];
  switch (plan.depth) {
    case 1: return put<1>(to, from, k, n, 0);
    case 2: return put<2>(to, from, k, n, 0);
    case 3: return put<3>(to, from, k, n, 0);
    default: put<0>(to, from, k, n, plan.depth);
  }
}

template<class A, class Fill, class T> void run(const Layout& l, const Order& from, const Order& to, const Fill& fill, T* out, int64_t begin, int64_t end) {
  int pixels = chunk(l), per = to.per(), step = V*from.per();
  int64_t chunks = (l.s.W + pixels - 1)/pixels;
  Plan plan(from, to, pixels);
  std::vector<A> room(pixels*from.values() + 64/sizeof(A));
  A* buffer = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data())%64)%64/sizeof(A);
  auto place = [&](const Order& o, int64_t part) { return l.base(o, l.unit(part/chunks), part%chunks*pixels); };
  for (int64_t part = begin; part < end; part++) {
    int n = int(std::min<int64_t>(pixels, l.s.W - part%chunks*pixels)), whole = std::is_same<A, float>::value ? n/V*V : 0;
    int64_t in = place(from, part), to0 = place(to, part), ahead = place(from, std::min(part + 1, end - 1)) - in;
    auto dst = [&](int g, int k) { return reinterpret_cast<const char*>(out + to0 + l.seg(to, g) + k); };
    if (from.segs() > 1) // then there is one segment to write
      for (int g = 0, m = n*from.per(); g < from.segs(); g++) fill(buffer + g*pixels*from.per(), in + l.seg(from, g), m, ahead, dst(0, g*m), sizeof(T));
    else for (int g = 0, a = 0, b; g < to.segs(); g++, a = b) {
      b = g + 1 < to.segs() ? (g + 1)*n*per/V*V : n*from.per();
      fill(buffer + a, in + a, b - a, ahead, dst(g, 0), sizeof(T));
    }
    for (int g = 0; g < to.segs(); g++) {
      T* o = out + to0 + l.seg(to, g);
      if constexpr (std::is_same<A, float>::value)
        for (int p = 0; p < whole; p += V) put(o + p*per, buffer + p/V*step, plan, g*per, per);
      for (int p = whole; p < n; p += V) {
        const A* b = buffer + p/V*step;
        const int* where = &plan.where[g*V*per];
        int rest = std::min(V, n - p)*per;
        if constexpr (std::is_same<A, T>::value) for (int q = 0; q < rest; q++) o[p*per + q] = b[where[q]];
        else for (int q = 0; q < rest; q += V) {
          A a[V] = {};
          T t[V];
          int m = std::min(V, rest - q);
          for (int e = 0; e < m; e++) a[e] = b[where[q + e]];
          store(t, read<F>(a));
          std::memcpy(o + p*per + q, t, m*sizeof(T));
        }
      }
    }
  }
}

template<class T> void forward_from(const Layout& l, const void* x, Type type, void* y, int64_t begin, int64_t end) {
  Forward<T, false> f{static_cast<const T*>(x)};
  Forward<T, true> q{static_cast<const T*>(x)};
  if (type == Type::u8) run<float>(l, l.lr, l.hr, q, static_cast<uint8_t*>(y), begin, end);
  else if (type == Type::f32) run<float>(l, l.lr, l.hr, f, static_cast<float*>(y), begin, end);
  else run<float>(l, l.lr, l.hr, f, static_cast<T*>(y), begin, end);
}

template<class T, class D> void backward_to(const Layout& l, const void* g, const void* y, void* x, int64_t begin, int64_t end) {
  using A = std::conditional_t<std::is_same<D, double>::value, double, float>;
  run<A>(l, l.hr, l.lr, Backward<T>{static_cast<const T*>(g), static_cast<const T*>(y)}, static_cast<D*>(x), begin, end);
}

}  // namespace

int64_t parts(const Shape& s) {
  Layout l(s);
  int pixels = chunk(l);
  return l.units()*((s.W + pixels - 1)/pixels);
}

void forward(const Shape& s, Type lr_type, const void* lr, Type hr_type, void* hr, int64_t begin, int64_t end) {
  Layout l(s);
  switch (lr_type) {
    case Type::f64: return run<double>(l, l.lr, l.hr, Forward<double, false>{static_cast<const double*>(lr)}, static_cast<double*>(hr), begin, end);
    case Type::f16: return forward_from<f16>(l, lr, hr_type, hr, begin, end);
    case Type::bf16: return forward_from<bf16>(l, lr, hr_type, hr, begin, end);
    default: forward_from<float>(l, lr, hr_type, hr, begin, end);
  }
}

void backward(const Shape& s, Type hr_type, const void* grad, const void* y, Type lr_type, void* lr, int64_t begin, int64_t end) {
  Layout l(s);
  if (lr_type == Type::f64) backward_to<double, double>(l, grad, y, lr, begin, end);
  else if (lr_type == Type::f32) backward_to<float, float>(l, grad, y, lr, begin, end);
  else if (lr_type == Type::f16) (hr_type == Type::f32 ? backward_to<float, f16> : backward_to<f16, f16>)(l, grad, y, lr, begin, end);
  else (hr_type == Type::f32 ? backward_to<float, bf16> : backward_to<bf16, bf16>)(l, grad, y, lr, begin, end);
}

}  // namespace sr::cpu
