/* Comparing two runs of floats: the same numbers, to the bit, as ckpttool/measure/deltas.py has them.
 *
 * Sums: component i of a leaf is added to lane i % 64; lanes are then added by halves. Compile without
 * contraction (-ffp-contract=off), so that no product is fused into a sum. No allocation, no globals: any
 * number of threads may call.
 */
#include <stdint.h>
#include <string.h>

#define LEAF 65536
#define LANES 64
#define BLOCK 1024

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FASTEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTEST
#endif
#define INLINE static inline __attribute__((always_inline))

typedef double v8 __attribute__((vector_size(64)));
typedef int64_t m8 __attribute__((vector_size(64)));

/* In the order of the fields of measure/kernel.py's Found. */
typedef struct {
    int64_t changed, beyond, finite, first, new_nan, lost_nan, new_inf, lost_inf;
    uint64_t max_ulp;
    double max_abs, max_rel;
} Found;

typedef struct {
    double atol, rtol;
    uint64_t ulp;
    int64_t bitwise;
} Tolerance;

int64_t ckpttool_kernel_version(void) { return 1; }

INLINE v8 either(m8 mask, v8 yes, v8 no) { return (v8)((mask & (m8)yes) | (~mask & (m8)no)); }

INLINE v8 greater(v8 a, v8 b) { return either(a > b, a, b); }

INLINE v8 absolute(v8 a) { return (v8)((m8)a & INT64_MAX); }

INLINE v8 load(const double *from) {
    v8 found;
    memcpy(&found, from, sizeof found);
    return found;
}

