/* One pass over a range of a file: CRC-32, pages of zeros and a look at the elements, block after block while
 * the bytes are in cache. The twin of measure/sweep.py, which gives the same answers with NumPy: everything that
 * is rare (NaN, infinity, odd formats) is only noticed here and left to it.
 *
 * CRC-32 by carry-less multiplication follows V. Gopal et al., "Fast CRC Computation for Generic Polynomials
 * Using PCLMULQDQ Instruction", Intel, 2009; the constants are those of the zip polynomial given there.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if !defined(__x86_64__)
int ckpttool_supported(void) { return 0; }
#else
#include <immintrin.h>

#define BLOCK (256 * 1024)
#define OVERLAP 16
#define PAGE 4096
#define MOST_RUNS 64
#define EXPORT __attribute__((visibility("default")))

enum { REGION = 0, RANGE = 1 };
enum { PLAIN = 0, BOOLEAN = 1, IEEE = 2 };

/* Kept in step with measure/native.py. */
typedef struct {
    int64_t start, stop; /* bytes of the file */
    int32_t kind, width, pair, style;
    uint64_t mask, infinity, tiny, huge;
    int64_t step;
    /* results */
    int64_t read, numel;
    uint64_t first, first_second, low, high, differs;
    int64_t zeros, tinies, huges, odd;
    int32_t crc, bad, runs, last_run;
} Item;

typedef struct {
    int64_t item, start, stop;
} Run;

EXPORT int ckpttool_item_size(void) { return (int)sizeof(Item); }

EXPORT int ckpttool_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("avx2");
}

/* --- CRC-32 ------------------------------------------------------------------------------------------- */

static uint32_t table[256];

__attribute__((constructor)) static void fill_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_bytes(uint32_t crc, const uint8_t *p, int64_t n) {
    while (n-- > 0) crc = table[(crc ^ *p++) & 0xFF] ^ (crc >> 8);
    return crc;
}

#define FOLD(x, k) _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11))
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))

/* n is a multiple of 16 and at least 64; crc is inverted already. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t crc_folded(uint32_t crc, const uint8_t *p, int64_t n) {
    const __m128i by4 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by1 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i a = _mm_xor_si128(LOAD(p), _mm_cvtsi32_si128((int)crc)), b = LOAD(p + 16), c = LOAD(p + 32),
            d = LOAD(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        a = _mm_xor_si128(FOLD(a, by4), LOAD(p));
        b = _mm_xor_si128(FOLD(b, by4), LOAD(p + 16));
        c = _mm_xor_si128(FOLD(c, by4), LOAD(p + 32));
        d = _mm_xor_si128(FOLD(d, by4), LOAD(p + 48));
    }
    a = _mm_xor_si128(FOLD(a, by1), b);
    a = _mm_xor_si128(FOLD(a, by1), c);
    a = _mm_xor_si128(FOLD(a, by1), d);
    for (; n >= 16; p += 16, n -= 16) a = _mm_xor_si128(FOLD(a, by1), LOAD(p));
    /* 128 bits left: 96, then 64, then Barrett's reduction to 32. */
    const __m128i low32 = _mm_set_epi32(0, -1, 0, -1);
    a = _mm_xor_si128(_mm_clmulepi64_si128(a, by1, 0x10), _mm_srli_si128(a, 8));
    __m128i t = _mm_clmulepi64_si128(_mm_and_si128(a, low32), _mm_set_epi64x(0, 0x0163cd6124), 0x00);
    a = _mm_xor_si128(_mm_srli_si128(a, 4), t);
    const __m128i poly = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    t = _mm_clmulepi64_si128(_mm_and_si128(a, low32), poly, 0x10);
    t = _mm_clmulepi64_si128(_mm_and_si128(t, low32), poly, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(a, t), 1);
}

static uint32_t crc32_of(uint32_t crc, const uint8_t *p, int64_t n) {
    crc = ~crc;
    if (n >= 64) {
        int64_t whole = n & ~(int64_t)15;
        crc = crc_folded(crc, p, whole);
        p += whole, n -= whole;
    }
    return ~crc_bytes(crc, p, n);
}

EXPORT uint32_t ckpttool_crc32(uint32_t crc, const uint8_t *p, int64_t n) { return crc32_of(crc, p, n); }

/* --- elements ----------------------------------------------------------------------------------------- */

#define SCAN(T)                                                                                             \
    typedef T __attribute__((aligned(1), may_alias)) loose_##T;                                             \
    __attribute__((target("avx2"))) static void scan_##T(Item *it, const uint8_t *p, int64_t n) {           \
        const loose_##T *v = (const loose_##T *)p;                                                          \
        const T mask = (T)it->mask, even = (T)it->first, odd = (T)(it->pair == 2 ? it->first_second : it->first); \
        T low = (T)~(T)0, high = 0, differs = 0;                                                            \
        int64_t i = 0;                                                                                      \
        if (it->pair == 2)                                                                                  \
            for (; i < n; i++) differs |= (T)(v[i] ^ (i & 1 ? odd : even));                                 \
        else                                                                                                \
            for (; i < n; i++) differs |= (T)(v[i] ^ even);                                                 \
        for (i = 0; i < n; i++) {                                                                           \
            T m = v[i] & mask;                                                                              \
            low = m < low ? m : low;                                                                        \
            high = m > high ? m : high;                                                                     \
        }                                                                                                   \
        it->differs |= differs;                                                                             \
        if (low < it->low) it->low = low;                                                                   \
        if (high > it->high) it->high = high;                                                               \
    }
