// Where each value of a pixel shuffle lies. Shared by the CPU and the CUDA kernels; no torch headers.
//
// LR value (n, k = (c*r + i)*r + j, h, w) is HR value (n, c, h*r + i, w*r + j). Either tensor is planar (contiguous: the
// pixels of a row are neighbours) or interleaved (channels_last: the channels of a pixel are neighbours).
//
// A unit is the smallest set of values that is whole runs of memory on both sides: of one image and one LR row, all that the
// layouts tie together. A run of a unit is a segment. The kernels read the segments of one side in order, and write those of the other.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SR_FN __host__ __device__ __forceinline__
#else
#define SR_FN inline
#endif

namespace sr {

enum class Type : int { f64, f32, f16, bf16, u8 };

// strides in elements of image, channel (used when planar) and row; the last stride is 1 for pixels (planar) or channels (interleaved)
struct Side { bool inter; int64_t n, c, h; };

struct Shape { int64_t N, C, H, W; int r; Side lr, hr; }; // C: HR channels; H, W: LR size

// The values of one LR pixel in a unit: C channels x I rows x r columns of the HR grid, and the order that a side has them in.
struct Order {
  bool hr, inter;
  int C, I, r;

  SR_FN int values() const { return C*I*r; }
  SR_FN int segs() const { return hr ? (inter ? I : C*I) : (inter ? 1 : C*I*r); }
  SR_FN int per() const { return values()/segs(); } // values of one LR pixel in a segment

  // the place (segment, offset) of value (c, i, j) of the unit's pixel p, and back
  SR_FN void place(int c, int i, int j, int p, int& seg, int& q) const {
    if (hr) { seg = inter ? i : c*I + i; q = inter ? (p*r + j)*C + c : p*r + j; }
    else { int k = (c*I + i)*r + j; seg = inter ? 0 : k; q = inter ? p*values() + k : p; }
  }
  SR_FN void value(int seg, int q, int& c, int& i, int& j, int& p) const {
    if (hr) {
      p = q/per(); j = (inter ? q/C : q)%r;
      c = inter ? q%C : seg/I; i = inter ? seg : seg%I;
    } else {
      int k = inter ? q%values() : seg;
      p = inter ? q/values() : q;
      c = k/(I*r); i = k/r%I; j = k%r;
    }
  }
};

// a/b of numbers from 0 up; in 32 bits where that will do, since GPUs divide 64 slowly
SR_FN int64_t quotient(int64_t a, int64_t b) { return (a | b) >> 32 ? a/b : int64_t(uint32_t(a)/uint32_t(b)); }

struct Unit { int64_t n, c, i, h; }; // image, first channel, first row of the HR grid, LR row

struct Layout {
  Shape s;
  Order lr, hr;

  SR_FN explicit Layout(const Shape& s) : s(s) {
    int C = !s.lr.inter && !s.hr.inter ? 1 : int(s.C), I = s.lr.inter ? s.r : 1;
    lr = {false, s.lr.inter, C, I, s.r};
    hr = {true, s.hr.inter, C, I, s.r};
  }
  SR_FN int64_t units() const { return s.N*(s.C/lr.C)*s.H*(s.r/lr.I); }
  SR_FN Unit unit(int64_t u) const { // in the order of HR rows
    int64_t rows = s.r/lr.I, cs = s.C/lr.C, row = quotient(u, rows), c = quotient(row, s.H), n = quotient(c, cs);
    return {n, (c - n*cs)*lr.C, u - row*rows, row - c*s.H};
  }
  SR_FN const Side& side(const Order& o) const { return o.hr ? s.hr : s.lr; }
  // where the unit's LR pixel w begins in its first segment, and how far from there another segment is
  SR_FN int64_t base(const Order& o, const Unit& u, int64_t w) const {
    const Side& d = side(o);
    if (o.hr) return u.n*d.n + (u.h*s.r + u.i)*d.h + (o.inter ? 0 : u.c*d.c) + w*o.per();
    return u.n*d.n + u.h*d.h + (o.inter ? 0 : (u.c*s.r + u.i)*s.r*d.c) + w*o.per();
  }
  SR_FN int64_t seg(const Order& o, int g) const {
    const Side& d = side(o);
    if (o.hr) return o.inter ? g*d.h : g/o.I*d.c + g%o.I*d.h;
    return o.inter ? 0 : (int64_t(g/s.r)*s.r*s.r + g%s.r)*d.c;
  }
};

// An 8-bit level is round(255*sigmoid(x)), exactly. Single precision tells unless 255*sigmoid(x) is this close to a half;
// then x itself is compared to the least float whose level is the upper one.
constexpr float near_half = 1.f/4096;

struct Thresholds { float least[256]; }; // least[k]: the least float with level k+1

inline Thresholds find_thresholds() {
  // floats in the order of their values, as integers
  auto value = [](int32_t i) { int32_t b = i < 0 ? int32_t(0x80000000u - uint32_t(i)) : i; float f; std::memcpy(&f, &b, 4); return f; };
  auto index = [](float f) { int32_t b; std::memcpy(&b, &f, 4); return b < 0 ? int32_t(0x80000000u - uint32_t(b)) : b; };
  Thresholds t;
  for (int k = 0; k < 255; k++) {
    int32_t lo = index(-16), hi = index(16);
    while (hi - int64_t(lo) > 1) {
      int32_t mid = int32_t((int64_t(lo) + hi) >> 1);
      (std::nearbyint(255/(1 + std::exp(-double(value(mid))))) > k ? hi : lo) = mid;
    }
    t.least[k] = value(hi);
  }
  t.least[255] = INFINITY;
  return t;
}

// found once: it takes as long as 8 bits of a large picture on a GPU
inline const Thresholds& thresholds() {
  static const Thresholds t = find_thresholds();
  return t;
}

}  // namespace sr