INLINE double value_f64(uint64_t bits) {
    double found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

INLINE double value_f32(uint32_t bits) {
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

INLINE double value_bf16(uint16_t bits) { return value_f32((uint32_t)bits << 16); }

/* Finite values only. Subnormals are converted as integers, so that no processor flushes them. */
INLINE double value_f16(uint16_t bits) {
    uint32_t magnitude = bits & 0x7fffu, sign = (uint32_t)(bits & 0x8000u) << 16;
    float normal, small = (float)(int32_t)magnitude * 0x1p-24f;
    uint32_t normal_bits = (magnitude << 13) + (112u << 23), small_bits;
    memcpy(&small_bits, &small, sizeof small_bits);
    normal_bits = magnitude < 0x400u ? small_bits : normal_bits;
    normal_bits |= sign;
    memcpy(&normal, &normal_bits, sizeof normal);
    return normal;
}

/* Sums and greatest values of a block of `rows` rows of lanes. */
INLINE void accumulate(const double *a, const double *b, int rows, double (*sums)[LANES], Found *found) {
    v8 top = {0}, limit = {0};
    m8 above = {0};
    limit += found->max_rel * (1 - 0x1p-50);
    for (int lane = 0; lane < LANES; lane += 8) {
        v8 s0 = load(&sums[0][lane]), s1 = load(&sums[1][lane]), s2 = load(&sums[2][lane]);
        v8 s3 = load(&sums[3][lane]), s4 = load(&sums[4][lane]);
        for (int row = 0; row < rows; row++) {
            v8 x = load(a + row * LANES + lane), y = load(b + row * LANES + lane);
            v8 distance = absolute(x - y), most = greater(absolute(x), absolute(y));
            s0 += distance;
            s1 += distance * distance;
            s2 += x * y;
            s3 += x * x;
            s4 += y * y;
            top = greater(distance, top);
            above |= distance > limit * most;
        }
        memcpy(&sums[0][lane], &s0, sizeof s0);
        memcpy(&sums[1][lane], &s1, sizeof s1);
        memcpy(&sums[2][lane], &s2, sizeof s2);
        memcpy(&sums[3][lane], &s3, sizeof s3);
        memcpy(&sums[4][lane], &s4, sizeof s4);
    }
    int64_t any = 0;
    for (int i = 0; i < 8; i++) {
        found->max_abs = top[i] > found->max_abs ? top[i] : found->max_abs;
        any |= above[i];
    }
    if (!any) return; /* no quotient here is greater than the greatest so far, so none needs to be divided */
    v8 ratio = {0};
    for (int i = 0; i < rows * LANES; i += 8) {
        v8 x = load(a + i), y = load(b + i);
        v8 most = greater(absolute(x), absolute(y));
        v8 quotient = absolute(x - y) / either(most > 0, most, most + 1);
        ratio = greater(quotient, ratio);
    }
    for (int i = 0; i < 8; i++) found->max_rel = ratio[i] > found->max_rel ? ratio[i] : found->max_rel;
}

#define COMPARE(NAME, BITS, SIGN, INFINITE)                                                                  \
    INLINE BITS units_##NAME(BITS x, BITS y) {                                                               \
        BITS low = x & (BITS)(SIGN - 1), high = y & (BITS)(SIGN - 1);                                        \
        BITS apart = low > high ? low - high : high - low;                                                   \
        return (BITS)((x ^ y) & SIGN ? (BITS)(low + high) : apart);                                          \
    }                                                                                                        \
    /* Counts what is not finite on a side and leaves zeros there. */                                        \
    static __attribute__((noinline)) void clean_##NAME(BITS *a, BITS *b, int many, const Tolerance *near,    \
                                                       Found *found) {                                       \
        for (int i = 0; i < many; i++) {                                                                     \
            BITS low = a[i] & (BITS)(SIGN - 1), high = b[i] & (BITS)(SIGN - 1);                              \
            if (low < INFINITE && high < INFINITE) continue;                                                 \
            int nan_a = low > INFINITE, nan_b = high > INFINITE;                                             \
            int inf_a = low == INFINITE, inf_b = high == INFINITE;                                           \
            found->new_nan += nan_b && !nan_a;                                                               \
            found->lost_nan += nan_a && !nan_b;                                                              \
            found->new_inf += inf_b && !inf_a;                                                               \
            found->lost_inf += inf_a && !inf_b;                                                              \
            found->beyond += !near->bitwise && a[i] != b[i] && !(nan_a && nan_b);                            \
            found->finite--;                                                                                 \
            a[i] = b[i] = 0;                                                                                 \
        }                                                                                                    \
    }                                                                                                        \
    INLINE void block_##NAME(const BITS *a, const BITS *b, int many, int64_t begin, const Tolerance *near,   \
                             double (*sums)[LANES], Found *found) {                                          \
        BITS clean_a[BLOCK], clean_b[BLOCK], most = 0;                                                       \
        double x[BLOCK], y[BLOCK];                                                                           \
        uint32_t changed = 0, bad = 0, beyond = 0;                                                           \
        int padded = (many + LANES - 1) / LANES * LANES;                                                     \
        for (int i = 0; i < many; i++) {                                                                     \
            BITS low = a[i] & (BITS)(SIGN - 1), high = b[i] & (BITS)(SIGN - 1);                              \
            changed += a[i] != b[i];                                                                         \
            bad |= (low >= INFINITE) | (high >= INFINITE);                                                   \
        }                                                                                                    \
        if (changed && found->first < 0)                                                                     \
            for (int i = 0; found->first < 0; i++)                                                           \
                if (a[i] != b[i]) found->first = begin + i;                                                  \
        if (bad || padded != many) {                                                                         \
            memset(clean_a, 0, sizeof clean_a);                                                              \
            memset(clean_b, 0, sizeof clean_b);                                                              \
            memcpy(clean_a, a, (size_t)many * sizeof *a);                                                    \
            memcpy(clean_b, b, (size_t)many * sizeof *b);                                                    \
            a = clean_a, b = clean_b;                                                                        \
            if (bad) clean_##NAME(clean_a, clean_b, many, near, found);                                      \
        }                                                                                                    \
        if (changed)                                                                                         \
            for (int i = 0; i < padded; i++) {                                                               \
                BITS units = units_##NAME(a[i], b[i]);                                                       \
                most = units > most ? units : most;                                                          \
            }                                                                                                \
        for (int i = 0; i < padded; i++) {                                                                   \
            x[i] = value_##NAME(a[i]);                                                                       \
            y[i] = value_##NAME(b[i]);                                                                       \
        }                                                                                                    \
        if (changed && !near->bitwise)                                                                       \
            for (int i = 0; i < padded; i++) {                                                               \
                double p = __builtin_fabs(x[i]), q = __builtin_fabs(y[i]), greatest = p > q ? p : q;         \
                int far = !(__builtin_fabs(x[i] - y[i]) <= near->atol + near->rtol * greatest);              \
                far &= !near->ulp | (units_##NAME(a[i], b[i]) > near->ulp);                                  \
                beyond += (a[i] != b[i]) & far;                                                              \
            }                                                                                                \
        found->changed += changed;                                                                           \
        found->beyond += near->bitwise ? changed : beyond;                                                   \
        found->finite += many;                                                                               \
        found->max_ulp = most > found->max_ulp ? most : found->max_ulp;                                      \
        accumulate(x, y, padded / LANES, sums, found);                                                       \
    }                                                                                                        \
    /* `many` elements; `sums` has room for five numbers of each leaf of 65536. */                           \
    FASTEST void ckpttool_##NAME(const BITS *a, const BITS *b, int64_t many, const Tolerance *near,          \
                                 Found *found, double (*sums)[5]) {                                          \
        for (int64_t leaf = 0; leaf < many; leaf += LEAF) {                                                  \
            double lanes[5][LANES] = {{0}};                                                                  \
            int64_t end = many - leaf < LEAF ? many : leaf + LEAF;                                           \
            for (int64_t at = leaf; at < end; at += BLOCK)                                                   \
                block_##NAME(a + at, b + at, (int)(end - at < BLOCK ? end - at : BLOCK), at, near, lanes,    \
                             found);                                                                         \
            for (int half = LANES / 2; half; half /= 2)                                                      \
                for (int k = 0; k < 5; k++)                                                                  \
                    for (int i = 0; i < half; i++) lanes[k][i] += lanes[k][i + half];                        \
            for (int k = 0; k < 5; k++) sums[leaf / LEAF][k] = lanes[k][0];                                  \
        }                                                                                                    \
    }

COMPARE(f64, uint64_t, 0x8000000000000000u, 0x7ff0000000000000u)
COMPARE(f32, uint32_t, 0x80000000u, 0x7f800000u)
COMPARE(f16, uint16_t, 0x8000u, 0x7c00u)
COMPARE(bf16, uint16_t, 0x8000u, 0x7f80u)
