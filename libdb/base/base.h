/* base.h - what every module stands on: status codes, byte slices, integers in byte order, checksums,
 * growing buffers. No I/O and no locks here.
 *
 * Errors. A function that can fail returns a status: SHALE_OK (0) or a negative SHALE_ code. The failure is
 * described once, where it is found, by err_set or err_sys; callers on the way up may put context in front
 * with err_wrap, and never translate the status twice. The text is the calling thread's own. Outputs are
 * untouched on failure. SHALE_NOTFOUND and a SHALE_BUSY from a mere try are answers, not failures: they are
 * returned bare, without a text.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

/* Objects are compiled with -fvisibility=hidden; what the public headers declare is the exception, and it is
 * made here, at the first declaration, where it counts. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#include <shale.h>
#include <shale/lockq.h>
#include <shale/tuple.h>
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__GNUC__)
#define BASE_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define BASE_LIKELY(x)    __builtin_expect(!!(x), 1)
#define BASE_UNLIKELY(x)  __builtin_expect(!!(x), 0)
/* The line at p is about to be read. A hint: p may point anywhere. */
#define BASE_PREFETCH(p) __builtin_prefetch(p)
/* For what is called for every entry of a scan. */
#define BASE_INLINE static inline __attribute__((always_inline))
#else
#define BASE_PRINTF(f, a)
#define BASE_LIKELY(x)   (x)
#define BASE_UNLIKELY(x) (x)
#define BASE_PREFETCH(p) ((void)(p))
#define BASE_INLINE      static inline
#endif

#define BASE_CACHELINE  64
#define BASE_ALIGNED(n) __attribute__((aligned(n)))
#define BASE_COUNT(a)   (sizeof(a) / sizeof((a)[0]))

/* ---- errors (error.c) ---- */

/* Describes a failure for shale_errmsg() and returns status. */
int err_set(int status, const char *fmt, ...) BASE_PRINTF(2, 3);
/* As err_set, but the status is derived from errno (ENOSPC, EDQUOT: NOSPC; ENOMEM: NOMEM; EACCES, EPERM,
 * EROFS: PERM; else IO) and ": " strerror(errno) is appended. */
int err_sys(const char *fmt, ...) BASE_PRINTF(1, 2);
/* Puts "context: " in front of the text that is there, and returns status. */
int err_wrap(int status, const char *fmt, ...) BASE_PRINTF(2, 3);
int err_from_errno(int err);
/* Exit status of a program that ends with this status (sysexits.h). */
int err_exit_status(int status);
/* Forgets the thread's text: shale_errmsg() is "" again. */
void err_clear(void);

/* ---- slices and byte order ---- */

struct slice {
    const unsigned char *data;
    size_t size;
};

static inline struct slice slice_make(const void *data, size_t size)
{
    return (struct slice){(const unsigned char *)data, size};
}

/* Unsigned bytes, a prefix before what it begins: <0, 0, >0. */
static inline int slice_compare(struct slice a, struct slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(a.data, b.data, n) : 0;
    return c != 0 ? c : (a.size > b.size) - (a.size < b.size);
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Integers on disk are little-endian; only little-endian machines are supported (checked at open), so these
 * are plain unaligned loads and stores. */
static inline uint64_t get_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t get_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint16_t get_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void put_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void put_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void put_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

/* The key's first 8 bytes as a big-endian integer, zero padded: heads order as keys do, ties undecided. */
static inline uint64_t key_head(struct slice key)
{
    uint64_t v = 0;
    if (BASE_LIKELY(key.size >= 8)) {
        memcpy(&v, key.data, 8);
    } else if (key.size != 0) {
        memcpy(&v, key.data, key.size);
    }
    return __builtin_bswap64(v);
}

/* The same of the bytes behind those. */
static inline uint64_t key_second_head(struct slice key)
{
    return key.size > 8 ? key_head((struct slice){key.data + 8, key.size - 8}) : 0;
}

/* LEB128. put: at most 10 (u64) or 5 (u32) bytes, returns the end. get: NULL where the bytes end early or
 * overflow. */
#define VARINT32_MAX 5
#define VARINT64_MAX 10
static inline unsigned char *varint_put(unsigned char *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    *p++ = (unsigned char)v;
    return p;
}
const unsigned char *varint_get64(const unsigned char *p, const unsigned char *end, uint64_t *v);
static inline const unsigned char *varint_get32(const unsigned char *p, const unsigned char *end, uint32_t *v)
{
    if (BASE_LIKELY(p < end && *p < 0x80)) {
        *v = *p;
        return p + 1;
    }
    uint64_t w;
    p = varint_get64(p, end, &w);
    if (p == NULL || w > UINT32_MAX) {
        return NULL;
    }
    *v = (uint32_t)w;
    return p;
}
static inline size_t varint_size(uint64_t v)
{
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

static inline uint64_t align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}

/* ---- checksums and hashes (XXH3) ---- */

/* A checksum names what it covers: kind of file, file number and offset go into the seed, so that a block
 * read from another place than it was written to does not verify. */
static inline uint64_t checksum(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}
static inline uint64_t checksum_seed(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ (b * 0x9e3779b97f4a7c15u)) + 0x2545f4914f6cdd1du;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}
static inline uint64_t key_hash(struct slice key)
{
    return XXH3_64bits(key.data, key.size);
}

/* ---- growing buffer (buf.c); zero-valid ---- */

struct buf {
    unsigned char *data;
    size_t size, cap;
};
void buf_release(struct buf *b);
int buf_reserve(struct buf *b, size_t more); /* room for more bytes behind size; NOMEM */
int buf_append(struct buf *b, const void *data, size_t size);
int buf_set(struct buf *b, const void *data, size_t size); /* replaces the content */
static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data, b->size};
}
/* Appends text; NOMEM. */
int buf_printf(struct buf *b, const char *fmt, ...) BASE_PRINTF(2, 3);

/* ---- text (text.c) ---- */

/* The number with `digits` digits at least, then a NUL, whose place is returned: up to 20 and 16 digits. */
char *digits_decimal(char *to, uint64_t v, unsigned digits);
char *digits_hex(char *to, uint64_t v, unsigned digits);
/* Control characters, those of UTF-8 (U+0080 to U+009F) too, become '?': what comes from other processes
 * reaches no terminal as a control sequence, and is one line. */
void text_tame(char *text);

/* ---- memory ---- */

/* An allocation that sets SHALE_NOMEM's text when it fails. */
void *base_alloc(size_t size);
void *base_alloc_aligned(size_t alignment, size_t size); /* size is rounded up to the alignment */
void *base_calloc(size_t n, size_t size);
void *base_realloc(void *p, size_t size);
char *base_strdup(const char *s);

/* Every allocation of the library passes here in test builds: true, and it is refused. Set before any thread
 * runs. */
#ifdef SHALE_DEBUG
extern bool (*base_alloc_hook)(void);
static inline bool base_alloc_refused(void)
{
    return BASE_UNLIKELY(base_alloc_hook != NULL) && base_alloc_hook();
}
#else
static inline bool base_alloc_refused(void)
{
    return false;
}
#endif

/* ---- small random numbers, for jitter and tests; seed it with anything ---- */
static inline uint64_t prng_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
