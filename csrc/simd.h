// Vectors of the widest registers of the instruction set that a file is compiled for.
//
// The *_simd.cpp files are compiled once per instruction set, with PPL_SIMD naming the namespace. They must include
// nothing but this header and the operator's own: an inline function of a shared header, compiled with AVX flags, could
// be the copy that the linker keeps for everyone, and an older processor would then fail on it.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <type_traits>
#include <utility>

#include "common.h"

namespace PPL_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T, int Bytes = kVectorBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(Bytes), aligned(sizeof(T)), may_alias));
};

template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

// The integers as wide as T, signed, and unsigned where sums may wrap; the magic number whose addition rounds a T to an
// integer in its low bits.
template <class T>
struct Bits;
template <>
struct Bits<float> {
  typedef int32_t type;
  typedef uint32_t word;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23
  static constexpr int mantissa = 23, degree = 6;
};
template <>
struct Bits<double> {
  typedef int64_t type;
  typedef uint64_t word;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52, degree = 13;
};

template <class T>
PPL_HD Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}

template <class T>
PPL_HD void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}

PPL_HD int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// Two vectors end to end, in registers: through memory, a load would wait for both stores.
template <class V>
PPL_HD auto join(V low, V high) {
  typename VectorOf<std::remove_reference_t<decltype(low[0])>, 2 * sizeof(V)>::type both;
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 32)
    return (decltype(both))_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)low), (__m256i)high, 1);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 16) return (decltype(both))_mm256_set_m128i((__m128i)high, (__m128i)low);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 8) return (decltype(both))_mm_set_epi64x((int64_t)high, (int64_t)low);
#endif
  __builtin_memcpy(&both, &low, sizeof(V));
  __builtin_memcpy(reinterpret_cast<char*>(&both) + sizeof(V), &high, sizeof(V));
  return both;
}

// Rows of four values, `stride` apart, one after the other, in a vector of Bytes.
template <class T, int Bytes = kVectorBytes>
PPL_HD auto load_rows(const T* p, int64_t stride) {
  constexpr int row = 4 * int(sizeof(T));
  if constexpr (Bytes <= row)
    return *reinterpret_cast<const typename VectorOf<T, Bytes>::type*>(p);
  else
    return join(load_rows<T, Bytes / 2>(p, stride), load_rows<T, Bytes / 2>(p + Bytes / 2 / row * stride, stride));
}