SCAN(uint8_t)
SCAN(uint16_t)
SCAN(uint32_t)
SCAN(uint64_t)

static uint64_t element(const uint8_t *p, int width) {
    uint64_t v = 0;
    memcpy(&v, p, (size_t)width);
    return v;
}

/* Elements from place `place` on, n of them (components of complex ones counted apart). */
static void look(Item *it, const uint8_t *p, int64_t place, int64_t n) {
    if (it->numel == 0) {
        it->first = element(p, it->width);
        it->first_second = it->pair == 2 ? element(p + it->width, it->width) : 0;
    }
    int64_t parts = n * it->pair;
    if (it->width == 1) scan_uint8_t(it, p, parts);
    else if (it->width == 2) scan_uint16_t(it, p, parts);
    else if (it->width == 4) scan_uint32_t(it, p, parts);
    else scan_uint64_t(it, p, parts);
    it->numel += n;
    if (it->style == BOOLEAN && it->high > 1) it->bad = 1;
    if (it->style != IEEE) return;
    if (it->high >= it->infinity) it->bad = 1;
    int wide = it->width * it->pair;
    for (int64_t k = (it->step - place % it->step) % it->step; k < n; k += it->step)
        for (int c = 0; c < it->pair; c++) {
            uint64_t m = element(p + k * wide + c * it->width, it->width) & it->mask;
            if (m == 0) it->zeros++;
            else if (it->huge && m < it->tiny) it->tinies++;
            else if (it->huge && m > it->huge && m < it->infinity) it->huges++;
        }
}

/* --- pages -------------------------------------------------------------------------------------------- */

static int zero_page(const uint8_t *p) {
    if (element(p + PAGE / 2, 8)) return 0;
    return !element(p, 8) && !memcmp(p, p + 8, PAGE - 8);
}

static int pages(Item *items, int64_t index, const uint8_t *p, int64_t at, int64_t n, Run *runs, int64_t most,
                 int64_t *count) {
    Item *it = &items[index];
    int64_t skip = (PAGE - at % PAGE) % PAGE;
    for (; skip + PAGE <= n; skip += PAGE) {
        if (!zero_page(p + skip)) continue;
        int64_t low = at + skip;
        if (it->runs && runs[it->last_run].stop == low) {
            runs[it->last_run].stop = low + PAGE;
            continue;
        }
        if (it->runs >= MOST_RUNS) continue;
        if (*count >= most) return -1;
        it->last_run = (int32_t)*count, it->runs++;
        runs[(*count)++] = (Run){index, low, low + PAGE};
    }
    return 0;
}

/* --- the pass ----------------------------------------------------------------------------------------- */

static int64_t fill(int fd, uint8_t *buffer, int64_t at, int64_t wanted) {
    int64_t done = 0;
    while (done < wanted) {
        ssize_t got = pread(fd, buffer + done, (size_t)(wanted - done), (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += got;
    }
    return done;
}

/* The part of one item that lies in the block at byte `at`, of which `got` bytes are there. */
static int visit(Item *items, int64_t index, const uint8_t *block, int64_t at, int64_t end, int64_t got, Run *runs,
                 int64_t most, int64_t *count) {
    Item *it = &items[index];
    int64_t have = at + got;
    if (it->kind == REGION) {
        int64_t low = it->start > at ? it->start : at, high = it->stop < end ? it->stop : end;
        if (high > have) high = have;
        if (high <= low) return 0;
        it->crc = (int32_t)crc32_of((uint32_t)it->crc, block + (low - at), high - low);
        it->read += high - low;
        return pages(items, index, block + (low - at), low, high - low, runs, most, count);
    }
    int64_t wide = (int64_t)it->width * it->pair, numel = (it->stop - it->start) / wide;
    int64_t first = at > it->start ? (at - it->start + wide - 1) / wide : 0;
    int64_t last = (end - it->start + wide - 1) / wide;
    if (last > numel) last = numel;
    if (have - it->start < last * wide) last = have > it->start ? (have - it->start) / wide : 0;
    if (last > first) look(it, block + (it->start + first * wide - at), first, last - first);
    return 0;
}

/* Sweep bytes start to stop of a file for n items sorted by start. 0, or -1 for an error of read (errno in
 * *problem), or -2 where `most` runs of zero pages do not suffice. */
EXPORT int ckpttool_sweep(int fd, int64_t start, int64_t stop, Item *items, int64_t n, Run *runs, int64_t most,
                          int64_t *count, int32_t *active, int32_t *problem) {
    uint8_t *block = malloc(BLOCK + OVERLAP);
    int64_t next = 0, open = 0;
    int status = block ? 0 : -2;
    for (int64_t at = start; at < stop && !status; at += BLOCK) {
        int64_t end = at + BLOCK < stop ? at + BLOCK : stop;
        while (next < n && items[next].start < end) active[open++] = (int32_t)next++;
        if (!open) continue;
        int64_t got = fill(fd, block, at, end - at + OVERLAP);
        if (got < 0) {
            *problem = errno;
            status = -1;
            break;
        }
        int64_t kept = 0;
        for (int64_t k = 0; k < open; k++) {
            if (visit(items, active[k], block, at, end, got, runs, most, count)) status = -2;
            if (items[active[k]].stop > end) active[kept++] = active[k];
        }
        open = kept;
        if (got < end - at) break;
    }
    free(block);
    return status;
}
#endif