// Both take b, which is one, where a lane of a is not a number. The compiler does not find the one instruction behind
// the ternary.
#if defined(__AVX512F__)
PPL_HD Vec<float> lower(Vec<float> a, Vec<float> b) { return _mm512_min_ps(a, b); }
PPL_HD Vec<float> higher(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
#elif defined(__AVX2__)
PPL_HD Vec<float> lower(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
PPL_HD Vec<float> higher(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
#elif defined(__SSE2__)
PPL_HD Vec<float> lower(Vec<float> a, Vec<float> b) { return _mm_min_ps(a, b); }
PPL_HD Vec<float> higher(Vec<float> a, Vec<float> b) { return _mm_max_ps(a, b); }
#elif defined(__aarch64__)
PPL_HD Vec<float> lower(Vec<float> a, Vec<float> b) { return vminnmq_f32(a, b); }
PPL_HD Vec<float> higher(Vec<float> a, Vec<float> b) { return vmaxnmq_f32(a, b); }
#endif
template <class V>
PPL_HD V lower(V a, V b) {
  return a < b ? a : b;
}
template <class V>
PPL_HD V higher(V a, V b) {
  return a > b ? a : b;
}

template <class V>
PPL_HD auto epsilon_of(V x) {
  return epsilon_of(x[0]);
}

template <class V>
PPL_HD V clamp01(V x) {
  return higher(lower(x, V{} + 1), V{});
}

template <class V>
PPL_HD V absolute(V x) {
  typedef decltype(x < x) I;
  return (V)((I)x & ~(I)(-V{}));  // clears the sign bit
}

// The sum of the lanes and the largest lane, by halves.
template <class T, int Bytes = kVectorBytes>
PPL_HD T add_lanes(typename VectorOf<T, Bytes>::type v) {
  if constexpr (Bytes == sizeof(T)) {
    return v[0];
  } else {
    typename VectorOf<T, Bytes / 2>::type half[2];
    __builtin_memcpy(half, &v, Bytes);
    return add_lanes<T, Bytes / 2>(half[0] + half[1]);
  }
}

template <class T, int Bytes = kVectorBytes>
PPL_HD T maximum(typename VectorOf<T, Bytes>::type v) {
  if constexpr (Bytes == sizeof(T)) {
    return v[0];
  } else {
    typename VectorOf<T, Bytes / 2>::type half[2];
    __builtin_memcpy(half, &v, Bytes);
    return maximum<T, Bytes / 2>(half[0] > half[1] ? half[0] : half[1]);
  }
}

template <class T>
PPL_HD T minimum(Vec<T> v) {
  return -maximum<T>(-v);
}

template <class V, int... At>
PPL_HD V pick(V a, V b, std::integer_sequence<int, At...>) {  // lanes of a, and then of b
#if defined(__clang__)
  return __builtin_shufflevector(a, b, At...);
#else
  return __builtin_shuffle(a, b, decltype(a < a){At...});
#endif
}

// Of groups of 2 Size lanes the first or the second halves.
template <int Size, int Half, int... I>
constexpr auto halves(std::integer_sequence<int, I...>) {
  return std::integer_sequence<int, (I / Size * 2 * Size + Half * Size + I % Size)...>();
}

// The sums of the lanes of Count vectors, side by side, each still in as many lanes as that leaves to it.
template <class T, int Count = kLanes<T>>
PPL_HD Vec<T> add_lanes_of(const Vec<T>* v) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    const auto a = add_lanes_of<T, Count / 2>(v), b = add_lanes_of<T, Count / 2>(v + Count / 2);
    constexpr std::make_integer_sequence<int, kLanes<T>> lanes;
    constexpr int size = kLanes<T> / Count;
    return pick(a, b, halves<size, 0>(lanes)) + pick(a, b, halves<size, 1>(lanes));
  }
}

// One bit per lane of a comparison, lane 0 lowest.
template <class M>
PPL_HD uint32_t lane_bits(M mask) {
  constexpr int n = int(sizeof(M) / sizeof(mask[0]));
#if defined(__AVX512F__)
  if (n == 16) return _mm512_movepi32_mask((__m512i)mask);
  if (n == 8) return _mm512_movepi64_mask((__m512i)mask);
#elif defined(__AVX2__)
  if (n == 8) return _mm256_movemask_ps((__m256)mask);
  if (n == 4) return _mm256_movemask_pd((__m256d)mask);
#elif defined(__SSE2__)
  if (n == 4) return _mm_movemask_ps((__m128)mask);
#elif defined(__aarch64__)
  if (n == 4) return vaddvq_u32(vandq_u32((uint32x4_t)mask, uint32x4_t{1, 2, 4, 8}));
#endif
  uint32_t bits = 0;
  for (int i = 0; i < n; ++i) bits |= uint32_t(mask[i] & 1) << i;
  return bits;
}

// Positions of the set bits of every byte, and how they are appended to a list without a branch.
struct BitPositions {
  uint8_t at[256][8] = {};
  constexpr BitPositions() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, n = 0; bit < 8; ++bit)
        if (byte >> bit & 1) at[byte][n++] = uint8_t(bit);
  }
};
static constexpr BitPositions kBitPositions;

// Writes first + the positions of the set bits to list, and returns how many; up to 8 entries past them are scribbled
// on.
template <int Lanes>
PPL_HD int append_bits(uint32_t bits, int32_t first, int32_t* list) {
  int n = 0;
  for (int shift = 0; shift < Lanes; shift += 8) {
    const uint32_t byte = bits >> shift & 255;
    for (int i = 0; i < (Lanes < 8 ? Lanes : 8); ++i) list[n + i] = first + shift + kBitPositions.at[byte][i];
    n += __builtin_popcount(byte);
  }
  return n;
}

template <class T>
struct Taylor {  // of 2^x around 0: log(2)^k / k!
  T c[Bits<T>::degree + 1] = {};
  constexpr Taylor() {
    double term = 1;
    for (int k = 0; k <= Bits<T>::degree; ++k, term *= 0.6931471805599453 / k) c[k] = T(term);
  }
};

// 2^x to within two units in the last place, 0 below the smallest normal number, NaN for NaN (and +inf: x must stay
// below the largest exponent).
// x = n + f with |f| <= 1/2; 2^f by its Taylor series (the remainder is below rounding), n added to the exponent
// bits.
template <class T>
PPL_HD Vec<T> exp2(Vec<T> x) {
  using W = typename Bits<T>::word;
  const Vec<T> clamped = higher(x, Vec<T>{} + (Limits<T>::log2_tiny - 1));
  const Vec<T> shifted = clamped + Bits<T>::round;
  const Vec<T> f = (clamped - (shifted - Bits<T>::round));
  constexpr Taylor<T> series;
  Vec<T> power = Vec<T>{} + series.c[Bits<T>::degree];
  for (int k = Bits<T>::degree - 1; k >= 0; --k) power = power * f + series.c[k];
  const Vec<W> bits = reinterpret_cast<Vec<W>>(power) + (reinterpret_cast<Vec<W>>(shifted) << Bits<T>::mantissa);
  return x < Limits<T>::log2_tiny ? Vec<T>{} : reinterpret_cast<Vec<T>>(bits) + (x - x);
}

}  // namespace PPL_NAMESPACE
